"""A wheel and a source distribution are whole: they work without a checkout.

The wheel is installed into an environment of its own, which has the packages that it requires, and
no others: they are linked from this one.
"""

import email
import importlib.metadata
import os
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from collections.abc import Iterable
from pathlib import Path

import pytest
from conftest import ROOT
from packaging.requirements import Requirement

pytestmark = pytest.mark.slow

BUILD = """
import sys
from setuptools import build_meta
folder = sys.argv[1]
build_meta.build_sdist(folder)
build_meta.build_wheel(folder)
"""


def run(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess:
    """Run a command as somebody who has no checkout."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment)


def build(source: Path, folder: Path) -> tuple[Path, Path]:
    """The source distribution and the wheel of a source folder."""
    folder.mkdir()
    done = run(sys.executable, "-c", BUILD, folder, cwd=source)
    assert done.returncode == 0, done.stderr
    return next(folder.glob("*.tar.gz")), next(folder.glob("*.whl"))


def contents(wheel: Path) -> dict[str, int]:
    """The files of a wheel, and their checksums."""
    with zipfile.ZipFile(wheel) as opened:
        return {each.filename: each.CRC for each in opened.infolist()}


@pytest.fixture(scope="module")
def wheels(tmp_path_factory) -> tuple[Path, Path]:
    """The wheel of the checkout, and that of its source distribution."""
    folder = tmp_path_factory.mktemp("built")
    ignore = shutil.ignore_patterns(".*", "build", "*.egg-info", "__pycache__")
    shutil.copytree(ROOT, folder / "checkout", ignore=ignore)
    source, wheel = build(folder / "checkout", folder / "first")
    with tarfile.open(source) as opened:
        opened.extractall(folder / "unpacked", filter="data")
    (unpacked,) = (folder / "unpacked").iterdir()
    return wheel, build(unpacked, folder / "second")[1]


def test_both_hold_every_file_of_the_packages(wheels) -> None:
    wheel, from_source = wheels
    assert contents(wheel) == contents(from_source)
    packages = ("lockstep", "pytorch_impl", "tensorflow_impl", "jax_impl")
    files = {
        str(file.relative_to(ROOT))
        for package in packages
        for file in (ROOT / package).rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    assert len(files) > 400
    assert {name for name in contents(wheel) if ".dist-info/" not in name} == files


def link(requirements: Iterable[str], extras: Iterable[str], site: Path) -> None:
    """Link what is required, and what that requires, from this environment."""
    for each in map(Requirement, requirements):
        if each.marker and not any(each.marker.evaluate({"extra": x}) for x in ("", *extras)):
            continue
        found = importlib.metadata.distribution(each.name)
        tops = {file.parts[0] for file in found.files or []} - {"..", "__pycache__"}
        if all((site / top).exists() for top in tops):
            continue
        for top in tops:
            (site / top).symlink_to(found.locate_file(top))
        link(found.requires or [], each.extras, site)


class Installed:
    """An environment with the wheel and the light packages, and a folder to work in."""

    def __init__(self, wheel: Path, folder: Path) -> None:
        venv.create(folder / "environment")
        self.bin = folder / "environment" / "bin"
        (self.site,) = (folder / "environment").glob("lib/python*/site-packages")
        self.work = folder / "work"
        self.work.mkdir()
        with zipfile.ZipFile(wheel) as opened:
            (name,) = [each for each in opened.namelist() if each.endswith(".dist-info/METADATA")]
            metadata = email.message_from_bytes(opened.read(name))
        self.requirements = metadata.get_all("Requires-Dist") or []
        link(self.requirements, (), self.site)
        self.pip("install", "--no-index", str(wheel))

    def pip(self, *arguments: str) -> None:
        """Install, or check: what is required must be here already."""
        pip = (sys.executable, "-m", "pip", "--python", self.bin / "python")
        done = run(*pip, *arguments, cwd=self.work)
        assert done.returncode == 0, done.stdout + done.stderr

    def lockstep(self, *arguments: str) -> subprocess.CompletedProcess:
        return run(self.bin / "lockstep", *arguments, cwd=self.work)


@pytest.fixture(scope="module")
def installed(wheels, tmp_path_factory) -> Installed:
    return Installed(wheels[1], tmp_path_factory.mktemp("installed"))


def test_check_works_beside_light_packages_alone(installed) -> None:
    present = {each.name for each in installed.site.iterdir()}
    assert not present & {"torch", "tensorflow", "jax", "whatthepatch", "matplotlib", "pytest"}
    shutil.copy(ROOT / "tests/diagnosis/hand_written/plain_numpy.py", installed.work)
    done = installed.lockstep("check", "plain_numpy.py", "--html", "report.html")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("plain_numpy.py takes the same update")
    assert "</html>" in (installed.work / "report.html").read_text()


def test_the_sources_and_the_catalogue_can_be_read(installed) -> None:
    for arguments, shown in (
        (("read", "train_window"), "optimizer.zero_grad()"),
        (("mistakes", "missing-zero-grad"), "-    optimizer.zero_grad()"),
        (("optimizers", "adamw"), "adamw"),
    ):
        done = installed.lockstep(*arguments)
        assert (done.returncode, done.stderr) == (0, "")
        assert shown in done.stdout


def test_a_framework_is_run_once_its_extra_is_installed(installed) -> None:
    done = installed.lockstep("run", "exact", "-f", "jax")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("lockstep: jax is not installed. Install it: ")
    assert "-m pip install 'jax>=0.6' 'optax>=0.2.8'\n" in done.stderr
    link(installed.requirements, ["jax"], installed.site)
    installed.pip("check")
    done = installed.lockstep("run", "exact", "-f", "jax")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("1 020 numbers compared in bits, 0 differ\n")
