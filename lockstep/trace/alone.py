"""One recorded run held against its own settings: no second framework is needed for that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_limits

from lockstep import mistakes
from lockstep.problem import Optimizer
from lockstep.problem.settings import OPTIMIZERS
from lockstep.trace.added_up import added_up
from lockstep.trace.by_value import clipped_by_value
from lockstep.trace.clipping import emptied_findings, with_clip
from lockstep.trace.comparison import Comparison, size
from lockstep.trace.decays import decay_findings, decays
from lockstep.trace.findings import ordered
from lockstep.trace.floor import coarse_notes
from lockstep.trace.frozen import skipped, without
from lockstep.trace.identify import Identified
from lockstep.trace.kinds import by_kind
from lockstep.trace.lazy import awake, lazy
from lockstep.trace.matching import Match, Matching
from lockstep.trace.moments import (
    Moment,
    average_findings,
    unexplained_averages,
    unexplained_findings,
)
from lockstep.trace.numbers import Number
from lockstep.trace.ranks import folders, rank_findings
from lockstep.trace.reading import Trace, TraceError, read
from lockstep.trace.rules import Rule, rates_of, rule_of
from lockstep.trace.settings import FORMULA, SETTINGS, group_of, settings_of
from lockstep.trace.state import as_kept, between
from lockstep.trace.steps import Step, Steps, steps
from lockstep.trace.updates import foreign_rule, left_of, rule_findings
from lockstep.trace.windows import clipped_within_findings, window_findings


def check_trace(folder: str | Path) -> Comparison:
    """Whether each update of a run is what its recorded settings say, and its windows are its own.

    Of a run of several ranks, each with a trace in a folder `rank-0`, `rank-1` and so on, the first
    is held against its settings, and the others against the first. Raises TraceError where the
    trace cannot be read, or knows no settings to hold it against.
    """
    trace, *others = [read(each).finite() for each in folders(Path(folder))]
    with threadpool_limits(1, "blas"):
        return checked(trace, others)


def checked(trace: Trace, others: Sequence[Trace]) -> Comparison:
    """The same of a trace that was read, beside those of the other ranks."""
    if not trace.groups:
        raise TraceError(
            f"{trace.folder}: the recorder could see no settings of the optimizer, so there is"
            " nothing to hold the run against; name a second run"
        )
    recorded = turned_round(steps(trace)) if trace.groups[0].get("maximize") else steps(trace)
    whole = clipped_by_value(as_kept(recorded))
    moved = without(awake(whole, lazy(whole)), skipped(whole))
    run = Identified(moved, Optimizer(), eps=trace.by_tensor("eps"))
    run.optimizer = settings_of(run.steps, run)
    accumulation = max(update.micro_batches for update in trace.updates)
    expected = rates_of(run, None)
    run = with_clip(run, expected)
    found = list(between(whole))
    found += window_findings((), run)
    found += clipped_within_findings(run)
    found += emptied_findings(run)
    notes = ["whether a window is the mean of its examples shows beside a second run alone"]
    notes += trace.facts.get("notes", ())
    left: list[str] = []
    foreign = foreign_rule(trace)
    if foreign is not None:
        notes.append(f"its rule, {foreign}, is not known here: its updates were not looked at")
    for part, _ in by_kind(run, run, itself(trace)):
        given, rates = group_of(part.steps), rates_of(part, None)
        expected = expected or rates
        if added_up(trace) == 1:
            found += average_findings(settings_moments(part, given), part)
            found += unexplained_findings(unexplained_averages(part), {})
        if foreign is not None:
            continue
        rule = rule_of(part, rates, accumulation)
        declared = Rule(None, declared_of(part.optimizer, rule.optimizer, given), {})
        for each in rule_findings(rule, rates, accumulation, declared, itself(trace)):
            # A library's own rule is what its settings mean.
            own_rule = each.known and mistakes.load(each.name).kind == "library"
            found.append(replace(each, policy=own_rule))
        own = decays(part, rule)
        found += decay_findings(settings_decays(part.steps, own), own, itself(trace))
        left += left_of(rule)
    found += rank_findings([trace, *others])
    if not expected:
        notes.append("the recorder saw no learning rates: they were not looked at")
    coarse = run.steps.coarse
    notes += coarse_notes(coarse)
    return Comparison(
        trace, trace, itself(trace), ordered(found), (), left, notes, size(run), True, coarse=coarse
    )  # fmt: skip


def turned_round(run: Steps) -> Steps:
    """The steps of a run that goes up, as those of one that goes down."""
    return replace(run, of={key: downwards(step) for key, step in run.of.items()})


def downwards(step: Step) -> Step:
    """A step with the gradients of the loss with the other sign."""
    gradients = step.accumulated, step.clipped
    accumulated, clipped = (None if each is None else -each for each in gradients)
    return replace(step, accumulated=accumulated, clipped=clipped)


def itself(trace: Trace) -> Matching:
    """Each parameter as its own counterpart."""
    return Matching({name: Match(name, (), (name,)) for name in trace.parameters})


def declared_of(settings: Optimizer, found: Optimizer, given: Mapping[str, Any]) -> Optimizer:
    """The settings that a run should have, which are what was found where none was recorded."""
    if settings.name != found.name:
        return settings
    recorded = {SETTINGS.get(name, name) for name in given}
    unseen = (n for n in UNSEEN if n in OPTIMIZERS[settings.name] and n not in recorded)
    return replace(settings, **{name: getattr(found, name) for name in unseen})


# Settings that the formula of an update shows, and not the state.
UNSEEN = ("eps", *FORMULA)


def settings_moments(run: Identified, given: dict[str, Any]) -> tuple[Moment, Moment]:
    """How the moments should go on, by the settings."""
    if run.steps.family == "sgd":
        if "momentum" not in given:
            return Moment(None, None), Moment(None, None)
        momentum, dampening = (float(str(given.get(k, 0.0))) for k in ("momentum", "dampening"))
        first = Moment(Number(momentum, 0.0), None if dampening else Number(1.0, 0.0))
        return first, Moment(None, None)
    known = given.get("betas") or (given.get("beta_1"), given.get("beta_2"))
    betas = [float(str(beta)) for beta in known if beta is not None]
    if len(betas) != 2:
        return Moment(None, None), Moment(None, None)
    first, second = (Moment(Number(b, ROUNDED * b), Number(1 - b, ROUNDED * b)) for b in betas)
    # Lion keeps one moment, which goes on with the second.
    return (second, Moment(None, None)) if run.steps.family == "lion" else (first, second)


# What a library keeps of a setting that is held in float32.
ROUNDED = 2.0**-23


# Where the decay goes in the libraries' own optimizers.
DECOUPLED = ("AdamW", "Lion")
COUPLED = ("Adam", "SGD", "RMSprop", "Adagrad", "Adadelta", "Adamax", "NAdam")


def settings_decays(
    run: Steps, own: Mapping[str, tuple[str, Number]]
) -> dict[str, tuple[str, Number]]:
    """How each tensor should decay, by the settings of the first update, where they were seen.

    Of a class that somebody wrote it is not known where the decay should go.
    """
    trace = run.trace
    classes = [str(each.get("name", "")) for each in trace.facts.get("optimizers", ())]
    how = dict.fromkeys(DECOUPLED, "decoupled") | dict.fromkeys(COUPLED, "coupled")
    right = how.get(classes[0]) if len(classes) == 1 and trace.framework == "pytorch" else None
    if classes == ["SGD"] and not run.slots:
        right = None  # without a momentum, both are one
    weights = trace.updates[0].facts.get("decays") or {}
    return {
        name: (
            right or own.get(name, ("coupled",))[0],
            Number(float(weight), ROUNDED * float(weight)),
        )
        for name, weight in weights.items()
        # What is below 0 stands behind the rate in optax' chains, and is no weight of a rule.
        if weight is not None and weight >= 0
    }
