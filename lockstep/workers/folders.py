"""Temporary folders that do not outlive their owner by more than a run.

A process that is killed cannot remove its files: the next one does. It knows a folder's owner to
be gone by the folder's lock, which the system gives back when a process ends, however it does.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import tempfile
import weakref
from contextlib import suppress
from functools import cache
from pathlib import Path

PREFIX = "lockstep-"
# What marks a folder as one of these: others may be called alike.
MARK = ".lockstep"


class TemporaryFolder:
    """A new folder, removed by `cleanup`, at the end of a `with`, or by the next process."""

    def __init__(self) -> None:
        """Make it; it has its final name only when it is marked and locked."""
        _sweep()
        temporary, name = Path(tempfile.gettempdir()), PREFIX + secrets.token_hex(8)
        made, self.name = temporary / f".{name}", str(temporary / name)
        # Named before it is there: an interruption at any place removes what it finds.
        try:
            made.mkdir(0o700)
            (made / MARK).touch()
            self._lock = os.open(made, os.O_RDONLY)
            with suppress(OSError):  # a file system without locks: nobody will remove it
                fcntl.flock(self._lock, fcntl.LOCK_EX)
            self.cleanup = weakref.finalize(self, _remove, self.name, self._lock, os.getpid())
            made.rename(self.name)
        except BaseException:
            shutil.rmtree(made, ignore_errors=True)
            raise

    def __enter__(self) -> str:
        return self.name

    def __exit__(self, *error: object) -> None:
        self.cleanup()


def _remove(name: str, lock: int, owner: int) -> None:
    """Remove a folder, then give its lock back; a fork of its owner leaves it as it is."""
    if os.getpid() == owner:
        shutil.rmtree(name, ignore_errors=True)
        os.close(lock)


@cache  # once a process
def _sweep() -> None:
    """Remove the folders whose owners are gone."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with suppress(OSError):  # somebody else's, or removed by another process just now
            if not (folder / MARK).is_file() or folder.lstat().st_uid != os.getuid():
                continue
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)
