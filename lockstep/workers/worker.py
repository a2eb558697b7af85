"""A process that trains in one framework: `python -m lockstep.workers.worker FRAMEWORK DEVICE`.

It reads tasks from standard input, one JSON object a line, and answers with one JSON object a
line on what was its standard output; whatever the framework or a port prints goes to standard
error. Problems and trajectories travel as safetensors files. It ends when its input ends, even in
the middle of a task, so that no parent leaves an orphan behind.

    {"port": "pytorch_impl.training", "problem": FILE, "result": FILE, "updates": 48, "path": []}

Without a problem, the port is imported and nothing else.

A worker for somebody's port is no framework's: it imports what the port imports.
"""

from __future__ import annotations

import fcntl
import gc
import importlib
import json
import os
import queue
import resource
import sys
import threading
import time
import traceback
from contextlib import suppress
from typing import Any, BinaryIO, TextIO

from lockstep.frameworks import FRAMEWORKS, PACKAGES
from lockstep.workers.installed import missing

# TensorFlow takes longest, and so does the run: where cores are few, the others give way to it.
NICE = 3
# Ports, and what they import, count their descriptors from 3 on.
OUT_OF_THE_WAY = 500
WORKER = os.getpid()
FOLDERS = {f"{framework}_impl": framework for framework in FRAMEWORKS}
# What tasks have put on the import path.
ADDED: list[str] = []


def main() -> None:
    """Import the framework, say so, then train what is asked for."""
    framework, device = sys.argv[1:]
    if framework in PACKAGES and framework != "tensorflow":
        os.nice(NICE)
    tasks: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    questions, answers = claim_streams()
    threading.Thread(target=read_tasks, args=(questions, tasks), daemon=True).start()
    # Collecting garbage while a framework builds a million lasting objects is a fifth of the time
    # that importing it takes.
    gc.set_threshold(200_000)
    if framework in PACKAGES and (why := missing(framework)):
        answer(answers, {"failed": why})
        return
    try:
        versions = start(framework)
        if device == "gpu":
            versions["on"] = gpu(framework)
    except NoDevice as error:
        answer(answers, {"failed": str(error), "kind": "device"})
        return
    except Exception as error:
        traceback.print_exc()
        answer(answers, {"failed": f"{type(error).__name__}: {error}"})
        return
    answer(answers, {"ready": versions})
    while True:
        task = json.loads(tasks.get())
        try:
            answer(answers, train(task) if "problem" in task else load(task))
        except NotImplementedError as error:
            answer(answers, {"refused": describe_refusal(error)})
        except BaseException as error:  # a port may call sys.exit
            traceback.print_exc()
            answer(answers, {"failed": describe(error)} | place(error, task["port"]))


def claim_streams() -> tuple[BinaryIO, TextIO]:
    """Keep standard input and output for tasks and answers, far from where a port would write.

    A port reads nothing, and what it prints goes to standard error.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    kept = [
        fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, min(OUT_OF_THE_WAY, limit // 2))
        for number in (0, 1)
    ]
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return os.fdopen(kept[0], "rb"), os.fdopen(kept[1], "w", encoding="utf-8")


def read_tasks(questions: BinaryIO, tasks: queue.SimpleQueue[bytes]) -> None:
    """Queue the lines of the input; leave at its end, whatever else is running."""
    for line in questions:
        tasks.put(line)
    os._exit(0)


def answer(answers: TextIO, message: dict[str, Any]) -> None:
    """Write one line."""
    leave_if_forked()
    answers.write(json.dumps(message) + "\n")
    answers.flush()


def leave_if_forked() -> None:
    """End a process that a port has forked, and that has come back: it is not the worker."""
    if os.getpid() != WORKER:
        os._exit(0)


def start(framework: str) -> dict[str, str]:
    """Import the framework's packages and return their versions."""
    sys.meta_path.insert(0, LightTensorFlow())
    packages = PACKAGES.get(framework, ())
    versions = {name: importlib.import_module(name).__version__ for name in packages}
    if framework == "pytorch":
        import torch

        # oneMKL chooses its kernels at the first call, and threads race for it:
        # https://github.com/pytorch/pytorch/issues/188792
        torch.set_num_threads(1)
    return versions


class NoDevice(Exception):  # noqa: N818 - it is no fault of the framework
    """A framework sees no GPU, or is a build for CPUs."""


def gpu(framework: str) -> str:
    """The name of the GPU that a framework sees, and then trains on; raises NoDevice."""
    if framework == "pytorch":
        import torch

        if torch.cuda.is_available():
            torch.set_default_device("cuda")
            return torch.cuda.get_device_name()
    elif framework == "tensorflow":
        import tensorflow as tf

        if devices := tf.config.list_physical_devices("GPU"):
            tf.config.experimental.enable_tensor_float_32_execution(False)
            return str(tf.config.experimental.get_device_details(devices[0])["device_name"])
    else:
        import jax

        with suppress(RuntimeError):  # no such platform
            return jax.devices("gpu")[0].device_kind
    raise NoDevice("it sees no GPU: a driver, or its build for GPUs, is missing")


class LightTensorFlow:
    """Hides packages from TensorFlow, while it is imported itself, that it takes if they are there.

    Its Lite converter imports JAX, and Keras imports Matplotlib, for a quarter of the time.
    """

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> None:
        """Raise ModuleNotFoundError for one of them; find nothing else."""
        if name not in ("jax", "matplotlib") or os.environ.get("KERAS_BACKEND") == "jax":
            return
        spec = getattr(sys.modules.get("tensorflow"), "__spec__", None)
        if getattr(spec, "_initializing", False):
            raise ModuleNotFoundError(name)


def import_from(folders: list[str]) -> None:
    """Import from these folders, and forget what was imported from those of earlier tasks.

    Another folder may have a package of the same name.
    """
    for folder in [each for each in ADDED if each not in folders]:
        ADDED.remove(folder)
        # A port's file has put it there once more.
        sys.path[:] = [each for each in sys.path if each != folder]
        inside = f"{folder}{os.sep}"
        # An environment may lie in the folder, and so may this package.
        deeper = tuple(f"{each}{os.sep}" for each in sys.path if each.startswith(inside))
        for name, module in list(sys.modules.items()):
            file = getattr(module, "__file__", None) or ""
            own = name.partition(".")[0] == "lockstep"
            if file.startswith(inside) and not file.startswith(deeper) and not own:
                del sys.modules[name]
    new = [folder for folder in folders if folder not in sys.path]
    ADDED.extend(new)
    sys.path[:0] = new
    importlib.invalidate_caches()


def train(task: dict[str, Any]) -> dict[str, Any]:
    """Run a port on a problem, write its trajectory, return what else there is to tell."""
    from safetensors.numpy import save_file

    from lockstep.problem import Problem
    from lockstep.workers import ports

    import_from(task["path"])
    problem = Problem.load(task["problem"])
    port = loaded(task["port"])
    started = time.perf_counter()
    found = ports.follow(port, problem, task["updates"])
    seconds = time.perf_counter() - started
    leave_if_forked()
    if arrays := found.arrays():
        save_file(arrays, task["result"])
    return {
        "done": task["result"],
        "yielded": len(found.W),
        "read": sorted(found.read),
        "notes": sorted(found.notes),
        "seconds": seconds,
        "framework": ports.framework_of(port),
    }


def load(task: dict[str, Any]) -> dict[str, Any]:
    """Import a port before its first problem."""
    import_from(task["path"])
    loaded(task["port"])
    return {"loaded": task["port"]}


def loaded(port: str) -> Any:
    """A port's function; raises LoadError, or NotLoaded from what its module raises."""
    from lockstep.workers import ports

    folder = port.partition(".")[0]
    framework = FOLDERS.get(folder)
    if framework and folder not in sys.modules and (why := missing(framework)):
        raise ports.LoadError(why)
    try:
        return ports.load(port)
    except ports.LoadError:
        raise
    except BaseException as error:
        raise NotLoaded from error


class NotLoaded(Exception):  # noqa: N818 - its cause is the error
    """A port's module raised what is this exception's cause."""


def describe_refusal(error: NotImplementedError) -> str:
    """What a port does not support, in one line."""
    from lockstep.workers.ports import first_line

    return first_line(error)


def describe(error: BaseException) -> str:
    """One line for the report; the traceback stands in the log."""
    from lockstep.workers.ports import PortError, first_line

    if isinstance(error, NotLoaded) and error.__cause__ is not None:
        error = error.__cause__
    name = "" if isinstance(error, PortError) else f"{type(error).__name__}: "
    return f"{name}{first_line(error)}"


def place(error: BaseException, port: str) -> dict[str, str]:
    """The line of the port that raised, and whether it was the dtype."""
    from lockstep.workers.ports import LoadError, PortError, WrongDtype, where

    kind = "dtype" if isinstance(error, WrongDtype) else "error"
    if isinstance(error, NotLoaded | LoadError):
        kind, error = "load", error.__cause__ or error
    return {"kind": kind, "where": "" if isinstance(error, PortError) else where(error, port)}


if __name__ == "__main__":
    main()
elif __name__ == "__mp_main__":  # a process that a port has spawned, which looks for the port
    from lockstep.workers.ports import load_again

    load_again()
