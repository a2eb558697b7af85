"""Times contestants in turns, and looks at their memory: a process for one framework.

`python -m benchmarks.measuring TASK`, where the task is in JSON, prints what it finds in lines of
JSON. Several such processes are what `python -m benchmarks` starts.

Turns are taken here and not by pyperf or pytest-benchmark: both finish with one benchmark before
they begin with the next, so that a busy minute of the machine meets one of them alone. Here it
meets all, and what is kept are ratios within a round.
"""

from __future__ import annotations

import json
import math
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any

import numpy as np

from benchmarks import device
from benchmarks.limit import COPY, LIMIT, Copy, moved
from benchmarks.memory import forget_peak, resident, trim
from benchmarks.peers import (
    BY_HAND,
    COMPILED_PRODUCTS,
    FAST,
    PRODUCTS,
    READABLE,
    UPDATES,
    Contestant,
    problem,
)
from lockstep.workers.worker import NoDevice, gpu

# Of a block, so that the clock is nothing beside it.
LEAST_SECONDS = 0.02
# What an update moved a parameter, against that of the others, over the largest such move.
TOLERANCE = 2e-3
SMALL = (4, 3)
MULTIPLIED = PRODUCTS, COMPILED_PRODUCTS
# Numbers that are copied on a GPU: more than its caches hold.
COPIED = 1 << 26
# Before each line for the process that reads them; what a library prints has none.
MARK = "found: "


def timed(contestant: Contestant, windows: int) -> tuple[float, float]:
    """The seconds of a window in a block of them, and the cores that were busy meanwhile."""
    cpu, began = time.process_time(), time.perf_counter()
    seconds = contestant.seconds(windows)
    wall = time.perf_counter() - began
    return seconds / windows, (time.process_time() - cpu) / wall


def require_same(found: Mapping[str, list[Any]], start: Sequence[Any]) -> None:
    """Raise AssertionError unless all took the same update from the start, of the same size."""
    moves = {
        name: np.concatenate([(p - s).ravel() for p, s in zip(each, start, strict=True)])
        for name, each in found.items()
    }
    right = moves[BY_HAND]
    for name, move in moves.items():
        off = float(abs(move - right).max() / abs(right).max())
        assert off < TOLERANCE, f"{name}: another update, {off:.1e} off"


def started(contestants: Mapping[str, Contestant], start: Sequence[Any]) -> dict[str, float]:
    """The seconds of each one's first window, which compiles; they must agree after it."""
    first = {}
    for name, each in contestants.items():
        began = time.perf_counter()
        each.window()
        first[name] = time.perf_counter() - began
    found = {name: each.parameters() for name, each in contestants.items() if each.parameters}
    require_same(found, start)
    return first


def rounds(
    contestants: Mapping[str, Contestant], count: int, budget: float
) -> dict[str, list[tuple[float, float]]]:
    """What `timed` found for each, a round after the other, each with another one first.

    count: how many rounds; budget: seconds after which there are no more, but for three.
    """
    windows = {}
    for name, each in contestants.items():
        once, _ = timed(each, 1)
        windows[name] = min(UPDATES, math.ceil(LEAST_SECONDS / once))
    names, began = list(contestants), time.perf_counter()
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    for number in range(count):
        if number >= 3 and time.perf_counter() - began > budget:
            break
        for name in names[number % len(names) :] + names[: number % len(names)]:
            found[name].append(timed(contestants[name], windows[name]))
    return found


def quartiles(numbers: Sequence[float]) -> list[float]:
    """The lower one, the median and the upper one, to four digits."""
    found = statistics.quantiles(numbers, n=4, method="inclusive")
    return [float(f"{number:.4g}") for number in found]


def made(makers: Mapping[str, Callable[[Any], Contestant]], given: Any) -> dict[str, Contestant]:
    """The contestants, but for those whose library is not installed: that is said."""
    contestants = {}
    for name, make in makers.items():
        try:
            contestants[name] = make(given)
        except ImportError as error:
            print(f"benchmarks: without {name}: {error}", file=sys.stderr)
    return contestants


def on_gpu(
    framework: str, contestants: Mapping[str, Contestant]
) -> tuple[dict[str, Contestant], Contestant, int]:
    """All, who wait until the GPU is done; somebody who copies on it, and how many bytes."""
    wait = device.waiting(framework)
    waiting = {name: device.until_computed(each, wait) for name, each in contestants.items()}
    copy = device.until_computed(device.copying(framework, COPIED), wait)
    return waiting, copy, 2 * 4 * COPIED


def cell(task: Mapping[str, Any], size: tuple[int, int], steps: int) -> dict[str, Any]:
    """All contestants with one size and K: their times, and what they are of one another."""
    given = problem(size, steps)
    makers = dict(import_module(f"benchmarks.peers.{task['framework']}").CONTESTANTS)
    parameters = given.W.nbytes + given.b.nbytes
    if task["device"] == "gpu":
        contestants, copy, copied = on_gpu(task["framework"], made(makers, given))
    else:
        if size == SMALL:
            makers |= import_module("benchmarks.peers.numpy").CONTESTANTS
        contestants, copies = made(makers, given), Copy(parameters, task["threads"])
        copy, copied = copies.contestant(), copies.bytes
    first = started(contestants, [given.W, given.b])
    found = rounds(contestants | {COPY: copy}, task["rounds"], task["budget"])
    seconds = {name: [each for each, _ in pairs] for name, pairs in found.items()}
    per_byte = [each / copied for each in seconds.pop(COPY)]
    traffic = [each * moved(steps, parameters) for each in per_byte]
    products = zip(*(seconds[name] for name in seconds if name in MULTIPLIED))
    seconds[LIMIT] = [min(each) + moving for each, moving in zip(products, traffic, strict=True)]
    return {
        "size": list(size),
        "steps": steps,
        "rounds": len(traffic),
        "busy": round(os.getloadavg()[0], 1),
        "bandwidth": round(1e-9 / statistics.median(per_byte), 2),
        "first": {name: float(f"{each:.3g}") for name, each in first.items()},
        "cores": {
            name: round(statistics.median(busy for _, busy in pairs), 2)
            for name, pairs in found.items()
        },
        "micro-batch": {name: quartiles([s / steps for s in all]) for name, all in seconds.items()},
        "fast": beside(FAST, seconds),
        "readable": beside(READABLE, seconds),
    }


def beside(name: str, seconds: Mapping[str, Sequence[float]]) -> dict[str, list[float]]:
    """One's time over that of each other in the same round: the quartiles."""
    mine = seconds[name]
    return {
        other: quartiles([a / b for a, b in zip(mine, theirs, strict=True)])
        for other, theirs in seconds.items()
        if other not in (name, *MULTIPLIED)
    }


def memory(task: Mapping[str, Any]) -> int:
    """The most memory of an update, in bytes, beyond the data and what was there before."""
    module = import_module(f"benchmarks.peers.{task['framework']}")
    contestant = module.CONTESTANTS[task["contestant"]](problem(tuple(task["size"]), task["steps"]))
    on_host = task["device"] == "cpu"
    trim()
    before = resident("VmRSS") if on_host else device.memory(task["framework"])[0]
    contestant.window()
    if on_host:
        forget_peak()  # what compiling took is no window's
    for _ in range(3):
        contestant.window()
    return (resident("VmHWM") if on_host else device.memory(task["framework"])[1]) - before


def start_up(task: Mapping[str, Any]) -> tuple[float, str]:
    """The seconds that an import of the fast form takes, of its framework too; and the device."""
    keep_to(task["threads"])
    began = time.perf_counter()
    import_module(f"{task['framework']}_impl.fast")
    seconds = round(time.perf_counter() - began, 3)
    return seconds, chosen(task["framework"]) if task["device"] == "gpu" else "CPU"


def chosen(framework: str) -> str:
    """The name of the GPU that the framework trains on from now; raises SystemExit without one."""
    try:
        return gpu(framework)
    except NoDevice as error:
        raise SystemExit(f"benchmarks: {framework}: {error}") from None


def tell(found: Any) -> None:
    """Print a line for the process that reads them."""
    print(f"\n{MARK}{json.dumps(found)}", flush=True)


def keep_to(threads: int) -> None:
    """Give this process as many cores as it has threads, where the system can.

    A framework counts the cores for pools that no variable is about, and hands small programs over
    to them: so does XLA, which takes twice as long for a window of 4x3.
    """
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])


def main() -> None:
    """Do the task, and print what was found."""
    task = json.loads(sys.argv[1])
    if task["kind"] == "start-up":
        tell(start_up(task))
        return
    if task["device"] == "cpu":
        keep_to(task["threads"])
    else:
        chosen(task["framework"])
    if task["framework"] == "pytorch":
        import torch

        torch.set_num_threads(task["threads"])
    if task["kind"] == "memory":
        tell(memory(task))
        return
    for size, steps in task["cells"]:
        tell(cell(task, tuple(size), steps))


if __name__ == "__main__":
    main()
