"""How the moments of an optimizer go on, by its state, and where two runs' do differently."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from lockstep.trace.findings import Finding, listed
from lockstep.trace.identify import FIRST, SECOND, Average, Identified
from lockstep.trace.matching import Matching
from lockstep.trace.numbers import Number, agreed, unit


@dataclass(frozen=True)
class Moment:
    """How a moment goes on in all tensors: its decay, and the gain of the gradient; or unknown.

    first: the gain in an optimizer's first update, which has no dampening in PyTorch; by_update:
    the decay of each, which a schedule may change.
    """

    decay: Number | None
    gain: Number | None
    first: Number | None = None
    by_update: Mapping[int, Number] = field(default_factory=dict)


def moments(run: Identified, tensor: str | None = None) -> tuple[Moment, Moment]:
    """The first and the second moment of a run, or of one of its tensors, as its state shows."""
    found = []
    for averages in (run.averages, run.squares):
        exact = [e for e in averages if e.fit.exact and tensor in (None, e.step.name)]
        decay = agreed([each.decay for each in exact])
        begun = [each for each in exact if each.step.taken]
        gain = agreed([each.gain for each in begun or exact])
        # Where what was clipped is not shown, the gain has that in it.
        shown = [each for each in exact if each.step.clipped is not None]
        first = agreed([each.gain for each in shown if not each.step.taken])
        found.append(Moment(decay, gain, first, decays_of(exact)))
    if "momentum_buffer" not in run.steps.slots and run.steps.family in ("sgd", "rmsprop"):
        found[0] = Moment(NONE, None)
    elif run.steps.family == "rmsprop":
        found[0] = Moment(run.steps.momentum, None)
    return found[0], found[1]


def decays_of(averages: Iterable[Average]) -> dict[int, Number]:
    """By update, the decay of its tensors' moments, where they have one."""
    found: dict[int, list[Number]] = {}
    for each in averages:
        found.setdefault(each.step.update, []).append(each.decay)
    every = {update: agreed(each) for update, each in found.items()}
    return {update: decay for update, decay in every.items() if decay is not None}


# Without a momentum.
NONE = Number(0.0, 0.0)
# What the decays of a rule's moments are called, where not beta1 and beta2.
FIRSTS = {"sgd": "momentum", "rmsprop": "momentum", "lion": "beta2"}
SECONDS = {"rmsprop": "alpha", "adadelta": "rho"}
SLOTS = (FIRST, FIRSTS, "beta1"), (SECOND, SECONDS, "beta2")


def average_findings(right: tuple[Moment, Moment], theirs: Identified) -> Iterator[Finding]:
    """Which moments go on otherwise than they should."""
    family, own = theirs.steps.family, moments(theirs)
    for index, averages in enumerate((theirs.averages, theirs.squares)):
        slots, words, usual = SLOTS[index]
        slot, name = slots.get(family, ""), words.get(family, usual)
        at = min((each.step.update for each in averages), default=1)
        found = moment_finding(right[index], own[index], name, slot, at)
        if found is not None:
            yield found


def unexplained_averages(run: Identified) -> dict[str, Average]:
    """By slot, where a moment goes on otherwise than any of the rules lets it: the worst.

    One number may be far off in which the gradients of a window cancel: XLA need not round their
    sum to the dtype that is recorded. All together are not.
    """
    found = {}
    for averages, (slots, _, _) in zip((run.averages, run.squares), SLOTS, strict=True):
        slot = slots.get(run.steps.family, "")
        off = [each for each in averages if not each.fit.exact]
        off = [each for each in off if each.fit.relative > unit(each.step.dtype_of(slot))]
        if off:
            found[slot] = max(off, key=lambda each: each.fit.relative)
    return found


def unexplained_findings(
    theirs: Mapping[str, Average], mine: Mapping[str, Average]
) -> Iterator[Finding]:
    """Moments that go on in no known way, where the first run's do."""
    for slot, worst in theirs.items():
        if slot not in mine:
            said = (
                f"{slot} does not go on as it should from update {worst.step.update}'s gradient:"
                f" {worst.step.name} is {worst.fit.relative:.1e} off"
            )
            tensors, phase = (worst.step.name,), f"state.{slot}"
            yield Finding(f"another {slot}", "state", said, worst.step.update, tensors, phase)


def differing(mine: Identified, theirs: Identified, matching: Matching) -> Iterator[Finding]:
    """What is another number in the moments of some tensors, where a run has no one for all."""
    found: dict[tuple[str, str], list[Finding]] = {}
    for name, match in matching.matches.items():
        for other in match.others:
            both = zip(moments(mine, name), moments(theirs, other), SLOTS, strict=True)
            for right, own, (slots, words, usual) in both:
                family = theirs.steps.family
                slot, called = slots.get(family, ""), words.get(family, usual)
                each = moment_finding(right, own, called, slot, 1)
                if each is not None:
                    each = replace(each, tensors=(other,))
                    found.setdefault((each.name, each.said), []).append(each)
    for (_, said), several in found.items():
        tensors = tuple(name for each in several for name in each.tensors)
        yield replace(several[0], said=f"{said}, of {listed(tensors)}", tensors=tensors)


def moment_finding(right: Moment, own: Moment, name: str, slot: str, at: int) -> Finding | None:
    """What is another number in how a moment goes on."""
    if own.decay is not None and right.decay is not None and not own.decay.equals(right.decay):
        said = f"{name} is {own.decay} instead of {right.decay}"
        return Finding(f"another {name}", "rule", said, at + 1, phase=f"state.{slot}")
    both = sorted(own.by_update.keys() & right.by_update.keys())
    off = [n for n in both if not own.by_update[n].equals(right.by_update[n])]
    if off and (own.decay is None or right.decay is None):
        each = [f"{own.by_update[n]} instead of {right.by_update[n]} in update {n}" for n in off]
        said = f"{name} is {listed(each)}"
        return Finding(f"another {name}", "rule", said, off[0], phase=f"state.{slot}")
    if own.gain is None or right.gain is None or own.gain.equals(right.gain):
        if own.first is None or right.first is None or own.first.equals(right.first):
            return None
        said = f"the first gradient enters {slot} times {own.first} instead of {right.first}"
        called = "dampening-first-update" if name == "momentum" else f"another gain of {slot}"
        return Finding(called, "rule", said, at, phase=f"state.{slot}")
    known = own.decay or right.decay
    average = known is not None and own.gain.equals(Number(1 - known.value, known.error))
    said = f"the gradient enters {slot} times {own.gain} instead of {right.gain}"
    called = "momentum-ema" if average and name == "momentum" else f"another gain of {slot}"
    return Finding(called, "rule", said, at, phase=f"state.{slot}")


def both_unexplained(theirs: Mapping[str, Average], mine: Mapping[str, Average]) -> Iterator[str]:
    """The moments that go on in no known way in both runs."""
    for slot in sorted(theirs.keys() & mine.keys()):
        yield f"{slot} goes on in no known way in both runs: whether it is one cannot be said"
