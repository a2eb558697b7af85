"""What the guide's blocks run with, so that they show what they are about, and no plumbing.

Packages are made in the folder where the blocks run, and imported from there.
"""

from __future__ import annotations

import importlib
import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from lockstep import mistakes
from lockstep.paths import IMPLEMENTATIONS
from lockstep.problem import Array, Problem


def imported(name: str) -> ModuleType:
    """A module, of the three folders or of a package made here."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    importlib.invalidate_caches()
    return importlib.import_module(name)


def run(port: str, problem: Problem) -> list[Array]:
    """W above b after every update."""
    return [np.vstack([W, b]) for W, b, *_ in imported(port).train(problem)]


def states(port: str, problem: Problem) -> list[dict[str, Any]]:
    """What a recipe yields beside W and b, after every window."""
    return [state for *_, state in imported(port).train(problem)]


def planted(mistake: str, framework: str = "pytorch") -> str:
    """A copy of an implementation with a mistake in it."""
    return mistakes.plant(mistake, framework, Path.cwd())


def put_back(package: str, module: str, old: str, new: str) -> str:
    """A copy of an implementation with a piece of its source replaced."""
    copy = Path.cwd() / f"{package}_with_{len(list(Path.cwd().iterdir()))}"
    replaced(package, copy, module, old, new)
    return copy.name


def replaced(package: str, copy: Path, module: str, old: str, new: str) -> None:
    """Copy an implementation, and replace the one place where a piece of text stands."""
    shutil.copytree(IMPLEMENTATIONS / package, copy)
    text = (copy / module).read_text()
    if text.count(old) != 1:
        raise ValueError(f"{old!r} stands {text.count(old)} times in {package}/{module}")
    (copy / module).write_text(text.replace(old, new))
