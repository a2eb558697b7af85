"""Consoles, plain lines, the tally of a run, numbers as JSON has them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.status import Status

from lockstep.frameworks import NAMES

if TYPE_CHECKING:
    from lockstep.oracle.compare import Comparison
    from lockstep.workers.pool import Worker


class Tally:
    """What was compared over a whole run."""

    def __init__(self) -> None:
        """Start at nothing."""
        self.bits = self.differ = self.bounded = self.outside = self.failed = 0

    def add(self, comparisons: Iterable[Comparison], failures: int = 0) -> None:
        """Count comparisons, and what could not be compared."""
        for comparison in comparisons:
            if comparison.bounds is None:
                self.bits += comparison.compared
                self.differ += sum(comparison.outside)
            else:
                self.bounded += comparison.compared
                self.outside += sum(comparison.outside)
        self.failed += failures

    @property
    def passed(self) -> bool:
        """Whether something was compared, and all of it passed."""
        compared = self.bits + self.bounded
        return compared > 0 and not (self.differ or self.outside or self.failed)

    def __str__(self) -> str:
        parts = []
        if self.bits:
            parts.append(
                f"{spaced(self.bits)} numbers compared in bits, {spaced(self.differ)} differ"
            )
        if self.bounded:
            parts.append(
                f"{spaced(self.bounded)} compared with their rounding bound,"
                f" {spaced(self.outside)} outside"
            )
        if self.failed:
            parts.append(f"{self.failed} not compared")
        return "; ".join(parts or ["nothing was compared"])


def spaced(number: int) -> str:
    """12 345 rather than 12345."""
    return f"{number:,}".replace(",", " ")


def consoles() -> tuple[Console, Console]:
    """Standard output for what was found, standard error for progress.

    The tables are given the 80 columns that they need even where a terminal has fewer, so that it
    breaks lines instead of losing digits.
    """
    return Console(width=max(Console().width, 80)), Console(stderr=True)


def say(out: Console, text: str, style: str = "") -> None:
    """A line of plain words, in one piece whatever the terminal's width."""
    out.print(text, style=style, highlight=False, soft_wrap=True, markup=False)


def say_tally(out: Console, tally: Tally) -> None:
    """The last line of a run."""
    say(out, str(tally), "bold green" if tally.passed else "bold red")


def wait_until_ready(workers: Mapping[str, Worker], status: Status) -> dict[str, str]:
    """Wait for every import, saying which are left; return each framework's versions."""
    versions = {}
    # TensorFlow takes longest, so that the display changes as each one is done.
    for name in sorted(workers, key=("jax", "pytorch", "tensorflow").index):
        waiting = [NAMES[each] for each in workers if each not in versions]
        status.update(f"importing {', '.join(waiting)}")
        found = workers[name].ready()
        versions[name] = ", ".join(f"{package} {version}" for package, version in found.items())
    return {name: versions[name] for name in workers}


def finite(numbers: Sequence[float]) -> list[float | None]:
    """The numbers as JSON has them, which knows neither NaN nor infinity."""
    return [number if math.isfinite(number) else None for number in numbers]
