"""Write or mend the mistakes' diffs: `python -m lockstep.mistakes.edit NAME`.

Copies the three implementation folders, with the mistake where its diff still applies, to
`build/mistakes/NAME`. Edit the copies, then `--save` writes their differences into the catalogue.

When the folders themselves have changed, `--follow` carries all diffs over: each is merged, as git
merges branches, with what has changed since a revision. What cannot be merged is left in
`build/mistakes`, with the usual marks, to be edited and saved. So to rename a function is to rename
it, in the diffs too (`sed -i s/old/new/ *_impl/*.py lockstep/mistakes/catalogue/*/*.diff`), and to
let them follow what else has moved.
"""

from __future__ import annotations

import argparse
import difflib
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from lockstep.frameworks import FRAMEWORKS
from lockstep.mistakes import FOLDER, diff, module_name, names, plant
from lockstep.paths import IMPLEMENTATIONS

COPIES = IMPLEMENTATIONS / "build" / "mistakes"


def main() -> None:
    """Copy, save, or follow."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", nargs="?")
    parser.add_argument("--save", action="store_true", help="write the diffs of the edited copies")
    parser.add_argument(
        "--follow", nargs="?", const="HEAD", metavar="REVISION", help="HEAD unless given"
    )
    arguments = parser.parse_args()
    if arguments.follow:
        left = follow(arguments.follow)
        print("".join(f"{each}\n" for each in left) or "every diff has followed")
        sys.exit(1 if left else 0)
    if arguments.name is None:
        parser.error("NAME is missing")
    folder = COPIES / module_name(arguments.name)
    for framework in FRAMEWORKS:
        take = save if arguments.save else start
        take(arguments.name, framework, folder / f"{framework}_impl")
    if not arguments.save:
        print(f"edit the folders in {folder}, then run this with --save")


def follow(revision: str) -> list[str]:
    """Carry every diff over from the sources of a revision; what could not be, a line each."""
    left = []
    with tempfile.TemporaryDirectory() as name:
        old = Path(name, "old")
        old.mkdir()
        folders = [f"{framework}_impl" for framework in FRAMEWORKS]
        archive = subprocess.run(
            ["git", "archive", revision, *folders], check=True, capture_output=True
        ).stdout
        subprocess.run(["tar", "-x", "-C", old], input=archive, check=True)
        for mistake in names():
            for framework in FRAMEWORKS:
                if diff(mistake, framework) and not merged(mistake, framework, old):
                    left.append(
                        f"{mistake}: {framework} is left in {COPIES / module_name(mistake)}"
                    )
    return left


def merged(mistake: str, framework: str, old: Path) -> bool:
    """Merge a mistake with what has changed since the old sources; whether that is its diff now."""
    package = f"{framework}_impl"
    copy = COPIES / module_name(mistake) / package
    shutil.rmtree(copy, ignore_errors=True)
    copy.parent.mkdir(parents=True, exist_ok=True)
    mistaken = copy.parent / plant(mistake, framework, copy.parent, old)
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(IMPLEMENTATIONS / package, copy, ignore=ignore)
    conflicts = 0
    for file in sorted(mistaken.glob("*.py")):
        base, ours = old / package / file.name, copy / file.name
        if file.read_text() == base.read_text():
            continue
        if not ours.exists():
            conflicts += 1
            continue
        command = ["git", "merge-file", "--quiet", *map(str, (ours, base, file))]
        conflicts += abs(subprocess.run(command, check=False).returncode)
    shutil.rmtree(mistaken)
    if conflicts:
        return False
    save(mistake, framework, copy)
    shutil.rmtree(copy)
    return True


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
