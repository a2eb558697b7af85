"""What is installed of a framework, whether its folder can run with that, and what to install."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import shlex
import sys

from packaging.version import Version

from lockstep.frameworks import NEEDED, PACKAGES

# What the name of a package of a framework may end with, which is not the name to import.
BUILD = "-cpu"


def installed(package: str) -> str | None:
    """The version of an importable package, which is not imported, or None."""
    for name in (package, f"{package}{BUILD}"):
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def missing(framework: str) -> str | None:
    """What a framework's folder needs and is not here, in a line, or None if it can run."""
    if not all(importlib.util.find_spec(package) for package in PACKAGES[framework]):
        return f"{framework} is not installed"
    old = {
        package: version
        for package in PACKAGES[framework]
        if (version := installed(package)) and Version(version) < Version(NEEDED[package])
    }
    if not old:
        return None
    needed = " and ".join(f"{package}>={NEEDED[package]}" for package in old)
    here = " and ".join(f"{package} {version}" for package, version in old.items())
    return f"{framework}_impl needs {needed}, not {here}"


def command(framework: str) -> str:
    """The command that installs what a framework's folder needs, for CPUs."""
    from packaging.requirements import Requirement

    requirements = map(Requirement, importlib.metadata.requires("lockstep") or [])
    wanted = " ".join(
        shlex.quote(f"{each.name}>={NEEDED[each.name.removesuffix(BUILD)]}")
        for each in requirements
        if each.marker
        and each.marker.evaluate({"extra": framework})
        and not each.marker.evaluate({"extra": ""})
    )
    install = f"{sys.executable} -m pip install"
    if framework != "pytorch":
        return f"{install} {wanted}"
    # pip would bring the CUDA build on Linux; uv knows the index that has the other one.
    return (
        f"{install} uv && {sys.executable} -m uv pip install"
        f" --python {sys.executable} --torch-backend cpu {wanted}"
    )
