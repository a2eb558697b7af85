"""Ports with several differences at once, planted in the real folders, and what they do."""

from __future__ import annotations

import difflib
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import pairwise, product
from pathlib import Path

from benchmarks.reading import Change, otherwise
from lockstep import mistakes
from lockstep.diagnosis.forms import unread
from lockstep.diagnosis.naming import Run
from lockstep.diagnosis.probes import Probe
from lockstep.diagnosis.replay import Replays, merged
from lockstep.oracle.loop import STAGES, Stages
from lockstep.paths import IMPLEMENTATIONS
from lockstep.workers.pool import Refused, Worker, WorkerError, workers

# A worker compiles for every planted port, and keeps it; a new one after so many ports.
RENEW = 20
WRAPPED = """from benchmarks.reading import Change, reading
from {package}.recipe import train as planted

train = reading(planted, {changes})
"""


@dataclass(frozen=True)
class Port:
    """A framework's folder with some mistakes of the catalogue, and with some settings changed."""

    framework: str
    names: tuple[str, ...] = ()
    changes: tuple[Change, ...] = ()

    def __str__(self) -> str:
        return " + ".join([*self.names, *map(str, self.changes)]) + f" in {self.framework}"

    @property
    def ways(self) -> list[list[Stages]]:
        """The stages of each difference, as it is planted, and as others make it."""
        changed = [replace(STAGES, settings=partial(otherwise, changes=[c])) for c in self.changes]
        loaded = map(mistakes.load, self.names)
        return [[each.stages, *each.forms] for each in loaded] + [[each] for each in changed]

    @property
    def possible(self) -> bool:
        """Whether all of its mistakes can be made in its framework, and at the same time."""
        able = all(self.framework not in mistakes.load(name).impossible for name in self.names)
        return able and combined(self.names, self.framework) is not None

    def plant(self, folder: Path, number: int) -> str:
        """Write it into a folder, under a number; returns its module."""
        package, sources = f"planted_{number}", combined(self.names, self.framework)
        assert sources is not None, f"{self} is not possible"
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(IMPLEMENTATIONS / f"{self.framework}_impl", folder / package, ignore=ignore)
        for file, text in sources.items():
            (folder / package / file).write_text(text)
        if not self.changes:
            return f"{package}.recipe"
        text = WRAPPED.format(package=package, changes=list(self.changes))
        (folder / f"{package}_wrapped.py").write_text(text)
        return f"{package}_wrapped"


@cache
def source(name: str, framework: str) -> dict[str, str]:
    """The files of a folder with a mistake, by name; the folder's own if the name is ""."""
    with tempfile.TemporaryDirectory() as folder:
        copy = IMPLEMENTATIONS / f"{framework}_impl"
        if name:
            copy = Path(folder, mistakes.plant(name, framework, Path(folder)))
        return {file.name: file.read_text() for file in copy.glob("*.py")}


def combined(names: Sequence[str], framework: str) -> dict[str, str] | None:
    """The files of a folder with several mistakes; None where their changes meet."""
    copies = [source(name, framework) for name in names]
    found = {}
    for file, base in source("", framework).items():
        text = merge(base, [copy[file] for copy in copies])
        if text is None:
            return None
        found[file] = text
    return found


def merge(base: str, texts: Sequence[str]) -> str | None:
    """The changes of all texts to one; None where two touch the same lines."""
    lines = base.splitlines(keepends=True)
    changes = []
    for text in texts:
        new = text.splitlines(keepends=True)
        matcher = difflib.SequenceMatcher(None, lines, new, autojunk=False)
        changes += [
            (start, end, new[first:last])
            for tag, start, end, first, last in matcher.get_opcodes()
            if tag != "equal"
        ]
    changes.sort(key=lambda change: change[:2], reverse=True)
    for later, earlier in pairwise(changes):
        if earlier[1] > later[0] or earlier[0] == later[0]:
            return None
    for start, end, new in changes:
        lines[start:end] = new
    return "".join(lines)


def drive(
    ports: Sequence[Port], chosen: Sequence[Probe], folder: Path
) -> Iterator[tuple[Port, list[Run]]]:
    """What each port does on the probes: while one is looked at, the next ones run."""
    frameworks = sorted({port.framework for port in ports})
    size = RENEW * len(frameworks)
    for start in range(0, len(ports), size):
        with workers(frameworks) as started:
            batch = ports[start : start + size]
            for port in batch:
                worker = started[port.framework]
                worker.path[:] = [str(folder), str(IMPLEMENTATIONS)]
                submit(worker, port.plant(folder, len(list(folder.iterdir()))), chosen, folder)
            for port in batch:
                yield port, collect(started[port.framework], chosen)


def submit(worker: Worker, port: str, chosen: Sequence[Probe], folder: Path) -> None:
    """Hand a port and the probes to its worker."""
    for probe in chosen:
        file = folder / f"{probe.name}.safetensors"
        if not file.exists():
            probe.problem.save(file)
        worker.submit(port, file, probe.limit)


def collect(worker: Worker, chosen: Sequence[Probe]) -> list[Run]:
    """What a port did on the probes; those on which it failed are left out, as in a check."""
    runs = []
    for probe in chosen:
        with suppress(WorkerError, Refused):
            found = worker.observe()
            ignored = unread(probe.problem, found.read)
            runs.append(Run(probe, found.trajectory, found.more, ignored))
    return runs


def together(parts: Sequence[Stages]) -> Stages | None:
    """All replaced stages in one loop; None where two replace the same one."""
    whole: Stages | None = STAGES
    for part in parts:
        whole = whole and merged(whole, part)
    return whole


def replayed(stages: Stages, chosen: Sequence[Probe]) -> Iterator[Run]:
    """What a loop with replaced stages does on the probes, where it does not fail."""
    for probe in chosen:
        if (trajectory := Replays(probe, stages).quick) is not None:
            yield Run(probe, trajectory)


def hides(port: Port, runs: Sequence[Run] | None, chosen: Sequence[Probe]) -> bool:
    """Whether a port does on all probes what it would do without one of its differences.

    `runs` are what it does; None where its stages go together, and tell.
    """
    ways = port.ways
    if runs is None:
        whole = together([way[0] for way in ways])
        assert whole is not None, f"{port} has a stage twice"
        runs = list(replayed(whole, chosen))
    rests = (rest for i in range(len(ways)) for rest in product(*ways[:i], *ways[i + 1 :]))
    return any(
        all(Replays(run.probe, stages).reproduces(run.trajectory) for run in runs)
        for stages in map(together, rests)
        if stages is not None
    )
