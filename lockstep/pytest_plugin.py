"""For pytest: a test that takes `lockstep_probe` runs once for each probe.

    def test_same_update(lockstep_probe):
        lockstep_probe(train)

The port is a name as `lockstep check` takes it, or a function. It runs once, in a process of its
own; a closure or a lambda runs in this one, once a test if the test makes it anew. What it does not
support is skipped; where it differs, the test says which mistake it makes. The last test is about
all that the port supports, together. What is accepted and what must be looked at stands under
[tool.lockstep] in the project's pyproject.toml, or is an argument: lockstep_probe(train,
accept=["clip-epsilon"], require=["all"]).

    def test_same_run(lockstep_traces):
        lockstep_traces("run-a/", "run-b/")

compares two recorded runs, see `lockstep trace`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:  # pytest loads this file in every project
    from lockstep.diagnosis import Port, Report

FIXTURE = "lockstep_probe"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test for each probe."""
    if FIXTURE in metafunc.fixturenames:
        from lockstep.diagnosis.fitting import TOGETHER
        from lockstep.diagnosis.probes import probes

        names = [*(probe.name for probe in probes()), TOGETHER]
        metafunc.parametrize(FIXTURE, names, indirect=True)


@pytest.fixture(scope="session")
def lockstep_reports() -> dict[Any, Report]:
    """The report of every port that was checked."""
    return {}


@pytest.fixture(scope="session")
def lockstep_policy(pytestconfig: pytest.Config) -> dict[str, Any]:
    """What the project asks of every check."""
    from lockstep.diagnosis import policy

    return policy(pytestconfig.rootpath)


@pytest.fixture
def lockstep_probe(
    request: pytest.FixtureRequest,
    lockstep_reports: dict[Any, Report],
    lockstep_policy: dict[str, Any],
) -> Callable[..., None]:
    """Require that a port takes the same update on one probe."""
    from lockstep.diagnosis import check
    from lockstep.diagnosis.fitting import TOGETHER

    name: str = request.param

    def require(port: Port, **more: Any) -> None:
        asked = lockstep_policy | more
        key = port, repr(asked)
        if key not in lockstep_reports:
            lockstep_reports[key] = check(port, **asked)
        report = lockstep_reports[key]
        if name == TOGETHER and report.verdict == "incomplete":
            pytest.fail(f"{report.port}\n{report}", pytrace=False)
        if why := report.uncovered(name):
            pytest.skip(why)
        if report.fails(name):
            pytest.fail(f"{report.port}\n{report}", pytrace=False)

    return require


@pytest.fixture
def lockstep_traces() -> Callable[..., None]:
    """Require that a recorded run takes the same updates as another."""
    from lockstep.trace import compare_traces
    from lockstep.trace.words import text

    def require(right: Any, port: Any, names: Any = None, again: Any = None) -> None:
        found = compare_traces(right, port, names, again)
        if found.verdict != "same":
            pytest.fail(text(found), pytrace=False)

    return require
