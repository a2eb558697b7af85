"""How well `lockstep check` diagnoses: `python -m benchmarks.diagnosis`.

Plants the mistakes of the catalogue in the real folders, alone and together, and with settings that
are read otherwise; drives them with the probes; and counts what the diagnosis says of each. Right
ports must be called the same, and mistakes in ports that support little must not. Takes two hours
of a core; `--share 0.25` draws less, and `--quick` a tenth, in PyTorch alone.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import chain, combinations, islice, product
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks import judging, subsets
from benchmarks.planting import Port, collect, drive, hides, submit
from benchmarks.reading import Change
from lockstep import mistakes
from lockstep.diagnosis import check
from lockstep.diagnosis.naming import Diagnosis, Run, diagnose
from lockstep.diagnosis.probes import MICRO_BATCHES, Probe, probes, random_problem
from lockstep.frameworks import FRAMEWORKS
from lockstep.optimizers.variants import VARIANTS
from lockstep.paths import IMPLEMENTATIONS
from lockstep.workers.folders import TemporaryFolder
from lockstep.workers.pool import workers

CONSOLE = Console(stderr=True)
FILE = Path(__file__).with_suffix(".json")
HAND_WRITTEN = IMPLEMENTATIONS / "tests" / "diagnosis" / "hand_written"
SEED = 2026
TOGETHER = {"two": 200, "three": 200, "four": 100}
SAME_STAGE, SUBSETS = 60, 2000
# Accumulation steps and seeds of the clean ports.
STEPS, SEEDS = (1, 3, 9), (0, 1, 2)
# Settings that a port may never read, and constants that it may hold in float32.
UNREAD = (
    *("optimizer.amsgrad", "optimizer.centered", "optimizer.dampening", "optimizer.nesterov"),
    *("optimizer.lr_decay", "optimizer.initial_accumulator_value", "optimizer.eps", "decay_bias"),
)
SINGLE = ("optimizer.learning_rate", "optimizer.betas")
# Numbers that a port may have otherwise, and the stages that they are of.
NUMBERS: dict[str, tuple[tuple[Change, ...], set[str]]] = {
    "learning rate": (
        (Change("optimizer.learning_rate", "nine tenths"), Change("learning_rates", "nine tenths")),
        {"learning_rate"},
    ),
    "momentum": ((Change("optimizer.momentum", 0.85, "sgd"),), {"constants", "rule"}),
    "alpha": ((Change("optimizer.alpha", 0.7, "rmsprop"),), {"constants", "rule"}),
    "eps": ((Change("optimizer.eps", 0.03, "adam"),), {"constants", "rule"}),
    "weight_decay": ((Change("optimizer.weight_decay", 0.3, "adamw"),), {"constants", "rule"}),
    "max_norm": ((Change("max_norm", 11.0),), {"clip"}),
}


@dataclass
class Score:
    """What came of one kind of trial; wrong: what was not there was said to be."""

    trials: int = 0
    right: int = 0
    wrong: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def count(self, label: str, right: bool, said: str, wrong: bool = False) -> None:
        """Count a trial, and keep what was said of it if that is not right."""
        self.trials += 1
        self.right += right
        self.wrong += wrong
        if not right:
            self.failures.append(f"{label}: {'WRONG ' * wrong}{said}")
            CONSOLE.print(self.failures[-1], markup=False, highlight=False, soft_wrap=True)

    def diagnose(self, runs: Sequence[Run], label: str, **settings: Any) -> Diagnosis:
        """A diagnosis, and the processor time that it took: it has one thread."""
        started = time.process_time()
        found = diagnose(runs, **settings)
        self.seconds[label] = time.process_time() - started
        return found

    def as_json(self) -> dict[str, Any]:
        """The counts, and the median and the maximum of the seconds."""
        times = list(self.seconds.values()) or [0.0]
        return {
            "trials": self.trials,
            "right": self.right,
            "wrong": self.wrong,
            "median_seconds": round(statistics.median(times), 2),
            "longest_seconds": round(max(times), 2),
            "longest": max(self.seconds, key=self.seconds.__getitem__, default=""),
            "failures": self.failures,
        }


@dataclass
class Bench:
    """Where trials are made: frameworks, the share of the draws, a folder, and whom to tell."""

    frameworks: Sequence[str]
    share: float
    folder: Path
    tell: Callable[[str], None]
    chosen: Sequence[Probe] = field(default_factory=probes)
    kept: dict[Port, list[Run]] = field(default_factory=dict)

    def draws(self, count: int) -> int:
        """How many of so many draws are made."""
        return round(self.share * count)

    def drive(self, ports: Sequence[Port]) -> Iterator[tuple[Port, list[Run]]]:
        """What ports do on the probes, each driven once; single mistakes are kept."""
        new = drive([port for port in ports if port not in self.kept], self.chosen, self.folder)
        for index, port in enumerate(ports, 1):
            self.tell(f"{index} of {len(ports)}: {port}")
            runs = self.kept[port] if port in self.kept else next(new)[1]
            if len(port.names) == 1 and not port.changes:
                self.kept[port] = runs
            yield port, runs

    @cached_property
    def singles(self) -> list[Port]:
        """Every mistake in every framework."""
        each = (Port(f, (name,)) for name in mistakes.names() for f in self.frameworks)
        return [port for port in each if port.possible]

    def visible(self, candidates: Iterator[Port], count: int) -> Iterator[tuple[Port, list[Run]]]:
        """What so many candidates do, each of whose differences shows beside the others."""
        while more := list(islice((port for port in candidates if port.possible), count)):
            for port, runs in self.drive(more):
                if not hides(port, runs, self.chosen):
                    count -= 1
                    yield port, runs

    def random(self, name: str) -> random.Random:
        """A generator of its own for a figure, the same in every run."""
        return random.Random(f"{SEED} {name}")


def singles(bench: Bench) -> Score:
    """Every mistake in every framework: named first."""
    return all_named(bench.drive(bench.singles))


def all_named(trials: Iterable[tuple[Port, list[Run]]]) -> Score:
    """What ports do, each of whose mistakes must be named first, and no other."""
    score = Score()
    for port, runs in trials:
        found = score.diagnose(runs, str(port))
        score.count(str(port), judging.first(found) == set(port.names), judging.said(found))
    return score


def together(bench: Bench, count: int, draws: int) -> Score:
    """So many mistakes in different stages, none of which hides another: all named, first."""
    rng = bench.random(str(count))

    def candidates() -> Iterator[Port]:
        while True:
            port = Port(rng.choice(bench.frameworks), tuple(rng.sample(mistakes.names(), count)))
            stages = [set(ways[0].replaced) for ways in port.ways]
            apart = all(not one & other for one, other in combinations(stages, 2))
            if apart and port.possible and not hides(port, None, bench.chosen):
                yield port

    return all_named(bench.visible(candidates(), bench.draws(draws)))


def same_stage(bench: Bench) -> Score:
    """Two differences in one stage: both named, or the stage and nothing that is not there."""
    rng, score = bench.random("same stage"), Score()
    each = {name: set(mistakes.load(name).stages.replaced) for name in mistakes.names()}
    pairs = [
        Port(rng.choice(bench.frameworks), (one, other))
        for one, other in combinations(each, 2)
        if each[one] & each[other]
    ]
    numbers = [
        Port(rng.choice(bench.frameworks), (name,), changes)
        for name, (changes, stages) in product(each, NUMBERS.values())
        if each[name] & stages
    ]
    rng.shuffle(pairs)
    rng.shuffle(numbers)
    candidates = chain(*zip(pairs, numbers, strict=False))
    for port, runs in bench.visible(candidates, bench.draws(SAME_STAGE)):
        found = score.diagnose(runs, str(port))
        judged = judging.in_one_stage(found, port.names, [c.setting for c in port.changes])
        score.count(str(port), judged == "right", judging.said(found), judged == "wrong")
    return score


def with_more(bench: Bench) -> Score:
    """Each mistake with a setting that is never read and a float32 constant: all three told."""
    rng, score = bench.random("more"), Score()
    ports: list[Port] = []
    names = rng.sample(mistakes.names(), bench.draws(len(mistakes.names())))
    for name in names:
        framework = rng.choice([f for f in bench.frameworks if Port(f, (name,)).possible] or [""])
        extras = [(Change(u, "plain"), Change(s, "float32")) for u, s in product(UNREAD, SINGLE)]
        rng.shuffle(extras)
        each = (Port(framework, (name,), changes) for changes in extras if framework)
        ports += islice((port for port in each if not hides(port, None, bench.chosen)), 1)
    for port, runs in bench.drive(ports):
        found = score.diagnose(runs, str(port))
        setting = port.changes[0].setting
        told = judging.with_more(found, port.names[0], setting, bench.chosen)
        score.count(str(port), told, judging.said(found))
    return score


def withheld(bench: Bench) -> Score:
    """Every mistake, in one framework, with the catalogue lacking it: its stage is told."""
    score, rng = Score(), bench.random("withheld")
    by_name = {port.names: port for port in rng.sample(bench.singles, len(bench.singles))}
    for port, runs in bench.drive(list(by_name.values())):
        rest = [each for each in mistakes.names() if each not in port.names]
        found = score.diagnose(runs, str(port), catalogue=rest)
        judged = judging.withheld(found, *port.names)
        score.count(str(port), judged == "right", judging.said(found), judged == "wrong")
    return score


def clean(bench: Bench) -> Score:
    """Right ports: the folders, and those by other hands; every alarm is a false one."""
    score, chosen = Score(), list(bench.chosen)
    for (variant, optimizer), k, dtype, seed in product(
        VARIANTS.items(), STEPS, ("float64", "float32"), SEEDS
    ):
        rng = np.random.default_rng([SEED, seed, k])
        problem = random_problem(rng, rng.integers(1, 5, MICRO_BATCHES).tolist(), k)
        max_norm = 5.0 if seed == 1 else None
        problem = replace(problem, optimizer=optimizer, dtype=dtype, max_norm=max_norm)
        chosen.append(Probe(f"{variant}-{k}-{dtype}-{seed}", "", frozenset(), problem))
    chosen = chosen[:: round(1 / bench.share)]
    with workers(bench.frameworks) as started:
        for framework, worker in started.items():
            submit(worker, f"{framework}_impl.recipe", chosen, bench.folder)
        for framework, worker in started.items():
            bench.tell(f"{framework}'s own folder")
            runs = {run.probe.name: run for run in collect(worker, chosen)}
            for probe in chosen:
                run = runs.get(probe.name)
                same = run is not None and run.same and not run.differing
                score.count(f"{probe.name} in {framework}", same, "differs" if run else "fails")
    files = sorted(HAND_WRITTEN.glob("*.py"))
    for file in files[:: round(1 / bench.share)]:
        bench.tell(file.stem)
        report = check(str(file))
        for run in report.diagnosis.runs:
            name = run.probe.name
            score.count(f"{file.stem}, {name}", not report.fails(name), report.verdict)
        for name in report.failures:
            score.count(f"{file.stem}, {name}", False, "fails")
    return score


def unseen(bench: Bench) -> Score:
    """Mistakes in ports that support little, and that show there: none is called the same."""
    score, trials = Score(), subsets.Trials(SEED)
    for form, subset in trials.draw(bench.draws(SUBSETS)):
        bench.tell(f"{form.name}, after {score.trials}: {subset}")
        same = trials.same(form, subset)
        score.count(f"{form.name} by its {', '.join(form.stages.replaced)}", not same, str(subset))
    return score


@dataclass(frozen=True)
class Figure:
    """What is measured: the guide's words for it, how, and which of a score's counts it is."""

    title: str
    measure: Callable[[Bench], Score]
    what: str = "right"


FIGURES = {
    "single": Figure("a mistake, in each framework: named first", singles),
    **{
        word: Figure(
            f"{word} in different stages: all named, first",
            partial(together, count=number, draws=draws),
        )
        for number, (word, draws) in enumerate(TOGETHER.items(), 2)
    },
    "same-stage": Figure("two in one stage: named, or the stage and no wrong name", same_stage),
    "more": Figure("a mistake, a setting never read, a float32 constant: all told", with_more),
    "unknown": Figure("a mistake that the catalogue lacks: its stage is told", withheld),
    "clean": Figure("probes of right ports: false alarms", clean, "failures"),
    "unseen": Figure(
        "a mistake that shows in the little that a port supports: called the same",
        unseen,
        "failures",
    ),
}


def result(figure: Figure, found: Mapping[str, Any]) -> str:
    """A figure's count, and what share of the trials it is."""
    if figure.what == "failures":
        return f"{found['trials'] - found['right']}"
    share = f"{found['right']} ({100 * found['right'] / found['trials']:.1f} %)"
    return share + (f", wrongly named {found['wrong']}" if found["wrong"] else "")


def markdown(report: Mapping[str, Any]) -> str:
    """The guide's table, a row for each figure that was measured."""
    lines = ["| what was planted | trials | result |", "|---|---|---|"]
    measured = {name: report[name] for name in FIGURES if name in report}
    for name, found in measured.items():
        row = FIGURES[name].title, str(found["trials"]), result(FIGURES[name], found)
        lines.append(f"| {' | '.join(row)} |")
    timed = [found for found in measured.values() if found["longest"]]
    longest = max((each["longest_seconds"] for each in timed), default=0.0)
    middle = max((each["median_seconds"] for each in timed), default=0.0)
    trials = sum(each["trials"] for each in timed)
    seconds = f"longest {longest:.1f}, median at most {middle:.1f}"
    lines.append(f"| processor seconds of a diagnosis | {trials} | {seconds} |")
    return "".join(f"{line}\n" for line in lines)


def table(scores: Mapping[str, Score]) -> Table:
    """The figures, as they are counted."""
    found = Table("", "trials", "right", "wrong", "median s", "longest s")
    for name, score in scores.items():
        found.add_row(name, *(str(each) for each in list(score.as_json().values())[:5]))
    return found


def main() -> None:
    """Measure, print, and write everything to a file, unless it is not everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="PyTorch alone, a tenth of the draws")
    parser.add_argument("--share", type=float, default=1.0, help="of the draws (default: all)")
    parser.add_argument("--only", default=",".join(FIGURES), help="some of %(default)s")
    parser.add_argument("--json", type=Path, help="where to write, diagnosis.json unless --quick")
    arguments = parser.parse_args()
    frameworks, share = (FRAMEWORKS[:1], 0.1) if arguments.quick else (FRAMEWORKS, arguments.share)
    file = arguments.json or (None if arguments.quick else FILE)
    scores: dict[str, Score] = {}
    with TemporaryFolder() as folder, CONSOLE.status("starting") as status:
        bench = Bench(frameworks, share, Path(folder), status.update)
        for name in arguments.only.split(","):
            scores[name] = FIGURES[name].measure(bench)
            if file:
                save(scores, file)
    Console().print(table(scores))
    for kind, score in scores.items():
        for line in score.failures:
            print(f"{kind}: {line}")


def save(scores: Mapping[str, Score], file: Path) -> None:
    """Write what was measured, beside what the file holds of other figures."""
    report = json.loads(file.read_text()) if file.exists() else {}
    report |= {kind: score.as_json() for kind, score in scores.items()}
    kept = {name: report[name] for name in FIGURES if name in report}
    file.write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main()
