"""A process that trains in one framework: `python -m lockstep.worker FRAMEWORK`.

It reads tasks from standard input, one JSON object a line, and answers with one JSON object a
line on what was its standard output; whatever the framework or a port prints goes to standard
error. Problems and trajectories travel as safetensors files. It ends when its input ends, even in
the middle of a task, so that no parent leaves an orphan behind.

    {"port": "pytorch_impl.training", "problem": FILE, "result": FILE, "updates": 48, "path": []}
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import queue
import sys
import threading
import time
import traceback
from typing import Any, TextIO

from lockstep import PACKAGES

# TensorFlow takes longest, and so does the run: where cores are few, the others give way to it.
NICE = 3


def main() -> None:
    """Import the framework, say so, then train what is asked for."""
    framework = sys.argv[1]
    if framework != "tensorflow":
        os.nice(NICE)
    tasks: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=read_tasks, args=(tasks,), daemon=True).start()
    answers = claim_stdout()
    # Collecting garbage while a framework builds a million lasting objects is a fifth of the time
    # that importing it takes.
    gc.set_threshold(200_000)
    try:
        versions = start(framework)
    except Exception as error:
        traceback.print_exc()
        answer(answers, {"failed": describe(error)})
        return
    answer(answers, {"ready": versions})
    while True:
        task = json.loads(tasks.get())
        try:
            seconds = train(task)
            answer(answers, {"done": task["result"], "seconds": seconds})
        except NotImplementedError as error:
            answer(answers, {"refused": str(error) or "not implemented"})
        except Exception as error:
            traceback.print_exc()
            answer(answers, {"failed": describe(error)})


def read_tasks(tasks: queue.SimpleQueue[str]) -> None:
    """Queue the lines of standard input; leave at its end, whatever else is running."""
    for line in sys.stdin:
        tasks.put(line)
    os._exit(0)


def claim_stdout() -> TextIO:
    """Keep standard output for the answers and send all other printing to standard error."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return answers


def answer(answers: TextIO, message: dict[str, Any]) -> None:
    """Write one line."""
    answers.write(json.dumps(message) + "\n")
    answers.flush()


def start(framework: str) -> dict[str, str]:
    """Import the framework's packages and return their versions."""
    if framework == "tensorflow":
        # TensorFlow Lite's converter imports JAX wherever it finds it, for a fifth of the time.
        sys.modules.setdefault("jax", None)  # type: ignore[arg-type]
    versions = {name: importlib.import_module(name).__version__ for name in PACKAGES[framework]}
    if sys.modules.get("jax", ...) is None:
        del sys.modules["jax"]
    if framework == "pytorch":
        import torch

        # oneMKL chooses its kernels at the first call, and threads race for it:
        # https://github.com/pytorch/pytorch/issues/188792
        torch.set_num_threads(1)
    return versions


def train(task: dict[str, Any]) -> float:
    """Run a port's `train` on a problem, write its trajectory, return the seconds it took."""
    from itertools import islice

    import numpy as np
    from safetensors.numpy import save_file

    from lockstep.problem import Problem

    sys.path[:0] = [path for path in task["path"] if path not in sys.path]
    problem = Problem.load(task["problem"])
    started = time.perf_counter()
    port = importlib.import_module(task["port"])
    yielded = list(islice(port.train(problem), task["updates"]))
    seconds = time.perf_counter() - started
    if not yielded:
        raise ValueError(f"{task['port']}.train yielded nothing")
    arrays = {
        # In C order, whatever it came in: files hold memory as it lies.
        name: np.ascontiguousarray(np.stack([np.asarray(each[i]) for each in yielded]))
        for i, name in enumerate("Wb")
    }
    dtypes = {str(array.dtype) for array in arrays.values()}
    if dtypes != {problem.dtype}:
        raise TypeError(f"{task['port']}.train yielded {dtypes}, not {problem.dtype}")
    save_file(arrays | states([rest for _, _, *rest in yielded], arrays), task["result"])
    return seconds


def states(yielded: list[list[Any]], arrays: dict[str, Any]) -> dict[str, Any]:
    """What a port yields beside W and b, stacked: "state.NAME.W" and "state.NAME.b".

    A number is given once for every number of W and b. What is missing is zero: a library may
    have no state before its first update.
    """
    import numpy as np

    found = [rest[0] if rest else {} for rest in yielded]
    return {
        f"state.{name}.{parameter}": np.stack(
            [
                np.broadcast_to(pair(state.get(name, 0.0))[i], arrays[parameter].shape[1:])
                for state in found
            ]
        ).astype(arrays[parameter].dtype)
        for name in dict.fromkeys(name for state in found for name in state)
        for i, parameter in enumerate("Wb")
    }


def pair(value: Any) -> Any:
    """W's and b's part of a state; a number is the same for both."""
    return value if isinstance(value, list | tuple) else (value, value)


def describe(error: Exception) -> str:
    """One line for the report; the traceback stands in the log."""
    first, *_ = str(error).strip().splitlines() or ["(no message)"]
    return f"{type(error).__name__}: {first}"


if __name__ == "__main__":
    main()
