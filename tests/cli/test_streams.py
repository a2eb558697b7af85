"""Standard output as it may be: without some characters, full, closed, or gone."""

import os
import subprocess
import sys

import pytest
from conftest import ROOT

COMMAND = [sys.executable, "-m", "lockstep.cli"]
# Between them, these print tables, diffs, panels, and every character that is not ASCII.
CALLS = [
    ["optimizers"],
    ["optimizers", "adamw", "--to", "jax"],
    ["mistakes", "no-divide"],
    ["read", "training"],
    ["--help"],
]


@pytest.mark.parametrize("call", CALLS, ids=" ".join)
@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-16"])
def test_it_shows_what_the_stream_has(encoding, call) -> None:
    environment = os.environ | {"PYTHONIOENCODING": encoding}
    done = subprocess.run(
        [*COMMAND, *call], capture_output=True, cwd=ROOT, env=environment, timeout=60
    )
    told = done.stderr.decode(encoding)
    assert (done.returncode, told) == (0, ""), told
    shown = done.stdout.decode(encoding)
    assert len(shown) > 500
    assert shown.count("?") == (call[0] == "mistakes")  # which quotes a question


def test_the_workers_speak_their_own_encoding() -> None:
    environment = os.environ | {"PYTHONIOENCODING": "utf-16"}
    done = subprocess.run(
        [*COMMAND, "run", "exact", "-f", "jax", "-u", "3"],
        capture_output=True,
        cwd=ROOT,
        env=environment,
        timeout=60,
    )
    assert (done.returncode, "0 differ" in done.stdout.decode("utf-16")) == (0, True)


@pytest.mark.parametrize("call", CALLS, ids=" ".join)
def test_a_full_disk_is_told_in_one_line(call) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*COMMAND, *call], stdout=full, stderr=subprocess.PIPE, text=True, cwd=ROOT
        )
    assert done.returncode == 2
    assert done.stderr == "lockstep: cannot print: No space left on device\n"


@pytest.mark.parametrize("call", CALLS, ids=" ".join)
def test_a_closed_pipe_ends_it_quietly(call) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [*COMMAND, *call], stdout=writing, stderr=subprocess.PIPE, text=True, cwd=ROOT
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.parametrize("stream", [1, 2])
def test_a_stream_that_is_closed_is_no_error(stream) -> None:
    done = subprocess.run(
        ["sh", "-c", f"exec {' '.join(COMMAND)} optimizers {stream}>&-"],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_stream_that_is_closed_takes_every_character() -> None:
    done = subprocess.run(
        ["sh", "-c", f"exec {' '.join(COMMAND)} mistakes no-divide >&-"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("stderr", ["2>/dev/full", "2>&-", "2> >(exec 0<&-)"])
def test_an_answer_does_not_depend_on_standard_error(stderr, tmp_path) -> None:
    (tmp_path / "port.py").write_text("def train(problem):\n    yield problem.W, problem.b\n")
    call = f"{' '.join(COMMAND)} check port.py --probes plain {stderr}"
    done = subprocess.run(
        ["bash", "-c", call],
        stdout=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 1
    assert "1 update instead of 6" in done.stdout


def test_a_folder_that_is_gone_is_told_in_one_line(tmp_path) -> None:
    gone = tmp_path / "gone"
    for call in ("check my_port.py", "check pkg.port", "run exact -f jax", "optimizers", "read"):
        gone.mkdir()
        done = subprocess.run(
            ["sh", "-c", f"rmdir {gone}; exec {' '.join(COMMAND)} {call}"],
            capture_output=True,
            text=True,
            cwd=gone,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
        assert (done.returncode, done.stdout) == (2, "")
        message = "lockstep: the current folder is gone: change to one that exists\n"
        assert done.stderr == message


def test_an_error_of_its_own_is_no_difference() -> None:
    code = (
        "import sys\n"
        "from lockstep import cli\n"
        "from lockstep.optimizers import measurement\n"
        "measurement.known = lambda: 1 / 0\n"
        "sys.argv = ['lockstep', 'optimizers']\n"
        "cli.main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 70
    assert "ZeroDivisionError" in done.stderr
    assert done.stderr.endswith("lockstep: this is an error of lockstep itself, please report it\n")
