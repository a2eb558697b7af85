"""The workers: how they fail, what is said then, and that none of them stays behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT, random_problem

from lockstep import run
from lockstep.run import Refused, Worker, WorkerError, missing

PORTS = {
    "dies": "import os\ndef train(problem):\n    print('last words')\n    os._exit(3)\n",
    "killed": "import os, signal\ndef train(problem):\n    os.kill(os.getpid(), signal.SIGKILL)\n",
    "hangs": "import time\ndef train(problem):\n    print('so tired')\n    time.sleep(600)\n",
    "raises": "def train(problem):\n    raise ZeroDivisionError('by design')\n",
    "yields_nothing": "def train(problem):\n    return iter(())\n",
    "refuses": "def train(problem):\n    raise NotImplementedError('only Tuesdays')\n",
    "chatters": (
        "import sys\n"
        "def train(problem):\n"
        '    print(\'{"done": "nonsense"}\', flush=True)\n'
        "    sys.stdout.write('more')\n"
        "    yield problem.W, problem.b\n"
    ),
}


@pytest.fixture(scope="module")
def ports(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("ports")
    for name, source in PORTS.items():
        (folder / f"port_that_{name}.py").write_text(source)
    return folder


@pytest.fixture
def start(ports):
    started = []

    def begin() -> Worker:
        started.append(Worker("jax", path=[ports]))
        return started[-1]

    yield begin
    for worker in started:
        worker.close()


def gone(pid: int, seconds: float = 10) -> bool:
    """Whether a process has ended, or does so soon; a zombie has."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("dies", r"jax: the worker exited with status 3 while training\n  \| .*last words"),
        ("killed", r"jax: the worker was killed by signal 9 while training"),
        ("raises", r"jax: the worker failed while training: ZeroDivisionError: by design"),
        ("yields_nothing", r"yielded nothing"),
        ("is_missing", r"ModuleNotFoundError: No module named 'port_that_is_missing'"),
    ],
)
def test_a_failure_names_the_framework_and_shows_the_last_lines(start, name, message) -> None:
    with pytest.raises(WorkerError, match=f"(?s){message}"):
        start().train(f"port_that_{name}", random_problem(0))


def test_a_failure_does_not_end_the_worker(start) -> None:
    worker = start()
    with pytest.raises(WorkerError, match="by design"):
        worker.train("port_that_raises", random_problem(0))
    with pytest.raises(Refused, match="only Tuesdays"):
        worker.train("port_that_refuses", random_problem(0))
    assert len(worker.train("jax_impl.training", random_problem(0))) == 4


def test_a_hanging_worker_is_stopped(start, tmp_path) -> None:
    worker = start()
    worker.ready()
    random_problem(0).save(tmp_path / "p.safetensors")
    worker.submit("port_that_hangs", tmp_path / "p.safetensors")
    with pytest.raises(WorkerError, match=r"(?s)said nothing for 1 seconds.*so tired"):
        worker.result(timeout=1)
    assert gone(worker.pid)


def test_what_a_port_prints_is_no_answer(start) -> None:
    problem = random_problem(0)
    (theta,) = start().train("port_that_chatters", problem)
    assert (theta[:-1] == problem.W).all()


def test_nonsense_is_shown(monkeypatch) -> None:
    monkeypatch.setattr(run, "COMMAND", (sys.executable, "-c", "print('good morning')"))
    worker = Worker("jax")
    with pytest.raises(WorkerError, match=r"jax: the worker answered nonsense.*good morning"):
        worker.ready(timeout=20)
    worker.close()


def test_a_framework_that_cannot_be_imported_is_a_failure(tmp_path, monkeypatch) -> None:
    (tmp_path / "optax.py").write_text("raise ImportError('broken installation')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    worker = Worker("jax")
    with pytest.raises(WorkerError, match="failed while importing: ImportError: broken"):
        worker.ready()
    worker.close()


def test_a_missing_framework_comes_with_the_command_that_installs_it(monkeypatch) -> None:
    assert missing("jax") is None
    monkeypatch.setattr(run.importlib.util, "find_spec", lambda name: None)
    assert missing("jax") == f"{sys.executable} -m pip install jax==0.10.2 optax==0.2.8"
    assert "tensorflow-cpu==2.21.0" in (missing("tensorflow") or "")
    assert "torch==2.13.0" in (missing("pytorch") or "")


PARENT = """
import time
from lockstep.run import Worker
worker = Worker("jax")
worker.ready()
print(worker.pid, flush=True)
time.sleep(600)
"""


def listen_to_ctrl_c() -> None:
    """Undo what a shell does to the processes that it starts in the background."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_orphan_stays_behind(how) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        preexec_fn=listen_to_ctrl_c,
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert not gone(pid, seconds=0.2)
    parent.send_signal(how)
    parent.wait(timeout=20)
    assert gone(pid)


def children(pid: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(stat.read_text().rsplit(")", 1)[1].split()[1]) == pid:
                found.append(int(stat.parent.name))
        except OSError:
            continue
    return found


def test_ctrl_c_ends_everything_in_one_line() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "lockstep.cli", "run", "-f", "jax,pytorch"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        preexec_fn=listen_to_ctrl_c,
    )
    deadline = time.monotonic() + 20
    while len(workers := children(process.pid)) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    # Python ends by the signal itself if it arrives inside an exec(); a shell calls both 130.
    assert process.returncode in (130, -signal.SIGINT)
    assert errors == "lockstep: interrupted\n"
    assert all(gone(pid) for pid in workers)


def test_the_cache_is_for_this_kind_of_cpu(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert run.cache_folder().parent == tmp_path / "lockstep"
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "mine")
    assert run.environment()["JAX_COMPILATION_CACHE_DIR"] == "mine"
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    assert run.environment()["KERAS_BACKEND"] == "tensorflow"
