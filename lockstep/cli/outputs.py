"""Writing what was found: over nothing but an earlier report, and whole or not at all."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from lockstep.cli.arguments import UsageError

# How a report begins, by its option; what begins otherwise is somebody's, and stays.
BEGINNING = {
    "--json": '{{\n "written_by": "lockstep {}"',
    "--html": "<!doctype html>\n<!-- written by lockstep {} -->",
    "--out": '{{"__metadata__":{{"written_by":"lockstep {}"}}',
}
# What stands before that: in a safetensors file, the length of its header.
BEFORE = {"--out": 8}


def check_outputs(command: str, outputs: Mapping[str, Path | None]) -> None:
    """Raise UsageError, before anything is run, unless each output, by its option, can be one.

    That is a file that is new, empty or an earlier report of this command, in a folder to write
    in, and no other output; or a pipe or a device.
    """
    taken: dict[str, str] = {}
    for option, file in outputs.items():
        if file is None or streams(file, option):
            continue
        check_output(command, option, file)
        name = os.path.realpath(file)
        if name in taken:
            raise UsageError(f"{option}: {file} is {taken[name]}, name another file")
        taken[name] = option


def check_output(command: str, option: str, file: Path) -> None:
    """The same for a file that is none of the process's streams."""
    target = Path(os.path.realpath(file))
    with telling(option, file):
        if file.is_dir() or not target.parent.is_dir():
            raise UsageError(f"{option}: {file} must be a file in a folder that exists")
        with suppress(FileNotFoundError):
            mode = file.stat().st_mode
            if not stat.S_ISREG(mode) or not mode & 0o222:
                raise UsageError(f"{option}: {file} is not to be written to, name another file")
            known = BEGINNING[option].format(command).encode()
            if not begins(file, known, BEFORE.get(option, 0)):
                raise UsageError(
                    f"{option}: {file} is no report of lockstep {command}, name another file"
                )
        tempfile.TemporaryFile(dir=target.parent).close()


def begins(file: Path, known: bytes, after: int = 0) -> bool:
    """Whether a file begins like this, or is empty, as `mktemp` leaves it, and no module."""
    with open(file, "rb") as stream:
        found = stream.read(after + len(known))
    return found[after:] == known or (not found and file.suffix != ".py")


def streams(file: Path, option: str) -> bool:
    """Whether what is written is added to what is there: to a pipe, a terminal, standard output."""
    with telling(option, file), suppress(FileNotFoundError):
        found = file.stat()
        return is_endless(found.st_mode) or descriptor(found) is not None
    return False


def is_endless(mode: int) -> bool:
    """Whether a file is a pipe, or a device such as a terminal, that takes what comes."""
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)


def descriptor(found: os.stat_result) -> int | None:
    """The descriptor with which this process already has a file open for writing."""
    for number in map(int, os.listdir("/dev/fd")):
        with suppress(OSError):
            writes = fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY
            if writes and os.path.samestat(found, os.fstat(number)):
                return number
    return None


@contextmanager
def telling(option: str, file: Path) -> Iterator[None]:
    """Say in one line that a file cannot be written, and why."""
    try:
        yield
    except OSError as error:
        raise UsageError(f"{option}: cannot write {file} ({error.strerror})") from None


def write_found(
    command: str, view: Any, found: Any, json_file: Path | None, html_file: Path | None
) -> None:
    """Write what a command has found, as its view has it, into the files that were asked for.

    Before it is shown: a reader of the report may close the pipe before its end.
    """
    if json_file is not None:
        write_json(json_file, view.as_json(found), command)
    if html_file is not None:
        write_text(html_file, view.html(found), "--html", command)


def write_json(file: Path, report: dict[str, Any], command: str) -> None:
    """Write a report as JSON."""
    named = {"written_by": f"lockstep {command}"} | report
    write_text(file, json.dumps(named, indent=1, allow_nan=False) + "\n", "--json", command)


def write_text(file: Path, text: str, option: str, command: str) -> None:
    """Write a report whole, or leave the file as it was.

    Through a symbolic link it writes where the link points.
    """
    write_bytes(file, text.encode(errors="backslashreplace"), option, command)


def write_tensors(file: Path, arrays: Mapping[str, Any], option: str, command: str) -> None:
    """Write arrays as a safetensors file, in the same way."""
    from safetensors.numpy import save

    content = save(dict(arrays), {"written_by": f"lockstep {command}"})
    write_bytes(file, content, option, command)


def write_bytes(file: Path, content: bytes, option: str, command: str) -> None:
    """Write what a report is made of."""
    if streams(file, option):
        with telling(option, file):
            append(file, content)
    else:
        check_output(command, option, file)  # once more: a run takes its time
        with telling(option, file):
            replace(file, content)


def append(file: Path, content: bytes) -> None:
    """Add to a stream, where this process has got to with it."""
    sys.stdout.flush()
    number = descriptor(file.stat())
    with open(file if number is None else os.dup(number), "wb") as stream:
        stream.write(content)


def replace(file: Path, content: bytes) -> None:
    """Put a new file in the place of an old one, with its permissions, in one operation."""
    target = Path(os.path.realpath(file))
    new = target.with_name(f".lockstep-{secrets.token_hex(8)}")
    try:
        with open(new, "xb") as stream:
            stream.write(content)
        with suppress(FileNotFoundError):
            shutil.copymode(target, new)
        new.replace(target)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
