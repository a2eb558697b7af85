"""A check holds a framework to the number of its updates."""

import pytest
from conftest import random_problem

from lockstep.experiments.checks import build
from lockstep.oracle import trajectory
from lockstep.problem import ProblemError


@pytest.mark.parametrize(("name", "updates"), [("exact", 4), ("iris-sgd", 3)])
def test_an_update_too_many_or_too_few_is_refused(name, updates) -> None:
    (check, *_) = build(name, "float64", None, updates)
    check.prepare()
    right = trajectory(check.problem, "float64")
    due = min(updates + 1, check.problem.updates)
    assert check.compare(right[:due]).compared == updates * right[0].size
    for count in (0, due - 1, due + 1):
        longer = [*right, right[-1]][:count]
        assert len(longer) == count
        with pytest.raises(ValueError, match=f"{count} updates instead of {due}"):
            check.compare(longer)


def test_what_would_take_long_is_refused_at_once(tmp_path) -> None:
    file = tmp_path / "long.safetensors"
    problem = random_problem(0, epochs=5000)
    problem.save(file)
    assert problem.updates > 5000
    for name, updates in (("iris-sgd", 1_000_000), ("iris-adamw", 5001), (str(file), None)):
        with pytest.raises(ProblemError, match="choose at most 5000"):
            build(name, updates=updates)
    assert build(str(file), updates=5000)[0].asked == 5000


def test_an_exact_problem_ends_where_it_is_exact() -> None:
    for check in build("exact", updates=1_000_000):
        known = {"float64": 48, "float32": 20}[check.problem.dtype]
        assert known <= check.updates < check.problem.updates == known + 16
        assert check.asked == 1_000_000
