"""The rule that takes a run's updates: a form of the catalogue, or none, and its rates."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property, partial

from lockstep.diagnosis.forms import Form, forms_of
from lockstep.mistakes import names
from lockstep.oracle.loop import STAGES, Stages
from lockstep.problem import Optimizer
from lockstep.trace.findings import turned
from lockstep.trace.identify import Identified, Move, move_by, moves, setting
from lockstep.trace.numbers import Number, agreed
from lockstep.trace.steps import Step

# The stages of the loop that a form of the rule replaces; all other stages are looked at before.
OF_THE_RULE = {"constants", "rule", "settings"}
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
    def every(self) -> list[Move]:
        """All moves."""
        return [move for each in self.moves.values() for move in each.values()]

    @property
    def exact(self) -> bool:
        """Whether it takes every update, within rounding."""
        every = self.every
        return bool(every) and all(move.fit.exact for move in every)

    @property
    def off(self) -> list[Move]:
        """The moves that it does not explain."""
        return [move for move in self.every if not move.fit.exact]

    def moves_all(self, update: int) -> bool:
        """Whether an update has a direction for each of its tensors."""
        return all(move.direction.any() for move in self.moves[update].values())

    @cached_property
    def rates(self) -> dict[int, Number]:
        """The rate of each update, where its tensors agree on one that is known."""
        every = {
            update: agreed([move.rate for move in each.values() if move.fit.exact])
            for update, each in self.moves.items()
        }
        found = {update: rate for update, rate in every.items() if rate is not None}
        largest = max((abs(rate.value) for rate in found.values()), default=0.0)
        return {
            update: rate
            for update, rate in found.items()
            if rate.error <= KNOWN * (largest if rate.equals(0.0) else abs(rate.value))
        }


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
        # No form of the catalogue can leave fewer differences than one; but nobody writes a rate
        # that is nearly the right one.
        return (
            right
            if ways[0][0] == 0
            else usual_eps(run, right, expected, accumulation_steps) or right
        )
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
    worst = sorted(rule.off or rule.every, key=lambda move: -move.fit.relative)
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
    if expected and not expected.keys() & rule.rates.keys():
        return 2  # its tensors agree on no rate
    said = rate_name(rule.rates, expected, accumulation_steps)
    return 0 if said is None else 2 if said[0] in ANY_RATES else 1


def usual_eps(
    run: Identified, right: Rule, expected: Mapping[int, Number], accumulation_steps: int
) -> Rule | None:
    """The rule with another usual eps, where that makes rates the right ones that nearly are."""
    both = [
        (right.rates[update], rate) for update, rate in expected.items() if update in right.rates
    ]
    if not run.optimizer.eps or not all(
        abs(own.value - rate.value) < NEARLY * abs(rate.value) for own, rate in both
    ):
        return None
    recorded = {float(e) for e in run.steps.trace.by_tensor("eps").values()}
    for eps in (*sorted(recorded), *USUAL):
        found = ruled(run, STAGES, replace(run.optimizer, eps=eps))
        if not deviations(found, expected, accumulation_steps):
            return found
    return None


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


# What libraries and papers set an eps to, the commonest first.
USUAL = (1e-8, 1e-7, 1e-6, 1e-10, 1e-5, 1e-12, 1e-3, 1e-4)
# How near a rate is to another one that nobody has written instead.
NEARLY = 1e-2
# To what part of its power of ten an eps is solved for.
PRECISE = 1e-10
# How much a change is off, at most, where its eps is off by a power of ten.
NEAR = 1.0
OTHER_RATES, ANY_SCHEDULE = "other learning rates", turned("schedule-ignored", "")[0]
# What rates are called that may be any.
ANY_RATES = (OTHER_RATES, ANY_SCHEDULE)


def rate_name(
    rates: Mapping[int, Number], expected: Mapping[int, Number], accumulation_steps: int
) -> tuple[str, str] | None:
    """What the rates of a run are, beside those that were expected; None if they are the same."""
    both = [update for update in rates if update in expected]
    if all(rates[update].equals(expected[update]) for update in both):
        return None
    name, said = schedule_name(rates, expected, accumulation_steps)
    other, of_first = schedule_name(expected, rates, accumulation_steps)
    if other == "sched-per-epoch":
        return turned(other, of_first)
    if name:
        return name, said
    ratios = [rates[u].over(expected[u]) for u in both if expected[u].value]
    factor = agreed(ratios)
    first = both[0]
    if factor is not None and len(ratios) == len(both):
        k = accumulation_steps
        name = "rate-times-k" if factor.equals(float(k)) and k > 1 else "another learning rate"
        if factor.equals(-1.0):
            name = "sign-flipped"
        said = f"the learning rate of update {first} is {rates[first]} instead of {expected[first]}"
        return name, f"{said}, and {factor} times the right one in all"
    own, right = (agreed(list(each.values())) for each in (rates, expected))
    constant = "the learning rate is {} in all updates"
    if own is not None and len(both) > 1:
        return "schedule-ignored", constant.format(own)
    if other == "sched-per-microstep":
        return "sched-too-slow", f"the schedule takes {accumulation_steps} times as long"
    if other:
        return turned(other, of_first)
    if right is not None and len(both) > 1:
        return turned("schedule-ignored", constant.format(right))
    off = [u for u in both if not rates[u].equals(expected[u])]
    each = ", ".join(f"{rates[u]} instead of {expected[u]}" for u in off[:4])
    return OTHER_RATES, f"the learning rates are {each}"


def every(count: int, update: int) -> int:
    """The update whose rate one has, where the rate changes after so many."""
    return (update - 1) // count + 1


def schedule_name(
    rates: Mapping[int, Number], expected: Mapping[int, Number], accumulation_steps: int
) -> tuple[str, str]:
    """How a schedule is read at other places than the expected one; empty if it is not so."""

    def are(at: Callable[[int], int], least: int) -> bool:
        where = [u for u in rates if at(u) in expected]
        # At a rate that never changes, every place is as good as another.
        off = [u for u in where if u in expected and not expected[u].equals(expected[at(u)])]
        equal = all(rates[u].equals(expected[at(u)]) for u in where)
        return len(where) >= least and bool(off) and equal

    for at, words in ((lambda u: u + 1, "one update early"), (lambda u: u - 1, "one update late")):
        if are(at, 2):
            return "sched-off-by-one", f"the learning rate comes {words}"
    # A rate that never changes does so after no number of updates.
    changes = agreed(list(rates.values())) is None
    for n in range(2, len(rates) if changes else 0):
        if are(partial(every, n), len(rates)):
            said = f"the learning rate changes every {n} updates, as a schedule of epochs does"
            return "sched-per-epoch", said
    k = accumulation_steps
    counted = ((lambda u: (u - 1) * k + 1, 2), (lambda u: u * k, 1), (lambda u: u * k + 1, 1))
    if k > 1 and any(are(at, least) for at, least in counted):
        said = f"the schedule counts micro-steps: it goes {k} times as fast"
        return "sched-per-microstep", said
    return "", ""


# How near a rate that was read off is to the one that was recorded, of rounding that adds up.
CLOSE = 1e-4


def rates_of(run: Identified, rule: Rule | None) -> dict[int, Number]:
    """The rates of a run's updates: as its optimizer had them, or as its updates show them."""
    found = dict(rule.rates) if rule else {}
    names = {name for _, name in run.steps.of}
    for update in run.steps.trace.updates:
        rates = update.facts.get("rates") or {}
        recorded = {rates[name] for name in names & rates.keys()}
        if len(recorded) != 1:
            continue
        rate = float(next(iter(recorded)))
        said = Number(rate, 2.0**-24 * abs(rate))
        seen = found.get(update.number) if rule and rule.exact else None
        # An update that goes up, or by another factor, has not the rate that its optimizer says.
        if seen is None or abs(seen.value - rate) <= seen.error + CLOSE * abs(rate):
            found[update.number] = said
    return found


def as_counted(
    expected: dict[int, Number], mine: Identified, theirs: Identified
) -> dict[int, Number]:
    """The rates that the second run should have, as it counts, if it counts otherwise.

    A schedule goes on with windows that are left out, and begins anew with the optimizer's state.
    """
    here, there, own = mine.left_out, theirs.left_out, rates_of(theirs, None)
    anew = theirs.steps.anew
    shifted = {
        update: expected[window]
        for update in there.keys() & here.keys()
        if (window := update + there[update] - here[update]) in expected
    }
    restarted = {
        update: expected[window]
        for update in there
        if (window := update - max((n - 1 for n in anew if n <= update), default=0)) in expected
    }
    advanced = {
        update + here[update] - there.get(update, 0): expected[update]
        for update in here.keys() & expected.keys()
    }
    for counted in (shifted, restarted, advanced):
        both = counted.keys() & own.keys()
        if both and all(own[update].equals(counted[update]) for update in both):
            return counted
    return expected
