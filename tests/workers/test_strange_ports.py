"""Ports that fork, spawn, print and close: what they do ends with the check, which goes on."""

import os
import tempfile
import time
from pathlib import Path

import pytest

import lockstep

# Each is put in front of a right port's loop.
PORT = (Path(__file__).parents[1] / "diagnosis" / "plain_port.py").read_text()
HEAD = "def train(problem):\n"
PROBES = ["plain", "windows", "ragged"]
STRANGE = {
    "forks, and the child goes on": "os.fork()",
    "forks, and the child raises": "if os.fork() == 0: raise RuntimeError('the child')",
    "forks, and the child exits": "if os.fork() == 0: sys.exit(3)",
    "forks when it is imported": None,
    "writes to descriptors": (
        "for number in range(3, 20):\n"
        "        try: os.write(number, b'{\"done\": 3}\\nnonsense')\n"
        "        except OSError: pass"
    ),
    "closes descriptors": "os.closerange(3, 20)",
    "prints": "print('{\"done\": 1}', flush=True); os.write(1, b'x\\n'); os.write(2, b'\\xff\\n')",
    "asks": "import contextlib\n    with contextlib.suppress(EOFError): input()",
}


def port(folder: Path, first: str, module: str = "") -> str:
    assert PORT.count(HEAD) == 1
    file = folder / "my_port.py"
    start = f"import os, sys\n{module}\n"
    body = PORT.split("\n", 1) if PORT.startswith('"""') else ["", PORT]
    source = f"{start}{body[1]}".replace(HEAD, f"{HEAD}    {first}\n")
    file.write_text(source)
    return str(file)


@pytest.mark.parametrize("what", STRANGE)
def test_a_right_port_that_does_this_is_right(what, tmp_path) -> None:
    first, module = STRANGE[what] or "pass", "" if STRANGE[what] else "os.fork()"
    found = lockstep.check(port(tmp_path, first, module), timeout=30, only=PROBES)
    assert (found.verdict, len(found.diagnosis.runs)) == ("same", 3), str(found)


DAEMON = """
import os, sys, time
os.fork() and sys.exit()
os.setsid()
with open(sys.argv[1], "w") as note: note.write(f"{os.getpid()}\\n")
time.sleep(600)
"""


def test_what_a_port_leaves_behind_ends_with_the_check(tmp_path) -> None:
    """Also in a session of its own, and when its parent is gone."""
    note = tmp_path / "pid"
    start = f"subprocess.run([sys.executable, '-c', {DAEMON!r}, {str(note)!r}])"
    wait = f"\n    while not os.path.getsize({str(note)!r}): pass"
    file = port(tmp_path, start + wait, "import subprocess")
    note.touch()
    found = lockstep.check(file, timeout=30, only=["plain"])
    assert found.verdict == "same", str(found)
    pid = int(note.read_text())
    deadline = time.monotonic() + 5
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not Path(f"/proc/{pid}").exists()


SPAWN = """
import multiprocessing

def work(problem, results):
    results.put([(W, b) for W, b in plain(problem)])

def train(problem):
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    process = context.Process(target=work, args=(problem, results))
    process.start()
    yield from results.get()
    process.join()
"""


def test_a_port_may_spawn_processes(tmp_path) -> None:
    file = tmp_path / "my_port.py"
    file.write_text(PORT.replace("def train(problem)", "def plain(problem)") + SPAWN)
    found = lockstep.check(str(file), timeout=60, only=PROBES)
    assert (found.verdict, len(found.diagnosis.runs)) == ("same", 3), str(found)
    assert os.environ.get("LOCKSTEP_PORT") is None


@pytest.mark.parametrize(("backend", "found"), [("tensorflow", False), ("jax", True)])
def test_tensorflow_is_imported_without_what_it_takes_if_it_is_there(
    backend, found, tmp_path
) -> None:
    """The port itself finds it, and so does Keras on JAX."""
    (tmp_path / "tensorflow").mkdir()
    (tmp_path / "jax.py").touch()
    (tmp_path / "tensorflow/__init__.py").write_text(
        "try: import jax\nexcept ImportError: jax = None\n"
    )
    imports = (
        f"os.environ['KERAS_BACKEND'] = '{backend}'\nsys.path.insert(0, {str(tmp_path)!r})\n"
        f"import tensorflow\nassert bool(tensorflow.jax) == {found}\nimport jax"
    )
    told = lockstep.check(port(tmp_path, "pass", imports), timeout=60, only=PROBES)
    assert (told.verdict, len(told.diagnosis.runs)) == ("same", 3), str(told)


def test_a_ports_temporary_files_go_with_it(tmp_path, monkeypatch) -> None:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    note = tmp_path / "note"
    leave = f"open({str(note)!r}, 'a').write(tempfile.mkstemp()[1] + '\\n')"
    found = lockstep.check(port(tmp_path, leave, "import tempfile"), timeout=30, only=PROBES)
    assert (found.verdict, len(found.diagnosis.runs)) == ("same", 3), str(found)
    left = note.read_text().splitlines()
    assert len(left) == 3
    assert all(Path(each).is_relative_to(tmp_path / "tmp") for each in left)
    assert not list((tmp_path / "tmp").iterdir())
