"""No output is an input, by whatever name, and a file is written whole or not at all."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, random_problem

from lockstep.cli.arguments import UsageError
from lockstep.cli.outputs import check_outputs, same_file, write_text
from lockstep.workers.ports import source_of

PORT = "def train(problem):\n    raise NotImplementedError\n"


def lockstep(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "lockstep.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A port, also in a package, and a problem; other names for each."""
    (tmp_path / "my_port.py").write_text(PORT)
    (tmp_path / "pkg").mkdir()
    for name in ("__init__.py", "inner.py", "helper.py"):
        (tmp_path / "pkg" / name).write_text(PORT)
    random_problem(0).save(tmp_path / "g.safetensors")
    for source, name in (("my_port.py", "port"), ("g.safetensors", "problem")):
        (tmp_path / f"{name}.link").symlink_to(source)
        (tmp_path / f"{name}.hard").hardlink_to(tmp_path / source)
    (tmp_path / "loop").symlink_to(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("port", "output"),
    [
        ("my_port.py", "my_port.py"),
        ("my_port.py:train", "my_port.py"),
        ("my_port", "my_port.py"),
        ("my_port:train", "./my_port.py"),
        ("my_port.py", "port.link"),
        ("my_port.py:train", "port.hard"),
        ("my_port", "loop/port.hard"),
        ("loop/my_port.py", "port.hard"),
        ("pkg.inner", "pkg/inner.py"),
        ("pkg.inner:train", "pkg/__init__.py"),
        ("pkg.inner", "pkg/helper.py"),
    ],
)
def test_a_port_is_never_written_over(folder, port, output) -> None:
    before = (folder / output).read_text()
    for option in ("--json", "--html"):
        done = lockstep("check", port, option, output, cwd=folder)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
        assert option in done.stderr
    assert (folder / output).read_text() == before == PORT


@pytest.mark.parametrize("output", ["g.safetensors", "problem.link", "problem.hard"])
@pytest.mark.parametrize("problem", ["g.safetensors", "loop/g.safetensors"])
def test_a_problem_is_never_written_over(folder, problem, output) -> None:
    before = (folder / output).read_bytes()
    done = lockstep("run", problem, "-f", "jax", "--json", output, cwd=folder)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
    assert (folder / output).read_bytes() == before


def test_outputs_are_different_files(tmp_path) -> None:
    (tmp_path / "link").symlink_to("report")
    with pytest.raises(UsageError, match=r"--html: .*link is --json"):
        check_outputs({"--json": tmp_path / "report", "--html": tmp_path / "link"})
    check_outputs({"--json": tmp_path / "report", "--html": tmp_path / "other"})
    # Each goes to the same device on purpose.
    check_outputs({"--json": Path(os.devnull), "--html": Path(os.devnull)})


def test_the_files_of_a_module_are_found_without_importing_it(folder, monkeypatch) -> None:
    monkeypatch.chdir(folder)
    (folder / "pkg" / "__init__.py").write_text("raise SystemExit('imported')")
    found = [folder / "pkg" / "__init__.py", folder / "pkg" / "inner.py"]
    assert all(map(same_file, source_of("pkg.inner:train"), found))
    assert len(source_of("pkg.inner:train")) == 2
    assert source_of("no.such.module") == []


def test_through_a_link_it_writes_where_the_link_points(tmp_path) -> None:
    (tmp_path / "real").mkdir()
    target, link = tmp_path / "real" / "report.json", tmp_path / "report.json"
    link.symlink_to(target)
    for text in ("new", "newer"):  # once where nothing is yet
        write_text(link, text, "--json")
        assert (link.is_symlink(), target.read_text()) == (True, text)
    assert [each.name for each in (tmp_path / "real").iterdir()] == ["report.json"]


def test_permissions_stay(tmp_path) -> None:
    file = tmp_path / "report.json"
    file.write_text("old")
    file.chmod(0o640)
    write_text(file, "new", "--json")
    assert (file.read_text(), file.stat().st_mode & 0o777) == ("new", 0o640)


FULL = """
import resource, signal, sys
from pathlib import Path
from lockstep.cli.outputs import write_text
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try: write_text(Path(sys.argv[1]), "x" * 10_000, "--json")
except Exception as error: print(error)
"""


def test_a_full_disk_leaves_the_old_file(tmp_path) -> None:
    file = tmp_path / "report.json"
    file.write_text("old")
    done = subprocess.run(
        [sys.executable, "-c", FULL, file], capture_output=True, text=True, cwd=ROOT
    )
    assert "--json: cannot write" in done.stdout, done.stderr
    assert [each.name for each in tmp_path.iterdir()] == ["report.json"]
    assert file.read_text() == "old"
