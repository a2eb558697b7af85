"""Two recorded runs held against each other: where they part, and what the second does otherwise.

The first run is taken for the right one. Gradients are compared where both begin at the same
parameters; everything after them from the state that each run itself had recorded, so that one
difference makes nothing that follows look wrong.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from shlex import quote
from typing import Literal

from threadpoolctl import threadpool_limits

from lockstep.problem import Optimizer
from lockstep.trace.added import added_findings, moving, names_of, others_of
from lockstep.trace.added_up import added_up_findings
from lockstep.trace.averaging import averaging_findings, averaging_notes
from lockstep.trace.by_value import clipped_by_value
from lockstep.trace.clipping import (
    CLIPS,
    by_hand_findings,
    clip_findings,
    clips_of,
    cut_sums,
    frozen_findings,
    limit_of_sums,
    masked_findings,
    update_finding,
    way_of,
    with_clip,
)
from lockstep.trace.data import (
    cut_findings,
    data_findings,
    left_of_epoch,
    numbered_by_cuts,
    windows_of,
)
from lockstep.trace.decays import clipped_decay_findings, decay_findings, decays
from lockstep.trace.findings import Finding, listed, ordered, turned
from lockstep.trace.floor import (
    Floor,
    coarse_notes,
    derived,
    dtype_of,
    measured,
    precision_notes,
    rounding_notes,
    seen,
)
from lockstep.trace.forward import LOSS
from lockstep.trace.frozen import (
    counted_findings,
    skipped,
    skipped_findings,
    unfed_findings,
    without,
)
from lockstep.trace.gradients import Pair, beside_each_other, got_alike, pairs, pulls_of
from lockstep.trace.identify import Identified
from lockstep.trace.kinds import by_kind
from lockstep.trace.lazy import awake, lazy, lazy_findings
from lockstep.trace.masked import MASKED
from lockstep.trace.matching import Matching, changed_by, constant, matched
from lockstep.trace.model import model_findings
from lockstep.trace.moments import (
    average_findings,
    both_unexplained,
    differing,
    moments,
    unexplained_averages,
    unexplained_findings,
)
from lockstep.trace.numbers import Number, agreed
from lockstep.trace.reading import Trace, TraceError, read, read_names
from lockstep.trace.rules import as_counted, rate_name, rates_of, rule_of
from lockstep.trace.settings import settings_of
from lockstep.trace.state import as_kept, between, state_findings
from lockstep.trace.steps import HALF, begun, counts, steps
from lockstep.trace.updates import (
    acts,
    coincide,
    foreign_rule,
    left_of,
    placement_findings,
    rule_findings,
    still_findings,
    uneven,
)
from lockstep.trace.whole import still_at
from lockstep.trace.windows import REUSED, SKIPPED, UNNAMED, skip_findings, window_findings

Verdict = Literal["same", "differs"]


@dataclass(frozen=True, eq=False, repr=False)
class Comparison:
    """What was found.

    mine, theirs: the runs; matching: of their parameters; findings: in the order of the stages;
    pairs: the micro-batches' gradients that could be compared; left: what no name explains, a
    sentence each; notes: what the runs did not show, or not exercise; compared: how many numbers;
    alone: whether both are one run, which was held against its own settings; floor: what rounding
    may be of a gradient; coarse: the dtype of parameters that move by no more than that rounds.
    """

    mine: Trace
    theirs: Trace
    matching: Matching
    findings: Sequence[Finding]
    pairs: Sequence[Pair] = ()
    left: Sequence[str] = ()
    notes: Sequence[str] = ()
    compared: int = 0
    alone: bool = False
    floor: Floor | None = None
    coarse: str = ""

    @property
    def verdict(self) -> Verdict:
        """Whether both take the same updates, but for policies that are said."""
        real = [finding for finding in self.findings if not finding.policy]
        return "differs" if real or self.left else "same"

    @property
    def seen(self) -> float | None:
        """How far gradients of the same parameters are apart, if that is taken for rounding."""
        return seen(self.pairs, self.floor) if self.floor is not None else None

    @property
    def status(self) -> int:
        """The exit status: 0 the same, 1 not."""
        return 0 if self.verdict == "same" else 1

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The names of the differences."""
        return tuple(dict.fromkeys(finding.name for finding in self.findings))

    @cached_property
    def first(self) -> Finding | None:
        """Where the runs part: the finding of the first update, and stage, that shows one."""
        real = [each for each in self.findings if not each.policy]
        return min(real, key=lambda each: each.update, default=None)

    def assert_same_updates(self) -> None:
        """Raise AssertionError, which tells what was found, unless the updates are the same."""
        if self.verdict != "same":
            raise AssertionError(str(self))

    def __repr__(self) -> str:
        does = {"same": "takes the same updates", "differs": "differs"}[self.verdict]
        said = [f"{each.name}: {each.said}" for each in self.findings] + list(self.left)
        return "\n".join([f"{self.theirs.folder} {does}", *said])


def compare_traces(
    mine: str | Path,
    theirs: str | Path,
    names: Mapping[str, str] | str | Path | None = None,
    again: str | Path | None = None,
) -> Comparison:
    """Compare the trace of a run, which is taken for right, with that of its port.

    names: parameters that are known to belong together, the first run's to the other's, or a JSON
    file of them; again: the first run recorded once more, in more digits or with its examples in
    another order, by which it is measured what rounding does to its gradients. Raises TraceError
    where a trace cannot be read, or the runs begin at different parameters.
    """
    first, second = read(mine).finite(), read(theirs).finite()
    once_more = None if again is None else read(again)
    given = given_names(names, first, second)
    # Threads wait for each other where a training run has the cores, and are no quicker where not.
    with threadpool_limits(1, "blas"):
        return compared(first, second, given, once_more)


def given_names(
    names: Mapping[str, str] | str | Path | None, mine: Trace, theirs: Trace
) -> Mapping[str, str]:
    """The names that somebody gave, checked."""
    if names is None:
        return {}
    names = read_names(names)
    if not isinstance(names, Mapping):
        raise TraceError("the names must be a JSON object: the first run's to the other's")
    for name, other in names.items():
        for known, trace in ((name, mine), (other, theirs)):
            if known not in trace.parameters:
                raise TraceError(
                    f"{known!r}: no parameter of {trace.folder}, which has"
                    f" {listed(trace.parameters)}"
                )
    return names


def compared(
    mine: Trace, theirs: Trace, names: Mapping[str, str], again: Trace | None = None
) -> Comparison:
    """The comparison of two traces."""
    dtypes = dtype_of(mine), dtype_of(theirs)
    whole_run = mine
    mine, matching = parameters_matched(mine, theirs, names)
    floor = derived(dtypes, max(len(matching.matches), 1))
    if again is not None:
        floor = measured(whole_run, dtypes[0], again, floor)
    taken = begun(mine)
    own = begun(theirs) if counts(theirs.updates[0]) else taken
    both = [as_kept(steps(mine, taken)), as_kept(steps(theirs, own))]
    whole, other_whole = (clipped_by_value(*each) for each in (both, both[::-1]))
    still, other_still = lazy(whole), lazy(other_whole)
    alone, other_alone = skipped(whole), skipped(other_whole)
    first = Identified(without(awake(whole, still), alone), Optimizer())
    second = Identified(without(awake(other_whole, other_still), other_alone), Optimizer())
    first.optimizer = settings_of(first.steps, first)
    second.optimizer = settings_of(second.steps, second, first.optimizer)
    gradients, found, by_hand = gradient_findings(first, second, matching, floor.relative)
    found += between(other_whole, whole, {*matching.left, *matching.other_left})
    every = list(added_up_findings(mine, theirs))
    if every:
        # An update of one is none of the other, and its state another one.
        found = [each for each in found if each.stage != "window"] + every
    else:
        found += state_findings(first, second, matching)
    for name, weight in pulls_of(gradients).items():
        decay = Number(abs(weight.value), weight.error)
        if weight.value > 0:
            second.in_loss.update(dict.fromkeys(matching.others([name]), decay))
        else:
            first.in_loss[name] = decay
    found += lazy_findings(still, other_still, matching)
    found += averaging_findings(whole, other_whole, max(first.accumulation, second.accumulation))
    cut = any(each.name == SKIPPED for each in found)
    if not cut:
        found += skipped_findings(whole, other_whole, alone, other_alone, matching)
        found += counted_findings(whole, other_whole, matching)
        found += unfed_findings(whole, other_whole, matching)
    left, said = list[str](), list[str]()
    kinds = [] if every else by_kind(first, second, matching)
    clipped = by_hand or len(kinds) > 1
    if clipped and not by_hand:
        # A clip may be of the tensors of several of them.
        found += clip_findings(first, second, matching)
    for part in kinds:
        more, unexplained, unseen = update_findings(*part, matching, cut, clipped)
        told = {(each.name, each.said) for each in found}
        found += [each for each in more if (each.name, each.said) not in told]
        found = numbered_by_cuts(found)
        left, said = left + unexplained, said + [each for each in unseen if each not in said]
    masked = {*turned(MASKED, "")[:1], MASKED}
    if masked <= {each.name for each in found} and got_alike(first, second, matching, gradients):
        # What one run empties in one place, the other does in another.
        found = [each for each in found if each.name not in masked]
    said += notes(first, second, gradients, matching)
    if by_hand and not any(each.stage in ("window", "clip") for each in found):
        said += factor_notes(first, second, gradients)
    said += averaging_notes(whole, other_whole)
    said += precision_notes(mine, theirs, dtypes)
    said += rounding_notes(gradients, floor) if again is None else ()
    if left and coincide(mine, theirs, matching, gradients):
        left = []
        said.append("its rule is not known here: after each update both are at one point")
    frozen = whole.still | other_whole.still
    sums = moving(matching.added, frozen), moving(matching.other_added, frozen)
    found += added_findings(*sums)
    known = {name for each in sums for name in (*names_of(each), *others_of(each))}
    unmoved = {
        name for name, places in matching.free.items() if still_at(theirs.updates, name, places)
    }
    averages = {*whole.targets, *other_whole.targets}
    left += unmatched(matching, {*frozen, *known, *unmoved, *averages})
    coarse = first.steps.coarse or second.steps.coarse
    said += coarse_notes(coarse)
    return Comparison(
        mine, theirs, matching, ordered(found), gradients, left, said, size(second), floor=floor,
        coarse=coarse,
    )  # fmt: skip


def gradient_findings(
    first: Identified, second: Identified, matching: Matching, rounding: float
) -> tuple[list[Pair], list[Finding], bool]:
    """The gradients that can be compared, and what is different up to their sum.

    And whether clipping is told with them: where both rules get the same, or a run clips before its
    sum is seen.
    rounding: how far that alone takes gradients apart, of their norm.
    """
    mine, theirs = first.steps.trace, second.steps.trace
    skips = list(skip_findings(first, second))
    windows = windows_of(first, second)
    cuts = [] if skips else list(cut_findings(windows))
    # From there on, an update of both is not one of the same data.
    until = min((each.update for each in skips + cuts), default=len(mine.updates) + 1)
    gradients = list(pairs(first, second, matching, rounding, until, bool(cuts)))
    clipped = by_hand_findings(first, second)
    if clipped is not None:
        gradients = list(beside_each_other(gradients, cut_sums(first, second)))
    found = skips + cuts
    for each in model_findings(mine, theirs, gradients, matching):
        found.append(replace(each, said=each.said + left_of_epoch(windows, each.update)))
    if not any(each.stage == "data" for each in found):
        off = {pair.update: False for pair in gradients}
        off |= {pair.update: True for pair in gradients if pair.off}
        found += (each for each in data_findings(windows, off) if each.update < until)
    if other := [each.update for each in found if each.stage == "data"]:
        # Of other data the gradient is another one.
        found = [e for e in found if e.name != "another gradient" or e.update < min(other)]
    if any(each.name == "label-shift" for each in found):
        # Their fingerprints differ, and why is known.
        found = [each for each in found if each.stage != "data"]
    # With which weight other data enter says nothing.
    told = {each.update for each in gradients if each.update in other and each.off}
    known = [each for each in gradients if each.update < until and each.update not in told]
    weighed = list(window_findings(known, second, first))
    # What lies between a gradient and the rule may be anywhere, if it comes to the same.
    unnamed = {*UNNAMED, *(turned(name, "")[0] for name in UNNAMED)}
    if any(each.modules == LOSS for each in found):
        # Of another loss, the gradient may be of another size, too.
        weighed = [each for each in weighed if each.name not in unnamed]
    by_hand = clipped is not None
    nameless = bool(weighed) and {each.name for each in weighed} <= unnamed
    if nameless and not by_hand and got_alike(first, second, matching, gradients):
        return gradients, found, True
    if any(each.name.endswith(REUSED) for each in weighed):
        found = [each for each in found if each.stage != "data"]
    found += [*(clipped or ()), *weighed]
    return gradients, found, by_hand


def update_findings(
    first: Identified, second: Identified, matching: Matching, skipped: bool, clipped: bool
) -> tuple[list[Finding], list[str], list[str]]:
    """What is different from clipping on, what no rule explains, and what clipping did not show.

    skipped: whether one of the runs takes no step for a window; clipped: whether clipping is told
    already, with the gradients or of all kinds of optimizers.
    """
    mine, theirs = first.steps.trace, second.steps.trace
    accumulation = max(each.micro_batches for each in (*mine.updates, *theirs.updates))
    if not first.steps.shows_clipped and second.steps.shows_clipped:
        first = with_clip(first, rates_of(second, rule_of(second, {}, accumulation)))
    right = rule_of(first, rates_of(first, None), accumulation)
    expected = rates_of(first, right)
    if first.factors:
        second = with_clip(second, expected)
    found = [] if clipped else list(clip_findings(first, second, matching))
    found += masked_findings(first, second, matching)
    found += frozen_findings(first, second)
    if any(each.name.endswith(CLIPS["emptied"]) for each in found):
        return found, [], []  # where nothing moves, no rule shows
    off = unexplained_averages(second), unexplained_averages(first)
    if first.steps.family == second.steps.family:
        found += average_findings(moments(first), second)
        found += unexplained_findings(*off)
        if first.betas or second.betas:
            known = {each.name for each in found}
            found += (e for e in differing(first, second, matching) if e.name not in known)
    if skipped or second.steps.anew:
        expected = as_counted(expected, first, second)
    rule = rule_of(second, expected, accumulation)
    if not rates_of(first, None) and rate_name(rule.rates, expected, accumulation):
        # Of rates that nobody recorded, the first run's may be what a mistake makes of the other's.
        other = rule_of(first, rule.rates, accumulation)
        if other.form and not rate_name(other.rates, rule.rates, accumulation):
            right, expected = other, rates_of(first, other)
    found += placement_findings(first.steps, second.steps, expected)
    if (cut := update_finding(first, second, expected, rule.rates)) is not None:
        found.append(cut)
        expected = rule.rates  # nothing else is told by their rates
    named = list(rule_findings(rule, expected, accumulation, right, matching))
    still = {*second.steps.still, *matching.others(first.steps.still)}
    alone = [] if skipped else list(uneven(rule, right, matching, still))
    if alone and not any(map(rule.moves_all, rule.rates.keys() & expected.keys())):
        # What moves in updates without the others is no rate of all.
        named = [each for each in named if each.stage != "rate"]
    found += named + alone
    found += still_findings(first.steps, second.steps, matching)
    one = agreed(list(expected.values()))
    found += clipped_decay_findings(first, second, matching)
    found += decay_findings(decays(first, right), decays(second, rule), matching, one)
    left = [*left_of(rule, right, foreign_rule(mine)), *both_unexplained(*off)]
    return found, left, list(clip_notes(first, second))


def parameters_matched(
    mine: Trace, theirs: Trace, names: Mapping[str, str]
) -> tuple[Trace, Matching]:
    """The parameters of two runs, by the values that they begin with, and where the first begins.

    A run that was resumed begins where the first one was.
    """
    others, hint = theirs.begins, theirs.first("accumulated")
    for number in range(1, len(mine.updates) + 1):
        begins = mine if number == 1 else mine.since(number)
        if number > 1 and begins.sketched:
            continue
        values = begins.begins
        found = matched(values, others, names, (begins.first("accumulated"), hint))
        drawn = [name for name, array in values.items() if not constant(array)]
        if not drawn or any(name not in found.left for name in drawn):
            return begins, found
    first, second = (
        {run.firsts[n].dtype("before", n) for n in run.begins} for run in (mine, theirs)
    )
    if first != second and {*first, *second} & {*HALF}:
        raise TraceError(
            f"the parameters of {mine.folder} are in {listed(sorted(first))}, and those of"
            f" {theirs.folder} in {listed(sorted(second))}: they begin at other numbers, and"
            " nothing can be compared; record a run of both in one dtype"
        )
    near = ""
    if (apart := changed_by(mine.begins, others)) is not None:
        near = (
            f", which are {apart:.1g} of their norm apart: one run may have changed them before its"
            " first update, as SAM does until it takes its step back"
        )
    raise TraceError(
        f"{mine.folder} and {theirs.folder} begin at different parameters"
        f"{near}, and nothing can be compared; record the second from the first's: lockstep trace"
        f" init {quote(str(mine.folder))} --to {theirs.framework} --like"
        f" {quote(str(theirs.folder))} --out initial.safetensors writes them"
    )


def unmatched(matching: Matching, known: Collection[str]) -> Iterator[str]:
    """The parameters that have no counterpart; known: of which that is told, or no difference."""
    for name in matching.left:
        nearest = matching.nearest.get(name)
        like = f"; {nearest} looks most like it" if nearest else ""
        if name not in {*known, *matching.own_copies}:
            yield f"{name} has no counterpart in the other run{like}: --map says which it is"
    for name in matching.other_left:
        if name not in {*known, *matching.copies}:
            yield f"{name} of the other run has no counterpart"
    for name in sorted(set(matching.free) - set(known)):
        yield f"{len(matching.free[name])} numbers of {name} of the other run have no counterpart"


def clip_notes(mine: Identified, theirs: Identified) -> Iterator[str]:
    """What of clipping the runs did not exercise, or not show."""
    shown = clips_of(mine) and clips_of(theirs)
    if shown and way_of(mine) is None and limit_of_sums(mine) is None:
        count = len(theirs.steps.numbers)
        which = "clipping" if way_of(theirs) is None else "the first run's clipping"
        yield f"{which} never acted in these {count} updates: its threshold is not known"
    if not shown:
        yield "what clipping did was not shown: clipping was not looked at"
    cut = cut_sums(mine, theirs)
    if cut and all(cut.get(update) for update in theirs.steps.numbers):
        yield (
            "each sum is clipped, and seen behind that alone: what all its gradients are multiplied"
            " with, as a missing 1 / K, would not show"
        )


def factor_notes(mine: Identified, theirs: Identified, gradients: Sequence[Pair]) -> Iterator[str]:
    """A factor of all gradients that clips leave nothing of."""
    times = agreed([pair.coefficient for pair in gradients])
    if times is not None and not times.equals(1.0) and (way_of(mine) or way_of(theirs)):
        yield (
            f"its gradients are {times} times those of the first run, and clipped to the same:"
            " where a clip does not act, its updates will be other ones"
        )


def notes(
    mine: Identified, theirs: Identified, gradients: Sequence[Pair], matching: Matching
) -> Iterator[str]:
    """Where the runs begin; what they did not exercise, or not show."""
    count = len(theirs.steps.numbers)
    if mine.steps.trace.earlier is not None:
        first, second = (run.steps.trace for run in (mine, theirs))
        number = first.updates[0].facts["update"]
        yield (
            f"{second.folder.name} begins where {first.folder.name} had taken {number - 1} updates:"
            f" its update 1 is compared with update {number} there"
        )
    steps = [*mine.steps.of.values(), *theirs.steps.of.values()]
    if mine.optimizer.amsgrad != theirs.optimizer.amsgrad and not acts(steps):
        yield f"the maximum of AMSGrad, which one run has, never acted in these {count} updates"
    more = len(mine.steps.trace.updates) - len(theirs.steps.trace.updates)
    if more:
        which = "the first run" if more > 0 else "it"
        words = "update: it was" if abs(more) == 1 else "updates: they were"
        yield f"{which} goes on for {abs(more)} more {words} not compared"
    if not theirs.steps.of:
        yield "its parameters were not recorded: its updates were not looked at"
    alone = mine.steps.still & {*matching.left} | theirs.steps.still & {*matching.other_left}
    if alone:
        which = listed(sorted(alone))
        yield f"{which}, which no update moves, has no counterpart: it was not compared"
    if not gradients:
        yield "no gradients could be compared: no update begins at the same parameters in both"
    elif all(pair.micro_batch is None for pair in gradients):
        yield "the gradients of single micro-batches were not shown: only their sum was compared"
    for run in (mine, theirs):
        for said in run.steps.trace.facts.get("notes", ()):
            yield f"{run.steps.trace.folder.name}: {said}"


def size(run: Identified) -> int:
    """How many numbers were compared: of parameters, after all updates."""
    return sum(step.after.size for step in run.steps.of.values())
