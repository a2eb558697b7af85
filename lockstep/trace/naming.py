"""The names of what two runs do differently after their gradients.

What was identified of each run is compared, stage by stage; where the catalogue has a form of a
stage, its own formula says which numbers it would give, and a name is given only if they are these.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property

import numpy as np

from lockstep.diagnosis.forms import Form, forms_of
from lockstep.mistakes import names
from lockstep.oracle.loop import STAGES, Stages
from lockstep.problem import Optimizer
from lockstep.trace.findings import Finding
from lockstep.trace.gradients import Pair
from lockstep.trace.identify import (
    FIRST,
    NOTHING,
    SECOND,
    SUMMED,
    Average,
    Identified,
    Move,
    move_by,
    moves,
    norm_of,
    setting,
)
from lockstep.trace.matching import Matching
from lockstep.trace.numbers import Fit, Number, agreed, unit, worded
from lockstep.trace.steps import Step

# The stages of the loop that a form of the rule replaces; all other stages are looked at before.
OF_THE_RULE = {"constants", "rule", "settings"}
# What is added to a norm before something is divided by it: torch.nn.utils.clip_grad_norm_ does.
EPSILONS = (0.0, 1e-6)


def listed(names: Sequence[str], most: int = 3) -> str:
    """Some names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def skip_findings(mine: Identified, theirs: Identified) -> Iterator[Finding]:
    """A window that one of the runs takes no step for."""
    for update in sorted(mine.left_out.keys() & theirs.left_out.keys()):
        more = theirs.left_out[update] - mine.left_out[update]
        if more:
            run, which = (theirs, "") if more > 0 else (mine, "the first run left out, ")
            why = (
                ", as a loss scaler does after a gradient that is not finite"
                if any(each.facts.get("skipped") for each in run.steps.trace.updates)
                else ""
            )
            windows = "a window" if abs(more) == 1 else f"{abs(more)} windows"
            said = f"before update {update} {which or 'it left out '}{windows}{why}"
            yield Finding("windows left out", "window", said, update, phase="accumulated")
            return


def window_findings(
    pairs: Sequence[Pair], theirs: Identified, mine: Identified | None = None
) -> Iterator[Finding]:
    """What the weights of the micro-batches say, of the first window that shows it.

    mine: the first run, whose windows may be the ones that are not whole.
    """
    own, right = emptied(theirs), emptied(mine) if mine else {}
    whole = max((count for _, count in theirs.window.values()), default=1)
    for update in dict.fromkeys(pair.update for pair in pairs):
        each = [pair for pair in pairs if pair.update == update]
        if update in theirs.window and not theirs.window[update][0].exact:
            continue  # what else is in the accumulator is said below
        values = [pair.coefficient for pair in each]
        if all(value.equals(1.0) for value in values):
            continue
        if update in own.keys() | right.keys():
            break  # it is no rule of the loop: said below
        if any(math.isinf(value.value) for value in values):
            name, said = window_name([inverse(value) for value in values])
            name, said = turned(name, said)
        else:
            name, said = window_name(values, whole)
            if name in UNNAMED and all(value.value for value in values):
                other, of_first = window_name([inverse(value) for value in values], whole)
                name, said = (name, said) if other in UNNAMED else turned(other, of_first)
        yield Finding(name, "window", said, update, phase="gradient")
        break
    for found in (emptied, again):
        own, right = found(theirs), found(mine) if mine else {}
        for update in sorted(own.keys() ^ right.keys()):
            name, said = own[update] if update in own else turned(*right[update])
            yield Finding(name, "window", said, update, phase="accumulated")
            break


def turned(name: str, said: str) -> tuple[str, str]:
    """What the first run does, and the second does not."""
    return f"without {name}", f"in the first run, and not in this one, {said}"


def inverse(number: Number) -> Number:
    """The weight the other way round, 0 for what is all that there is."""
    return Number(0.0, 0.0) if math.isinf(number.value) else NOTHING.over(number)


def emptied(run: Identified) -> dict[int, tuple[str, str]]:
    """By update, in which the accumulator was emptied, unless all are so: a name, what to say."""
    lost = {
        update: lost
        for update, lost in run.lost.items()
        if lost and run.left_out[update] == run.left_out.get(update - 1, 0)
    }
    several = [update for update, (_, count) in run.window.items() if count > 1]
    if len(lost) >= len(several):
        return {}
    return {
        update: (
            "micro-batches left out",
            f"the accumulator was emptied within update {update}, after micro-batch {count} of"
            f" {run.window[update][1]}, as a validation that resets gradients does, or a run"
            " that is resumed there",
        )
        for update, count in lost.items()
    }


def again(run: Identified) -> dict[int, tuple[str, str]]:
    """By update, which micro-batches of the window before enter it again: a name, what to say."""
    found = {}
    for update, (fitted, count) in run.window.items():
        weights, before = fitted.coefficients[:count], fitted.coefficients[count:]
        more = [n.value for n in before if math.isfinite(n.error) and not n.equals(0.0)]
        if fitted.exact and more:
            each_again = ", ".join(worded(each) for each in more)
            said = (
                f"{len(more)} of the {len(before)} micro-batches of update {update - 1} enter"
                f" update {update} again, with weight {each_again} where its own"
                f" have {worded(weights[0].value)}"
            )
            name = "missing-zero-grad" if 2 * len(more) >= len(before) else "leftover-leaks"
            found[update] = name, said
    return found


# What weights are called that are none of the known ones.
UNNAMED = {"other weights", "another factor"}


def window_name(values: Sequence[Number], whole: int = 1) -> tuple[str, str]:
    """The name of a window's coefficients, which are not all 1, and what to say of them.

    whole: how many micro-batches a window has that is not the last of an epoch.
    """
    count = len(values)
    weights = ", ".join(worded(each.value) for each in values)
    said = f"the weights of its micro-batches, beside the right ones, are {weights}"
    none = [index + 1 for index, each in enumerate(values) if each.value == 0.0]
    some = [each for each in values if each.value != 0.0]
    if not some:
        return "never-updates", f"none of its {count} micro-batches enters the update"
    if none and all(each.equals(1.0) for each in some):
        which = ", ".join(map(str, none))
        if len(some) == 1 and values[-1].value:
            return "zero-per-microbatch", "the last micro-batch of a window alone enters the update"
        return "micro-batches left out", f"micro-batch {which} of {count} enters no update"
    first = some[0]
    if all(each.equals(first) for each in some) and not none:
        factor = first.value
        for name, right in (("no-divide", float(count)), ("divide-twice", 1 / count)):
            if count > 1 and abs(factor / right - 1) <= first.error / right:
                return (
                    name,
                    f"the gradient is {worded(factor)} times the right one, with K = {count}",
                )
        if count < whole and first.equals(count / whole):
            said = f"a window of {count} of {whole} micro-batches is divided by {whole}"
            return "leftover-divided-by-k", said
        if first.equals(-1.0):
            return "sign-flipped", "the gradient has the other sign"
        return (
            "another factor",
            f"the gradient is {worded(factor, first.error)} times the right one",
        )
    if not none:
        total = sum(1 / each.value for each in values)
        error = sum(each.error / each.value**2 for each in values)
        # Of a micro-batch of n of N examples, a mean of means makes N / (K n).
        if abs(total - count) <= error:
            return "mean-of-means", f"{said}: each micro-batch counts alike, whatever its size"
        if abs(total - 1) <= error:
            return "no-divide", f"{said}: the micro-batches' means are summed"
    return "other weights", said


def clip_findings(mine: Identified, theirs: Identified) -> Iterator[Finding]:
    """What clipping did otherwise: the way that explains all updates, of those that are known."""
    right, own, clips = way_of(mine), way_of(theirs), clips_of(theirs)
    wrong = [each for each in clips if not each.taken(right)]
    if not wrong or not mine.factors:
        return
    first = wrong[0]

    def found(name: str, said: str, policy: bool = False) -> Finding:
        return Finding(name, "clip", said, first.update, tuple(first.factors), "clipped", policy)

    if right is None:
        yield found(
            "clips", f"it clips a gradient of norm {first.norm:.4g}, the other run does not"
        )
        return
    if right.kind == "unknown":
        if not alike(clips_of(mine), clips):
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
        said = (
            f"the norm has {small:g} added to it before the division in one run, and not in the"
            " other: a policy of torch.nn.utils.clip_grad_norm_"
        )
        yield found("clip-epsilon", said, policy=True)
    elif own is not None and own.kind != "unknown":
        if own.kind != right.kind:
            name = CLIPS.get(own.kind, f"without {CLIPS.get(right.kind)}")
            yield found(name, SAID[own.kind].format(own.to))
        yield found(f"clips to {own.to}", f"a gradient is clipped to {own.to}, not {right.to}")
    else:
        said = f"a gradient of norm {first.norm:.4g} is clipped in no known way"
        yield found("clips in another way", said)


# What the catalogue calls clipping that is not of all tensors together, and what each does.
CLIPS = {"alone": "clip-per-tensor", "by value": "clip-by-value"}
SAID = {
    "together": "all tensors are clipped to {} together",
    "alone": "each tensor is clipped to {} on its own, not all together",
    "by value": "no number of the gradient is above {}: each is clipped on its own",
}


def alike(clips: Sequence[Clip], others: Sequence[Clip]) -> bool:
    """Whether two runs multiply gradients of one norm with the same factor, where they have any."""
    pairs = [(a, b) for a, b in zip(clips, others, strict=False) if a.update == b.update]
    off = [(a, b, abs(1 - b.norm / a.norm) + a.rounding + b.rounding) for a, b in pairs if a.norm]
    near = [(a.ratio, b.ratio, each) for a, b, each in off if each < KNOWN]
    return bool(near) and all(abs(one - two) <= 2 * each * one for one, two, each in near)


@dataclass(frozen=True, eq=False)
class Clip:
    """What clipping did in an update.

    factors: by tensor, what its gradient was multiplied with; norms: by tensor, before.
    """

    update: int
    factors: Mapping[str, Fit]
    norms: Mapping[str, float]
    steps: Mapping[str, Step]

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
        return way.kind == "by value" and self.by_value(way.to)

    @property
    def ratio(self) -> float:
        """What the norm is afterwards, of what it was."""
        norms = [
            math.sqrt(sum(float((each**2).sum()) for each in arrays if each is not None))
            for arrays in zip(
                *((s.clipped, s.accumulated) for s in self.steps.values()), strict=True
            )
        ]
        return norms[0] / norms[1] if norms[1] else 1.0

    @cached_property
    def factor(self) -> Number | None:
        """What all tensors were multiplied with, if that is one number."""
        if not all(fitted.exact for fitted in self.factors.values()):
            return None
        return agreed([fitted.coefficients[0] for fitted in self.factors.values()])

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

    @property
    def rounding(self) -> float:
        """What the norm of a gradient may be off by, relatively."""
        return SUMMED * max(unit(step.dtype) for step in self.steps.values())

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
            slack = self.rounding + limit.error / limit.value
            summed = self.rounding * float(abs(step.clipped).mean())
            if not np.allclose(step.clipped, right, rtol=slack, atol=summed):
                return False
        return True


def clips_of(run: Identified) -> list[Clip]:
    """What clipping did in each update of which it was recorded."""
    found = []
    for update in run.steps.numbers:
        factors = {
            name: fitted
            for (number, name), fitted in run.factors.items()
            if number == update and np.isfinite(fitted.coefficients[0].error)
        }
        if factors and run.norms.get(update):
            found.append(Clip(update, factors, run.norms[update], run.steps.at(update)))
    return found


@dataclass(frozen=True)
class Way:
    """How a run clips: the factor is to / (norm + epsilon), 1 where that is more.

    kind: whether the norm is that of all tensors together, or of each alone; or whether each number
    is clipped, by value; or "unknown".
    """

    kind: str
    to: Number
    epsilon: float = 0.0

    def factor(self, norm: float) -> Number:
        """What a gradient of this norm is multiplied with."""
        factor = self.to.over(Number(norm + self.epsilon, 0.0))
        return factor if factor.value < 1 else NOTHING


def way_of(run: Identified) -> Way | None:
    """How a run clips; None if it never did."""
    every = clips_of(run)
    clips = [each for each in every if not each.taken(None)]
    if not clips:
        return None
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


def threshold_of(run: Identified) -> Way | None:
    """The norm to which a run clipped all tensors together; None if it never did, or not so."""
    way = way_of(run)
    return way if way is not None and way.kind == "together" else None


# Up to what relative error a rate is one that can be compared.
KNOWN = 0.1


@dataclass(frozen=True, eq=False)
class Rule:
    """A rule that takes a run's updates: a form of the catalogue, or none, and its settings.

    moves: by update and tensor; rates: by update, the one of all tensors; tensors: those that the
    form is of, all where none is named.
    """

    form: Form | None
    optimizer: Optimizer
    moves: Mapping[int, Mapping[str, Move]]
    tensors: tuple[str, ...] = ()

    @property
    def steps(self) -> list[Step]:
        """The updates' steps."""
        return [move.step for each in self.moves.values() for move in each.values()]

    @property
    def exact(self) -> bool:
        """Whether it takes every update, within rounding."""
        every = [move for each in self.moves.values() for move in each.values()]
        return bool(every) and all(move.fit.exact for move in every)

    @property
    def off(self) -> list[Move]:
        """The moves that it does not explain."""
        return [m for each in self.moves.values() for m in each.values() if not m.fit.exact]

    @cached_property
    def rates(self) -> dict[int, Number]:
        """The rate of each update, where its tensors agree on one that is known."""
        found = {}
        for update, each in self.moves.items():
            known = [move.rate for move in each.values() if move.fit.exact]
            common = agreed(known)
            if common is not None and common.error < KNOWN * abs(common.value):
                found[update] = common
        return found


def ruled(run: Identified, stages: Stages, optimizer: Optimizer, form: Form | None = None) -> Rule:
    """The updates of a run as a rule takes them."""
    return Rule(form, optimizer, moves(run, run.gradients, stages, optimizer))


def rule_of(run: Identified, expected: Mapping[int, Number], accumulation_steps: int) -> Rule:
    """The rule that takes a run's updates, with the fewest differences from the right one.

    expected: the rates that its updates should have.
    """
    right = ruled(run, STAGES, run.optimizer)
    ways = [(deviations(right, expected, accumulation_steps), 0, right)]
    if ways[0][0] <= 1:
        # No form of the catalogue can leave fewer differences than one.
        return right
    if run.steps.family == "sgd" and "momentum_buffer" in run.steps.slots:
        # Of what a state shows, momentum with and without Nesterov's step are one.
        other = replace(run.optimizer, nesterov=not run.optimizer.nesterov)
        turned = ruled(run, STAGES, other)
        if turned.exact:
            return turned
    hardest = hard(right)
    for index, form in enumerate(rule_forms(), 1):
        if fits(run, form.stages, run.optimizer, hardest):
            rule = ruled(run, form.stages, run.optimizer, form)
            if rule.exact:
                ways.append((1 + deviations(rule, expected, accumulation_steps), index, rule))
    if any(rule.exact for *_, rule in ways):
        return min(ways, key=lambda way: way[:2])[2]
    if (part := in_part(run, right)) is not None:
        return part
    # An eps that is none of the catalogue's, and if that is not all, beside one of its forms.
    for beside in (None, *rule_forms()):
        solved = with_eps(run, hardest, beside)
        if solved is not None:
            more = 1 + deviations(solved, expected, accumulation_steps) + (beside is not None)
            ways.append((more, len(ways), solved))
            if beside is None:
                break
    return min(ways, key=lambda way: way[:2])[2]


def in_part(run: Identified, right: Rule) -> Rule | None:
    """The right rule, and one of the catalogue's forms for the tensors that it does not explain."""
    names = {move.step.name for move in right.off}
    of = {key: step for key, step in run.steps.of.items() if step.name in names}
    if len(of) == len(run.steps.of):
        return None
    part = Identified(replace(run.steps, of=of), run.optimizer)
    hardest = hard(right)
    for form in rule_forms():
        if fits(part, form.stages, part.optimizer, hardest):
            rule = ruled(part, form.stages, part.optimizer, form)
            if rule.exact:
                both = {u: {**each, **rule.moves.get(u, {})} for u, each in right.moves.items()}
                return Rule(form, run.optimizer, both, tuple(sorted(names)))
    return None


def hard(rule: Rule) -> list[Step]:
    """Two of the steps that a rule does not explain, or any, which tell most others apart."""
    moves = rule.off or [move for each in rule.moves.values() for move in each.values()]
    worst = sorted(moves, key=lambda move: -move.fit.relative)
    return [move.step for move in (worst[0], worst[len(worst) // 2])] if worst else []


def fits(run: Identified, stages: Stages, optimizer: Optimizer, steps: Sequence[Step]) -> bool:
    """Whether a rule explains some steps, each at a rate of its own."""
    found = (move_by(run, step, run.gradients, stages, setting(optimizer)) for step in steps)
    return all(move is not None and move.fit.exact for move in found)


@cache
def rule_forms() -> tuple[Form, ...]:
    """The catalogue's forms that replace the rule or its numbers alone."""
    every = [form for name in names() for form in forms_of(name)]
    # Of two that explain the same, what a library does is likelier than what somebody got wrong.
    every.sort(key=lambda form: form.mistake.kind != "library")
    return tuple(form for form in every if set(form.stages.replaced) <= OF_THE_RULE)


def deviations(rule: Rule, expected: Mapping[int, Number], accumulation_steps: int) -> float:
    """How many differences a rule leaves: the rates' are one if they have a name."""
    if not rule.exact:
        return math.inf
    said = rate_name(rule.rates, expected, accumulation_steps)
    return 0 if said is None else 1 if said[0] != OTHER_RATES else 2


def with_eps(run: Identified, steps: Sequence[Step], form: Form | None = None) -> Rule | None:
    """A rule with another eps, where one takes every update: from a step, by halving."""
    if not run.optimizer.eps or not steps:
        return None
    stages = STAGES if form is None else form.stages

    def rest(power: float) -> float:
        settings = setting(replace(run.optimizer, eps=10.0**power))
        move = move_by(run, steps[0], run.gradients, stages, settings)
        return math.inf if move is None else move.fit.relative

    step = 1.0
    best = min((-12.0 + step * index for index in range(13)), key=rest)
    nearest = rest(best)
    while step > PRECISE and nearest < NEAR * step:
        step /= 2
        best = min((best - step, best, best + step), key=rest)
        nearest = rest(best)
    for digits in (1, 2, 3, 6, 12):
        settings = replace(run.optimizer, eps=float(f"{10.0**best:.{digits}g}"))
        if fits(run, stages, settings, steps):
            found = ruled(run, stages, settings, form)
            return found if found.exact else None
    return None


# To what part of its power of ten an eps is solved for.
PRECISE = 1e-10
# How much a change is off, at most, where its eps is off by a power of ten.
NEAR = 1.0
OTHER_RATES = "other learning rates"


def rate_name(
    rates: Mapping[int, Number], expected: Mapping[int, Number], accumulation_steps: int
) -> tuple[str, str] | None:
    """What the rates of a run are, beside those that were expected; None if they are the same."""
    both = [update for update in rates if update in expected]
    if not both or all(rates[update].equals(expected[update]) for update in both):
        return None

    def are(at: Callable[[int], int], least: int) -> bool:
        pairs = [(rates[u], expected[at(u)]) for u in rates if at(u) in expected]
        return len(pairs) >= least and all(one.equals(other) for one, other in pairs)

    k = accumulation_steps
    for lag, words in ((1, "one update early"), (-1, "one update late")):
        if are(lambda u, lag=lag: u + lag, 2):  # type: ignore[misc]
            return "sched-off-by-one", f"the learning rate comes {words}"
    counted = ((lambda u: (u - 1) * k + 1, 2), (lambda u: u * k, 1), (lambda u: u * k + 1, 1))
    if k > 1 and any(are(at, least) for at, least in counted):
        said = f"the schedule counts micro-steps: it goes {k} times as fast"
        return "sched-per-microstep", said
    ratios = [rates[u].over(expected[u]) for u in both if expected[u].value]
    factor = agreed(ratios)
    first = both[0]
    if factor is not None and len(ratios) == len(both):
        name = "rate-times-k" if factor.equals(float(k)) and k > 1 else "another learning rate"
        if factor.equals(-1.0):
            name = "sign-flipped"
        said = f"the learning rate of update {first} is {rates[first]} instead of {expected[first]}"
        return name, f"{said}, and {factor} times the right one in all"
    one = agreed(list(rates.values()))
    if one is not None and len(both) > 1:
        return "schedule-ignored", f"the learning rate is {one} in all updates"
    each = ", ".join(f"{rates[u]} instead of {expected[u]}" for u in both[:4])
    return OTHER_RATES, f"the learning rates are {each}"


def decays(run: Identified, rule: Rule) -> dict[str, tuple[str, Number]]:
    """How each tensor decays: coupled or decoupled, and with what weight, 0 for not at all."""
    found: dict[str, tuple[str, Number]] = {
        name: ("coupled", weight)
        for name, weight in run.coupled.items()
        if weight.value and name not in run.steps.still
    }
    shrinks: dict[str, list[Number]] = {}
    for update, each_move in rule.moves.items():
        for name, move in each_move.items():
            if name in run.steps.still:
                continue
            rate = rule.rates.get(update, move.rate)
            if rate.error < KNOWN * abs(rate.value) and math.isfinite(move.shrink.error):
                shrinks.setdefault(name, []).append(move.shrink.over(rate))
    for name, numbers in shrinks.items():
        weight = agreed(numbers)
        if weight is None:
            weight = Number(numbers[0].value, math.inf)
        if name not in found:
            found[name] = "decoupled", Number(0.0, weight.error) if weight.equals(0.0) else weight
    return found


def decay_findings(
    mine: Mapping[str, tuple[str, Number]],
    theirs: Mapping[str, tuple[str, Number]],
    matching: Matching,
    rate: Number | None = None,
) -> Iterator[Finding]:
    """Which tensors decay otherwise; rate: of all updates, if it never changes."""
    kinds: dict[str, list[str]] = {}
    compared = 0
    for name, match in matching.matches.items():
        for other in match.others:
            if name not in mine or other not in theirs:
                continue
            (how, weight), (their_how, theirs_weight) = mine[name], theirs[other]
            compared += 1
            none, their_none = weight.equals(0.0), theirs_weight.equals(0.0)
            if not math.isfinite(theirs_weight.error) and theirs_weight.value:
                kinds.setdefault("varies", []).append(other)
            elif (none or their_none) and weight.equals(theirs_weight):
                # Both are 0, or not known well enough to say that one is.
                continue
            elif none:
                kinds.setdefault("more", []).append(other)
            elif their_none:
                kinds.setdefault("less", []).append(other)
            elif how != their_how:
                kinds.setdefault(their_how, []).append(other)
            elif rate is not None and theirs_weight.times(rate).equals(weight):
                kinds.setdefault("alone", []).append(other)
            elif rate is not None and weight.times(rate).equals(theirs_weight):
                kinds.setdefault("times", []).append(other)
            elif not weight.equals(theirs_weight):
                kinds.setdefault(f"{theirs_weight} instead of {weight}", []).append(other)
    decaying = sum(not weight.equals(0.0) for _, weight in mine.values())
    for kind, others in kinds.items():
        count = f"{len(others)} of {compared} tensors"
        which = listed(others)
        name, said = {
            "more": ("wd-on-bias", f"{count} decay that should not: {which}"),
            "less": (
                "wd-ignored" if len(others) >= decaying else "some do not decay",
                f"{count} do not decay and should: {which}",
            ),
            "coupled": ("l2-vs-decoupled", f"the decay of {count} goes into the gradient: {which}"),
            "decoupled": (
                "l2-vs-decoupled",
                f"the decay of {count} goes past the gradient: {which}",
            ),
            "alone": (
                "wd-not-times-lr",
                f"{count} shrink by their weight decay, which is not times the rate: {which}",
            ),
            "times": (
                "without wd-not-times-lr",
                f"{count} shrink by the rate times their weight decay, in the first run by their"
                f" weight decay: {which}",
            ),
            "varies": (
                "wd-not-times-lr",
                f"{count} do not decay in proportion to the rate: {which}",
            ),
        }.get(kind, ("another weight decay", f"the weight decay of {count} is {kind}: {which}"))
        yield Finding(name, "decay", said, 1, tuple(others), "after")


@dataclass(frozen=True)
class Moment:
    """How a moment goes on in all tensors: its decay, and the gain of the gradient; or unknown.

    first: the gain in an optimizer's first update, which has no dampening in PyTorch.
    """

    decay: Number | None
    gain: Number | None
    first: Number | None = None


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
        found.append(Moment(decay, gain, first))
    if "momentum_buffer" not in run.steps.slots and run.steps.family in ("sgd", "rmsprop"):
        found[0] = Moment(NONE, None)
    elif run.steps.family == "rmsprop":
        found[0] = Moment(run.steps.momentum, None)
    return found[0], found[1]


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
    """By slot, where a moment goes on otherwise than any of the rules lets it: the worst."""
    found = {}
    for averages, (slots, _, _) in zip((run.averages, run.squares), SLOTS, strict=True):
        off = [each for each in averages if not each.fit.exact]
        if off:
            found[slots[run.steps.family]] = max(off, key=lambda each: each.fit.relative)
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
