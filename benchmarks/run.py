"""How long `lockstep run` and `lockstep check` take beside imports alone: `-m benchmarks.run`."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPETITIONS = 7
# The first optimizer of a process imports torch._dynamo, whatever is done with it.
OPTIMIZER = "import torch; torch.optim.SGD([torch.zeros(1, requires_grad=True)])"


def seconds(*command: str) -> float:
    """The wall time of a command, which must succeed."""
    started = time.perf_counter()
    subprocess.run([sys.executable, *command], check=True, capture_output=True)
    return time.perf_counter() - started


def main() -> None:
    """Alternate all of them, so that a busy moment of the machine meets each; print medians."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "run.json")
        commands = {
            "import tensorflow": ("-c", "import tensorflow"),
            "lockstep run": ("-m", "lockstep.cli", "run", "--json", str(report)),
            "import torch": ("-c", "import torch"),
            "torch.optim.SGD": ("-c", OPTIMIZER),
            "lockstep check": ("-m", "lockstep.cli", "check", "pytorch_impl.training"),
        }
        times: dict[str, list[float]] = {name: [] for name in commands}
        shares = []
        for repetition in range(REPETITIONS + 1):
            for name, command in commands.items():
                took = seconds(*command)
                if repetition:  # the first fills the caches of all
                    times[name].append(took)
            if repetition:
                compared = json.loads(report.read_text())["seconds"]["comparison"]
                shares.append(compared / times["lockstep run"][-1])

    def ratio(one: str, other: str) -> float:
        return statistics.median(a / b for a, b in zip(times[one], times[other], strict=True))

    for name, each in times.items():
        print(f"{name:18} {statistics.median(each):6.2f} s, median of {REPETITIONS}")
    run, check = "lockstep run", "lockstep check"
    print(f"run / tensorflow   {ratio(run, 'import tensorflow'):6.2f}   goal 1.0 at most")
    print(f"of it comparison   {100 * statistics.median(shares):6.2f} % goal 5 % at most")
    print(f"check / torch      {ratio(check, 'import torch'):6.2f}   goal 1.3 at most")
    print(f"check / optimizer  {ratio(check, 'torch.optim.SGD'):6.2f}")


if __name__ == "__main__":
    main()
