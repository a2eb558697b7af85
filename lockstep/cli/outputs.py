"""Writing what was found: never over what was read, and whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from lockstep.cli.arguments import UsageError

# A report over one of these would be a mistake, whoever reads the file.
SOURCES = (".py", ".safetensors", ".diff")


def check_outputs(outputs: Mapping[str, Path | None], inputs: Iterable[Path] = ()) -> None:
    """Raise UsageError, before anything is run, unless each output, by its option, can be one.

    That is a file in a folder that exists, no input, no other output, and no source.
    """
    taken = {f"the input {file}": file for file in inputs}
    for option, file in outputs.items():
        if file is None:
            continue
        if file.is_dir() or not file.resolve().parent.is_dir():
            raise UsageError(f"{option}: {file} must be a file in a folder that exists")
        if file.resolve().suffix.lower() in SOURCES:
            raise UsageError(f"{option}: {file} would replace a source, name another file")
        for what, other in taken.items():
            if same_file(file, other):
                raise UsageError(f"{option}: {file} is {what}, name another file")
        taken[option] = file


def same_file(one: Path, other: Path) -> bool:
    """Whether two names are one regular file, through links or however they are written."""
    if one.exists() and other.exists():
        return one.is_file() and one.samefile(other)
    return one.resolve() == other.resolve()


def write_json(file: Path, report: dict[str, Any], option: str = "--json") -> None:
    """Write a report as JSON."""
    write_text(file, json.dumps(report, indent=1, allow_nan=False) + "\n", option)


def write_text(file: Path, text: str, option: str) -> None:
    """Write a file whole, or leave it as it was; `option` is who asked for it.

    Through a symbolic link it writes where the link points.
    """
    content = text.encode(errors="backslashreplace")
    try:
        if file.exists() and (not file.is_file() or file.is_relative_to("/dev")):
            with open(file, "ab") as stream:  # a pipe, a terminal, what goes to a file anyway
                stream.write(content)
        else:
            replace(file.resolve(), content)
    except OSError as error:
        raise UsageError(f"{option}: cannot write {file} ({error.strerror})") from None


def replace(target: Path, content: bytes) -> None:
    """Put a new file in the place of an old one, with its permissions, in one operation."""
    new = target.with_name(f".lockstep-{os.getpid()}")
    try:
        with open(new, "xb") as stream:
            stream.write(content)
        with suppress(FileNotFoundError):
            shutil.copymode(target, new)
        new.replace(target)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
