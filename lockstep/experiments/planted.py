"""`lockstep run --mistake`: a mistake in every framework, beside the loop without it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lockstep import mistakes
from lockstep.diagnosis.probes import Probe, probes
from lockstep.diagnosis.replay import Replays, replays
from lockstep.oracle import loop
from lockstep.oracle.compare import Comparison, compare_bounds, relative
from lockstep.oracle.loop import Stages
from lockstep.problem import Array
from lockstep.problem.settings import ProblemError, require
from lockstep.workers.folders import TemporaryFolder
from lockstep.workers.pool import Worker, importing, train_in_all


@dataclass(frozen=True)
class Planted:
    """A mistake on the probe that shows it.

    Of every framework that can make it: how far its parameters are, after every update, from the
    correct loop's, relative to the largest of these; how they compare with the reference loop
    that makes the mistake, and how the framework without the mistake compares with the correct
    one. losses: over an epoch, after every update, without and with the mistake, by the reference.
    """

    name: str
    probe: Probe
    distances: Mapping[str, list[float]]
    mistaken: Mapping[str, Comparison]
    correct: Mapping[str, Comparison]
    losses: tuple[list[float], list[float]]


def shown_by(name: str) -> Probe:
    """The first probe whose parameters the mistake changes; that of the matrix comes last.

    In all its forms, where there is such a probe: each framework makes one of them. Raises
    ProblemError where no probe shows it: what is wrong there is not the update.
    """
    mistake = mistakes.load(name)
    first, *others = probes()
    for forms in ([mistake.stages, *mistake.forms], [mistake.stages]):
        for probe in (*others, first):
            if all(changes(stages, probe) for stages in forms):
                return probe
    raise ProblemError(f"{name}: its update is right, so that there is nothing to run")


def changes(stages: Stages, probe: Probe) -> bool:
    """Whether a mistake changes the parameters on a probe, and its loop does not fail there."""
    right, wrong = replays(probe).quick, replays(probe, stages)
    return right is not None and wrong.quick is not None and not wrong.reproduces(right)


def able(name: str, frameworks: Sequence[str]) -> list[str]:
    """The frameworks that can make a mistake.

    Raises ProblemError where none of these can.
    """
    found = [each for each in frameworks if each not in mistakes.load(name).impossible]
    require(bool(found), f"{name}: cannot be made in {', '.join(frameworks)}")
    return found


def run(name: str, probe: Probe, workers: Mapping[str, Worker]) -> Planted:
    """Train on a probe with and without the mistake, in frameworks that can make it."""
    mistake = mistakes.load(name)
    with TemporaryFolder() as folder, importing(folder, workers):
        planted = {each: f"{mistakes.plant(name, each, Path(folder))}.recipe" for each in workers}
        wrong = trajectories(workers, planted, probe)
    right = trajectories(workers, {each: f"{each}_impl.recipe" for each in workers}, probe)
    own = replays(probe)
    forms = [replays(probe, stages) for stages in (mistake.stages, *mistake.forms)]
    return Planted(
        name,
        probe,
        {each: distances(own, run) for each, run in wrong.items()},
        {each: compare(closest(forms, run), run) for each, run in wrong.items()},
        {each: compare(own, run) for each, run in right.items()},
        (losses(own), losses(forms[0])),
    )


def trajectories(
    workers: Mapping[str, Worker], ports: Mapping[str, str], probe: Probe
) -> dict[str, list[Array]]:
    """The probe in every worker."""
    return {name: run for name, (run, _) in train_in_all(workers, ports, probe.problem).items()}


def closest(forms: list[Replays], run: list[Array]) -> Replays:
    """The form of the mistake that a framework makes; the first, if it is none of them."""
    return next((form for form in forms if form.reproduces(run)), forms[0])


def compare(replays: Replays, run: list[Array]) -> Comparison:
    """Hold a run against a replay, within its bounds."""
    careful = replays.careful
    assert careful is not None
    require(
        len(run) == len(careful.values),
        f"{replays.probe.title}: {len(run)} updates instead of {len(careful.values)}",
    )
    return compare_bounds(careful.values, run, careful.bounds)


def distances(correct: Replays, run: list[Array]) -> list[float]:
    """How far a run is from the correct loop, after every update that both have."""
    return [relative(e, a) for e, a in zip(correct.quick or [], run, strict=False)]


def losses(replays: Replays) -> list[float]:
    """The objective over an epoch after every update."""
    return [loop.loss(theta, replays.probe.problem) for theta in replays.quick or []]
