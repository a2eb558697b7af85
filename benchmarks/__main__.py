"""How fast the loops are beside others, and beside the least possible: `python -m benchmarks`.

A process for each framework, number of threads and size; in it, all loops with the same K take
turns. What is kept are the medians of ratios within a round, and their quartiles.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from itertools import product
from pathlib import Path
from typing import Any

from benchmarks import goals
from benchmarks.measuring import MARK
from benchmarks.peers import BY_HAND, EXAMPLES, FAST, SMALL_STEPS, STEPS
from lockstep.frameworks import FRAMEWORKS
from lockstep.workers.pool import DEVICES, Device

ROUNDS, BUDGET = 15, 60.0
QUICK_ROUNDS, QUICK_BUDGET, QUICK_STEPS = 5, 3.0, (1, 4, 8, 64)
# Where memory is looked at: elsewhere it is that of the framework.
LARGE = (2048, 2048)
PACKAGES = (
    "torch", "tensorflow-cpu", "keras", "jax", "optax", "accelerate", "lightning", "numpy",
)  # fmt: skip
SIZES = {f"{features}x{outputs}": (features, outputs) for features, outputs in EXAMPLES}


def environment(threads: int, folder: str, device: Device) -> dict[str, str]:
    """So many threads in each framework and its BLAS, the device, and nothing compiled before."""
    count = str(threads)
    chosen = {
        **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), count),
        "TF_NUM_INTRAOP_THREADS": count,
        "TF_NUM_INTEROP_THREADS": count,
        "NPROC": count,  # of JAX's thread pool
        "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false" if threads == 1 else "",
        **DEVICES[device],
        "JAX_ENABLE_COMPILATION_CACHE": "false",
        "KERAS_BACKEND": "tensorflow",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "TORCHINDUCTOR_CACHE_DIR": folder,
    }
    return {**os.environ, **chosen}


# Of glibc's malloc: what is larger goes back to the system when it is freed.
GIVEN_BACK = {"MALLOC_MMAP_THRESHOLD_": str(1 << 20)}


def found(task: Mapping[str, Any], folder: str) -> Iterator[Any]:
    """What a process finds, one after the other; raises SystemExit if it fails.

    folder: of what it compiles.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.measuring", json.dumps(task)],
        stdout=subprocess.PIPE,
        text=True,
        env=environment(task["threads"], folder, task["device"])
        | (GIVEN_BACK if task["kind"] == "memory" else {}),
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(MARK):
            yield json.loads(line.removeprefix(MARK))
    if process.wait():
        raise SystemExit(f"benchmarks: {task['framework']} failed, {task['kind']}")


def found_anew(task: Mapping[str, Any]) -> Iterator[Any]:
    """The same, of a process that finds nothing compiled."""
    with tempfile.TemporaryDirectory() as folder:
        yield from found(task, folder)


def processor() -> str:
    """What the CPU calls itself, where that is told."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def system() -> dict[str, str]:
    """The machine, how busy it was before, and the versions; no name of it, and no path."""
    return {
        "CPU": processor(),
        "cores": str(os.cpu_count()),
        "busy before, of a minute": f"{os.getloadavg()[0]:.1f}",
        "system": platform.system(),
        "Python": platform.python_version(),
        **{name: version(name) for name in PACKAGES},
    }


def version(package: str) -> str:
    """An installed version, or nothing."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def timed(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """All cells, as they are found; a size has a process of its own, and the heap that it makes."""
    for threads, framework, size in product(options.threads, options.framework, options.size):
        known = SMALL_STEPS if size == "4x3" else STEPS
        chosen = [(SIZES[size], k) for k in options.steps if k in known]
        task = {"kind": "time", "framework": framework, "threads": threads, "cells": chosen}
        task |= {"device": options.device, "rounds": options.rounds, "budget": options.budget}
        for each in found_anew(task):
            print(f"{framework}, {threads} threads, {size}, K = {each['steps']}", flush=True)
            yield {"framework": framework, "threads": threads, **each}


def remembered(framework: str, device: Device) -> Iterator[dict[str, Any]]:
    """The peaks of memory of the fast form and of the loop by hand, a process for each K."""
    for contestant in (FAST, BY_HAND):
        peak = {}
        for k in (1, 64):
            task = {"kind": "memory", "framework": framework, "threads": 1, "size": LARGE}
            task |= {"contestant": contestant, "steps": k, "device": device}
            with tempfile.TemporaryDirectory() as folder:
                (_,) = found(task, folder)  # what compiling leaves in memory is no window's
                (peak[str(k)],) = found(task, folder)
        yield {"framework": framework, "contestant": contestant, "size": LARGE, "peak": peak}


def measured(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Everything so far, whenever there is more of it."""
    report: dict[str, Any] = {"system": system(), "rounds": options.rounds}
    report |= {"start-up": {}, "memory": [], "cells": []}
    for framework in options.framework:
        task = {"kind": "start-up", "framework": framework, "threads": 1}
        ((seconds, device),) = found_anew(task | {"device": options.device})
        report["start-up"][framework] = seconds
        if options.device == "gpu":
            report["system"]["GPU"] = device
    for each in timed(options):
        report["cells"].append(each)
        yield report
    for framework in options.framework:
        report["memory"] += remembered(framework, options.device)
        yield report


def parsed(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The options; each takes several values, all of them if none is given."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--framework", nargs="+", choices=FRAMEWORKS, default=list(FRAMEWORKS))
    parser.add_argument("--size", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--steps", nargs="+", type=int, choices=SMALL_STEPS, help="K")
    parser.add_argument("--threads", nargs="+", type=int, choices=(1, 2), default=[1, 2])
    parser.add_argument("--device", choices=DEVICES, default="cpu", help="gpu: without TF32")
    parser.add_argument("--quick", action="store_true", help="fewer K and rounds: for a look")
    parser.add_argument(
        "--json", type=Path, help="where to save what was measured; of a GPU, it must be said"
    )
    options = parser.parse_args(arguments)
    if options.json is None:
        if options.device == "gpu":
            parser.error("--device gpu: say with --json where to save it; the guide is of CPUs")
        options.json = goals.FILE
    options.steps = options.steps or (QUICK_STEPS if options.quick else SMALL_STEPS)
    options.rounds = QUICK_ROUNDS if options.quick else ROUNDS
    options.budget = QUICK_BUDGET if options.quick else BUDGET
    return options


def main() -> None:
    """Measure, save, and print the tables."""
    options = parsed()
    report: dict[str, Any] = {}
    for report in measured(options):
        options.json.write_text(json.dumps(report, indent=1) + "\n")
    for name, table in goals.tables(report).items():
        print(f"\n{name}\n\n{table}", end="")


if __name__ == "__main__":
    main()
