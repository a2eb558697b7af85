"""Ports that read some settings otherwise: a wrapper, so that no framework's source is edited."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any, NamedTuple

import numpy as np

from lockstep.diagnosis.forms import WITHIN
from lockstep.problem import PLAIN, Optimizer, Problem


class Change(NamedTuple):
    """A setting that a port has otherwise, wherever it is in use.

    setting: "max_norm", or "optimizer.eps" of an optimizer's. to: "plain", and it is never read;
    "float32", and it is rounded; "nine tenths" of it; or a number in its place. optimizer: the only
    one whose setting is changed, all of them if "".
    """

    setting: str
    to: str | float
    optimizer: str = ""

    def __str__(self) -> str:
        of = f" of {self.optimizer}" if self.optimizer else ""
        return f"{self.setting}{of}: {self.to}"


def reading(train: Callable[[Problem], Any], changes: Sequence[Change]) -> Callable[[Problem], Any]:
    """A port that goes by other settings than it is given."""
    return lambda problem: train(otherwise(problem, changes))


def otherwise(problem: Problem, changes: Sequence[Change]) -> Problem:
    """A problem with other settings; what is never read of it is never read of the given one."""
    outer = {each.setting: each for each in changes if not each.setting.startswith(WITHIN)}
    inner = {
        each.setting.removeprefix(WITHIN): each
        for each in changes
        if each.setting.startswith(WITHIN) and each.optimizer in ("", problem.optimizer.name)
    }
    optimizer = view(problem.optimizer, inner, Optimizer(problem.optimizer.name))
    found: Problem = view(problem, outer, None, optimizer=optimizer)
    return found


def view(settings: Any, changes: dict[str, Change], plain: Any, **instead: Any) -> Any:
    """Settings some of which are others; `plain` has what is plain, None that of a problem."""
    base = settings.__class__.__mro__[-2]

    def value(name: str) -> Any:
        if name in instead:
            return instead[name]
        if name not in changes:
            return getattr(settings, name)
        if changes[name].to == "plain":
            return PLAIN[name] if plain is None else getattr(plain, name)
        return changed(getattr(settings, name), changes[name].to)

    class View(base):  # type: ignore[misc,valid-type]  # a base of its own, each time
        def __getattribute__(self, name: str) -> Any:
            if name == "__class__":
                return base
            if name == "__dict__":
                return {each.name: value(each.name) for each in fields(base)}
            return value(name)

    return object.__new__(View)


def changed(setting: Any, to: str | float) -> Any:
    """What stands in the place of a setting, which may be several numbers; nothing of nothing."""
    if not setting:
        return setting
    if isinstance(setting, tuple):
        return tuple(changed(each, to) for each in setting)
    if to == "float32":
        return float(np.float32(setting))
    return 0.9 * setting if to == "nine tenths" else to
