"""The workers: how they fail, what is said then, and that none of them stays behind."""

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from conftest import ROOT, exact_with_partial_window, lockstep, random_problem

from lockstep import mistakes
from lockstep.frameworks import FRAMEWORKS
from lockstep.problem import hadamard
from lockstep.workers import installed, pool
from lockstep.workers.pool import Refused, Worker, WorkerError, importing

PORTS = {
    "dies": "import os\ndef train(problem):\n    print('last words')\n    os._exit(3)\n",
    "killed": "import os, signal\ndef train(problem):\n    os.kill(os.getpid(), signal.SIGKILL)\n",
    "hangs": "import time\ndef train(problem):\n    print('so tired')\n    time.sleep(600)\n",
    "raises": "def train(problem):\n    raise ZeroDivisionError('by design')\n",
    "yields_nothing": "def train(problem):\n    return iter(())\n",
    "refuses": "def train(problem):\n    raise NotImplementedError('only Tuesdays')\n",
    "transposes": (
        "import numpy as np\n"
        "def train(problem):\n"
        "    for _ in range(2): yield np.ascontiguousarray(problem.W.T).T, problem.b\n"
    ),
    "rounds": ("def train(problem):\n    yield problem.W.astype('float32'), problem.b\n"),
    "forks": (
        "import subprocess, sys\n"
        "def train(problem):\n"
        "    child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "    yield problem.W * 0 + child.pid, problem.b\n"
    ),
    "raises_nothing": "def train(problem):\n    raise ValueError(' ')\n",
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
        started.append(Worker("numpy", path=[ports]))
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
        ("dies", r"numpy: the worker exited with status 3 while training\n  \| .*last words"),
        ("killed", r"numpy: the worker was killed by signal 9 while training"),
        ("raises", r"numpy: the worker failed while training: ZeroDivisionError: by design"),
        ("yields_nothing", r"yielded nothing"),
        ("raises_nothing", r"ValueError: \(no message\)"),
        ("rounds", r"float32, not float64"),
        ("is_missing", r"port_that_is_missing: neither a .py file nor a module"),
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
    assert len(worker.train("port_that_transposes", random_problem(0))) == 2


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


def test_a_transposed_array_arrives_as_it_is(start) -> None:
    problem = random_problem(0)
    for theta in start().train("port_that_transposes", problem):
        assert (theta[:-1] == problem.W).all()


def test_what_a_port_has_started_ends_with_the_worker(start) -> None:
    worker = start()
    (theta,) = worker.train("port_that_forks", random_problem(0))
    child = int(theta[0, 0])
    assert not gone(child, seconds=0.2)
    worker.close()
    assert gone(child)


def test_a_worker_that_died_can_be_given_work_and_closed(start, tmp_path) -> None:
    worker = start()
    worker.ready()
    os.kill(worker.pid, signal.SIGKILL)
    assert gone(worker.pid)
    random_problem(0).save(tmp_path / "p.safetensors")
    for _ in range(3):
        worker.submit("port_that_transposes", tmp_path / "p.safetensors")
    with pytest.raises(WorkerError, match="was killed by signal 9"):
        worker.result()
    worker.close()


def test_nonsense_is_shown(monkeypatch) -> None:
    monkeypatch.setattr(pool, "COMMAND", (sys.executable, "-c", "print('good morning')"))
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


def test_the_callers_folder_is_not_imported_from(tmp_path, monkeypatch, start) -> None:
    (tmp_path / "queue.py").write_text("raise ImportError('the wrong queue')\n")
    monkeypatch.chdir(tmp_path)
    assert start().ready() == {}


def test_a_missing_framework_comes_with_the_command_that_installs_it(monkeypatch) -> None:
    assert installed.missing("tensorflow") is None
    monkeypatch.setattr(installed.importlib.util, "find_spec", lambda name: None)
    assert installed.missing("jax") == "jax is not installed"
    install = f"{sys.executable} -m pip install"
    assert installed.command("jax") == f"{install} 'jax>=0.6' 'optax>=0.2.8'"
    assert installed.command("tensorflow").count("2.16.1") == 1
    assert "--torch-backend cpu 'torch>=2.6'" in installed.command("pytorch")


@pytest.fixture
def old_jax(tmp_path, monkeypatch) -> str:
    """An environment in which JAX says that it is older than what the folder needs."""
    for name, version in (("jax", "0.4.35"), ("optax", "0.2.3")):
        folder = tmp_path / f"{name}-{version}.dist-info"
        folder.mkdir()
        metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        (folder / "METADATA").write_text(metadata)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{ROOT}")
    return "jax_impl needs jax>=0.6 and optax>=0.2.8, not jax 0.4.35 and optax 0.2.3"


def test_a_framework_that_is_too_old_comes_with_what_is_needed(old_jax) -> None:
    done = lockstep("run", "exact", "-f", "jax")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"lockstep: {old_jax}. Install it: {sys.executable} -m pip")
    assert done.stderr.count("\n") == 1


def test_a_worker_of_an_old_framework_says_what_is_needed(old_jax) -> None:
    worker = Worker("jax")
    with pytest.raises(WorkerError) as error:
        worker.ready()
    worker.close()
    assert str(error.value) == f"jax: the worker failed while importing: {old_jax}"


def test_to_check_a_folder_says_what_it_needs(old_jax) -> None:
    done = lockstep("check", "jax_impl.training")
    assert (done.returncode, done.stderr) == (2, "")
    first, second = done.stdout.splitlines()
    assert first == "jax_impl.training is broken, as a port"
    assert second.endswith(f": {old_jax}")


# What a shell starts in the background ignores Ctrl-C, and so would what it starts in turn.
LISTEN = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
CLI = f"{LISTEN}; from lockstep.cli import main; main()"
PARENT = f"""
{LISTEN}
import time
from lockstep.workers.pool import Worker
worker = Worker("numpy")
worker.ready()
print(worker.pid, flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_orphan_stays_behind(how) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
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


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    ("call", "count"),
    [(["run", "-f", "jax,pytorch"], 2), (["check", "port_that_hangs.py"], 1)],
    ids=["run", "check"],
)
def test_a_signal_ends_everything_in_one_line(how, call, count, ports, tmp_path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", CLI, *call],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ports,
        env=os.environ | {"TMPDIR": str(tmp_path)},
    )
    deadline = time.monotonic() + 20
    while len(workers := children(process.pid)) < count:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(process.pid, how)
    _, errors = process.communicate(timeout=20)
    # Python ends by the signal itself if it arrives inside an exec(); a shell calls both 130.
    assert process.returncode in (130, -signal.SIGINT)
    # Some versions of typer begin a line.
    assert errors.lstrip("\n") == "lockstep: interrupted\n"
    assert all(gone(pid) for pid in workers)
    assert list(tmp_path.iterdir()) == []


def test_the_cache_is_for_this_kind_of_cpu(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert pool.cache_folder().parent == tmp_path / "lockstep"
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "mine")
    assert pool.environment()["JAX_COMPILATION_CACHE_DIR"] == "mine"
    for name, forced in (("KERAS_BACKEND", "tensorflow"), ("CUDA_VISIBLE_DEVICES", "-1")):
        monkeypatch.setenv(name, "0")
        assert pool.environment()[name] == forced


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_a_framework_that_sees_no_gpu_says_so_in_one_line(name, monkeypatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    with (
        closing(Worker(name, device="gpu")) as worker,
        pytest.raises(WorkerError, match=r"while importing: it sees no GPU") as found,
    ):
        worker.ready()
    assert found.value.kind == "device"
    assert "\n" not in str(found.value)


def test_a_gpu_has_the_precision_of_its_dtypes(monkeypatch) -> None:
    """TF32 is off in NVIDIA's libraries and XLA's kernels, and the choice of a GPU stays."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    found = pool.environment("gpu")
    assert found["CUDA_VISIBLE_DEVICES"] == "3"
    assert found["NVIDIA_TF32_OVERRIDE"] == "0"
    assert found["JAX_DEFAULT_MATMUL_PRECISION"] == "highest"


def test_all_tensors_of_pytorch_are_made_where_it_trains() -> None:
    """The device of all that has no numbers: copied to a host, and first there, it fails."""
    torch = pytest.importorskip("torch")
    from pytorch_impl import padding, recipe, training

    torch.set_default_device("meta")
    try:
        assert padding.stack([torch.ones(2, 3)], 1, 2).device.type == "meta"
        for loop in (training, recipe):
            with pytest.raises(NotImplementedError, match="out of meta tensor"):
                next(loop.train(hadamard(updates=2)))
    finally:
        torch.set_default_device(None)


def test_another_folder_may_have_a_package_of_the_same_name(worker, framework, tmp_path) -> None:
    """What was imported from the first folder is forgotten with it, submodules and all."""
    found = []
    for folder, port in (("one", "training"), ("two", "recipe")):
        (tmp_path / folder).mkdir()
        with importing(tmp_path / folder, {framework: worker}):
            package = mistakes.plant("missing-zero-grad", framework, tmp_path / folder)
            found.append(worker.train(f"{package}.{port}", exact_with_partial_window("float64")))
        shutil.rmtree(tmp_path / folder)
    assert [len(each) for each in found] == [12, 12]
    assert all((one == other).all() for one, other in zip(*found, strict=True))
