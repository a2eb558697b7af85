"""What clipping does to a gradient, in one of the ways that are known, and in two runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from lockstep.trace.findings import Finding, listed, turned
from lockstep.trace.identify import NOTHING, SUMMED, Identified, norm_of, summed
from lockstep.trace.masked import MASKED, masked_words
from lockstep.trace.matching import Matching
from lockstep.trace.numbers import Fit, Number, agreed, unit
from lockstep.trace.reading import Update
from lockstep.trace.rules import KNOWN
from lockstep.trace.steps import Step, nested
from lockstep.trace.whole import Both, products, stored

# What is added to a norm before something is divided by it: torch.nn.utils.clip_grad_norm_ does.
EPSILONS = (0.0, 1e-6)
# PyTorch adds up squares one after the other on a CPU, in single precision: for so many in a row,
# the norm is off by one rounding more, at most, whatever is drawn (1e5 to 8e6 numbers were tried).
IN_A_ROW = 1024
# A factor shows nothing that may be off by as much.
SHOWN = 0.5


SMALL = (
    "the norm has {:g} added to it before the division in one run, and not in the other: a policy"
    " of torch.nn.utils.clip_grad_norm_"
)


def clip_findings(mine: Identified, theirs: Identified, matching: Matching) -> Iterator[Finding]:
    """What clipping did otherwise: the way that explains all updates, of those that are known."""
    right, own, clips = way_of(mine), way_of(theirs), clips_of(theirs)
    before = {each.update: each for each in clips_of(mine)}
    wrong = [each for each in clips if not each.taken(right)]
    if right is None:
        # In half precision a factor may be 1, and may be what clipping made of it as well.
        wrong = [c for c in wrong if c.update not in before or not before[c.update].may_be(c)]
    if not wrong or not before:
        return
    reached = max(each.norm for each in before.values())
    if right is None and own and own.kind == "together" and reached <= (1 + NEAR) * own.to.value:
        return  # smaller gradients say nothing of a clip
    first = wrong[0]

    def found(name: str, said: str, policy: bool = False) -> Finding:
        return Finding(name, "clip", said, first.update, tuple(first.factors), "clipped", policy)

    if right is None:
        said = f"it clips a gradient of norm {first.norm:.4g}, the other run does not"
        yield found(*(changed(clips) or ("clips", said)))
        return
    if right.kind == "emptied":
        yield found(*turned(CLIPS["emptied"], SAID["emptied"]))
        return
    if right.kind == "unknown":
        if alike(clips_of(mine), clips):
            return
        parts = parts_of(clips_of(mine)) or []
        there = [replace(part, names=matching.others(part.names)) for part in parts]
        if parts and (epsilon := explained_by(clips, there)) is not None:
            if epsilon not in {part.epsilon for part in there if part.limit is not None}:
                yield found("clip-epsilon", SMALL.format(max(EPSILONS)), policy=True)
            return
        if own is None and (how := changed(clips_of(mine))) is not None:
            yield found(*turned(*how))
        elif parts and all(clip.taken(None) for clip in clips):
            said = f"a gradient of norm {first.norm:.4g} is not clipped, and in the first run"
            yield found("clip-ignored", f"{said} {in_parts(clips_of(mine))}")
        elif parts:
            yield found(*turned(PARTS, str(in_parts(clips_of(mine)))))
        else:
            said = f"a gradient of norm {first.norm:.4g} is clipped otherwise than in the first run"
            yield found("clips in another way", said)
        return
    limit = right.to.value
    ways: dict[str, tuple[str, tuple[Way | None, ...]]] = {
        "clip-ignored": (
            f"a gradient of norm {first.norm:.4g} is not clipped to {limit:.4g}",
            (None,),
        ),
        **{
            CLIPS.get(kind, f"without {CLIPS.get(right.kind)}"): (
                said.format(f"{limit:.4g}"),
                tuple(Way(kind, right.to, epsilon) for epsilon in EPSILONS),
            )
            for kind, said in SAID.items()
            if kind != right.kind
        },
    }
    same = [
        name
        for name, (_, each) in ways.items()
        if any(all(clip.taken(way) for clip in clips) for way in each)
    ]
    if same:
        others = f"; {' or '.join(same[1:])} would do the same here" if same[1:] else ""
        yield replace(found(same[0], ways[same[0]][0] + others), others=tuple(same[1:]))
    elif own is not None and own.kind == right.kind and own.to.equals(right.to):
        small = max(each.epsilon for each in (own, right))
        yield found("clip-epsilon", SMALL.format(small), policy=True)
    elif right.kind == "together" and (scale := clips_scaled(theirs, clips, limit)) is not None:
        said = (
            f"gradients are clipped to {limit:.4g} while a loss scaler has multiplied them, by"
            f" {scale:g} in update {first.update}: call scaler.unscale_(optimizer) before"
        )
        yield found("clip-scaled-grads", said)
    elif own is not None and own.kind != "unknown":
        if own.kind != right.kind:
            name = CLIPS.get(own.kind, f"without {CLIPS.get(right.kind)}")
            yield found(name, SAID[own.kind].format(own.to))
        yield found(f"clips to {own.to}", f"a gradient is clipped to {own.to}, not {right.to}")
    elif (how := changed(clips)) is not None:
        yield found(*how)
    elif (own_parts := in_parts(clips)) is not None:
        yield found(PARTS, own_parts)
    else:
        said = f"a gradient of norm {first.norm:.4g} is clipped in no known way"
        yield found("clips in another way", said)


def clips_scaled(run: Identified, clips: Sequence[Clip], limit: float) -> float | None:
    """What a loss scaler had multiplied gradients with when they were clipped, in the first update.

    None where that does not explain all of them.
    """
    scales = [run.steps.trace.updates[clip.update - 1].scale("accumulated") for clip in clips]
    every = zip(clips, scales, strict=True)
    scaled = all(
        any(clip.taken(Way("together", Number(limit / s, 0.0), e / s)) for e in EPSILONS)
        for clip, s in every
    )
    return scales[0] if scaled and any(scale != 1.0 for scale in scales) else None


def changed(clips: Sequence[Clip]) -> tuple[str, str] | None:
    """How gradients are changed by what is no clip: that makes no number larger. None if it may."""
    every = [(n, f.coefficients[0]) for c in clips for n, f in c.factors.items() if f.exact]
    emptied = sorted({name for name, factor in every if factor.value == 0.0})
    if emptied and all(factor.value == 0.0 or factor.equals(1.0) for _, factor in every):
        return MASKED, f"the gradients of {listed(emptied)} are emptied before the rule gets them"
    if all(each.shrinks for each in clips):
        return None
    known = [each.factor for each in clips if each.factor is not None]
    if len(known) == len(clips):
        times = agreed(known)
        norms = ([to for each in clips if (to := each.threshold(e))] for e in EPSILONS)
        to = next(filter(None, map(agreed, norms)), None)
        how = f"scaled to a norm of {to}, whatever it was" if times is None and to else "scaled"
        said = f"{times} times what was accumulated" if times else f"{how}, and not clipped"
        return "gradient scaled", f"the gradient that the rule gets is {said}"
    first = next(each for each in clips if each.factor is None)
    rest = {name: each.relative for name, each in first.factors.items() if not each.exact}
    if not rest:
        return "gradient scaled", "each tensor's gradient is scaled by a number of its own, above 1"
    worst = max(rest, key=rest.__getitem__)
    said = (
        "the gradient that the rule gets is no multiple of what was accumulated, in"
        f" {len(rest)} of {len(first.factors)} tensors: {rest[worst]:.1g} of {worst} is something"
        " else"
    )
    return "gradient changed", said


def masked_findings(mine: Identified, theirs: Identified, matching: Matching) -> Iterator[Finding]:
    """What one of the runs empties in its gradients before the rule gets them."""
    known = [
        {name: (update, mask) for (update, name), mask in sorted(run.masks.items(), reverse=True)}
        for run in (mine, theirs)
    ]
    right = {other for name in known[0] for other in matching.matches[name].others}
    own = {name: each for name, each in known[1].items() if name not in right}
    without = {
        name: each
        for name, each in known[0].items()
        if not {*matching.matches[name].others} & known[1].keys()
    }
    for masks in (own, without):
        if masks:
            said = masked_words({name: mask for name, (_, mask) in masks.items()})
            called = (MASKED, f"before the update, {said}")
            name, said = called if masks is own else turned(*called)
            first = min(update for update, _ in masks.values())
            yield Finding(name, "clip", said, first, tuple(masks), "clipped")


def frozen_findings(mine: Identified, theirs: Identified) -> Iterator[Finding]:
    """That the gradients of frozen tensors are in the norm by which one of the runs clips."""
    right, own = counts_frozen(mine), counts_frozen(theirs)
    if bool(right) != bool(own):
        said = (
            f"gradients of frozen tensors are in the norm that is clipped: {listed(right or own)}"
        )
        name = "clip-counts-frozen"
        name, said = (name, said) if own else turned(name, said)
        yield Finding(name, "clip", said, 1, tuple(right or own), "clipped")


def counts_frozen(run: Identified) -> list[str]:
    """The frozen tensors whose gradients must be in the norm by which a run clips."""
    way, clips = way_of(run), clips_of(run)
    frozen = run.steps.left_alone
    if way is None or way.kind != "together" or not frozen:
        return []
    less = way_in(clips_without(run, frozen))
    alike = less is not None and less.kind == "together"
    return [] if alike else sorted(frozen & clips[0].norms.keys())


def by_hand_findings(mine: Identified, theirs: Identified) -> list[Finding] | None:
    """What is different where a run clips its sums before they are seen; None where none does.

    The other one may clip behind that, where it is seen.
    """
    sums, ways = [limit_of_sums(mine), limit_of_sums(theirs)], [way_of(mine), way_of(theirs)]
    if sums == [None, None] or any(s and w for s, w in zip(sums, ways, strict=True)):
        return None  # what is clipped twice is told by what is seen
    if not all(known or clips_of(run) for known, run in zip(sums, (mine, theirs), strict=True)):
        return None  # what the other one clips is not seen
    for way, less in zip(ways, ("without ", ""), strict=True):
        if way is not None and way.kind != "together":
            name = f"{less}{CLIPS[way.kind]}" if way.kind in CLIPS else "clips in another way"
            said = SAID.get(way.kind, "a gradient is clipped in no known way").format(way.to)
            which = "in the first run, " if less else ""
            return [Finding(name, "clip", f"{which}{said}", 1, phase="accumulated")]
    right, own = (s or (w.to if w else None) for s, w in zip(sums, ways, strict=True))
    if right is not None and own is not None and right.equals(own):
        return []
    name = "clip-ignored" if own is None else "clips" if right is None else f"clips to {own}"
    which, limit = ("", own) if sums[1] is not None else ("in the first run, ", right)
    said = f"{which}the sums of several updates have a norm of {limit}, and none more"
    return [Finding(name, "clip", said, 1, phase="accumulated")]


def limit_of_sums(run: Identified) -> Number | None:
    """The norm that several of a run's sums have, which are others, if none has more."""
    every = [each for each in run.norms.values() if each]
    limit = max(map(norm_of, every), default=0.0)
    at = [each for each in every if at_limit(each, limit)]
    several = any(
        abs(each.get(name, 0.0) - norm) > NEAR * limit
        for each in at[1:]
        for name, norm in at[0].items()
    )
    return Number(limit, NEAR * limit) if several else None


def at_limit(norms: Mapping[str, float], limit: float) -> bool:
    """Whether a sum of these norms, by tensor, may have been clipped to a limit."""
    return norm_of(norms) > (1 - NEAR) * limit


def cut_sums(*runs: Identified) -> dict[int, bool]:
    """The updates before whose sum is seen it was clipped, in any of some runs.

    Whether each run that clips did so there: a factor that all of a sum has is then hidden, too.
    """
    hidden = [limit_of_sums(run) for run in runs]
    limits = [h or (way.to if (way := way_of(run)) else None)
              for run, h in zip(runs, hidden, strict=True)]  # fmt: skip
    cut = [
        {n for n, each in run.norms.items() if limit is None or at_limit(each, limit.value)}
        for run, limit in zip(runs, limits, strict=True)
    ]
    some = [each for each, limit in zip(cut, hidden, strict=True) if limit is not None]
    return {update: all(update in each for each in cut) for update in set().union(*some)}


def update_finding(
    mine: Identified,
    theirs: Identified,
    expected: Mapping[int, Number],
    rates: Mapping[int, Number],
) -> Finding | None:
    """That one of the runs clips its updates, as a clip does that stands behind the rule."""
    ways = (update_limit(theirs, rates, expected), update_limit(mine, expected, rates))
    for number, first in zip(ways, (False, True), strict=True):
        if number is not None:
            said = f"updates have a norm of {number}, and none more: they are clipped themselves"
            name, said = turned("update-clipped", said) if first else ("update-clipped", said)
            return Finding(name, "rate", said, min(rates), phase="after")
    return None


def update_limit(
    run: Identified, rates: Mapping[int, Number], expected: Mapping[int, Number]
) -> Number | None:
    """The norm that a run's updates have at most, where that is why its rates are less.

    None where it is not so, or of one update alone.
    """
    norms = {
        update.number: norm
        for update in run.steps.trace.updates
        if update.number in rates.keys() & expected.keys()
        and (norm := change_of(update, run.steps.trace.parameters)) is not None
    }
    less = [n for n in norms if not rates[n].equals(expected[n])]
    limit = max((norms[number] for number in less), default=0.0)
    alike = all(norms[n] > (1 - NEAR) * limit and rates[n].value < expected[n].value for n in less)
    others = all(norms[n] <= (1 + NEAR) * limit for n in norms)
    return Number(limit, NEAR * limit) if len(less) > 1 and alike and others else None


def change_of(update: Update, names: Sequence[str]) -> float | None:
    """The norm of what an update changed; None where that is not known of all parameters."""
    total = 0.0
    for name in names:
        before, after = stored(update, "before", name), stored(update, "after", name)
        if before is None or after is None or f"after|{name}" in update.facts["sizes"]:
            return None
        total += products(Both(before, after)).apart
    return math.sqrt(total)


def emptied_findings(run: Identified) -> Iterator[Finding]:
    """That the rule of a run gets nothing of its gradients."""
    way, clips = way_of(run), clips_of(run)
    if way is not None and way.kind == "emptied":
        first = clips[0]
        name, said = CLIPS["emptied"], SAID["emptied"]
        yield Finding(name, "clip", said, first.update, tuple(first.factors), "clipped")


# How near norms are that are one threshold: a clip may add one of EPSILONS to each, and rounds.
NEAR = 1e-5

# What the catalogue calls clipping that is not of all tensors together, and what each does.
CLIPS = {
    "alone": "clip-per-tensor", "by value": "clip-by-value", "emptied": "zero-before-update",
}  # fmt: skip
SAID = {
    "together": "all tensors are clipped to {} together",
    "alone": "each tensor is clipped to {} on its own, not all together",
    "by value": "no number of the gradient is above {}: each is clipped on its own",
    "emptied": "the gradient is emptied before the rule gets it",
}


# What it is called that tensors are clipped by several norms.
PARTS = "clip-in-parts"


@dataclass(frozen=True)
class Part:
    """Tensors that are clipped by a norm of their own, to a limit; None where they never are."""

    names: tuple[str, ...]
    limit: Number | None
    epsilon: float = 0.0

    def factor(self, norms: Mapping[str, float]) -> Number:
        """What gradients of these norms are multiplied with."""
        if self.limit is None:
            return NOTHING
        norm = norm_of({name: norms.get(name, 0.0) for name in self.names})
        return Way("together", self.limit, self.epsilon).factor(norm)


def parts_of(clips: Sequence[Clip]) -> list[Part] | None:
    """The parts in which tensors are clipped, as by two optimizers; None where they are not.

    What is multiplied alike in all updates is one part.
    """
    parts: list[list[str]] = []
    names = sorted({name for clip in clips for name in clip.factors})
    for name in names:
        part = next((part for part in parts if multiplied_alike(clips, name, part[0])), None)
        if part is None:
            parts.append([name])
        else:
            part.append(name)
    if not 1 < len(parts) < len(names):
        return None
    if not all(fitted.exact for clip in clips for fitted in clip.factors.values()):
        return None
    found = [part_of(clips, part) for part in parts]
    known = [part for part in found if part is not None]
    clipped = [part.limit for part in known if part.limit is not None]
    return known if len(known) == len(found) and clipped and agreed(clipped) else None


def part_of(clips: Sequence[Clip], names: Sequence[str]) -> Part | None:
    """What is clipped of some tensors together; None where no limit explains that."""
    every = []
    for clip in clips:
        fits = [clip.factors[name] for name in names if name in clip.factors]
        factor = agreed([each.coefficients[0] for each in fits])
        if factor is not None:
            norm = norm_of({name: clip.norms.get(name, 0.0) for name in names})
            every.append((factor, norm, clip.rounding))
    acts = [each for each in every if not each[0].equals(1.0)]
    if not acts:
        return Part(tuple(names), None)
    for epsilon in EPSILONS:
        to = agreed([
            Number(factor.value * (norm + epsilon), (factor.error + rounding) * (norm + epsilon))
            for factor, norm, rounding in acts
        ])  # fmt: skip
        if to is not None:
            return Part(tuple(names), to, epsilon)
    return None


def taken_in_parts(clips: Sequence[Clip], parts: Sequence[Part]) -> bool:
    """Whether clipping in these parts explains all updates."""

    def taken(clip: Clip) -> bool:
        factors = {name: part.factor(clip.norms) for part in parts for name in part.names}
        return clip.explained(lambda name: factors.get(name, NOTHING))

    return all(map(taken, clips))


def explained_by(clips: Sequence[Clip], parts: Sequence[Part]) -> float | None:
    """What is added to the norms of these parts if they explain all updates, as it is at best."""
    usual = {part.epsilon for part in parts if part.limit is not None}
    return next(
        (
            epsilon
            for epsilon in sorted(EPSILONS, key=lambda each: each not in usual)
            if taken_in_parts(clips, [replace(part, epsilon=epsilon) for part in parts])
        ),
        None,
    )


def in_parts(clips: Sequence[Clip]) -> str | None:
    """That tensors are clipped to one norm in several parts, or some of them alone; or None."""
    parts = parts_of(clips)
    if parts is None:
        return None
    acting = [part for part in parts if part.limit is not None]
    each = "; ".join(listed(part.names, 2) for part in acting[:3])
    if len(acting) == 1:
        return f"some tensors alone are clipped to {acting[0].limit}: {each}"
    more = f"; and {len(acting) - 3} more" if len(acting) > 3 else ""
    return (
        f"tensors are clipped to {acting[0].limit} in {len(acting)} parts, not all together:"
        f" {each}{more}"
    )


def multiplied_alike(clips: Sequence[Clip], one: str, other: str) -> bool:
    """Whether two tensors have one factor in each update that shows both."""
    both = [clip.factors for clip in clips if {one, other} <= clip.factors.keys()]
    pairs = [(each[one].coefficients[0], each[other].coefficients[0]) for each in both]
    return bool(pairs) and all(first.equals(second) for first, second in pairs)


def alike(clips: Sequence[Clip], others: Sequence[Clip]) -> bool:
    """Whether two runs multiply gradients of one norm with the same factor, where they have any."""
    pairs = [(a, b) for a, b in zip(clips, others, strict=False) if a.update == b.update]
    off = [(a, b, abs(1 - b.norm / a.norm) + a.rounding + b.rounding) for a, b in pairs if a.norm]
    near = [(a.ratio, b.ratio, each) for a, b, each in off if each < KNOWN]
    return bool(near) and all(abs(one - two) <= 2 * each * one for one, two, each in near)


@dataclass(frozen=True, eq=False)
class Clip:
    """What clipping did in an update.

    factors: by tensor, what its gradient was multiplied with; norms: by tensor, before; longest: of
    how many numbers the largest tensor is.
    """

    update: int
    factors: Mapping[str, Fit]
    norms: Mapping[str, float]
    steps: Mapping[str, Step]
    longest: int

    @property
    def norm(self) -> float:
        """The global norm before."""
        return norm_of(self.norms)

    def taken(self, way: Way | None) -> bool:
        """Whether a way of clipping, or none, does this."""
        if way is None:
            return self.explained(lambda _: NOTHING)
        if way.kind == "together":
            return self.explained(lambda _: way.factor(self.norm))
        if way.kind == "alone":
            norms = self.norms
            return self.explained(
                lambda name: way.factor(norms[name]) if name in norms else NOTHING
            )
        if way.kind == "emptied":
            return self.ratio == 0.0
        return way.kind == "by value" and self.by_value(way.to)

    @property
    def ratio(self) -> float:
        """What the norm is afterwards, of what it was; by the factors where it is not shown."""
        if not any(step.clipped is not None for step in self.steps.values()):
            left = {n: f.coefficients[0].value * self.norms[n] for n, f in self.known.items()}
            return norm_of({**self.norms, **left}) / self.norm if self.norm else 1.0
        before, after = (
            math.sqrt(sum(float((each**2).sum()) for each in arrays if each is not None))
            for arrays in (
                [step.accumulated for step in self.steps.values()],
                [step.clipped for step in self.steps.values()],
            )
        )
        return after / before if before else 1.0

    @property
    def known(self) -> Mapping[str, Fit]:
        """The factors of what there is a norm of."""
        return {name: each for name, each in self.factors.items() if name in self.norms}

    @cached_property
    def factor(self) -> Number | None:
        """What all tensors were multiplied with, if that is one number."""
        if not all(fitted.exact for fitted in self.factors.values()):
            return None
        return agreed([fitted.coefficients[0] for fitted in self.factors.values()])

    @cached_property
    def shrinks(self) -> bool:
        """Whether no number of a gradient becomes larger, or another one's opposite."""
        for name, fitted in self.factors.items():
            step, factor = self.steps[name], fitted.coefficients[0]
            if step.accumulated is None or step.clipped is None:
                if fitted.exact and factor.value > 1.0 + factor.error + self.rounding:
                    return False
                continue
            left, bound = step.clipped * np.sign(step.accumulated), summed(step)
            if (left < -bound).any() or (left > abs(step.accumulated) + bound).any():
                return False
        return True

    def may_be(self, other: Clip) -> bool:
        """Whether both multiplied all tensors with one number, as far as is known."""
        return bool(self.factor and other.factor and self.factor.equals(other.factor))

    def threshold(self, epsilon: float) -> Number | None:
        """To which norm all tensors were clipped together, if they were."""
        if self.factor is None:
            return None
        norm = self.norm + epsilon
        # The norm that the run itself took was rounded.
        return Number(self.factor.value * norm, (self.factor.error + self.rounding) * norm)

    def thresholds(self, epsilon: float) -> list[Number]:
        """To which norm each tensor that was clipped was clipped."""
        return [
            Number(factor.value * norm, (factor.error + self.rounding) * norm)
            for name, fitted in self.factors.items()
            for factor in fitted.coefficients[:1]
            if fitted.exact and name in self.norms and not factor.equals(1.0)
            for norm in [self.norms[name] + epsilon]
        ]

    @cached_property
    def rounding(self) -> float:
        """What the norm of a gradient may be off by, relatively: a sum is in float32 at least."""
        each = max(unit(step.dtype) for step in self.steps.values())
        return max(SUMMED * each, self.longest / IN_A_ROW * min(each, unit("float32")))

    def explained(self, factor: Callable[[str], Number]) -> bool:
        """Whether each tensor was multiplied with its factor."""
        for name, fitted in self.factors.items():
            right = factor(name)
            error = right.error + self.rounding * right.value
            if not fitted.exact or not fitted.coefficients[0].equals(Number(right.value, error)):
                return False
        return True

    def by_value(self, limit: Number) -> bool:
        """Whether each number was clipped on its own."""
        for name in self.factors:
            step = self.steps[name]
            if step.accumulated is None or step.clipped is None:
                return False
            right = np.clip(step.accumulated, -limit.value, limit.value)
            relative = limit.error / limit.value if limit.value else 0.0
            bound = summed(step) + relative * abs(right)
            if (abs(step.clipped - right) > bound).any():
                return False
        return True


def clipped_within(run: Identified, number: int, limit: float) -> dict[str, list[float]]:
    """With what weights micro-batches enter if each is clipped, or all so far, by their names.

    Empty where the whole gradients were not kept, or none was shown.
    """
    update = run.steps.trace.updates[number - 1]
    gradients = []
    for index in range(update.micro_batches):
        names = update.phases[f"gradient.{index}"]
        each = [update.array(f"gradient.{index}", name, whole=True) for name in names]
        known = [array.ravel() for array in each if array is not None]
        if len(known) < len(names):
            return {}
        gradients.append(np.concatenate(known))
    if not gradients:
        return {}
    total, weights = np.zeros_like(gradients[0]), list[float]()
    for gradient in gradients:
        factor = min(1.0, limit / max(float(np.linalg.norm(total)), limit))
        total, weights = total * factor + gradient, [each * factor for each in weights] + [1.0]
    alone = [min(1.0, limit / (float(np.linalg.norm(each)) or limit)) for each in gradients]
    return {"clip-per-microbatch": weights, "clip-each-microgradient": alone}


def clips_of(run: Identified) -> list[Clip]:
    """What clipping did in each update of which it was recorded.

    Gradients of frozen tensors are in the norm, unless all is clipped together without these.
    """
    clips = clips_without(run, frozenset())
    if run.steps.left_alone and (one := way_in(clips)) is not None:
        others = clips_without(run, run.steps.left_alone)
        other = way_in(others)
        if other is not None and other.kind == "together":
            fewer = other.to.digits < one.to.digits
            return others if fewer or one.kind != "together" else clips
    return clips


def clips_without(run: Identified, names: Collection[str]) -> list[Clip]:
    """What clipping did, if the gradients of some tensors are not in the norm."""
    found, every = [], nested(run.factors)
    shapes = (each["shape"] for each in run.steps.trace.facts["parameters"])
    longest = max(map(math.prod, shapes), default=1)
    for update in run.steps.numbers:
        factors = {
            name: fitted
            for name, fitted in every.get(update, {}).items()
            if fitted.coefficients[0].error < SHOWN * max(1.0, abs(fitted.coefficients[0].value))
        }
        norms = {n: norm for n, norm in run.norms.get(update, {}).items() if n not in names}
        if factors and norms:
            found.append(Clip(update, factors, norms, run.steps.at(update), longest))
    return found


@dataclass(frozen=True)
class Way:
    """How a run clips: the factor is to / (norm + epsilon), 1 where that is more.

    kind: whether the norm is that of all tensors together, or of each alone; or whether each number
    is clipped, by value; or nothing is left, "emptied"; or "unknown".
    """

    kind: str
    to: Number
    epsilon: float = 0.0

    def factor(self, norm: float) -> Number:
        """What a gradient of this norm is multiplied with."""
        if not norm + self.epsilon or norm + self.epsilon <= self.to.value:
            return NOTHING
        return self.to.over(Number(norm + self.epsilon, 0.0))


def way_of(run: Identified) -> Way | None:
    """How a run clips; None if it never did."""
    return way_in(clips_of(run))


def way_in(every: Sequence[Clip]) -> Way | None:
    """The way in which all updates were clipped; None if none was."""
    clips = [each for each in every if not each.taken(None)]
    if not clips:
        return None
    if not any(each.ratio for each in every):
        return Way("emptied", Number(0.0, 0.0))
    found = []
    for epsilon in EPSILONS:
        together = [clip.threshold(epsilon) for clip in clips]
        to = agreed([number for number in together if number is not None])
        if to is not None and None not in together:
            found.append(Way("together", to, epsilon))
    for epsilon in EPSILONS:
        to = agreed([number for clip in clips for number in clip.thresholds(epsilon)])
        if to is not None and not found:
            found.append(Way("alone", to, epsilon))
    largest = [
        abs(step.clipped).max()
        for each in clips
        for step in each.steps.values()
        if step.clipped is not None and step.clipped.size
    ]
    if largest:
        found.append(Way("by value", Number(float(max(largest)), 0.0)))
    # One update alone tells no epsilon: a limit that somebody typed has few digits.
    found = [way for way in found if all(each.taken(way) for each in every)]
    unknown = Way("unknown", Number(math.nan, math.inf))
    return min(found, key=lambda way: (list(SAID).index(way.kind), way.to.digits), default=unknown)


def with_clip(run: Identified, rates: Mapping[int, Number]) -> Identified:
    """A run of which no clipping was shown, with what clipping must have done at some rates.

    Where that is no clipping to one norm, its rates are other ones.
    """
    if run.factors or run.steps.shows_clipped:
        return run
    found = replace(run, rates=rates)
    way = way_of(found)
    # One update alone is a clip to some norm at any rate.
    several = len(clips_of(found)) > 1 and way is not None and way.kind == "together"
    return found if several or way is None else run
