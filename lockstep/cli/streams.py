"""Standard output and error as they are: ASCII, a full disk, a pipe that nobody reads."""

from __future__ import annotations

import codecs
import io
import os
import sys
from contextlib import suppress

# What a stream shows that has no such character.
PLAIN = {
    "·": ".", "≠": "!=", "≤": "<=", "ε": "eps", "β": "beta", "²": "^2", "─": "-", "│": "|",
}  # fmt: skip


def prepare() -> None:
    """Let both streams show what they can instead of failing at what they cannot."""
    codecs.register_error("lockstep", in_plain_characters)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # it was closed
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="lockstep")


def in_plain_characters(error: UnicodeError) -> tuple[str | bytes, int]:
    """For `codecs.register_error`: other characters for those that a stream does not have."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    missing = error.object[error.start : error.end]
    return "".join(PLAIN.get(each, "?") for each in missing), error.end


def complain(message: str) -> None:
    """One line on standard error, if anybody can read it."""
    with suppress(OSError):
        print(f"lockstep: {message}", file=sys.stderr, flush=True)


def forget() -> None:
    """Drop what standard output has not taken, or Python would try again at its end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)
