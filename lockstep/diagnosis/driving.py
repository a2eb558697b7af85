"""`lockstep check`: drive a port with the probes.

A port runs in a process of its own, with a time limit for each probe. What it prints, raises or
yields wrongly is told in words; what it does not support is not held against it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lockstep import mistakes
from lockstep.diagnosis.fitting import NARROWER, alone, narrowed, together
from lockstep.diagnosis.forms import unread
from lockstep.diagnosis.naming import Run, accepting, diagnose
from lockstep.diagnosis.probes import Probe, probes
from lockstep.diagnosis.verdict import Failure, Report, requirable
from lockstep.problem import DTYPES, Problem
from lockstep.problem.settings import require as demand
from lockstep.workers import ports
from lockstep.workers.folders import TemporaryFolder
from lockstep.workers.pool import Observed, Refused, Worker, WorkerError, loading, outside

Port = str | Callable[[Problem], Any]
TIMEOUT = 120.0
# After these there is nothing left to drive.
LAST = ("load", "silent", "ended")


def check(
    port: Port,
    timeout: float = TIMEOUT,
    pairs: bool = True,
    only: Sequence[str] | None = None,
    seed: int = 0,
    accept: Sequence[str] = (),
    require: Sequence[str] = (),
    dtype: str = "float64",
    worker: Worker | None = None,
) -> Report:
    """Drive a port with the probes and find what it does otherwise.

    port: "file.py", "file.py:function", "module", "module:function", or a function; one that its
    file does not define at the top, a closure or a lambda, runs in this process and has no time
    limit. timeout: seconds for a probe. pairs: whether to look for more than one difference. only:
    the names of the probes. seed: other numbers in the probes. accept: mistakes of the catalogue
    that are the port's policy, and part of the loop that it is held against. require: what must be
    looked at, ingredients of probes or "all". dtype: "float32" for a port that is float32 in parts.
    worker: one that loads the port already.

    Raises ProblemError for an unknown probe, mistake, ingredient or dtype.
    """
    outside()
    known("mistake", accept, mistakes.names())
    known("ingredient", require, ["all", *requirable()])
    known("dtype", [dtype], DTYPES)
    chosen = select(probes(seed), only)
    name, spec = describe(port)
    with running(spec if spec is not None else port, worker) as drive:
        found = driven(drive, chosen, timeout, dtype)
        if not found.runs and dtype == "float64" and not found.ended:
            single = driven(drive, chosen, timeout, "float32")
            if single.runs:
                # A port that says it has no float64 is checked without; one that does not is wrong.
                failures = {n: f for n, f in found.failures.items() if f.kind == "dtype"}
                single.failures |= dict(list(failures.items())[:1])
                found, dtype = single, "float32"
        if found.runs and not any(run.trajectory for run in found.runs):
            found.failures[found.runs[0].probe.name] = Failure("train yields nothing, on any probe")
            found.runs = []
        if only is None:
            fit(drive, found, timeout, dtype, seed)
    runs, notes = accepting(found.runs, accept)
    return Report(
        name,
        diagnose(runs, pairs=pairs),
        found.refused,
        found.failures,
        dtype,
        sorted(found.notes | notes),
        found.framework,
        found.seconds,
        tuple(accept),
        tuple(require),
    )


def driven(drive: Drive, chosen: Sequence[Probe], timeout: float, dtype: str) -> Found:
    """What a port does on the probes in a dtype, as far as that holds what they are about."""
    able = [p.in_dtype(dtype) for p in chosen if dtype == "float64" or fits(p)]
    found = collect(drive, able, timeout)
    left = {probe.name for probe in chosen} - {probe.name for probe in able}
    found.refused |= dict.fromkeys(sorted(left), "float32 cannot hold what this is about")
    return found


def fit(drive: Drive, found: Found, timeout: float, dtype: str, seed: int) -> None:
    """Ask for what was refused again, in narrower windows, and for all that meets in a port."""
    for windows in NARROWER:
        asked_of = (run.probe.ingredients for run in found.runs)
        if found.ended or any({"ragged", "partial"} <= each for each in asked_of):
            break
        refused = [probe for probe in probes(seed) if probe.name in found.refused]
        asked = {probe.name: again for probe in refused if (again := narrowed(probe, windows))}
        more = driven(drive, list(asked.values()), timeout, dtype)
        for name, again in asked.items():
            if again.name not in more.refused:
                del found.refused[name]
        found.add(more)
    for meeting in (alone, together):
        if not found.ended:
            supported = [run.probe for run in found.runs]
            found.add(driven(drive, meeting(supported, seed), timeout, dtype))


def select(every: Sequence[Probe], only: Sequence[str] | None) -> list[Probe]:
    """The probes of these names; all of them unless names are given."""
    known("probe", only or (), [probe.name for probe in every])
    return [probe for probe in every if only is None or probe.name in only]


def known(what: str, names: Sequence[str], every: Sequence[str]) -> None:
    """Raise ProblemError for a name that is not one of these."""
    for name in names:
        demand(name in every, f"{name}: no such {what}, they are {', '.join(every)}")


def fits(probe: Probe) -> bool:
    """Whether float32 holds what the probe is about."""
    return not {"precision", "skip"} & probe.ingredients


def describe(port: Port) -> tuple[str, str | None]:
    """A port's name, and how another process finds it; None where it cannot."""
    if isinstance(port, str):
        return port, port
    name = getattr(port, "__qualname__", "")
    file = inspect.getsourcefile(inspect.unwrap(port)) if inspect.isfunction(port) else None
    if not name.isidentifier() or file is None or not Path(file).is_file():
        return name or repr(port), None
    return f"{Path(file).name}:{name}", f"{file}:{name}"


Drive = Callable[[Sequence[Probe], float], Iterator[Observed | Failure | Refused]]


@dataclass
class Found:
    """What a port did on the probes."""

    runs: list[Run] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    failures: dict[str, Failure] = field(default_factory=dict)
    notes: set[str] = field(default_factory=set)
    seconds: dict[str, float] = field(default_factory=dict)
    framework: str = ""

    @property
    def ended(self) -> bool:
        """Whether there is nothing left to drive."""
        return any(failure.kind in LAST for failure in self.failures.values())

    def add(self, more: Found) -> None:
        """What it did on more probes; what it refuses of these, it refused before."""
        self.runs += more.runs
        self.failures |= more.failures
        self.notes |= more.notes
        self.seconds |= more.seconds
        self.framework = self.framework or more.framework


def collect(drive: Drive, chosen: Sequence[Probe], timeout: float) -> Found:
    """Drive a port with all probes, and sort what comes back."""
    found = Found()
    for probe, outcome in zip(chosen, drive(chosen, timeout), strict=False):
        if isinstance(outcome, Refused):
            found.refused[probe.name] = str(outcome)
        elif isinstance(outcome, Failure):
            found.failures[probe.name] = outcome
        else:
            found.notes |= set(outcome.notes)
            found.seconds[probe.name] = outcome.seconds
            found.framework = found.framework or outcome.framework
            ignored = unread(probe.problem, outcome.read)
            found.runs.append(Run(probe, outcome.trajectory, outcome.more, ignored))
            if unknown := found.runs[-1].unknown:
                found.notes.add(
                    f"it yields {', '.join(unknown)}, compared with nothing: known are"
                    f" {', '.join(ports.OFFERED)} and, under torch.optim's names, the state"
                )
    driven = {*found.failures, *found.refused, *(run.probe.name for run in found.runs)}
    last = next(reversed(found.failures), "")
    if found.runs:
        why = f"not driven after {last}"
        found.refused |= {p.name: why for p in chosen if p.name not in driven}
    return found


@contextmanager
def running(port: Port, worker: Worker | None) -> Iterator[Drive]:
    """A way to drive a port, in a process of its own, or in this one if it is a function."""
    if not isinstance(port, str):
        yield lambda chosen, timeout: here(port, chosen)
        return
    with nullcontext(worker) if worker else loading(port) as own, TemporaryFolder() as folder:
        yield lambda chosen, timeout: elsewhere(own, port, chosen, Path(folder), timeout)


def elsewhere(
    worker: Worker, port: str, chosen: Sequence[Probe], folder: Path, timeout: float
) -> Iterator[Observed | Failure | Refused]:
    """Drive a port in its worker, which is handed all probes at once; a hang ends it."""
    for probe in chosen:
        file = folder / f"{probe.name}.{probe.problem.dtype}.safetensors"
        probe.problem.save(file)
        worker.submit(port, file, probe.limit)
    for _ in chosen:
        try:
            yield worker.observe(timeout)
        except Refused as refusal:
            yield refusal
        except WorkerError as error:
            said = tuple(error.log) if error.kind in ("silent", "ended") else ()
            yield Failure(error.what, error.where, error.kind, said)
            if error.kind in LAST:
                return


def here(port: Callable[[Problem], Any], chosen: Sequence[Probe]) -> Iterator[Any]:
    """Drive a function in this process."""
    for probe in chosen:
        try:
            found = ports.follow(port, probe.problem, probe.limit)
        except NotImplementedError as refusal:
            yield Refused(ports.first_line(refusal))
        except ports.WrongDtype as error:
            yield Failure(str(error), kind="dtype")
        except ports.PortError as error:
            yield Failure(str(error))
        except (Exception, SystemExit) as error:
            yield Failure(f"{type(error).__name__}: {ports.first_line(error)}")
        else:
            trajectory, more = ports.stacked(found.arrays())
            yield Observed(trajectory, more, sorted(found.read), sorted(found.notes), 0.0)
