"""The catalogue of mistakes: one folder each, with a `mistake.py` and a diff per framework.

A mistake is the reference loop with one or two stages replaced, and, as a person would make it, a
diff against the real source of each implementation folder.
"""

from __future__ import annotations

import importlib
import shutil
from dataclasses import dataclass
from pathlib import Path

import whatthepatch

from lockstep.reference import Stages

FOLDER = Path(__file__).parent
IMPLEMENTATIONS = FOLDER.parent.parent


@dataclass(frozen=True)
class Mistake:
    """What goes wrong, in words and as replaced stages of the reference loop."""

    title: str
    explanation: str
    stages: Stages


def module_name(mistake: str) -> str:
    """The Python name of a mistake, whose own name has dashes."""
    return mistake.replace("-", "_")


def load(mistake: str) -> Mistake:
    """The mistake of this name, for example "missing-zero-grad"."""
    module = importlib.import_module(f"lockstep.mistakes.{module_name(mistake)}.mistake")
    found: Mistake = module.MISTAKE
    return found


def diff(mistake: str, framework: str) -> str:
    """The mistake as a unified diff against the framework's folder."""
    return (FOLDER / module_name(mistake) / f"{framework}.diff").read_text()


def plant(mistake: str, framework: str, folder: Path) -> str:
    """Write a copy of the framework's implementation with the mistake into a folder.

    Returns the copy's package name. Raises ValueError if the diff does not apply to the source,
    or changes nothing.
    """
    package = f"{framework}_impl_{module_name(mistake)}"
    copy = folder / package
    shutil.copytree(
        IMPLEMENTATIONS / f"{framework}_impl", copy, ignore=shutil.ignore_patterns("__pycache__")
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
