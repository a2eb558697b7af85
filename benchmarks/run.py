"""How long `lockstep run` takes beside `import tensorflow` alone: `python -m benchmarks.run`."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPETITIONS = 7


def seconds(*command: str) -> float:
    """The wall time of a command, which must succeed."""
    started = time.perf_counter()
    subprocess.run([sys.executable, *command], check=True, capture_output=True)
    return time.perf_counter() - started


def main() -> None:
    """Alternate the two, so that a busy moment of the machine meets both, and print medians."""
    imports, runs, shares = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        report = str(Path(folder, "run.json"))
        lockstep = ("-m", "lockstep.cli", "run", "--json", report)
        for repetition in range(REPETITIONS + 1):
            tensorflow = seconds("-c", "import tensorflow")
            run = seconds(*lockstep)
            if repetition == 0:
                continue  # the first fills the caches of both
            imports.append(tensorflow)
            runs.append(run)
            shares.append(json.loads(Path(report).read_text())["seconds"]["comparison"] / run)
    ratios = [run / tensorflow for run, tensorflow in zip(runs, imports, strict=True)]
    print(f"import tensorflow  {statistics.median(imports):6.2f} s, median of {REPETITIONS}")
    print(f"lockstep run       {statistics.median(runs):6.2f} s")
    print(f"ratio              {statistics.median(ratios):6.2f}   goal 1.0 at most")
    print(f"of it comparison   {100 * statistics.median(shares):6.2f} % goal 5 % at most")


if __name__ == "__main__":
    main()
