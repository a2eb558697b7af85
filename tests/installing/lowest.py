"""What works with the lowest versions, and what is said where something does not.

`make test-lowest` runs these, and most of the other tests.
"""

import importlib.metadata
import re

import pytest
from conftest import lockstep, pinned
from left_out import TOO_OLD

from lockstep.frameworks import NEEDED, PACKAGES
from lockstep.workers.pool import Worker, WorkerError


def test_these_are_the_lowest_versions() -> None:
    lowest = pinned("constraints-lowest.txt")
    for package in ("numpy", "rich", "safetensors", "typer", *NEEDED):
        name = f"{package}-cpu" if package == "tensorflow" else package
        assert importlib.metadata.version(name).startswith(lowest[package])


@pytest.mark.parametrize("framework", TOO_OLD)
def test_an_old_framework_comes_with_what_is_needed(framework) -> None:
    done = lockstep("run", "exact", "-f", f"{framework},tensorflow")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"lockstep: {TOO_OLD[framework]}. Install it: ")
    assert done.stderr.endswith(" or leave it out: --frameworks tensorflow\n")
    assert done.stderr.count("\n") == 1
    done = lockstep("check", f"{framework}_impl.recipe")
    assert (done.returncode, done.stderr) == (2, "")
    assert TOO_OLD[framework] in done.stdout
    worker = Worker(framework)
    with pytest.raises(WorkerError) as error:
        worker.ready()
    worker.close()
    assert str(error.value).endswith(f" while importing: {TOO_OLD[framework]}")


def test_the_others_run() -> None:
    assert {*TOO_OLD, "tensorflow"} == set(PACKAGES)
    done = lockstep("run", "-f", "tensorflow")
    assert (done.returncode, done.stderr) == (0, "")
    assert lockstep("check", "tensorflow_impl.recipe").returncode == 0
    assert re.search(r"4 020 numbers compared in bits, 0 differ; 450 .* 0 outside\n$", done.stdout)
