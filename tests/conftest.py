"""Shared fixtures: a worker for each framework, started once, all at the same time."""

import dataclasses
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from xdist.scheduler import LoadScopeScheduling

from docs.blocks import checks_in
from docs.demonstration import replaced
from lockstep.cli import main
from lockstep.frameworks import FRAMEWORKS
from lockstep.problem import Problem, hadamard, split
from lockstep.workers.pool import PORT, Worker, workers

ROOT = Path(__file__).parent.parent
RECORDERS = ("pytorch", "jax", "keras")
# Tests that share what takes long to make, by the start of their names: each group is run in one
# process. (xdist's own groups change nothing under pytest 9.)
TOGETHER = {
    "the guide": ("tests/docs/test_browser.py", "tests/docs/test_docs.py::test_the_guide_builds"),
    "its pages": ("tests/docs/test_mistake_pages.py", "tests/docs/test_generated_pages.py"),
    "the main job": ("tests/cli/test_cli.py",),
    "the gallery": ("tests/gallery/test_gallery.py::test_the_check_says",),
    "the traps": ("tests/docs/test_porting_pages.py::test_a_check_says",),
    "real runs": ("tests/trace/test_comparison.py",),
    "initial values": ("tests/trace/test_initial.py",),
    "the mistakes": ("tests/mistakes/test_mistakes.py",),
    **{f"recorded {each}": (f"tests/trace/test_record_{each}.py",) for each in RECORDERS},
    "the table": ("tests/optimizers/test_optimizer_table.py",),
}


class Together(LoadScopeScheduling):
    """Hands out tests one by one, and groups whole."""

    def _split_scope(self, nodeid: str) -> str:
        for group, starts in TOGETHER.items():
            if nodeid.startswith(starts):
                return group
        return nodeid


@pytest.hookimpl(optionalhook=True)  # without xdist, there is none
def pytest_xdist_make_scheduler(config, log) -> LoadScopeScheduling:
    return Together(config, log)


@pytest.fixture(scope="session")
def all_workers() -> Iterator[dict[str, Worker]]:
    with workers(FRAMEWORKS) as started:
        yield started


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The guide, built; a warning is an error. Who uses it is run together."""
    pytest.importorskip("furo")
    folder = tmp_path_factory.mktemp("docs")
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-W", "-q", "-n", "docs", folder],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="session")
def process_of_ports() -> Iterator[Worker]:
    with closing(Worker(PORT)) as worker:
        yield worker


@pytest.fixture
def in_one_process(process_of_ports: Worker) -> Iterator[None]:
    """Check ports that set nothing for their whole process in one that has imported it all."""
    with checks_in(process_of_ports):
        yield


@pytest.fixture(params=FRAMEWORKS)
def framework(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def worker(all_workers: dict[str, Worker], framework: str) -> Worker:
    return all_workers[framework]


@pytest.fixture
def mutant(tmp_path: Path) -> Callable[..., str]:
    """A copy of an implementation in which one piece of text is replaced; returns its package."""

    def make(framework: str, file: str, old: str, new: str) -> str:
        package = f"{framework}_impl_{tmp_path.name.replace('-', '_')}"
        replaced(f"{framework}_impl", tmp_path / package, file, old, new)
        return package

    return make


def pinned(constraints: str = "constraints.txt") -> dict[str, str]:
    """The versions that a file of constraints pins, by name."""
    lines = (ROOT / constraints).read_text().splitlines()
    return dict(line.split("==") for line in lines if not line.startswith("#"))


def exact_with_partial_window(dtype: str, epochs: int = 6) -> Problem:
    """Eight exact examples in five micro-batches: K = 3 leaves a partial window of two.

    Both windows have four examples, a power of two, so that dividing by them is exact.
    """
    full = hadamard(dtype)
    x, y = full.examples
    return Problem(
        full.W,
        full.b,
        split(x, y, [1, 2, 1, 3, 1]),
        epochs=epochs,
        accumulation_steps=3,
        optimizer=full.optimizer,
        dtype=dtype,
    )


def exact_with_wide_numbers(updates: int = 16) -> Problem:
    """The exact problem with gradients of 27 bits or more, which a float32 accumulator rounds."""
    problem = hadamard(updates=updates)
    return dataclasses.replace(problem, W=problem.W * (2**26 + 1), b=problem.b * (2**26 + 1))


def random_problem(seed: int, **settings: object) -> Problem:
    """A small problem of ordinary numbers, for tests that need no more than some problem."""
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(7, 4)), rng.normal(size=(7, 3))
    return Problem(
        rng.normal(size=(4, 3)), rng.normal(size=3), split(x, y, [2, 1, 3, 1]), **settings
    )


def lockstep(
    *arguments: object, cwd: Path = ROOT, **environment: str
) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own, of this tree wherever it runs."""
    # Last on the path: a test may have put something before what is installed.
    path = os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), str(ROOT))))
    return subprocess.run(
        [sys.executable, "-m", "lockstep.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=os.environ | {"COLUMNS": "100", "PYTHONPATH": path} | environment,
    )


def call(monkeypatch, capsys, *arguments: str) -> tuple[int, str, str]:
    """The command line in this process, so that a test can change what it uses."""
    monkeypatch.setattr(sys, "argv", ["lockstep", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    out, err = capsys.readouterr()
    return int(end.value.code or 0), out, err
