"""The catalogue of mistakes: one folder each, with a `mistake.py` and a diff per framework.

A mistake is the reference loop with some stages replaced, and, as a person would make it, a
diff against the real source of each implementation folder. To add one is to add a folder:
`python -m lockstep.mistakes.edit NAME` helps with the diffs.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Literal

from lockstep.oracle.loop import Stages
from lockstep.paths import IMPLEMENTATIONS
from lockstep.problem.settings import require

FOLDER = Path(__file__).parent / "catalogue"
HUNK = re.compile(r"^@@ -(\S+) \+(\S+) @@")
FAMILIES = (
    *("zeroing", "scaling", "windows", "clipping", "precision"),
    *("schedule", "decay", "optimizer", "model"),
)


@dataclass(frozen=True)
class Mistake:
    """What goes wrong, in words and as replaced stages of the reference loop.

    title: one line; explanation: what goes wrong, and why; signature: what it looks like in
    numbers. family: one of FAMILIES. frequency, severity: 1 to 5, by judgement.
    stages: the loop, as the diffs make it; forms: other ways to make the mistake, which give other
    numbers. look_alikes: by name, what separates them. evidence: (address, what was read there).
    impossible: by framework, why the mistake cannot be made there, instead of a diff.
    kind: a "policy" differs by design, and in a "library" it is nobody's own mistake.
    """

    title: str
    explanation: str
    signature: str
    family: str
    frequency: int
    severity: int
    stages: Stages
    forms: Sequence[Stages] = ()
    look_alikes: Mapping[str, str] = field(default_factory=dict)
    evidence: Sequence[tuple[str, str]] = ()
    impossible: Mapping[str, str] = field(default_factory=dict)
    kind: Literal["mistake", "policy", "library"] = "mistake"


def module_name(mistake: str) -> str:
    """The Python name of a mistake, whose own name has dashes."""
    return mistake.replace("-", "_")


@cache
def names() -> tuple[str, ...]:
    """All mistakes, by family, what is more frequent first."""
    folders = [file.parent.name.replace("_", "-") for file in FOLDER.glob("*/mistake.py")]

    def order(name: str) -> tuple[int, int, int, str]:
        mistake = load(name)
        return FAMILIES.index(mistake.family), -mistake.frequency, -mistake.severity, name

    return tuple(sorted(folders, key=order))


@cache
def load(mistake: str) -> Mistake:
    """The mistake of this name, for example "missing-zero-grad".

    Raises ProblemError for an unknown one.
    """
    name = module_name(mistake)
    require(
        (FOLDER / name / "mistake.py").exists(),
        f"{mistake}: no such mistake, `lockstep mistakes` lists them",
    )
    module = importlib.import_module(f"lockstep.mistakes.catalogue.{name}.mistake")
    found: Mistake = module.MISTAKE
    return found


def diff(mistake: str, framework: str) -> str:
    """The mistake as a unified diff against the framework's folder; empty where there is none."""
    file = FOLDER / module_name(mistake) / f"{framework}.diff"
    return file.read_text() if file.exists() else ""


def mend(mistake: str, framework: str) -> str:
    """The diff that takes the mistake out again; empty where there is none."""
    found: list[str] = []
    added: list[str] = []
    for line in diff(mistake, framework).splitlines():
        if line.startswith(("diff ", "--- a/", "+++ b/")):
            found += [*added, line]
            added = []
        elif line.startswith("-"):
            added.append("+" + line[1:])
        elif line.startswith("+"):
            found.append("-" + line[1:])
        else:
            found += [*added, HUNK.sub(r"@@ -\2 +\1 @@", line)]
            added = []
    return "".join(f"{line}\n" for line in [*found, *added])


def require_patching() -> None:
    """Raise ProblemError where diffs cannot be applied."""
    require(
        importlib.util.find_spec("whatthepatch") is not None,
        "the catalogue's diffs are applied with whatthepatch, of the extra mistakes:"
        " pip install 'lockstep[mistakes]'",
    )


def plant(mistake: str, framework: str, folder: Path, sources: Path | None = None) -> str:
    """Write a copy of the framework's implementation with the mistake into a folder.

    What is copied is Lockstep's own, or what the folder `sources` has of that name. Returns the
    copy's package name. Raises ValueError if the diff does not apply to the source, or changes
    nothing.
    """
    require_patching()
    import whatthepatch

    package = f"{framework}_impl_{module_name(mistake)}"
    copy = folder / package
    shutil.copytree(
        (sources or IMPLEMENTATIONS) / f"{framework}_impl",
        copy,
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    changes = list(whatthepatch.parse_patch(diff(mistake, framework)))
    if not changes:
        raise ValueError(f"{mistake}: {framework}.diff changes nothing")
    for change in changes:
        file = copy / Path(change.header.new_path).name
        try:
            lines = whatthepatch.apply_diff(change, file.read_text())
        except whatthepatch.exceptions.HunkApplyException as error:
            raise ValueError(
                f"{mistake}: {framework}.diff no longer applies to {file.name} ({error})"
            ) from None
        file.write_text("\n".join(lines) + "\n")
    return package
