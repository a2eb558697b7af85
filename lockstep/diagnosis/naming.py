"""Which mistakes reproduce a port's numbers: diagnosis is replay.

Differences are found one after the other, each on a probe that adds what it is about. Together they
explain a port if their replay is the port's trajectory on every probe, within the rounding bound,
where it differs from the correct loop and where it does not. What no probe separates is reported
together, and what is left unexplained is said.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import combinations, islice, product, takewhile
from typing import Any

import numpy as np

from lockstep import mistakes
from lockstep.diagnosis.forms import UNNAMED, Form, forms_of, ignoring, used
from lockstep.diagnosis.probes import OPTIMIZERS, Probe
from lockstep.diagnosis.replay import FAR, NEAR, Replay, Replays, merged, replays
from lockstep.diagnosis.solving import solved
from lockstep.oracle.compare import Divergence, compare_bounds
from lockstep.oracle.loop import STAGES, Stages
from lockstep.problem import PLAIN, Array
from lockstep.problem.settings import require
from lockstep.workers.ports import OFFERED

# What the recipe yields for its logs; it is of no use here.
KNOWN = {"norm", "updates", "loss_scale", "step", "compiled", "fused"}
# Relative to the parameters: a few float32 roundings.
FLOAT32 = 1e-6
# How many differences are looked for, and how many explanations go on together.
MOST, BEAM = 12, 24
# To how many digits two explanations do the same, and have the same bound.
ALIKE, EXACT = 12, 15
# How many micro-steps are replayed before what is left stays unexplained: a few seconds.
BUDGET = 45_000
# How many replays it takes to solve for the numbers of a problem.
SOLVING = 10
# The stages that several ingredients are about.
STAGE_OF = {
    **dict.fromkeys(("rates", "schedule", "linear", "cosine"), "rates"),
    **dict.fromkeys(("drop", "carry"), "policy"),
    **dict.fromkeys(("momentum", *OPTIMIZERS), "rule"),
    **dict.fromkeys((each.name for _, each in OPTIMIZERS.values() if each.name != "sgd"), "rule"),
    **{name: name for name in ("clip", "decay", "groups", "weights", "skip")},
}
# The ingredients of windows, which every loop has.
WINDOWED = {"windows", "ragged", "partial", "epochs"}


@dataclass(frozen=True, eq=False)
class Run:
    """What a port did on a probe: W above b after every update, and what else it offered.

    unread: the settings of the probe that the port never read, "optimizer.eps" of an optimizer's;
    reference: the loop that it is held against, with what is accepted in it.
    """

    probe: Probe
    trajectory: list[Array]
    more: Mapping[str, list[Array]] = field(default_factory=dict)
    unread: tuple[str, ...] = ()
    reference: Stages = STAGES

    @property
    def correct(self) -> Replays:
        """The correct loop on this probe."""
        return replays(self.probe, self.reference)

    @cached_property
    def same(self) -> bool:
        """Whether the parameters are the correct ones after every update."""
        return self.correct.reproduces(self.trajectory)

    @cached_property
    def differing(self) -> list[str]:
        """What the port offers beside the parameters, and is not what the correct loop has."""
        return self.correct.differing(self.more) if self.same else []

    @property
    def unknown(self) -> list[str]:
        """What the port offers, and the loop does not have under this name."""
        careful = self.correct.careful
        return sorted(set(self.more) - set(careful.observed if careful else ()) - KNOWN)

    @property
    def cost(self) -> int:
        """How long a replay takes, in micro-steps."""
        return self.probe.problem.epochs * len(self.probe.problem.micro_batches)


@dataclass(frozen=True)
class Part:
    """Where a port first parts from the correct loop.

    first: the first number that differs, or None where there are only fewer or more updates.
    relative: how far it is off, over the largest parameter of the update.
    """

    probe: Probe
    updates: int
    expected: int
    first: Divergence | None
    relative: float

    @property
    def small(self) -> bool:
        """Whether a number that was held in float32 can make such a difference."""
        return self.updates == self.expected and self.relative < FLOAT32

    def __str__(self) -> str:
        parts = []
        if self.first is not None and math.isfinite(self.first.actual):
            parts.append(f"{self.first}, {self.relative:.1e} of the largest")
        elif self.first is not None:
            parts.append(f"update {self.first.update}, {self.first.where}: {self.first.actual}")
        if self.updates >= self.probe.limit:
            parts.append(f"it goes on after its {self.expected} updates")
        elif self.updates != self.expected:
            plural = "s" * (self.updates != 1)
            parts.append(f"{self.updates} update{plural} instead of {self.expected}")
        return "; ".join(parts)


@dataclass(frozen=True)
class Explanation:
    """Differences that together reproduce the probes.

    forms: each as the port has it; stages: the loop that has them all; differing: what the port
    offers beside the parameters and this loop has otherwise.
    """

    forms: tuple[Form, ...] = ()
    stages: Stages = STAGES
    differing: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The differences by their names."""
        return tuple(form.name for form in self.forms)


@dataclass(frozen=True)
class Diagnosis:
    """What came of it.

    parts: where the port parts from the correct loop, a probe each; differing: what it offers
    beside the parameters, by probe, where that is not the correct loop's; explanations: those that
    no probe separates, the most frequent mistake first; none where the mistake is unknown. left:
    where the port parts from the first explanation, which is complete if there are none.
    """

    runs: Sequence[Run]
    parts: Sequence[Part]
    differing: Mapping[str, list[str]]
    explanations: Sequence[Explanation]
    left: Sequence[Part] = ()

    @property
    def same(self) -> bool:
        """Whether the port takes the same update on every probe, and says so."""
        return not self.parts and not self.differing

    @property
    def unknown(self) -> bool:
        """Whether the port differs, and no known mistake says why."""
        return not self.same and not self.explanations

    @cached_property
    def suspects(self) -> list[str]:
        """What must differ: the ingredients, or at least the stages, of all probes that do."""
        return common(self.runs, {part.probe.name for part in self.parts})


def common(runs: Sequence[Run], wrong: Collection[str]) -> list[str]:
    """The ingredients of all wrong probes and of no other; if there are none, the stages."""
    found = [(run.probe.name in wrong, run.probe.ingredients) for run in runs]
    sets = [each for off, each in found if off]
    shared = frozenset.intersection(*sets) if sets else frozenset()
    if only := shared.difference(*(each for off, each in found if not off)):
        return sorted(only)
    stages = [{STAGE_OF[each] for each in some if each in STAGE_OF} for some in sets]
    return sorted(set.intersection(*stages)) if stages else []


def part_of(run: Run, replays: Replays | None = None) -> Part:
    """Where a run first parts from the correct loop, or from another one that comes to an end."""
    right = replays.careful if replays else None
    if right is None or not np.isfinite([right.values, right.bounds]).all():
        right = run.correct.careful
    assert right is not None, f"the correct loop fails on {run.probe.name}"
    both = min(len(right.values), len(run.trajectory))
    compared = compare_bounds(right.values[:both], run.trajectory[:both], right.bounds[:both])
    first, relative = compared.first, 0.0
    if first is not None:
        size = float(abs(right.values[first.update - 1]).max()) or 1.0
        relative = abs(first.actual - first.expected) / size
    return Part(run.probe, len(run.trajectory), len(right.values), first, relative)


Holds = Callable[["Run", "Explanation"], bool]


def order(run: Run) -> tuple[int, int, int]:
    """Where a run stands among the others: by what it has beyond windows, by all that it has."""
    ingredients = run.probe.ingredients
    return len(ingredients - WINDOWED), len(ingredients), run.cost


class Search:
    """The differences of a port, found one after the other on the probes that isolate them.

    The probes come in an order in which each adds an ingredient to those before. Where what is
    known so far gives another trajectory than the port's, a form of one more mistake is added that
    gives this one, and still gives all before. What no probe so far separates goes on together:
    work grows with the numbers of probes and of forms, not with that of their combinations.
    """

    def __init__(self, runs: Sequence[Run], catalogue: Sequence[str], most: int) -> None:
        """Find up to `most` differences: the gross ones first, then those of rounding size."""
        self.runs = sorted(runs, key=order)
        self.forms = [form for name in catalogue for form in forms_of(name)]
        self.most = most
        self.budget: float = BUDGET
        self.replays: dict[tuple[str, Stages], Replays] = {}
        self.matches: dict[tuple[str, Stages], bool] = {}
        self.proved: dict[tuple[str, bytes], bool] = {}
        self.found = self.facts()
        self.left: list[Run] = []
        self.explain(self.resembles)
        gross = self.found
        self.explain(self.reproduces)
        if any(run.same for run in self.left):
            self.return_to(gross)
        self.found = [self.needed(each) for each in self.found]
        self.observe()

    def return_to(self, known: Sequence[Explanation]) -> None:
        """Take back what was added since: it fits some runs, and makes right ones wrong."""
        left = [[r for r in self.runs if not self.reproduces(r, each)] for each in known]
        self.left = min(left, key=len)
        self.found = [each for each, some in zip(known, left, strict=True) if some == self.left]

    def facts(self) -> list[Explanation]:
        """What is known beforehand: a setting that a port never reads makes no difference to it."""
        known = [Explanation((), self.runs[0].reference)]
        if self.most == 1:
            return known
        # Backwards, since a setting builds on those before it, as a loss scale does.
        for setting in reversed(PLAIN):
            using = [run for run in self.runs if setting in used(run.probe.problem)]
            read = any(setting not in run.unread for run in using)
            if read or all(run.same for run in using):
                continue
            ways = ignoring(setting, self.forms, using[0].probe.problem)
            longer = (self.longer(each, (form,)) for each in known for form in ways)
            known = [each for each in longer if each][:BEAM] or known
        return known

    def needed(self, explanation: Explanation) -> Explanation:
        """An explanation without the forms that make no difference to any run."""
        near = [run for run in self.runs if self.resembles(run, explanation)]
        exact = [run for run in self.runs if run not in self.left]
        for form in explanation.forms:
            rest = self.without(explanation, form)
            if rest is None or not rest.forms or not self.all_hold(near, rest, self.resembles):
                continue
            if self.all_hold(exact, rest, self.reproduces):
                explanation = rest
        return explanation

    def without(self, explanation: Explanation, form: Form) -> Explanation | None:
        """An explanation without one of its forms."""
        others = [other for other in explanation.forms if other is not form]
        return self.longer(Explanation((), self.runs[0].reference), others)

    def explain(self, holds: Holds) -> None:
        """Go through the runs, and add to what is known where it does not hold."""
        self.left = []
        explained: list[Run] = []
        dropped: list[Explanation] = []
        for run in self.runs:
            held = [each for each in self.found if holds(run, each)]
            if not held and not self.beyond(run):
                held = self.more(run, explained, dropped, holds)
            if held:
                lost = [each for each in self.found if each not in held]
                dropped = [*dropped, *lost][-BEAM:]
                self.found = held
                explained.append(run)
            else:
                self.left.append(run)

    def more(
        self, run: Run, explained: Sequence[Run], dropped: Sequence[Explanation], holds: Holds
    ) -> list[Explanation]:
        """What is known, and a run as well: with the fewest differences more that do it.

        What was dropped may have been right, and one difference short already there.
        """
        for extend in (self.extended, self.paired):
            for known in (self.found, dropped):
                if known and (found := extend(known, [run, *explained], holds)):
                    return found
        return []

    def beyond(self, run: Run) -> bool:
        """Whether a run has all the ingredients of one that was left unexplained."""
        return any(left.probe.ingredients <= run.probe.ingredients for left in self.left)

    def extended(
        self, known: Sequence[Explanation], runs: Sequence[Run], holds: Holds
    ) -> list[Explanation]:
        """What is known with one more difference, or with a number that is another one.

        What a port never read makes no difference to it, whatever else it does.
        """
        problem = runs[0].probe.problem
        ways = [ignoring(setting, self.forms, problem) for setting in runs[0].unread]
        for unread in dict.fromkeys((tuple(product(*ways)), ((),))):
            if any(unread) and (found := self.holding(known, runs, holds, unread)):
                return found
            for forms in (self.forms, UNNAMED):
                longer = ((*first, form) for form in forms for first in unread)
                if found := self.holding(known, runs, holds, longer):
                    return found
        return self.solved(known, runs, holds)

    def paired(
        self, known: Sequence[Explanation], runs: Sequence[Run], holds: Holds
    ) -> list[Explanation]:
        """What is known with two differences that the first run shows at once.

        Of rounding size, what makes a gross difference is none.
        """
        if self.budget <= 0:
            return []
        kinds = self.kinds(known[0], runs[0])
        if holds == self.reproduces:
            kinds = [each for each in kinds if self.small(runs[0], known[0], each[0])]
        pairs = list(combinations(kinds, 2))
        if len(pairs) * runs[0].cost > self.budget:
            return []
        firsts = [each for each, *_ in self.alike(known, runs[0])]
        tried = (
            (pair, [self.longer(e, [kind[0] for kind in pair]) for e in firsts]) for pair in pairs
        )
        some = [pair for pair, each in tried if any(e and holds(runs[0], e) for e in each)]
        both = (forms for pair in some for forms in product(*pair))
        found = self.holding(known, runs, holds, both)
        return [each for each in found if not self.cancels(each, runs)]

    def small(self, run: Run, known: Explanation, form: Form) -> bool:
        """Whether a form makes a difference of rounding size to what is known of a run."""
        longer = self.longer(known, (form,))
        return (
            longer is not None
            and self.resembles(run, longer)
            and self.trace(run, longer, EXACT) != self.trace(run, known, EXACT)
        )

    def cancels(self, explanation: Explanation, runs: Sequence[Run]) -> bool:
        """Whether a run is right only since one of the last two forms undoes the other."""
        right = [run for run in runs if run.same]
        rests = [self.without(explanation, form) for form in explanation.forms[-2:]]
        return not all(rest and self.all_hold(right, rest, self.resembles) for rest in rests)

    def solved(
        self, known: Sequence[Explanation], runs: Sequence[Run], holds: Holds
    ) -> list[Explanation]:
        """What is known, with a number that is another one."""
        found = []
        for each, *_ in self.alike(known, runs[0]):
            if self.budget <= 0:
                break
            self.budget -= SOLVING * runs[0].cost
            for forms in solved(each.stages, runs[0].probe.problem, runs[0].trajectory):
                found += self.holding([each], runs, holds, zip(forms))[:1]
        return found[:BEAM]

    def alike(self, known: Sequence[Explanation], run: Run) -> list[list[Explanation]]:
        """What is known, those together that do the same to a run, and in the same stages."""
        found: dict[tuple[bytes, frozenset[str]], list[Explanation]] = {}
        for each in known:
            key = self.trace(run, each), frozenset(each.stages.replaced)
            found.setdefault(key, []).append(each)
        return list(found.values())

    def kinds(self, known: Explanation, run: Run) -> list[list[Form]]:
        """The forms of one more mistake, those together that do the same to a run."""
        found: dict[tuple[bytes, frozenset[str]], list[Form]] = {}
        for form in self.forms:
            longer = self.longer(known, (form,))
            if longer and (trace := self.trace(run, longer)):
                found.setdefault((trace, frozenset(form.stages.replaced)), []).append(form)
        return list(found.values())

    def holding(
        self,
        known: Sequence[Explanation],
        runs: Sequence[Run],
        holds: Holds,
        choices: Iterable[tuple[Form, ...]],
    ) -> list[Explanation]:
        """What is known with some forms more, where that holds for all runs.

        Of what is known, those that do the same to the first run are tried together on it.
        """
        alike = self.alike(known, runs[0])
        longer = (
            [more for each in some if (more := self.longer(each, forms))]
            for forms in choices
            for some in alike
        )
        affordable = takewhile(lambda _: self.budget > 0, longer)
        near = (each for some in affordable if some and holds(runs[0], some[0]) for each in some)
        return list(islice((e for e in near if self.all_hold(runs, e, holds)), BEAM))

    def all_hold(self, runs: Sequence[Run], explanation: Explanation, holds: Holds) -> bool:
        """Whether an explanation holds for all runs; in floats first, which sorts out most."""
        return all(self.resembles(run, explanation) for run in runs) and (
            holds == self.resembles or all(holds(run, explanation) for run in runs)
        )

    def trace(self, run: Run, explanation: Explanation, digits: int = ALIKE) -> bytes:
        """What an explanation does to a run, to so many digits; b"" where it fails."""
        quick = self.asked(run, explanation, lambda replay: replay.quick)
        if quick is None:
            return b""
        scale = np.max([abs(theta).max() for theta in quick], initial=1e-300)
        return np.round(np.array(quick) / scale, digits).tobytes()

    def longer(self, known: Explanation, forms: Sequence[Form]) -> Explanation | None:
        """What is known, and forms of other mistakes; None where they do not go together."""
        longer = known
        for form in forms:
            if form in longer.forms:
                continue
            stages = merged(longer.stages, form.stages)
            if form.name in longer.names or len(longer.names) == self.most or stages is None:
                return None
            longer = Explanation((*longer.forms, form), stages)
        return longer

    def resembles(self, run: Run, explanation: Explanation) -> bool:
        """Whether an explanation gives a run but for differences of rounding size.

        To a run that is right, no difference makes one of any size.
        """
        key = run.probe.name, explanation.stages
        if key not in self.matches:
            share = NEAR if run.same else FAR
            self.matches[key] = self.asked(
                run, explanation, lambda replay: replay.resembles(run.trajectory, share)
            )
        return self.matches[key]

    def reproduces(self, run: Run, explanation: Explanation) -> bool:
        """Whether an explanation gives a run within the rounding bound.

        What gives the same in floats has the same bound.
        """
        if not self.resembles(run, explanation):
            return False
        key = run.probe.name, self.trace(run, explanation, EXACT)
        if key not in self.proved:
            self.proved[key] = self.replay(run, explanation).reproduces(run.trajectory)
        return self.proved[key]

    def asked(self, run: Run, explanation: Explanation, question: Callable[[Replays], Any]) -> Any:
        """What a replay answers; what has to be replayed for that is taken from the budget."""
        replay = self.replay(run, explanation)
        before = len(replay.made)
        answer = question(replay)
        self.budget -= run.cost * (len(replay.made) - before) / max(len(run.trajectory), 1)
        return answer

    def replay(self, run: Run, explanation: Explanation) -> Replays:
        """The replays of an explanation on a run's probe, each of them made once."""
        if not explanation.names:
            return run.correct
        key = run.probe.name, explanation.stages
        if key not in self.replays:
            self.replays[key] = Replays(run.probe, explanation.stages)
        return self.replays[key]

    def observe(self) -> None:
        """See what the port offers beside the parameters; one more difference may explain it."""
        self.found = self.nearest(self.found)
        least = len(self.found[0].differing)
        if not least or self.left:
            return
        # On one run first, where something differs.
        (first, *_) = (run for run in self.runs if self.off(run, self.found[0]))
        off = len(self.off(first, self.found[0]))
        longer = (self.longer(each, [form]) for form in self.forms for each in self.found)
        near = (each for each in longer if each and self.resembles(first, each))
        better = (each for each in near if len(self.off(first, each)) < off)
        exact = [each for each in better if self.all_hold(self.runs, each, self.reproduces)]
        self.found += [each for each in self.nearest(exact) if len(each.differing) < least]

    def off(self, run: Run, explanation: Explanation) -> list[str]:
        """What a port offers in a run, and an explanation has otherwise."""
        return self.replay(run, explanation).differing(run.more) if run.more else []

    def nearest(self, known: Sequence[Explanation]) -> list[Explanation]:
        """Those that have most of what the port offers, and what they have otherwise; one a name.

        Each is asked of one run more as long as no other has less otherwise, since asking takes
        long.
        """
        runs = [run for run in self.runs if run not in self.left]
        found: list[Explanation] = []
        waiting = [(each, 0) for each in known]
        while waiting:
            index = min(range(len(waiting)), key=lambda i: len(waiting[i][0].differing))
            each, asked = waiting.pop(index)
            if found and len(each.differing) > len(found[0].differing):
                break
            if any(each.names == other.names for other in found):
                continue
            if asked == len(runs):
                found.append(each)
                continue
            names = dict.fromkeys((*each.differing, *self.off(runs[asked], each)))
            waiting.insert(index, (replace(each, differing=tuple(names)), asked + 1))
        return found


def diagnose(
    runs: Sequence[Run], catalogue: Sequence[str] | None = None, pairs: bool = True
) -> Diagnosis:
    """Find what a port does otherwise in what it did.

    `catalogue` is all of it unless given; without `pairs`, one mistake alone is to explain it all.
    """
    parts = [part_of(run) for run in runs if not run.same]
    differing = {run.probe.name: run.differing for run in runs if run.differing}
    if not parts and not differing:
        return Diagnosis(runs, parts, differing, [])
    names = mistakes.names() if catalogue is None else catalogue
    search = Search(runs, names, MOST if pairs else 1)
    found = best(search.found, bool(parts))
    left = [part_of(run, search.replay(run, found[0])) for run in search.left] if found else parts
    # What explains less than it leaves, or takes a right run for a wrong one, only happens to fit.
    if 2 * sum(not part.small for part in left) > len(parts) or any(r.same for r in search.left):
        found, left = [], parts
    return Diagnosis(runs, parts, differing, found, left)


def accepting(runs: Sequence[Run], names: Sequence[str]) -> tuple[list[Run], set[str]]:
    """The runs, held against a loop with these mistakes in it, and what is to be said of that.

    In whichever of its forms each fits best, and the port must do it.
    """
    choices = [STAGES]
    for name in names:
        longer = (merged(some, form.stages) for some in choices for form in forms_of(name))
        choices = [stages for stages in longer if stages is not None]
        require(bool(choices), f"{', '.join(names)}: these cannot all be accepted, they meet")

    def fitting(stages: Stages) -> list[int]:
        held = [replace(run, reference=stages) for run in runs]
        return [sum(run.same for run in held), sum(r.correct.resembles(r.trajectory) for r in held)]

    stages = max(choices, key=fitting) if len(choices) > 1 else choices[0]
    better = bool(names) and fitting(STAGES) > fitting(stages)
    notes = {f"{' and '.join(names)}: accepted, but more is right without"} if better else set()
    return [replace(run, reference=stages) for run in runs], notes


def best(explanations: Sequence[Explanation], differ: bool) -> list[Explanation]:
    """Those that explain most of what the port offers, the most frequent mistakes first.

    Where the parameters do not `differ`, an explanation must have all that the port offers.
    """
    # What the catalogue has comes first.
    found = [
        replace(each, forms=tuple(sorted(each.forms, key=lambda form: not form.known)))
        for each in explanations
        if each.names
    ]
    least = min((len(each.differing) for each in found), default=0)
    if least and not differ:
        return []
    kept: dict[tuple[str, ...], Explanation] = {}
    for each in found:
        if len(each.differing) == least:
            kept.setdefault(each.names, each)

    def order(explanation: Explanation) -> tuple[int, ...]:
        loaded = [form.mistake for form in explanation.forms]
        kinds = sum(each.kind != "mistake" for each in loaded)
        return len(loaded), kinds, -sum(each.frequency for each in loaded)

    return sorted(kept.values(), key=order)


def separation(
    one: Explanation, other: Explanation, runs: Sequence[Run], rest: Sequence[Probe]
) -> str:
    """What would tell two explanations apart: something to yield, or a probe to support.

    `rest` are the probes that the port was not driven with.
    """
    for run in runs:
        first = Replays(run.probe, one.stages).careful
        second = Replays(run.probe, other.stages).careful
        if first is not None and second is not None:
            for name in observable(first, second):
                what = name if name in OFFERED else f"state: {name}"
                return f"yield {what} ({run.probe.title})"
    for probe in rest:
        mine = Replays(probe, one.stages).quick
        theirs = Replays(probe, other.stages)
        if (mine is None) != (theirs.quick is None):
            return f"support {probe.title}"
        if mine is not None and not theirs.reproduces(mine):
            return f"support {probe.title}"
    return ""


def observable(first: Replay, second: Replay) -> Iterator[str]:
    """The names of what two replays have otherwise, beyond both of their bounds."""
    for name, (values, bounds) in first.observed.items():
        others, other_bounds = second.observed.get(name, ([], []))
        if len(others) != len(values):
            continue
        quadruples = zip(values, others, bounds, other_bounds, strict=True)
        with np.errstate(invalid="ignore"):
            parts = any((abs(a - b) > mine + theirs).any() for a, b, mine, theirs in quadruples)
        if parts:
            yield name
