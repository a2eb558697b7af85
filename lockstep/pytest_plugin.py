"""For pytest: a test that takes `lockstep_probe` runs once for each probe.

    def test_same_update(lockstep_probe):
        lockstep_probe(train)

The port is a name as `lockstep check` takes it, or a function. It runs once, in a process of its
own; a closure or a lambda runs in this one, once a test if the test makes it anew. What it does not
support is skipped; where it differs, the test says which mistake it makes.
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
        from lockstep.diagnosis.probes import probes

        metafunc.parametrize(FIXTURE, [probe.name for probe in probes()], indirect=True)


@pytest.fixture(scope="session")
def lockstep_reports() -> dict[Any, Report]:
    """The report of every port that was checked."""
    return {}


@pytest.fixture
def lockstep_probe(
    request: pytest.FixtureRequest, lockstep_reports: dict[Any, Report]
) -> Callable[[Port], None]:
    """Require that a port takes the same update on one probe."""
    from lockstep.diagnosis import check

    name: str = request.param

    def require(port: Port) -> None:
        if port not in lockstep_reports:
            lockstep_reports[port] = check(port)
        report = lockstep_reports[port]
        if why := report.uncovered(name):
            pytest.skip(why)
        if report.fails(name):
            pytest.fail(f"{report.port}\n{report}", pytrace=False)

    return require
