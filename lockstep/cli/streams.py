"""Standard output and error as they are: ASCII, a full disk, a pipe that nobody reads."""

from __future__ import annotations

import codecs
import io
import os
import sys
from contextlib import suppress
from typing import Any

# What a stream shows that has no such character.
PLAIN = {
    "·": ".", "≠": "!=", "≤": "<=", "ε": "eps", "β": "beta", "²": "^2", "─": "-", "│": "|",
}  # fmt: skip


class Deaf(io.FileIO):
    """Standard error, of which nothing is expected: full or gone, it is no reason to stop."""

    def write(self, data: Any) -> int:
        """Write, or do as if."""
        with suppress(OSError):
            return super().write(data)
        return len(data)


def prepare() -> None:
    """Let both streams show what they can instead of failing at what they cannot."""
    codecs.register_error("lockstep", in_plain_characters)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # it was closed
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
    if (heard := sys.stderr) is sys.__stderr__ and heard is not None:
        deaf = io.BufferedWriter(Deaf(2, "w", closefd=False))
        sys.stderr = io.TextIOWrapper(deaf, heard.encoding, line_buffering=True)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="lockstep")


def in_plain_characters(error: UnicodeError) -> tuple[str | bytes, int]:
    """For `codecs.register_error`: other characters for those that a stream does not have."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    missing = error.object[error.start : error.end]
    return "".join(PLAIN.get(each, "?") for each in missing), error.end


def complain(message: str) -> None:
    """One line on standard error."""
    print(f"lockstep: {message}", file=sys.stderr, flush=True)


def forget() -> None:
    """Drop what standard output has not taken, or Python would try again at its end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)
