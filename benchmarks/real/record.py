"""Record real runs in a process of their own: `python -m benchmarks.real.record FRAMEWORK < jobs`.

A job is one JSON line: a folder, and what the framework's `run` takes besides.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent


def record(framework: str, jobs: Iterable[Mapping[str, Any]]) -> None:
    """Record runs in a framework, one after the other, in one process.

    Raises RuntimeError, with what was printed, where one fails.
    """
    lines = "".join(f"{json.dumps(dict(job))}\n" for job in jobs)
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.real.record", framework],
        input=lines,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
    )
    if done.returncode:
        raise RuntimeError(done.stderr)


def record_both(right: str, port: str, planted: Collection[str], **settings: Any) -> None:
    """Record a right run in PyTorch, and its port to JAX with mistakes: float32, K = 4."""
    job = {"dtype": "float32", "accumulation_steps": 4} | settings
    record("pytorch", [job | {"folder": str(Path(right).resolve())}])
    record("jax", [job | {"folder": str(Path(port).resolve()), "mistakes": list(planted)}])


def main() -> None:
    """Run the jobs of standard input."""
    run = importlib.import_module(f"benchmarks.real.{sys.argv[1]}").run
    for line in sys.stdin:
        run(**json.loads(line))


if __name__ == "__main__":
    main()
