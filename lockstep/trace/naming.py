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


def window_findings(pairs: Sequence[Pair], theirs: Identified) -> Iterator[Finding]:
    """What the weights of the micro-batches say, of the first window that shows it."""
    skips = theirs.left_out
    emptied = {
        update: lost
        for update, lost in theirs.lost.items()
        if lost and skips[update] == skips.get(update - 1, 0)
    }
    several = [update for update, (_, count) in theirs.window.items() if count > 1]
    sometimes = len(emptied) < len(several)
    for update in dict.fromkeys(pair.update for pair in pairs):
        own = [pair for pair in pairs if pair.update == update]
        if update in theirs.window and not theirs.window[update][0].exact:
            continue  # what else is in the accumulator is said below
        values = [pair.coefficient for pair in own]
        if all(value.equals(1.0) for value in values):
            continue
        if update in emptied and sometimes:
            break  # it is no rule of the loop: said below
        name, said = window_name(values)
        yield Finding(name, "window", said, update, phase="gradient")
        break
    if sometimes and emptied:
        update, lost = next(iter(emptied.items()))
        said = (
            f"the accumulator was emptied within update {update}, after micro-batch {lost} of"
            f" {theirs.window[update][1]}, as a validation that resets gradients does, or a run"
            " that is resumed there"
        )
        yield Finding("micro-batches left out", "window", said, update, phase="accumulated")
    for update, (fitted, count) in theirs.window.items():
        weights, before = fitted.coefficients[:count], fitted.coefficients[count:]
        again = [n.value for n in before if math.isfinite(n.error) and not n.equals(0.0)]
        if fitted.exact and again:
            each_again = ", ".join(worded(each) for each in again)
            said = (
                f"{len(again)} of the {len(before)} micro-batches of update {update - 1} enter"
                f" update {update} again, with weight {each_again} where its own"
                f" have {worded(weights[0].value)}"
            )
            name = "missing-zero-grad" if 2 * len(again) >= len(before) else "leftover-leaks"
            yield Finding(name, "window", said, update, phase="accumulated")
            break


def window_name(values: Sequence[Number]) -> tuple[str, str]:
    """The name of a window's coefficients, which are not all 1, and what to say of them."""
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
    threshold, to = threshold_of(mine), threshold_of(theirs)
    clips = clips_of(theirs)
    wrong = [each for each in clips if not each.explained(each.together(threshold))]
    if not wrong or not mine.factors:
        return
    first = wrong[0]

    def found(name: str, said: str, policy: bool = False) -> Finding:
        return Finding(name, "clip", said, first.update, tuple(first.factors), "clipped", policy)

    if threshold is None:
        yield found(
            "clips", f"it clips a gradient of norm {first.norm:.4g}, the other run does not"
        )
        return
    limit = threshold.to.value
    ways = {
        "clip-ignored": (
            all(each.explained(lambda _: NOTHING) for each in clips),
            f"a gradient of norm {first.norm:.4g} is not clipped to {limit:.4g}",
        ),
        "clip-per-tensor": (
            any(
                all(each.explained(each.alone(replace(threshold, epsilon=small))) for each in clips)
                for small in EPSILONS
            ),
            f"each tensor is clipped to {limit:.4g} on its own, not all together",
        ),
        "clip-by-value": (
            all(each.by_value(threshold.to) for each in clips),
            f"no number of the gradient is above {limit:.4g}: each is clipped on its own",
        ),
    }
    same = [name for name, (holds, _) in ways.items() if holds]
    if same:
        others = f"; {' or '.join(same[1:])} would do the same here" if same[1:] else ""
        yield replace(found(same[0], ways[same[0]][1] + others), others=tuple(same[1:]))
    elif to is not None and to.to.equals(threshold.to):
        small = max(each.epsilon for each in (to, threshold))
        said = (
            f"the norm has {small:g} added to it before the division in one run, and not in the"
            " other: a policy of torch.nn.utils.clip_grad_norm_"
        )
        yield found("clip-epsilon", said, policy=True)
    elif to is not None:
        yield found(f"clips to {to.to}", f"a gradient is clipped to {to.to}, not {threshold.to}")
    else:
        said = f"a gradient of norm {first.norm:.4g} is clipped in no known way"
        yield found("clips in another way", said)


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

    def together(self, threshold: Threshold | None) -> Callable[[str], Number]:
        """What clipping all tensors together does, where a threshold is known."""
        factor = NOTHING if threshold is None else threshold.factor(self.norm)
        return lambda _: factor

    def alone(self, threshold: Threshold) -> Callable[[str], Number]:
        """What clipping each tensor on its own does."""
        return lambda name: threshold.factor(self.norms[name]) if name in self.norms else NOTHING

    def threshold(self, epsilon: float) -> Number | None:
        """To which norm all tensors were clipped together, if they were."""
        if not all(fitted.exact for fitted in self.factors.values()):
            return None
        factor = agreed([fitted.coefficients[0] for fitted in self.factors.values()])
        if factor is None:
            return None
        norm = self.norm + epsilon
        # The norm that the run itself took was rounded.
        return Number(factor.value * norm, (factor.error + self.rounding) * norm)

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
            if not np.allclose(step.clipped, right, rtol=slack, atol=0):
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
class Threshold:
    """To which norm a run clips: the factor is to / (norm + epsilon), 1 where that is more."""

    to: Number
    epsilon: float

    def factor(self, norm: float) -> Number:
        """What a gradient of this norm is multiplied with."""
        factor = self.to.over(Number(norm + self.epsilon, 0.0))
        return factor if factor.value < 1 else NOTHING


def threshold_of(run: Identified) -> Threshold | None:
    """The norm to which a run clipped all tensors together; None if it never did, or not so."""
    clips = [each for each in clips_of(run) if not each.explained(lambda _: NOTHING)]
    found = []
    for epsilon in EPSILONS:
        each = [clip.threshold(epsilon) for clip in clips]
        to = agreed([number for number in each if number is not None])
        if to is not None and None not in each:
            found.append(Threshold(to, epsilon))
    # One update alone tells no epsilon: a limit that somebody typed has few digits.
    return min(found, key=lambda each: each.to.digits, default=None)


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
    if k > 1 and (are(lambda u: (u - 1) * k + 1, 2) or are(lambda u: u * k, 1)):
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
        name: ("coupled", weight) for name, weight in run.coupled.items() if weight.value
    }
    shrinks: dict[str, list[Number]] = {}
    for update, each_move in rule.moves.items():
        for name, move in each_move.items():
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
) -> Iterator[Finding]:
    """Which tensors decay otherwise."""
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


def moments(run: Identified) -> tuple[Moment, Moment]:
    """The first and the second moment of a run, as its state shows them."""
    found = []
    for averages in (run.averages, run.squares):
        exact = [each for each in averages if each.fit.exact]
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


def average_findings(right: tuple[Moment, Moment], theirs: Identified) -> Iterator[Finding]:
    """Which moments go on otherwise than they should."""
    family, own = theirs.steps.family, moments(theirs)
    called = FIRSTS.get(family, "beta1"), SECONDS.get(family, "beta2")
    for index, averages in enumerate((theirs.averages, theirs.squares)):
        slot, name = (FIRST, SECOND)[index].get(family, ""), called[index]
        bad = [each for each in averages if not each.fit.exact]
        if bad:
            worst = max(bad, key=lambda each: each.fit.relative)
            said = (
                f"{slot} does not go on as it should from update {worst.step.update}'s gradient:"
                f" {worst.step.name} is {worst.fit.relative:.1e} off"
            )
            tensors = (worst.step.name,)
            yield Finding(
                f"another {slot}", "state", said, worst.step.update, tensors, f"state.{slot}"
            )
        at = min((each.step.update for each in averages), default=1)
        found = moment_finding(right[index], own[index], name, slot, at)
        if found is not None:
            yield found


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
