"""Write what a build makes, so that a second build finds nothing to do."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path


def write(file: Path, text: str) -> None:
    """Write a file whole, unless it holds this already."""
    if file.exists() and file.read_text() == text:
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    # Two builds at the same time must not write the same file.
    new = file.with_name(f".{file.name}.{os.getpid()}")
    new.write_text(text)
    new.replace(file)


def stale(files: Iterable[Path], sources: Iterable[Path]) -> bool:
    """Whether a file is missing, or older than what it is made from."""
    newest = max(source.stat().st_mtime for source in sources)
    return not all(file.exists() and file.stat().st_mtime >= newest for file in files)
