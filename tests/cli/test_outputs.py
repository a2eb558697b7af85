"""No output is an input, by whatever name, and a file is written whole or not at all."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, lockstep, random_problem

from lockstep.cli.arguments import UsageError
from lockstep.cli.outputs import check_outputs, write_text

PORT = "def train(problem):\n    raise NotImplementedError\n"
PAGE = "<!doctype html>\n<!-- written by lockstep check -->\n"


def json_of(command: str) -> str:
    return f'{{\n "written_by": "lockstep {command}",\n "new": 1\n}}\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A port, also in a package, and a problem; other names for each."""
    (tmp_path / "my_port.py").write_text(PORT)
    (tmp_path / "pkg").mkdir()
    for name in ("__init__.py", "inner.py", "helper.py"):
        (tmp_path / "pkg" / name).write_text(PORT)
    (tmp_path / "settings.yaml").write_text(PORT)  # which a port reads
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
        ("my_port.py", "settings.yaml"),
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


def test_only_a_report_of_the_same_command_is_replaced(tmp_path) -> None:
    file = tmp_path / "file"
    for option, text in (("--json", json_of("check")), ("--html", PAGE)):
        for content in (b"", text.encode()):  # `mktemp` leaves an empty one
            file.write_bytes(content)
            check_outputs("check", {option: file})
            write_text(file, text, option, "check")
            assert file.read_text() == text
        for content in (b"{}", b"x: 1\n", text[1:].encode(), text.encode("utf-16"), b"\0" * 99):
            file.write_bytes(content)
            with pytest.raises(UsageError, match="no report of lockstep check"):
                check_outputs("check", {option: file})
            with pytest.raises(UsageError, match="no report of lockstep check"):
                write_text(file, text, option, "check")  # it came while the command ran
            assert file.read_bytes() == content
    file.write_text(json_of("run"))
    with pytest.raises(UsageError, match="no report of lockstep check"):
        check_outputs("check", {"--json": file})
    file.write_text(PAGE)
    with pytest.raises(UsageError, match="no report of lockstep check"):
        check_outputs("check", {"--json": file})


@pytest.mark.parametrize("command", ["check", "run", "optimizers"])
def test_each_command_replaces_its_own_report(command, folder) -> None:
    calls = {
        "check": ["my_port.py", "--probes", "plain", "--html", "page"],
        "run": ["exact", "-f", "jax", "-u", "2"],
        "optimizers": [],
    }
    for _ in range(2):
        done = lockstep(command, *calls[command], "--json", "report", cwd=folder)
        assert "lockstep:" not in done.stderr
        assert json.loads((folder / "report").read_text())["written_by"] == f"lockstep {command}"
        (folder / "report").chmod(0o600)
    assert (folder / "report").stat().st_mode & 0o777 == 0o600, "it is written in its place"
    if command == "check":
        assert (folder / "page").read_text().startswith(PAGE)


def test_an_empty_module_is_no_place_for_a_report(tmp_path) -> None:
    (tmp_path / "__init__.py").touch()
    with pytest.raises(UsageError, match="no report"):
        check_outputs("check", {"--json": tmp_path / "__init__.py"})


def test_outputs_are_different_files(tmp_path) -> None:
    (tmp_path / "link").symlink_to("report")
    with pytest.raises(UsageError, match=r"--html: .*link is --json"):
        check_outputs("check", {"--json": tmp_path / "report", "--html": tmp_path / "link"})
    (tmp_path / "folder").mkdir()
    again = tmp_path / "folder" / ".." / "report"
    with pytest.raises(UsageError, match=r"--html: .*report is --json"):
        check_outputs("check", {"--json": tmp_path / "report", "--html": again})
    check_outputs("check", {"--json": tmp_path / "report", "--html": tmp_path / "other"})
    # Each goes to the same device on purpose.
    check_outputs("check", {"--json": Path(os.devnull), "--html": Path(os.devnull)})


def test_what_cannot_be_written_is_told_before_anything_is_run(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("one").symlink_to("other")
    Path("other").symlink_to("one")
    Path("file").write_text("a person's")
    Path("report").write_text(json_of("check"))
    Path("report").chmod(0o444)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket")
    for name, said in {
        "one": "Too many levels of symbolic links",
        "x" * 300: "File name too long",
        "file/report": "Not a directory",
        ".": "must be a file in a folder",
        "no/such/folder": "must be a file in a folder",
        "report": "not to be written to",
        "socket": "not to be written to",
        "/proc/version": "not to be written to",
        "/proc/none": "cannot write",
        "/dev/fd/99": "cannot write",
    }.items():
        for option in ("--json", "--html"):
            with pytest.raises(UsageError, match=f"^{option}: .*{said}") as found:
                check_outputs("check", {option: Path(name)})
            assert "\n" not in str(found.value)


@pytest.mark.parametrize("name", ["/dev/stdout", "/proc/self/fd/1", "/dev/fd/1", "link", "out"])
def test_what_goes_where_standard_output_goes_is_added_to_it(name, folder) -> None:
    (folder / "link").symlink_to("/dev/stdout")
    call = f"check my_port.py --probes plain --json {name} --html {name}"
    command = f"echo before; {sys.executable} -m lockstep.cli {call}; echo after"
    with open(folder / "out", "w") as out:
        subprocess.run(
            ["sh", "-c", command],
            stdout=out,
            cwd=folder,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
    told = (folder / "out").read_text()
    # A reader of the report may close the pipe: the files are written before.
    place = 0
    for each in ("before\n", json_of("check")[:20], PAGE, "</html>", "my_port.py", "after\n"):
        place = told.index(each, place)
    assert told.startswith("before\n")
    assert told.endswith("after\n")


def test_through_a_link_it_writes_where_the_link_points(tmp_path) -> None:
    (tmp_path / "real").mkdir()
    target, link = tmp_path / "real" / "report.json", tmp_path / "report.json"
    link.symlink_to(target)
    for text in (json_of("check"), json_of("check") * 2):  # once where nothing is yet
        write_text(link, text, "--json", "check")
        assert (link.is_symlink(), target.read_text()) == (True, text)
    assert [each.name for each in (tmp_path / "real").iterdir()] == ["report.json"]


def test_permissions_stay(tmp_path) -> None:
    file = tmp_path / "report.json"
    file.write_text(json_of("check"))
    file.chmod(0o640)
    write_text(file, "new", "--json", "check")
    assert (file.read_text(), file.stat().st_mode & 0o777) == ("new", 0o640)


FULL = """
import resource, signal, sys
from pathlib import Path
from lockstep.cli.outputs import write_text
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try: write_text(Path(sys.argv[1]), "x" * 10_000, "--json", "check")
except Exception as error: print(error)
"""


def test_a_full_disk_leaves_the_old_file(tmp_path) -> None:
    file = tmp_path / "report.json"
    file.write_text(json_of("check"))
    done = subprocess.run(
        [sys.executable, "-c", FULL, file], capture_output=True, text=True, cwd=ROOT
    )
    assert "--json: cannot write" in done.stdout, done.stderr
    assert [each.name for each in tmp_path.iterdir()] == ["report.json"]
    assert file.read_text() == json_of("check")
