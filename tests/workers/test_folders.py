"""Temporary folders are gone at the end, however it comes."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from conftest import ROOT

from lockstep.workers.folders import MARK, TemporaryFolder

PORT = ROOT / "tests/diagnosis/hand_written/plain_numpy.py"
HOLD = """
import sys, time
from lockstep.workers.folders import TemporaryFolder
folder = TemporaryFolder()
open(folder.name + "/file", "w").close()
print(folder.name, flush=True)
time.sleep(float(sys.argv[1]))
"""


# What a shell starts in the background ignores Ctrl-C.
LISTENING = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from lockstep.cli import main
main()
"""


def start(folder: Path, seconds: float) -> tuple[subprocess.Popen[str], Path]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(seconds)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=os.environ | {"TMPDIR": str(folder)},
    )
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def test_the_next_process_removes_what_a_killed_one_left(tmp_path) -> None:
    living, kept = start(tmp_path, 600)
    killed, left = start(tmp_path, 600)
    for name in ("lockstep-notes", "lockstep-12345678"):  # a person's own
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").touch()
    killed.kill()
    killed.wait()
    assert left.is_dir()
    done, own = start(tmp_path, 0)
    assert done.wait() == 0
    assert (kept.is_dir(), left.exists(), own.exists()) == (True, False, False)
    assert {each.name for each in tmp_path.iterdir()} == {
        kept.name,
        "lockstep-notes",
        "lockstep-12345678",
    }
    assert all((each / "file").exists() for each in tmp_path.iterdir())
    assert (kept / MARK).exists()
    living.kill()
    living.wait()


def test_nothing_is_removed_through_a_link(tmp_path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / MARK).touch()
    (tmp_path / "tmp").mkdir()
    (tmp_path / "tmp" / "lockstep-abcdefgh").symlink_to(tmp_path / "precious")
    process, _ = start(tmp_path / "tmp", 0)
    assert process.wait() == 0
    assert (tmp_path / "precious" / MARK).exists()


@pytest.mark.parametrize("how", [signal.SIGHUP, signal.SIGTERM, signal.SIGINT])
def test_a_signal_leaves_no_folder(how, tmp_path) -> None:
    # Whoever runs the tests may ignore either, as `nohup` does, and a process inherits that.
    listen = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler);"
        " signal.signal(signal.SIGHUP, signal.SIG_DFL)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", f"{listen}; from lockstep.cli import main; main()", "check", PORT],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=os.environ | {"TMPDIR": str(tmp_path)},
    )
    deadline = time.monotonic() + 30
    while not list(tmp_path.glob("lockstep-*/log")) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert list(tmp_path.glob("lockstep-*"))
    process.send_signal(how)
    _, told = process.communicate(timeout=30)
    assert (process.returncode, told.splitlines()[-1:]) == (130, ["lockstep: interrupted"])
    assert not list(tmp_path.glob("*lockstep-*"))


def test_a_hang_up_that_is_ignored_stays_ignored(tmp_path) -> None:
    process = subprocess.Popen(
        ["nohup", sys.executable, "-m", "lockstep.cli", "check", PORT],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=ROOT,
        env=os.environ | {"TMPDIR": str(tmp_path)},
    )
    deadline = time.monotonic() + 30
    while not list(tmp_path.glob("lockstep-*/log")) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGHUP)
    out, _ = process.communicate(timeout=60)
    assert (process.returncode, b"takes the same update" in out) == (0, True)


FORK = """
import os, sys
from pathlib import Path
from lockstep.workers.folders import TemporaryFolder
folder = TemporaryFolder()
child = os.fork()
if not child:
    sys.exit(0)
os.waitpid(child, 0)
print(Path(folder.name).is_dir())
"""


def test_a_fork_leaves_its_parents_folder(tmp_path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORK],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {"TMPDIR": str(tmp_path)},
    )
    assert (done.returncode, done.stdout) == (0, "True\n")
    assert not list(tmp_path.iterdir())


def test_an_interruption_while_a_folder_is_made_leaves_none(tmp_path, monkeypatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(Path, "rename", interrupt)
    with pytest.raises(KeyboardInterrupt):
        TemporaryFolder()
    assert not list(tmp_path.iterdir())
