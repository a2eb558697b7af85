"""Workers answer one task after another, whatever the other workers answer."""

import os
from contextlib import closing

import pytest
from conftest import random_problem

from lockstep.oracle.compare import compare_bits
from lockstep.workers.pool import Refused, Worker, WorkerError, train_in_all

PORTS = {name: f"{name}_impl.training" for name in ("pytorch", "tensorflow", "jax")}


def test_an_error_in_one_leaves_the_others_in_step(all_workers) -> None:
    problem = random_problem(0)
    expected = {name: worker.train(PORTS[name], problem) for name, worker in all_workers.items()}
    with pytest.raises(WorkerError, match="pytorch: the worker failed"):
        train_in_all(all_workers, PORTS | {"pytorch": "no_such_module"}, problem)
    for name, (thetas, _) in train_in_all(all_workers, PORTS, problem).items():
        comparison = compare_bits(expected[name], thetas)
        assert comparison.same
        assert comparison.compared == 4 * 15


def test_a_file_that_was_changed_is_loaded_again(tmp_path) -> None:
    """Once it is asked for from elsewhere, however often that is."""
    file = tmp_path / "my_port.py"
    with closing(Worker("port")) as worker:
        for count in range(4):
            file.write_text(f"def train(problem): raise NotImplementedError('{10**count}')")
            worker.path = []
            with pytest.raises(WorkerError):
                worker.train("no_such_module", random_problem(0))
            worker.path = [str(tmp_path)]
            with pytest.raises(Refused, match=f"^{10**count}$"):
                worker.train(str(file), random_problem(0))


def test_what_lies_in_an_environment_in_a_ports_folder_is_kept(monkeypatch, tmp_path) -> None:
    """As this package, and all that it imports, in the folder that it is developed in."""
    environment = tmp_path / ".venv"
    environment.mkdir()
    (environment / "library.py").write_text("COUNT = []\n")
    monkeypatch.setenv("PYTHONPATH", str(environment), prepend=os.pathsep)
    (tmp_path / "my_port.py").write_text(
        "import library\nlibrary.COUNT.append(1)\n"
        "def train(problem): raise NotImplementedError(f'imported {len(library.COUNT)} times')\n"
    )
    with closing(Worker("port")) as worker:
        for count in (1, 2):
            worker.path = [str(tmp_path)]
            with pytest.raises(Refused, match=f"^imported {count} times$"):
                worker.train("my_port", random_problem(0))
            worker.path = []
            with pytest.raises(WorkerError, match="my_port"):
                worker.train("my_port", random_problem(0))
