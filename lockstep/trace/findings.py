"""What a comparison finds: a difference, where it is, and the catalogue's name for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lockstep import mistakes

# In which order they run, and what they are called: what comes first is said first.
STAGES = {
    "data": "the data",
    "model": "the gradient of a micro-batch",
    "window": "accumulation",
    "clip": "clipping",
    "decay": "weight decay",
    "rule": "the optimizer's rule",
    "rate": "the learning rate",
    "state": "the optimizer's state",
    "between": "between two updates",
    "average": "the average of the parameters",
}


@dataclass(frozen=True)
class Finding:
    """A difference between two runs, or between a run and its settings.

    name: the catalogue's, or a few words; stage: of STAGES; said: a sentence, with the numbers;
    update: the first that shows it; tensors: which; phase: the first recorded one that differs;
    policy: whether it is one of a library, and no mistake; modules: where the forward passes part;
    others: names that these updates do not tell from it.
    """

    name: str
    stage: str
    said: str
    update: int
    tensors: tuple[str, ...] = ()
    phase: str = ""
    policy: bool = False
    modules: tuple[str, ...] = ()
    others: tuple[str, ...] = ()

    @property
    def known(self) -> bool:
        """Whether the catalogue has it."""
        return self.name in mistakes.names()


def ordered(findings: list[Finding]) -> list[Finding]:
    """By stage, then by update."""
    return sorted(findings, key=lambda each: ([*STAGES].index(each.stage), each.update))


def listed(names: Sequence[str], most: int = 3) -> str:
    """Some names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def turned(name: str, said: str) -> tuple[str, str]:
    """What the first run does, and the second does not."""
    return f"without {name}", f"in the first run, and not in this one, {said}"
