"""How well `lockstep check` diagnoses: `python -m benchmarks.diagnosis`.

Plants every mistake of the catalogue in every framework, and pairs of them in PyTorch, from their
diffs; drives the planted ports with the probes; and counts what the diagnosis says of each. Takes
about half an hour on two cores; `--quick` plants in PyTorch alone.
"""

from __future__ import annotations

import argparse
import difflib
import json
import random
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations, pairwise, product
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from lockstep import mistakes
from lockstep.diagnosis.naming import Diagnosis, Run, diagnose
from lockstep.diagnosis.probes import MICRO_BATCHES, Probe, probes, random_problem
from lockstep.diagnosis.replay import Replays, merged
from lockstep.frameworks import FRAMEWORKS, NAMES
from lockstep.optimizers.variants import VARIANTS
from lockstep.paths import IMPLEMENTATIONS
from lockstep.problem import Problem
from lockstep.workers.folders import TemporaryFolder
from lockstep.workers.pool import Refused, Worker, WorkerError, workers

FILE = Path(__file__).with_suffix(".json")
SEED = 2026
PAIRS = 100
# A worker compiles for every planted port, and keeps it; a new one after so many ports.
RENEW = 20
# Mistakes that every framework's port can make, for the time of a whole check.
WHOLE = (
    "missing-zero-grad",
    "no-divide",
    "clip-per-microbatch",
    "sched-off-by-one",
    "l2-vs-decoupled",
)
# Accumulation steps and seeds of the clean ports.
STEPS, SEEDS = (1, 3, 9), (0, 1)


@dataclass
class Score:
    """What came of one kind of trial."""

    trials: int = 0
    detected: int = 0
    first: int = 0
    named: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """The counts, and the times' median and maximum in seconds."""
        times = list(self.seconds.values()) or [0.0]
        return {
            "trials": self.trials,
            "detected": self.detected,
            "first": self.first,
            "named": self.named,
            "median_seconds": round(statistics.median(times), 2),
            "longest_seconds": round(max(times), 2),
            "longest": max(self.seconds, key=self.seconds.__getitem__, default=""),
            "wrong": self.wrong,
        }


def submit(worker: Worker, port: str, chosen: Sequence[Probe], folder: Path) -> None:
    """Hand a port and the probes to its worker."""
    for probe in chosen:
        file = folder / f"{probe.name}.safetensors"
        if not file.exists():
            probe.problem.save(file)
        worker.submit(port, file)


def collect(worker: Worker, chosen: Sequence[Probe]) -> list[Run]:
    """What a port did on the probes; those on which it failed are left out, as in a check."""
    runs = []
    for probe in chosen:
        try:
            found = worker.observe()
            runs.append(Run(probe, found.trajectory, found.more))
        except (WorkerError, Refused):
            continue
    return runs


def timed(runs: Sequence[Run], score: Score, label: str, **settings: Any) -> Diagnosis:
    """A diagnosis, and the processor time that it took: it has one thread."""
    started = time.process_time()
    found = diagnose(runs, **settings)
    score.seconds[label] = time.process_time() - started
    return found


def judge(score: Score, label: str, names: set[str], found: Diagnosis) -> None:
    """Count a diagnosis of a port in which these mistakes were planted."""
    score.trials += 1
    score.detected += not found.same
    explanations = [set(each.names) for each in found.explanations]
    score.first += explanations[:1] == [names]
    score.named += names in explanations
    if names not in explanations[:1]:
        said = [" + ".join(each.names) for each in found.explanations[:3]]
        verdict = "same" if found.same else ", ".join(said) or "unknown"
        score.wrong.append(f"{label}: {verdict}")


def singles(
    frameworks: Sequence[str], chosen: Sequence[Probe], folder: Path, tell: Any
) -> tuple[Score, dict[tuple[str, str], list[Run]]]:
    """Every single mistake in every framework; also what each did."""
    score, kept = Score(), {}
    for names in batched(mistakes.names(), RENEW):
        with workers(frameworks) as started:
            for worker in started.values():
                worker.path.append(str(folder))
            for name in names:
                tell(f"{name}, after {score.trials} ports")
                able = [f for f in frameworks if f not in mistakes.load(name).impossible]
                for framework in able:
                    package = mistakes.plant(name, framework, folder)
                    submit(started[framework], f"{package}.recipe", chosen, folder)
                for framework in able:
                    runs = kept[name, framework] = collect(started[framework], chosen)
                    label = f"{name} in {framework}"
                    judge(score, label, {name}, timed(runs, score, label, pairs=False))
    return score, kept


def batched(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    """The items, so many at a time."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def withheld(kept: Mapping[tuple[str, str], list[Run]], tell: Any) -> Score:
    """Every mistake, in one framework, with the catalogue lacking it.

    Right is "unknown", or one of its look-alikes.
    """
    score, seen = Score(), set()
    for (name, framework), runs in kept.items():
        if name in seen:
            continue
        seen.add(name)
        tell(f"without {name}")
        rest = [each for each in mistakes.names() if each != name]
        found = timed(runs, score, name, catalogue=rest)
        alike = {name, *mistakes.load(name).look_alikes}
        alike |= {each for each in rest if name in mistakes.load(each).look_alikes}
        score.trials += 1
        score.detected += not found.same
        score.named += found.unknown
        if found.unknown or (not found.same and set(found.explanations[0].names) <= alike):
            score.first += 1
        else:
            said = [" + ".join(each.names) for each in found.explanations[:3]]
            score.wrong.append(f"{name} in {framework}: {', '.join(said) or 'same'}")
    return score


def draw_pairs(
    frameworks: Sequence[str], chosen: Sequence[Probe], count: int
) -> Iterator[tuple[str, str, str]]:
    """Pairs of mistakes of different stages, with a fixed seed, whose diffs can be combined.

    Neither hides the other: on some probe, both together are neither the one nor the other.
    """
    rng = random.Random(SEED)
    pairs = list(combinations(mistakes.names(), 2))
    rng.shuffle(pairs)
    drawn = 0
    for one, other in pairs:
        if drawn == count:
            return
        framework = rng.choice(list(frameworks))
        stages = [mistakes.load(name).stages for name in (one, other)]
        both = merged(*stages)
        able = all(framework not in mistakes.load(name).impossible for name in (one, other))
        if both is None or not able or combined(one, other, framework) is None:
            continue
        if any(hidden(both, alone, chosen) for alone in stages):
            continue
        drawn += 1
        yield one, other, framework


def hidden(both: Any, alone: Any, chosen: Sequence[Probe]) -> bool:
    """Whether two mistakes do what one of them does alone."""
    for probe in chosen:
        pair, single = Replays(probe, both), Replays(probe, alone)
        if (pair.quick is None) != (single.quick is None):
            return False
        if pair.quick is not None and not single.reproduces(pair.quick):
            return False
    return True


def combined(one: str, other: str, framework: str) -> dict[str, str] | None:
    """The files of an implementation with two mistakes; None where their changes meet."""
    with tempfile.TemporaryDirectory() as folder:
        copies = [
            Path(folder, mistakes.plant(name, framework, Path(folder))) for name in (one, other)
        ]
        found = {}
        for file in (IMPLEMENTATIONS / f"{framework}_impl").glob("*.py"):
            base = file.read_text()
            texts = [(copy / file.name).read_text() for copy in copies]
            both = merge(base, *texts)
            if both is None:
                return None
            found[file.name] = both
    return found


def merge(base: str, one: str, other: str) -> str | None:
    """Both changes to a text; None where they touch the same lines."""
    lines = base.splitlines(keepends=True)
    changes = []
    for text in (one, other):
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


def pairs(
    frameworks: Sequence[str], chosen: Sequence[Probe], folder: Path, count: int, tell: Any
) -> Score:
    """Pairs of mistakes, planted together."""
    score = Score()
    for drawn in batched(list(draw_pairs(frameworks, chosen, count)), RENEW):
        with workers(frameworks) as started:
            for worker in started.values():
                worker.path.append(str(folder))
            for one, other, framework in drawn:
                tell(f"{one} and {other} in {framework}, after {score.trials}")
                package = f"{framework}_impl_pair_{score.trials}"
                shutil.copytree(IMPLEMENTATIONS / f"{framework}_impl", folder / package)
                for file, text in (combined(one, other, framework) or {}).items():
                    (folder / package / file).write_text(text)
                submit(started[framework], f"{package}.recipe", chosen, folder)
                runs = collect(started[framework], chosen)
                label = f"{one} + {other} in {framework}"
                judge(score, label, {one, other}, timed(runs, score, label))
    return score


def clean(frameworks: Sequence[str], folder: Path, tell: Any) -> Score:
    """The implementations as they are: optimizers, K, dtypes, seeds; every alarm is a false one."""
    import numpy as np

    score, chosen = Score(), []
    for (variant, optimizer), k, dtype, seed in product(
        VARIANTS.items(), STEPS, ("float64", "float32"), SEEDS
    ):
        rng = np.random.default_rng([SEED, seed, k])
        problem: Problem = random_problem(rng, rng.integers(1, 5, MICRO_BATCHES).tolist(), k)
        problem = replace(problem, optimizer=optimizer, dtype=dtype, max_norm=[None, 5.0][seed])
        chosen.append(Probe(f"{variant}-{k}-{dtype}-{seed}", "", frozenset(), problem))
    tell("clean ports")
    with workers(frameworks) as started:
        for framework, worker in started.items():
            submit(worker, f"{framework}_impl.recipe", chosen, folder)
        for framework, worker in started.items():
            runs = {run.probe.name: run for run in collect(worker, chosen)}
            for probe in chosen:
                score.trials += 1
                if (
                    probe.name not in runs
                    or not timed([runs[probe.name]], score, probe.name, catalogue=[]).same
                ):
                    score.detected += 1
                    score.wrong.append(f"{probe.name} in {framework}")
    return score


def whole(framework: str, chosen: Sequence[Probe], folder: Path, tell: Any) -> Score:
    """Whole checks of ports with a mistake, one at a time: the port's own time, and the diagnosis.

    The worker has imported its framework and has trained before.
    """
    score = Score()
    with workers([framework]) as started:
        worker = started[framework]
        worker.path.append(str(folder))
        submit(worker, f"{framework}_impl.recipe", chosen, folder)
        collect(worker, chosen)
        for name in WHOLE:
            tell(f"{name} in {framework}, alone")
            package = mistakes.plant(name, framework, folder)
            began = time.perf_counter()
            submit(worker, f"{package}.recipe", chosen, folder)
            found = diagnose(collect(worker, chosen), pairs=False)
            score.seconds[name] = time.perf_counter() - began
            judge(score, f"{name} in {framework}", {name}, found)
    return score


# What is measured, what was asked for, and the trials that count.
GOALS = {
    "single mistakes": ("every mistake in every framework: detected", 0.99, "detected"),
    "single, named": ("the right name, alone or first", 0.95, "first"),
    "pairs": ("pairs of mistakes in different stages, in PyTorch: both named", 0.90, "first"),
    "clean ports": ("clean ports: false alarms", 0.0, "detected"),
    "withheld": ("a mistake that the catalogue lacks: unknown, or a look-alike", 0.95, "first"),
}


def markdown(report: Mapping[str, Any]) -> str:
    """The guide's table."""
    lines = ["| what was planted | of | measured | goal |", "|---|---|---|---|"]
    for key, (title, goal, what) in GOALS.items():
        found = report[key.partition(",")[0] + " mistakes" if "," in key else key]
        count, trials = found[what], found["trials"]
        share = f"{count}" if goal == 0 else f"{count} ({100 * count / trials:.1f} %)"
        wanted = "0" if goal == 0 else f"{100 * goal:.0f} %"
        lines.append(f"| {title} | {trials} | {share} | {wanted} |")
    timed = {
        "processor seconds to explain a single mistake": ("single mistakes", 5),
        "processor seconds to explain a pair": ("pairs", 60),
        **{
            f"seconds of a whole check of one in {NAMES[each]}, once imported": (
                f"whole checks, {each}",
                5,
            )
            for each in FRAMEWORKS
        },
    }
    for title, (key, goal) in timed.items():
        found = report[key]
        seconds = f"{found['longest_seconds']:.1f} (median {found['median_seconds']:.1f})"
        lines.append(f"| {title}, longest | {found['trials']} | {seconds} | {goal} |")
    return "".join(f"{line}\n" for line in lines)


def table(scores: Mapping[str, Score]) -> Table:
    """The figures, as they are counted."""
    found = Table("", "trials", "detected", "named first", "named", "median s", "longest s")
    for name, score in scores.items():
        numbers = score.as_json()
        cells = [str(numbers[each]) for each in list(numbers)[:-2]]
        found.add_row(name, *cells)
    return found


def main() -> None:
    """Measure, print, and write everything to a file if asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="PyTorch alone")
    parser.add_argument(
        "--only",
        default="single,withheld,pairs,clean,whole",
        help="which parts, separated by commas; withheld needs single",
    )
    parser.add_argument("--pairs", type=int, default=PAIRS)
    parser.add_argument("--json", type=Path, help="write everything that was measured to a file")
    arguments = parser.parse_args()
    frameworks = FRAMEWORKS[:1] if arguments.quick else FRAMEWORKS
    wanted = arguments.only.split(",")
    chosen, console = probes(), Console(stderr=True)
    scores: dict[str, Score] = {}
    kept: dict[tuple[str, str], list[Run]] = {}
    with (
        TemporaryFolder() as name,
        console.status("starting") as status,
    ):
        folder = Path(name)
        for part in wanted:
            if part == "single":
                scores["single mistakes"], kept = singles(frameworks, chosen, folder, status.update)
            elif part == "withheld":
                scores["withheld"] = withheld(kept, status.update)
            elif part == "pairs":
                # In the framework that takes least time: the numbers are the same in all of them.
                scores["pairs"] = pairs(
                    FRAMEWORKS[:1], chosen, folder, arguments.pairs, status.update
                )
            elif part == "clean":
                scores["clean ports"] = clean(frameworks, folder, status.update)
            elif part == "whole":
                scores |= {
                    f"whole checks, {framework}": whole(framework, chosen, folder, status.update)
                    for framework in frameworks
                }
            if arguments.json:
                save(scores, arguments.json)
    Console().print(table(scores))
    for kind, score in scores.items():
        for line in score.wrong:
            print(f"{kind}: {line}")


def save(scores: Mapping[str, Score], file: Path) -> None:
    """Write what was measured, beside what the file holds of other parts."""
    report = json.loads(file.read_text()) if file.exists() else {}
    report |= {kind: score.as_json() for kind, score in scores.items()}
    file.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
