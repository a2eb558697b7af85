"""Two recorded runs held against each other: where they part, and what the second does otherwise.

The first run is taken for the right one. Gradients are compared where both begin at the same
parameters; everything after them from the state that each run itself had recorded, so that one
difference makes nothing that follows look wrong.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from shlex import quote
from typing import Any, Literal

import numpy as np

from lockstep.diagnosis.forms import Form
from lockstep.problem import Optimizer
from lockstep.problem.settings import OPTIMIZERS
from lockstep.trace import forward
from lockstep.trace.averaging import averaging_findings, averaging_notes
from lockstep.trace.data import another_finding, cut_findings, data_findings, data_of, strangers
from lockstep.trace.findings import Finding, ordered
from lockstep.trace.forward import Parting
from lockstep.trace.gradients import Pair, arranged, pairs
from lockstep.trace.identify import Identified
from lockstep.trace.layers import Case, Reason, explained
from lockstep.trace.lazy import awake, lazy, lazy_findings
from lockstep.trace.losses import loss_reason
from lockstep.trace.matching import Matching, constant, matched
from lockstep.trace.naming import (
    KNOWN,
    SECONDS,
    Rule,
    average_findings,
    clip_findings,
    clips_of,
    decay_findings,
    decays,
    differing,
    listed,
    moments,
    rate_name,
    rule_of,
    skip_findings,
    turned,
    unexplained_averages,
    unexplained_findings,
    way_of,
    window_findings,
)
from lockstep.trace.numbers import Number, agreed, unit
from lockstep.trace.placement import as_torch_keeps
from lockstep.trace.reading import (
    Trace,
    TraceError,
    Update,
    read,
    read_names,
)
from lockstep.trace.steps import Step, Steps, begun, goes_on, parameters_between, steps

Verdict = Literal["same", "differs"]
# How near a rate that was read off is to the one that was recorded, of rounding that adds up.
CLOSE = 1e-4


@dataclass(frozen=True, eq=False, repr=False)
class Comparison:
    """What was found.

    mine, theirs: the runs; matching: of their parameters; findings: in the order of the stages;
    pairs: the micro-batches' gradients that could be compared; left: what no name explains, a
    sentence each; notes: what the runs did not show, or not exercise; compared: how many numbers;
    alone: whether both are one run, which was held against its own settings.
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

    @property
    def verdict(self) -> Verdict:
        """Whether both take the same updates, but for policies that are said."""
        real = [finding for finding in self.findings if not finding.policy]
        return "differs" if real or self.left else "same"

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
    mine: str | Path, theirs: str | Path, names: Mapping[str, str] | str | Path | None = None
) -> Comparison:
    """Compare the trace of a run, which is taken for right, with that of its port.

    names: parameters that are known to belong together, the first run's to the other's, or a JSON
    file of them. Raises TraceError where a trace cannot be read, or the runs begin at different
    parameters.
    """
    first, second = read(mine), read(theirs)
    return compared(first, second, given_names(names, first, second))


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


def compared(mine: Trace, theirs: Trace, names: Mapping[str, str]) -> Comparison:
    """The comparison of two traces."""
    mine, matching = parameters_matched(mine, theirs, names)
    taken = begun(mine)
    whole, other_whole = (as_torch_keeps(steps(run, taken)) for run in (mine, theirs))
    still, other_still = lazy(whole), lazy(other_whole)
    first = Identified(awake(whole, still), Optimizer())
    second = Identified(awake(other_whole, other_still), Optimizer())
    first.optimizer = settings_of(first.steps, first)
    second.optimizer = settings_of(second.steps, second, first.optimizer)
    found = list(between(theirs, mine))
    skips = list(skip_findings(first, second))
    cuts = [] if skips else list(cut_findings(mine, theirs))
    # From there on, an update of both is not one of the same data.
    until = min((each.update for each in skips + cuts), default=len(mine.updates) + 1)
    gradients = list(pairs(first, second, matching, until, bool(cuts)))
    found += skips + cuts
    found += model_findings(mine, theirs, gradients, matching)
    if not any(each.stage == "data" for each in found):
        alike = {pair.update for pair in gradients}
        found += (each for each in data_findings(mine, theirs, alike) if each.update < until)
    found += state_findings(first, second)
    if any(each.name == "label-shift" for each in found):
        # Their fingerprints differ, and why is known.
        found = [each for each in found if each.stage != "data"]
    found += window_findings([e for e in gradients if e.update < until], second, first)
    accumulation = max(each.micro_batches for each in (*mine.updates, *theirs.updates))
    if not first.steps.shows_clipped and second.steps.shows_clipped:
        first = with_clip(first, rates_of(second, rule_of(second, {}, accumulation)))
    right = rule_of(first, rates_of(first, None), accumulation)
    expected = rates_of(first, right)
    if first.factors:
        second = with_clip(second, expected)
    found += clip_findings(first, second)
    if first.steps.family == second.steps.family:
        found += average_findings(moments(first), second)
        found += unexplained_findings(*map(unexplained_averages, (second, first)))
        if first.betas or second.betas:
            found += differing(first, second, matching)
    if skips or second.steps.anew:
        expected = as_counted(expected, first, second)
    found += lazy_findings(still, other_still, matching)
    rule = rule_of(second, expected, accumulation)
    found += rule_findings(rule, expected, accumulation, right, matching)
    found += placement_findings(first.steps, second.steps, expected)
    if not skips:
        found += uneven(rule, right, matching)
    found += still_findings(first.steps, second.steps, matching)
    found += decay_findings(
        decays(first, right), decays(second, rule), matching, agreed(list(expected.values()))
    )
    found += averaging_findings(mine, theirs, accumulation)
    frozen = whole.still | other_whole.still
    left, more = [*left_of(rule, right, foreign_rule(mine))], []
    left += both_unexplained(first, second)
    if left and coincide(mine, theirs, matching, gradients):
        left, more = [], ["its rule is not known here: after each update both are at one point"]
    left += unmatched(matching, frozen)
    return Comparison(
        mine, theirs, matching, ordered(found), gradients, left,
        [*notes(first, second, gradients, matching), *more], size(second),
    )  # fmt: skip


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
    raise TraceError(
        f"{mine.folder} and {theirs.folder} begin at different parameters, and nothing can be"
        f" compared; record the second from the first's: lockstep trace init"
        f" {quote(str(mine.folder))} --to {theirs.framework} --like {quote(str(theirs.folder))}"
        " --out initial.safetensors writes them"
    )


# What recorders say of an optimizer, and what a setting is called here.
SETTINGS = {
    "betas": "betas", "eps": "eps", "epsilon": "eps", "momentum": "momentum", "alpha": "alpha",
    "nesterov": "nesterov", "amsgrad": "amsgrad", "centered": "centered", "rho": "rho",
    "dampening": "dampening", "lr_decay": "lr_decay", "momentum_decay": "momentum_decay",
    "initial_accumulator_value": "initial_accumulator_value",
}  # fmt: skip
# Settings that change the formula of an update, and are no state: a port is first held against
# those of the first run.
FORMULA = ("nesterov", "lr_decay", "momentum_decay")


def settings_of(run: Steps, read: Identified, other: Optimizer | None = None) -> Optimizer:
    """The settings of a run's rule: as the state shows them, as they were recorded, or the other's.

    What only the formula of an update shows is the other run's where it was not recorded, and an
    eps in any case: whether it is so is to be found out.
    """
    family = run.family
    given = next(iter(run.trace.groups), {})
    known = {SETTINGS[k]: v for k, v in given.items() if k in SETTINGS}
    if family == "rmsprop" and "rho" in known:
        known["alpha"] = known.pop("rho")  # as Keras calls it
    if "beta_1" in given and "beta_2" in given:
        known["betas"] = given["beta_1"], given["beta_2"]
    if other is not None and other.name == family:
        # What was recorded is the run's own; but an eps shows in the updates alone.
        like = {name: getattr(other, name) for name in OPTIMIZERS[family] if name in FORMULA}
        known = like | known | ({"eps": other.eps} if other.eps else {})
    first, second = (
        agreed([each.decay for each in averages if each.fit.exact])
        for averages in (read.averages, read.squares)
    )
    base = Optimizer(family)
    betas = tuple(known.get("betas", other.betas if other and other.name == family else base.betas))
    if family in ("adam", "adamax"):
        known["betas"] = decay_of(betas[0], first), decay_of(betas[1], second)
    elif family == "lion":
        known["betas"] = betas[0], decay_of(betas[1], first)
    elif family in SECONDS:
        name = SECONDS[family]
        known[name] = decay_of(known.get(name, getattr(base, name)), second)
    if "momentum_buffer" in run.slots:
        given_momentum = known.get("momentum") or (other.momentum if other else 0.0)
        read_off = first if family == "sgd" else run.momentum
        known["momentum"] = max(decay_of(given_momentum, read_off, 1.0), 1e-6)
    else:
        known |= {"momentum": 0.0, "nesterov": False}
    known["amsgrad"] = "max_exp_avg_sq" in run.slots
    known["centered"] = "grad_avg" in run.slots
    return Optimizer(family, **settings_that(family, known))


def decay_of(given: float, read: Number | None, most: float = 1 - 1e-9) -> float:
    """The decay of an average: the number that was set, unless another one was read off."""
    if read is None or read.equals(given):
        return given
    return min(max(read.short, 0.0), most)


def settings_that(family: str, known: Mapping[str, Any]) -> dict[str, Any]:
    """Those settings that an optimizer has; dampening shows in the state, and is no part of it."""
    have = OPTIMIZERS[family]
    return {
        name: value
        for name, value in known.items()
        if name in have and value is not None and name not in ("dampening", "weight_decay")
    }


def between(theirs: Trace, mine: Trace | None = None) -> Iterator[Finding]:
    """Parameters that changed between two updates, and did not in the first run."""
    own, right = (changes(trace) if trace else {} for trace in (theirs, mine))
    for update in sorted(own.keys() ^ right.keys()):
        name, found = "changed between updates", own.get(update) or right[update]
        of, most = tuple(found), max(found.values())
        said = (
            f"between update {update - 1} and {update} something else changed {listed(of)}, by up"
            f" to {most:.2g}"
        )
        if update not in own:
            name, said = turned(name, said)
        yield Finding(name, "between", said, update, of, "before")
        return


def changes(trace: Trace) -> dict[int, dict[str, float]]:
    """By update, which parameters changed since the one before, and by how much at most."""
    found: dict[int, dict[str, float]] = {}
    for number, name, by in parameters_between(trace):
        found.setdefault(number, {})[name] = by
    return found


def state_findings(mine: Identified, theirs: Identified) -> Iterator[Finding]:
    """An optimizer's state that does not go on, or begins as another one."""
    anew = [run.steps.anew for run in (mine, theirs)]
    if anew[0] != anew[1] and not (anew[0] and anew[1]):
        number = max(anew)[0]
        name, said = (
            "opt-state-dropped",
            f"before update {number} the optimizer's state was thrown away: what {number - 1}"
            " updates had left in it is gone",
        )
        if anew[0]:
            name, said = turned(name, said)
        yield Finding(name, "state", said, number, phase="state-before")
        return
    here, there = mine.steps.begins_at, theirs.steps.begins_at
    for slot in sorted(here.keys() & there.keys()):
        # A number that was set may be one of float32.
        if not math.isclose(here[slot], there[slot], rel_tol=2.0**-20):
            said = f"{slot} begins at {there[slot]:.4g} instead of {here[slot]:.4g}"
            yield Finding("another initial state", "state", said, 1, phase="state-before")
    coarse, own = (dtypes_of(run.steps) for run in (mine, theirs))
    usual = "its parameter's dtype"
    for slot in sorted(coarse.keys() | own.keys()):
        if own.get(slot) != coarse.get(slot):
            said = f"{slot} is kept in {own.get(slot, usual)} instead of {coarse.get(slot, usual)}"
            yield Finding("another dtype", "state", said, 1, phase=f"state.{slot}")
    if here and there:
        # They begin at one number: there was nothing in it that could be lost.
        return
    if goes_on(mine.steps.trace) != goes_on(theirs.steps.trace):
        run = mine if goes_on(mine.steps.trace) else theirs
        taken = max((step.taken for step in run.steps.at(1).values()), default=0)
        name, words = "opt-state-dropped", ("it begins", "the first run's")
        if run is theirs:
            name, words = f"without {name}", ("the first run begins", "its own")
        said = f"{words[0]} with an empty state, where {words[1]} has {taken} updates in it"
        yield Finding(name, "state", said, 1, phase="state-before")


def dtypes_of(run: Steps) -> dict[str, str]:
    """The dtypes of the state that is kept in another one than its parameter."""
    return {slot: dtype for step in run.of.values() for slot, dtype in step.dtypes.items()}


def model_findings(
    mine: Trace, theirs: Trace, gradients: Sequence[Pair], matching: Matching
) -> Iterator[Finding]:
    """Gradients that are other ones from the same parameters: the model, its loss or the data."""
    untied = list(untied_findings(matching))
    yield from untied
    pair = next((each for each in gradients if each.off and not each.nothing), None)
    if pair is None or (untied and only_untied(pair, mine, theirs, matching)):
        return
    off = pair.off
    where = "" if pair.micro_batch is None else f" in micro-batch {pair.micro_batch + 1}"
    worst = ", ".join(f"{name} ({off[name]:.1g})" for name in list(off)[:3])
    said = (
        f"the gradients of {len(off)} of {len(pair.rest)} tensors are other ones{where}, at the"
        f" same parameters, most of all {worst}; rounding leaves {pair.floor:.0e}"
    )
    # Updates are numbered from 1, and none is missing.
    found = parted(
        mine.updates[pair.update - 1], theirs.updates[pair.update - 1], matching, pair.floor
    )
    name = "another gradient"
    if found is not None:
        parting, reason = found
        said = f"the forward passes part {parting.where}; {said}"
        if reason is not None:
            name, said = reason.name, f"{reason.said}, {parting.where}; {said.split('; ', 1)[1]}"
    modules = found[0].names if found is not None else ()
    both = [data_of(run.updates[pair.update - 1]) for run in (mine, theirs)]
    index = pair.micro_batch
    if index is not None and index < min(map(len, both)):
        here, there = (data[index] for data in both)
        if strangers(here, there):
            yield another_finding(pair.update, index, here[0], there[0])
            return
    yield Finding(name, "model", said, pair.update, tuple(off), "gradient", modules=modules)


def parted(
    mine: Update, theirs: Update, matching: Matching, floor: float
) -> tuple[Parting, Reason | None] | None:
    """Where the forward passes of an update part, and why; None where they were not recorded."""
    parting = forward.parting(mine, theirs, matching, floor)
    if parting is None:
        return None
    if parting.kind == "loss":
        return parting, loss_reason(mine, theirs, parting.got[0])
    parameters: dict[str, dict[str, Any]] = {}
    for name in mine.phases["before"]:
        module = forward.owner(name, mine.facts["modules"])
        array = mine.array("before", name, whole=True)
        if module is not None and array is not None:
            parameters.setdefault(module, {})[name[len(module) :].lstrip("./")] = array
    return parting, explained(Case(parting, parameters, floor))


def only_untied(pair: Pair, mine: Trace, theirs: Trace, matching: Matching) -> bool:
    """Whether a pair's gradients are the same once those of the copies are added to their own."""
    added = {name: copy for copy, name in matching.copies.items()}
    if set(pair.off) - set(added):
        return False
    update, other = mine.updates[pair.update - 1], theirs.updates[pair.update - 1]
    phase = "accumulated" if pair.micro_batch is None else f"gradient.{pair.micro_batch}"

    def both(name: str) -> tuple[Any, Any]:
        return update.array(phase, name), arranged(other, phase, matching.matches[name])

    # What a recorder sees may have the weight of the micro-batch in it, or not.
    alike = [both(name) for name in pair.rest if name not in pair.off]
    first, second = max(alike, key=lambda each: float(abs(each[0]).max()), default=(None, None))
    if first is None or not (square := float((first * first).sum())):
        return False
    weight = float((first * second).sum()) / square
    for name in pair.off:
        right, own = both(name)
        copied = other.array(phase, added[name])
        if copied is None:
            return False
        turned = forward.arranged(weight * right - own, copied)
        if turned is None or forward.distance(weight * right, own + turned) > pair.floor:
            return False
    return True


def untied_findings(matching: Matching) -> Iterator[Finding]:
    """Parameters of their own that are one in the first run."""
    for copy, name in matching.copies.items():
        said = f"{copy} begins as a copy of {name}, and is trained on its own: they are one there"
        yield Finding("untied", "model", said, 1, (copy,), "before")


def rates_of(run: Identified, rule: Rule | None) -> dict[int, Number]:
    """The rates of a run's updates: as its optimizer had them, or as its updates show them."""
    found = dict(rule.rates) if rule else {}
    for update in run.steps.trace.updates:
        recorded = set((update.facts.get("rates") or {}).values())
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
    for counted in (shifted, restarted):
        both = counted.keys() & own.keys()
        if both and all(own[update].equals(counted[update]) for update in both):
            return counted
    return expected


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


def rule_findings(
    rule: Rule,
    expected: Mapping[int, Number],
    accumulation_steps: int,
    right: Rule,
    matching: Matching,
) -> Iterator[Finding]:
    """What the rule is that is not the right one, and its rates."""
    first = min(rule.moves, default=1)
    alike = rule.optimizer.name == right.optimizer.name
    known = rule.exact and (right.exact or not right.moves)
    if known and not alike:
        own, other = (RULES[each.optimizer.name] for each in (rule, right))
        said = f"it is {own}, and the first run's is {other}"
        yield Finding("another rule", "rule", said, first, phase="after")
        return
    # What the first run does, too, is no difference.
    others = tuple(sorted(matching.others(right.tensors)))
    if (rule.form, rule.tensors) != (right.form, others):
        if rule.form is not None:
            yield Finding(rule.form.name, "rule", title(rule.form), first, rule.tensors, "after")
        if right.form is not None:
            said = f"{title(right.form)}: the first run does so, and this one does not"
            yield Finding(f"without {right.form.name}", "rule", said, first, others, "after")
    if rule.exact and alike and rule.optimizer.eps != right.optimizer.eps:
        said = f"eps is {rule.optimizer.eps:.4g} instead of {right.optimizer.eps:.4g}"
        yield Finding("eps-default", "rule", said, first, phase="after")
    if not rule.exact:
        return
    if known:
        for name in (*FORMULA, "centered", "amsgrad"):
            own, other = getattr(rule.optimizer, name), getattr(right.optimizer, name)
            both = rule.optimizer.momentum and right.optimizer.momentum
            if own != other and (both or name != "nesterov"):
                if name == "amsgrad" and not any(acts(each.steps) for each in (rule, right)):
                    continue
                called = "nesterov-ignored" if name == "nesterov" and other else f"another {name}"
                yield Finding(called, "rule", f"{name} is {own} instead of {other}", first)
    named = rate_name(rule.rates, expected, accumulation_steps)
    if named is not None:
        first = next(
            u for u in rule.rates if u in expected and not rule.rates[u].equals(expected[u])
        )
        yield Finding(named[0], "rate", named[1], first, phase="after")


def acts(steps: Iterable[Step]) -> bool:
    """Whether a maximum of AMSGrad was ever another number than what it is the maximum of."""
    return any(
        not np.array_equal(step.kept["max_exp_avg_sq"], step.kept["exp_avg_sq"])
        for step in steps
        if "max_exp_avg_sq" in step.kept
    )


def still_findings(mine: Steps, theirs: Steps, matching: Matching) -> Iterator[Finding]:
    """Tensors that move in one of the runs alone."""
    every = {name for _, name in theirs.of}
    here = {other for name in mine.still for other in matching.others([name])} & every
    known = {other for _, name in mine.of for other in matching.others([name])} & every
    for names, name, said in (
        (theirs.still & known - here, "params-not-in-optimizer", "{} never moves"),
        (
            here - theirs.still,
            "without params-not-in-optimizer",
            "{} moves, which never does in the first run",
        ),
    ):
        if names:
            which = tuple(sorted(names))
            yield Finding(name, "rule", said.format(listed(which)), 1, which, "after")


def placement_findings(
    mine: Steps, theirs: Steps, expected: Mapping[int, Number]
) -> Iterator[Finding]:
    """A rate inside of one run's momentum alone, which shows in what follows when it changes."""
    changes = next((n for n in expected if not expected[n].equals(expected[min(expected)])), None)
    if changes is None or mine.rate_inside == theirs.rate_inside:
        return
    name, less = "momentum-lr-placement", "without " if mine.rate_inside else ""
    which = "the first run's momentum" if mine.rate_inside else "its momentum"
    said = f"the rate is inside of {which} alone: from update {changes} on, where it is another one"
    yield Finding(f"{less}{name}", "rule", said, changes, phase="state.momentum_buffer")


def uneven(rule: Rule, right: Rule, matching: Matching) -> Iterator[Finding]:
    """Tensors with a rate of their own, in updates that have no rate of all tensors."""
    off = []
    for update in sorted(rule.moves.keys() & right.moves.keys()):
        if update in rule.rates and update in right.rates:
            continue
        for name, match in matching.matches.items():
            for other in match.others:
                mine, theirs = right.moves[update].get(name), rule.moves[update].get(other)
                if mine is None or theirs is None or not (mine.fit.exact and theirs.fit.exact):
                    continue
                one, two = theirs.rate, mine.rate
                known = max(one.error, two.error) < KNOWN * max(abs(one.value), abs(two.value))
                if known and not one.equals(two):
                    off.append((update, other, f"{other} at {one} instead of {two}"))
    if off:
        first = off[0][0]
        each = [(name, said) for update, name, said in off if update == first]
        words = f"update {first} moves {listed([said for _, said in each])}"
        names = tuple(name for name, _ in each)
        yield Finding("other rates by tensor", "rate", words, first, names, "after")


def title(form: Form) -> str:
    """What a form's mistake is, as a part of a sentence."""
    return f"{form.mistake.title[0].lower()}{form.mistake.title[1:]}"


# What the rules are called.
RULES = {
    "sgd": "SGD", "adam": "Adam", "adamax": "Adamax", "rmsprop": "RMSprop", "adagrad": "Adagrad",
    "adadelta": "Adadelta", "lion": "Lion",
}  # fmt: skip
# Rules of the libraries that are not known here.
FOREIGN = {
    "ASGD", "Adafactor", "Ftrl", "LBFGS", "Lamb", "Muon", "NAdam", "Nadam", "RAdam", "Rprop",
}  # fmt: skip


def foreign_rule(trace: Trace) -> str | None:
    """The name of a library's rule that is not known here, if a run has one."""
    names = {str(each.get("name", "")) for each in trace.facts.get("optimizers", ())}
    return next(iter(sorted(names & FOREIGN)), None)


def left_of(rule: Rule, right: Rule | None = None, foreign: str | None = None) -> Iterator[str]:
    """The updates that no rule explains.

    right: the first run's; foreign: the name of the rule that it should have, where that is not
    known here.
    """
    if foreign is not None:
        yield (
            f"the first run's rule is {foreign}, which is not known here: whether both take the"
            " same updates cannot be said"
        )
    elif not rule.exact and rule.moves:
        yield f"from its own gradients and state, {unexplained(rule)}"
    elif right is not None and not right.exact and right.moves:
        yield (
            "its updates follow a known rule, and the first run's none: there, from its own"
            f" gradients and state, {unexplained(right)}"
        )


def both_unexplained(mine: Identified, theirs: Identified) -> Iterator[str]:
    """The moments that go on in no known way in both runs."""
    both = unexplained_averages(mine).keys() & unexplained_averages(theirs).keys()
    for slot in sorted(both):
        yield f"{slot} goes on in no known way in both runs: whether it is one cannot be said"


def coincide(mine: Trace, theirs: Trace, matching: Matching, gradients: Sequence[Pair]) -> bool:
    """Whether every update changes all parameters by the same in both, but for rounding."""
    floors = {pair.update: pair.floor for pair in gradients}
    if not all(each.number in floors for each in (*mine.updates, *theirs.updates)):
        return False
    for update, other in zip(mine.updates, theirs.updates, strict=True):
        apart, size, rounding = 0.0, 0.0, 0.0
        for name, match in matching.matches.items():
            begun, begun_there = update.array("before", name), arranged(other, "before", match)
            ended, ended_there = update.array("after", name), arranged(other, "after", match)
            if begun is None or begun_there is None or ended is None or ended_there is None:
                return False
            change, change_there = ended - begun, ended_there - begun_there
            apart += float(((change - change_there) ** 2).sum())
            size += float((change**2).sum())
            rounding += float(((unit(update.dtype("before", name)) * ended) ** 2).sum())
        if apart > floors[update.number] ** 2 * size + rounding:
            return False
    return True


def unexplained(rule: Rule) -> str:
    """The first update that a rule does not explain."""
    off = rule.off
    first = min(move.step.update for move in off)
    names = [move.step.name for move in off if move.step.update == first]
    worst = max(move.fit.relative for move in off if move.step.update == first)
    return (
        f"update {first} moves {len(names)} tensors as no known rule does: {listed(names)},"
        f" {worst:.1e} of their change"
    )


def unmatched(matching: Matching, frozen: Collection[str]) -> Iterator[str]:
    """The parameters that have no counterpart, and are not frozen: those are notes."""
    for name in matching.left:
        nearest = matching.nearest.get(name)
        like = f"; {nearest} looks most like it" if nearest else ""
        if name not in frozen:
            yield f"{name} has no counterpart in the other run{like}: --map says which it is"
    for name in set(matching.other_left) - set(matching.copies) - set(frozen):
        yield f"{name} of the other run has no counterpart"


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
    if mine.factors and theirs.factors and way_of(mine) is None:
        yield f"clipping never acted in these {count} updates: its threshold is not known"
    if not (mine.factors and theirs.factors):
        yield "what clipping did was not shown: clipping was not looked at"
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
        yield f"{listed(sorted(alone))}, which never moves, has no counterpart: it was not compared"
    if not gradients:
        yield "no gradients could be compared: no update begins at the same parameters in both"
    elif all(pair.micro_batch is None for pair in gradients):
        yield "the gradients of single micro-batches were not shown: only their sum was compared"
    yield from averaging_notes(mine.steps.trace, theirs.steps.trace)
    for run in (mine, theirs):
        for said in run.steps.trace.facts.get("notes", ()):
            yield f"{run.steps.trace.folder.name}: {said}"


def size(run: Identified) -> int:
    """How many numbers were compared: of parameters, after all updates."""
    return sum(step.after.size for step in run.steps.of.values())
