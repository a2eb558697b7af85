"""A check holds a framework to the number of its updates."""

import pytest

from lockstep.experiments.checks import build
from lockstep.oracle import trajectory


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
