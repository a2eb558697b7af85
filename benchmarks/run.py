"""How long `lockstep run` and `lockstep check` take: `python -m benchmarks.run`."""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_suffix(".json")
REPETITIONS = 7
IMPORTS = "import tensorflow", "import torch"
# The first optimizer of a process imports torch._dynamo, whatever is done with it.
OPTIMIZER = "torch.optim.SGD([torch.zeros(1, requires_grad=True)])"
RUN, CHECK = "lockstep run", "lockstep check pytorch_impl.training"
COMMANDS = {
    **{name: ("-c", name) for name in IMPORTS},
    OPTIMIZER: ("-c", f"import torch; {OPTIMIZER}"),
    CHECK: ("-m", "lockstep.cli", *CHECK.split()[1:]),
}
# What is held against what, and how much of it is meant to be enough.
RATIOS = (
    (RUN, IMPORTS[0], 1.0),
    (CHECK, IMPORTS[1], 1.3),
    (CHECK, OPTIMIZER, None),
    (OPTIMIZER, IMPORTS[1], None),
)


def seconds(*command: str) -> float:
    """The wall time of a command, which must succeed."""
    started = time.perf_counter()
    subprocess.run([sys.executable, *command], check=True, capture_output=True)
    return time.perf_counter() - started


def measured() -> dict[str, Any]:
    """The medians, and those of the ratios; all in turn, so that a busy moment meets each."""
    times: dict[str, list[float]] = {}
    shares = []
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "run.json")
        commands = COMMANDS | {RUN: ("-m", "lockstep.cli", "run", "--json", str(report))}
        for repetition in range(REPETITIONS + 1):
            for name, command in commands.items():
                took = seconds(*command)
                if repetition:  # the first fills the caches of all
                    times.setdefault(name, []).append(took)
            if repetition:
                compared = json.loads(report.read_text())["seconds"]["comparison"]
                shares.append(compared / times[RUN][-1])
    ratios = [
        statistics.median(a / b for a, b in zip(times[one], times[other], strict=True))
        for one, other, _ in RATIOS
    ]
    medians = {name: statistics.median(each) for name, each in times.items()}
    return {"seconds": medians, "ratios": ratios, "comparison": statistics.median(shares)}


def markdown(found: Mapping[str, Any]) -> str:
    """The ratios as a table."""
    rows: list[Sequence[str]] = [("time", "s", "/ time", "s", "ratio", "goal"), ("---",) * 6]
    for (one, other, goal), ratio in zip(RATIOS, found["ratios"], strict=True):
        first, second = (f"{found['seconds'][name]:.2f}" for name in (one, other))
        said = f"{goal}, {'reached' if ratio <= goal else 'missed'}" if goal else ""
        rows.append((f"`{one}`", first, f"`{other}`", second, f"{ratio:.2f}", said))
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def main() -> None:
    """Measure, print the table, and write the file, if one is named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found = measured()
    print(markdown(found), end="")
    print(f"Of a run, comparing is {100 * found['comparison']:.1f} %.")
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
