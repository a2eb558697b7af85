"""How well recorded real runs are told apart: `python -m benchmarks.tracing [--planted N]`.

Four small models are recorded in three frameworks, two dtypes, K = 1 and 4, with what goes through
their modules. Clean runs are compared in all directions; then mistakes are planted in one side,
alone and three at once, drawn with a fixed seed, and each difference of a model, and each thing
that happens around a loop, in each framework; they are compared with a framework's clean run.
Whatever is said beside the right names counts as wrong; `located` counts the differences of a model
that were found in the right module.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import tempfile
import time
from collections.abc import Collection
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.real import common
from benchmarks.real.record import record
from lockstep.trace import Comparison, TraceError, compare_traces

FRAMEWORKS = ("pytorch", "jax", "keras")
DTYPES = ("float64", "float32")
STEPS = (1, 4)
# What a planted mistake is called where the catalogue has no such name.
CALLED = {
    "skipped-micro-batch": "micro-batches left out",
    "other-betas": "another beta2",
    "rate-times-10": "another learning rate",
    "cleared-in-window": "micro-batches left out",
    "resumed-in-window": "micro-batches left out",
    "state-dropped": "opt-state-dropped",
    "data-restarts": "other data",
    "step-left-out": "windows left out",
}
# In which module a difference of the model is, by a part of its name; "" is the loss.
PLACES = {
    "gelu": {"hidden", "middle", "inner", "outer"},
    "dropout-on": {"hidden", "middle", "inner", "outer"},
    "layernorm-epsilon": {"norm1"},
    "batchnorm-eval": {"norm"},
    "attention-scale": {"attention"},
    "transposed-kernel": {"hidden", "middle", "attention"},
    "label-shift": {""},
    "padding-counted": {""},
    "untied": {"head"},
}


class Run(NamedTuple):
    """A real run: what is trained, in what, how, and with which mistakes."""

    framework: str
    model: str
    dtype: str
    steps: int
    mistakes: tuple[str, ...] = ()


def recorded(runs: Collection[Run], folder: Path) -> dict[Run, Path]:
    """The traces of runs, each framework's in one process."""
    found = {run: folder / str(index) for index, run in enumerate(runs)}
    for framework in FRAMEWORKS:
        jobs = [
            {
                "folder": str(path),
                "model": run.model,
                "dtype": run.dtype,
                "accumulation_steps": run.steps,
                "mistakes": run.mistakes,
                "activations": True,
            }
            for run, path in found.items()
            if run.framework == framework
        ]
        record(framework, jobs)
    return found


def drawn(count: int, together: int, numbers: random.Random) -> list[Run]:
    """Runs with so many mistakes at once, of different stages."""
    found: set[Run] = set()
    while len(found) < count:
        framework, model = numbers.choice(FRAMEWORKS), numbers.choice(common.MODELS)
        run = Run(framework, model, numbers.choice(DTYPES), 4)
        able = [
            [m for m in stage if common.applies(m, run.model, run.steps)] for stage in common.STAGED
        ]
        some = [numbers.choice(each) for each in able if each]
        if len(some) >= together:
            found.add(run._replace(mistakes=tuple(sorted(numbers.sample(some, together)))))
    return sorted(found)


def each_of(mistakes: Collection[str], numbers: random.Random) -> list[Run]:
    """Each mistake in each model and framework that can have it."""
    return [
        Run(framework, model, numbers.choice(DTYPES), 4, (mistake,))
        for framework, model, mistake in product(FRAMEWORKS, common.MODELS, mistakes)
        if common.applies(mistake, model, 4) and common.happens(mistake, framework)
    ]


def beside(run: Run, numbers: random.Random) -> Run:
    """The clean run that a run is compared with.

    What is gone on with is found by its parameters, which two frameworks round otherwise.
    """
    framework = numbers.choice(FRAMEWORKS)
    resumed = "resumed-in-window" in run.mistakes
    return run._replace(framework=run.framework if resumed else framework, mistakes=())


def located(found: Comparison, mistakes: Collection[str]) -> bool:
    """Whether a model's difference was found in its module, or in the loss."""
    for each in found.findings:
        if each.stage == "model":
            names = each.modules if "in the loss" not in each.said else ("",)
            parts = {part for name in names or each.tensors for part in re.split("[./]", name)}
            return all(parts & PLACES[mistake] for mistake in mistakes)
    return False


def right(found: Comparison, mistakes: Collection[str]) -> bool:
    """Whether all that was planted was named, and nothing else.

    Where the updates do not tell two names apart, either is right if both are said.
    """
    wanted = {CALLED.get(each, each) for each in mistakes}
    names = set()
    for each in found.findings:
        if not each.policy:
            names.add(next(iter(wanted & {each.name, *each.others}), each.name))
    return names == wanted and not found.left


def differ(one: Path, other: Path) -> bool:
    """Whether a mistake that the first run makes is a difference, too."""
    try:
        return compare_traces(one, other).verdict == "differs"
    except TraceError:  # a run that was resumed begins elsewhere
        return True


def measured(pairs: Collection[tuple[Run, Run]], traces: dict[Run, Path]) -> dict[str, Any]:
    """How many comparisons say what they should, and how long they take."""
    wrong, seconds, places, unseen = [], [], 0, []
    for one, other in pairs:
        begun = time.process_time()
        found = compare_traces(traces[one], traces[other])
        seconds.append(time.process_time() - begun)
        if other.mistakes and not differ(traces[other], traces[one]):
            unseen.append({"right": list(other), "port": list(one)})
        places += located(found, other.mistakes) if set(other.mistakes) <= set(PLACES) else 0
        if not right(found, other.mistakes):
            said = [*found.names, *found.left]
            wrong.append({"right": list(one), "port": list(other), "said": said})
    longest = round(max(seconds), 2)
    return {
        "trials": len(pairs),
        "right": len(pairs) - len(wrong),
        "located": places,
        "unseen": unseen,
        "longest": longest,
        "wrong": wrong,
    }


def drawn_pairs(planted: int) -> dict[str, list[tuple[Run, Run]]]:
    """What is compared with what, by kind: the right run, and its port."""
    numbers = random.Random(0)
    clean = [Run(*each) for each in product(FRAMEWORKS, common.MODELS, DTYPES, STEPS)]
    pairs = {"clean": [(a, b) for a, b in product(clean, clean) if a[1:] == b[1:]]}
    for name, together in (("one mistake", 1), ("three mistakes", 3)):
        pairs[name] = [(beside(run, numbers), run) for run in drawn(planted, together, numbers)]
    for name, mistakes in (
        ("a model's difference", common.MODEL),
        ("something around the loop", common.AROUND),
    ):
        pairs[name] = [(beside(run, numbers), run) for run in each_of(mistakes, numbers)]
    return pairs


def main() -> None:
    """Measure, print a line each, and write what was measured beside what the file had."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--planted", type=int, default=60, help="how many, alone and in threes each"
    )
    parser.add_argument("--only", action="append", help="a kind, as the file calls it")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    pairs = drawn_pairs(options.planted)
    if unknown := set(options.only or ()) - set(pairs):
        parser.error(f"--only: {', '.join(sorted(unknown))}: none of {', '.join(pairs)}")
    pairs = {name: each for name, each in pairs.items() if name in (options.only or pairs)}
    with tempfile.TemporaryDirectory() as folder:
        needed = dict.fromkeys(run for each in pairs.values() for pair in each for run in pair)
        traces = recorded(list(needed), Path(folder))
        found = {name: measured(each, traces) for name, each in pairs.items()}
    for name, each in found.items():
        where = f", {each['located']} located" if each["located"] else ""
        print(f"{name}: {each['right']} of {each['trials']}{where}, at most {each['longest']} s")
        for turned in each["unseen"]:
            print("    the other way round the same:", *turned["right"])
        for wrong in each["wrong"]:
            port, names = wrong["port"][:4], "+".join(wrong["port"][4]) or "clean"
            print("   ", *port, names, "said", wrong["said"])
    if options.json:
        before = json.loads(options.json.read_text()) if options.json.exists() else {}
        options.json.write_text(json.dumps(before | found, indent=1) + "\n")


if __name__ == "__main__":
    main()
