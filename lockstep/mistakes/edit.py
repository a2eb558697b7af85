"""Write or mend a mistake's diffs: `python -m lockstep.mistakes.edit NAME`.

Copies the three implementation folders, with the mistake where its diff still applies, to
`build/mistakes/NAME`. Edit the copies, then `--save` writes their differences into the catalogue.
"""

from __future__ import annotations

import argparse
import difflib
import shutil
from pathlib import Path

from lockstep.frameworks import FRAMEWORKS
from lockstep.mistakes import FOLDER, diff, module_name, plant
from lockstep.paths import IMPLEMENTATIONS


def main() -> None:
    """Copy, or save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    parser.add_argument("--save", action="store_true", help="write the diffs of the edited copies")
    arguments = parser.parse_args()
    folder = IMPLEMENTATIONS / "build" / "mistakes" / module_name(arguments.name)
    for framework in FRAMEWORKS:
        take = save if arguments.save else start
        take(arguments.name, framework, folder / f"{framework}_impl")
    if not arguments.save:
        print(f"edit the folders in {folder}, then run this with --save")


def start(name: str, framework: str, copy: Path) -> None:
    """Copy a folder, with the mistake if there is a diff that applies."""
    shutil.rmtree(copy, ignore_errors=True)
    copy.parent.mkdir(parents=True, exist_ok=True)
    if diff(name, framework):
        try:
            (copy.parent / plant(name, framework, copy.parent)).rename(copy)
            return
        except ValueError as error:
            print(f"{error}: the copy is without the mistake")
            shutil.rmtree(copy.parent / f"{framework}_impl_{module_name(name)}")
    shutil.copytree(
        IMPLEMENTATIONS / f"{framework}_impl", copy, ignore=shutil.ignore_patterns("__pycache__")
    )


def save(name: str, framework: str, copy: Path) -> None:
    """Write the diff of a folder; none where nothing was edited."""
    text = "".join(
        changes(f"{framework}_impl/{file.name}", IMPLEMENTATIONS / f"{framework}_impl", file)
        for file in sorted(copy.glob("*.py"))
    )
    target = FOLDER / module_name(name) / f"{framework}.diff"
    if text:
        target.write_text(text)
    else:
        target.unlink(missing_ok=True)


def changes(path: str, source: Path, file: Path) -> str:
    """One file's unified diff, under a line by which a diff of several files is cut."""
    old, new = ((source / file.name).read_text(), file.read_text())
    lines = list(
        difflib.unified_diff(
            old.splitlines(keepends=True), new.splitlines(keepends=True), f"a/{path}", f"b/{path}"
        )
    )
    return "".join([f"diff --git a/{path} b/{path}\n", *lines]) if lines else ""


if __name__ == "__main__":
    main()
