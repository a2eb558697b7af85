"""Run the frameworks side by side, each in a process of its own, and compare what they did."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import queue
import secrets
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

from lockstep.frameworks import FRAMEWORKS
from lockstep.workers.folders import TemporaryFolder

if TYPE_CHECKING:  # NumPy is imported while the workers start, not before
    from lockstep.problem import Array, Problem

# Long enough for a cold disk; a worker that says nothing for so long hangs.
TIMEOUT = 300.0
LOG_LINES = 15
# Set in every worker: what a port does when it is imported must not start another one.
INSIDE = "LOCKSTEP_WORKER"
Device = Literal["cpu", "gpu"]
# The products of a GPU have their dtype's precision, in its libraries and in XLA's own kernels.
DEVICES: dict[Device, dict[str, str]] = {
    "cpu": {"CUDA_VISIBLE_DEVICES": "-1", "JAX_PLATFORMS": "cpu"},
    "gpu": {
        "JAX_PLATFORMS": "cuda,cpu",  # the second, that JAX says of the first what is missing
        "NVIDIA_TF32_OVERRIDE": "0",
        "JAX_DEFAULT_MATMUL_PRECISION": "highest",
    },
}
PROGRAM = "lockstep.workers.worker"
# What a port runs on beside its framework, as a worker names it.
PORT = "port"
# What lies in the caller's folder, a queue.py or a jax.py, is nobody's import.
COMMAND: tuple[str, ...] = (sys.executable, "-P", "-m", PROGRAM)
# Ctrl-C reaches this process alone, which then stops its workers in order. (A session of its own
# would have a share of the CPU of its own, in which nice means nothing.)
GROUP: dict[str, Any] = {"process_group": 0}
if sys.version_info < (3, 11):  # which has neither
    apart = "import os, sys; os.setpgrp(); sys.path.remove('')"
    start = f"runpy.run_module({PROGRAM!r}, run_name='__main__', alter_sys=True)"
    COMMAND, GROUP = (sys.executable, "-c", f"{apart}; import runpy; {start}"), {}


class WorkerError(RuntimeError):
    """A process failed; the message names it and ends with the last lines of its log.

    what: in a line; where: the line of the port that raised, or ""; kind: "error", "dtype" if it
    was only that, "load" if there is no port to run, "device" if there is no GPU, "silent" if
    nothing came in time, "ended" if the process did.
    """

    def __init__(
        self,
        message: str,
        what: str = "",
        where: str = "",
        kind: str = "error",
        log: Sequence[str] = (),
    ) -> None:
        """Keep what a report needs."""
        super().__init__("".join([message, *(f"\n  | {line}" for line in log)]))
        self.what, self.where, self.kind, self.log = what or message, where, kind, log


@dataclass(frozen=True)
class Observed:
    """What a port did on a problem.

    trajectory: W above b after every update; more: what else it yielded, by name, arrays of that
    shape; read: the problem's fields that it read; notes: what to tell its author; seconds: that
    it took; framework: what it is written in, "" where that cannot be told.
    """

    trajectory: list[Array]
    more: dict[str, list[Array]]
    read: list[str]
    notes: list[str]
    seconds: float
    framework: str = ""


class Refused(NotImplementedError):  # noqa: N818 - a NotImplementedError is no failure
    """A port raised NotImplementedError: it does not support the problem."""


def environment(device: Device = "cpu") -> dict[str, str]:
    """The workers' environment: CPUs only, one thread each, little talk; or a GPU without TF32.

    The arrays are small and there are three processes, so that one thread each is fastest. What
    XLA compiles for JAX, and Inductor for PyTorch, is kept from run to run, in a folder for this
    kind of CPU, unless the caller has chosen another.
    """
    preferred = {
        "TF_CPP_MIN_LOG_LEVEL": "2",
        "TORCHINDUCTOR_CACHE_DIR": str(cache_folder() / "inductor"),
        "JAX_COMPILATION_CACHE_DIR": str(cache_folder() / "xla"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    required = DEVICES[device] | {
        "KERAS_BACKEND": "tensorflow",
        "OMP_NUM_THREADS": "1",
        "TF_NUM_INTEROP_THREADS": "1",
        "TF_NUM_INTRAOP_THREADS": "1",
        "PYTHONIOENCODING": "utf-8",
    }
    return preferred | os.environ | required


def cache_folder() -> Path:
    """`~/.cache/lockstep/CPU`, or where XDG_CACHE_HOME says, with a hash of what the CPU can do."""
    cpu = platform.processor() + platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu += "".join(sorted({line for line in lines if line.startswith(("flags", "Features"))}))
    name = hashlib.sha256(cpu.encode()).hexdigest()[:12]
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return home / "lockstep" / name


class Worker:
    """One framework in a process of its own, started at once and stopped by `close`."""

    def __init__(
        self, framework: str, path: Sequence[Path | str] = (), device: Device = "cpu"
    ) -> None:
        """Start the process; it goes on importing while the caller does something else.

        `path` holds folders to import ports from, before any other; `device` is where it trains.
        """
        self.framework = framework
        self.versions: dict[str, str] | None = None
        self.path = [str(folder) for folder in path]
        self._files = TemporaryFolder()
        self._token = secrets.token_hex(16)
        self._log = open(Path(self._files.name, "log"), "w+b")  # noqa: SIM115
        self._messages: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._count = 0
        self._loading = False
        self._process = subprocess.Popen(
            [*COMMAND, framework, device],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            # What a worker leaves in its temporary folder, as AutoGraph does, goes with it.
            env=environment(device) | {INSIDE: self._token, "TMPDIR": self._files.name},
            **GROUP,
        )
        self._listener = threading.Thread(
            target=self._listen, args=(self._process.stdout,), daemon=True
        )
        self._listener.start()

    @property
    def pid(self) -> int:
        """The worker's process number."""
        return self._process.pid

    def _listen(self, answers: IO[bytes]) -> None:
        """Queue the worker's answers, and None at their end."""
        for line in answers:
            try:
                message = json.loads(line)
            except ValueError:
                message = None
            if not isinstance(message, dict):
                message = {"nonsense": line.decode(errors="replace").strip()}
            self._messages.put(message)
        self._messages.put(None)

    def ready(self, timeout: float = TIMEOUT) -> dict[str, str]:
        """Wait until the framework is imported; return its packages' versions."""
        if self.versions is None:
            self.versions = self._answer("ready", "importing", timeout)["ready"]
        return self.versions

    def load(self, port: str) -> None:
        """Let the process import a port, which the next `observe` waits for."""
        self._loading = True
        self._send({"port": port, "path": self.path})

    def submit(self, port: str, problem: Path, updates: int | None = None) -> None:
        """Ask for a trajectory of a port on a problem's file; answers come in order."""
        self._count += 1
        task = {
            "port": port,
            "problem": str(problem),
            "result": str(Path(self._files.name, f"{self._count}.safetensors")),
            "updates": updates,
            "path": self.path,
        }
        self._send(task)

    def _send(self, task: Mapping[str, Any]) -> None:
        """Write one line."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # the answer will say how the process ended
            self._process.stdin.write(json.dumps(task).encode() + b"\n")
            self._process.stdin.flush()

    def result(self, timeout: float = TIMEOUT) -> list[Array]:
        """Wait for the next trajectory: W above b, (features + 1, outputs), after every update.

        Raises Refused if the port does not support the problem, WorkerError for the rest.
        """
        return self.result_with_state(timeout)[0]

    def result_with_state(
        self, timeout: float = TIMEOUT
    ) -> tuple[list[Array], dict[str, list[Array]]]:
        """The same, and what the port yields of its state, by name, arrays of the same shape."""
        found = self.observe(timeout)
        if not found.trajectory:
            raise self._error("failed while training: train yielded nothing")
        return found.trajectory, found.more

    def observe(self, timeout: float = TIMEOUT) -> Observed:
        """The same, with all that there is to tell; a port may have yielded nothing."""
        from safetensors.numpy import load_file

        from lockstep.workers.ports import stacked

        self.ready(timeout)
        if self._loading:
            self._loading = False
            self._answer("loaded", "importing", timeout)
        message = self._answer("done", "training", timeout)
        arrays = {}
        if message["yielded"]:
            arrays = load_file(message["done"])
            Path(message["done"]).unlink()
        told = [message[name] for name in ("read", "notes", "seconds", "framework")]
        return Observed(*stacked(arrays), *told)

    def train(self, port: str, problem: Problem, updates: int | None = None) -> list[Array]:
        """Submit a problem and wait for its trajectory."""
        return self.train_with_state(port, problem, updates)[0]

    def train_with_state(
        self, port: str, problem: Problem, updates: int | None = None
    ) -> tuple[list[Array], dict[str, list[Array]]]:
        """Submit a problem and wait for its trajectory and state."""
        file = Path(self._files.name, "problem.safetensors")
        problem.save(file)
        self.submit(port, file, updates)
        return self.result_with_state()

    def _answer(self, wanted: str, doing: str, timeout: float) -> dict[str, Any]:
        """The next answer, if it is the wanted one; otherwise the error that it stands for."""
        try:
            message = self._messages.get(timeout=timeout)
        except queue.Empty:
            self.close()
            what = f"said nothing for {timeout:g} seconds"
            raise self._error(f"{what} while {doing}", what, kind="silent") from None
        if message is None:
            self._messages.put(None)  # nothing will ever come again, whoever asks
            code = self._process.wait()
            what = f"was killed by signal {-code}" if code < 0 else f"exited with status {code}"
            raise self._error(f"{what} while {doing}", what, kind="ended")
        if "refused" in message:
            raise Refused(message["refused"])
        if "failed" in message:
            what = message["failed"]
            place = {name: message[name] for name in ("where", "kind") if name in message}
            raise self._error(f"failed while {doing}: {what}", what, **place)
        if wanted not in message:
            raise self._error(f"answered nonsense while {doing}: {str(message)[:200]}")
        return message

    def _error(self, text: str, what: str = "", **place: str) -> WorkerError:
        """Name the framework and show the last lines of its log."""
        try:
            lines = Path(self._files.name, "log").read_text(errors="replace").splitlines()
        except FileNotFoundError:
            lines = self._last_lines
        message = f"{self.framework}: the worker {text}"
        if place.get("kind") == "device":
            lines = []  # all is said
        return WorkerError(message, what or text, **place, log=lines[-LOG_LINES:])

    def close(self) -> None:
        """Kill the process, if it still runs, and remove its files."""
        # The worker leads a process group, so that what a port has started ends with it; what has
        # left that has the worker's environment all the same.
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        while stray := _with_environment(f"{INSIDE}={self._token}"):
            for pid in stray:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self._process.wait()
        self._listener.join()
        for stream in (self._process.stdin, self._process.stdout, self._log):
            with suppress(OSError):  # a line that the worker never read
                stream.close()  # type: ignore[union-attr]
        log = Path(self._files.name, "log")
        if log.exists():
            self._last_lines = log.read_text(errors="replace").splitlines()
        self._files.cleanup()


def outside() -> None:
    """Raise RuntimeError in a worker, which must not start another one."""
    if INSIDE in os.environ:
        raise RuntimeError(
            "lockstep.check was called while a port's file was imported: put the call under"
            ' if __name__ == "__main__", or into a test'
        )


@contextmanager
def loading(port: str) -> Iterator[Worker]:
    """A worker of no framework, which imports a port while the caller does something else."""
    outside()
    worker = Worker(PORT, [Path.cwd()])
    try:
        worker.load(port)
        yield worker
    finally:
        worker.close()


def _with_environment(variable: str) -> list[int]:
    """The processes, in /proc, that were started with this variable, and still run."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # somebody else's, or gone by now
            if variable.encode() in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
    return found


def train_in_all(
    workers: Mapping[str, Worker],
    ports: Mapping[str, str],
    problem: Problem,
    updates: int | None = None,
) -> dict[str, tuple[list[Array], dict[str, list[Array]]]]:
    """The same problem in every worker at the same time: trajectories and states.

    Raises the first Refused or WorkerError, when all workers have answered.
    """
    found, errors = {}, []
    with TemporaryFolder() as folder:
        file = Path(folder, "problem.safetensors")
        problem.save(file)
        for name, worker in workers.items():
            worker.submit(ports[name], file, updates)
        for name, worker in workers.items():
            try:
                found[name] = worker.result_with_state()
            except (Refused, WorkerError) as error:
                errors.append(error)
    if errors:
        raise errors[0]
    return found


@contextmanager
def importing(folder: Path | str, workers: Mapping[str, Worker]) -> Iterator[None]:
    """Let the workers import from a folder, for as long as it lasts."""
    for worker in workers.values():
        worker.path.append(str(folder))
    try:
        yield
    finally:
        for worker in workers.values():
            worker.path.remove(str(folder))


@contextmanager
def workers(
    frameworks: Sequence[str] = FRAMEWORKS, device: Device = "cpu"
) -> Iterator[dict[str, Worker]]:
    """Start a worker for each framework, all at the same time, and stop them at the end."""
    with ExitStack() as stack:
        started = {}
        for framework in frameworks:
            started[framework] = Worker(framework, device=device)
            stack.callback(started[framework].close)
        yield started
