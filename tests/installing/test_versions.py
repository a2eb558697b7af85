"""The versions that are allowed, those that were tested, and those that are here agree."""

import importlib.metadata
import sysconfig

import tomllib
from conftest import ROOT, pinned
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
# For work on lockstep itself, in the tested versions alone.
OURS = ("style", "docs", "browser", "gallery")


def requirements(*extras: str) -> dict[str, Requirement]:
    """What lockstep requires, by name, and its extras."""
    lines = [*PROJECT["dependencies"], *(line for extra in extras for line in EXTRAS[extra])]
    return {each.name: each for each in map(Requirement, lines)}


def test_what_was_tested_is_allowed_and_here() -> None:
    tested, compared = pinned(), 0
    allowed = requirements(*EXTRAS)
    assert set(tested) == set(allowed)
    # Not what setuptools carries along, which it puts on the path once somebody imports it.
    folders = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    here = {
        canonicalize_name(each.metadata["Name"]): each.version
        for each in importlib.metadata.distributions(path=folders)
    }
    for name, version in tested.items():
        assert version in allowed[name].specifier
        if name in here:
            assert Version(here[name]).public == version, name
            compared += 1
    elsewhere = set(requirements("browser", "gallery")) - set(requirements())
    # What other platforms have instead, and older Pythons beside.
    elsewhere |= {
        name
        for name, each in allowed.items()
        if each.marker and not any(each.marker.evaluate({"extra": extra}) for extra in EXTRAS)
    }
    assert compared >= len(tested) - len(elsewhere)


def test_nothing_is_capped_and_every_range_begins_where_it_was_tested() -> None:
    ranges = requirements(*(extra for extra in EXTRAS if extra not in OURS))
    lowest = pinned("constraints-lowest.txt")
    assert PROJECT["requires-python"] == ">=3.10"
    assert len(ranges) >= 18
    for name, each in ranges.items():
        (specifier,) = each.specifier
        assert specifier.operator == ">=", name
        assert Version(specifier.version) == Version(lowest[name]), name
