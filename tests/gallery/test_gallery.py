"""The gallery: what the check says of each port is what was recorded, and its pages show."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from docs import record_gallery
from docs.gallery_words import TITLES, WHY
from docs.record_gallery import ASPECTS, EVERY, FOLDER, file_of, imports, ports, record
from lockstep import mistakes
from lockstep.diagnosis import check, verdict
from lockstep.diagnosis.forms import UNNAMED

RECORDED = record_gallery.load()
FILES = sorted(FOLDER.glob("*.py"))
BUGS = sorted((FOLDER / "upstream").glob("*.py"))
# The others take more than a few seconds.
QUICK = ("gallery/torch_module.py", "gallery/lax_scan.py")
# port: what the check names of a change to it
CHANGES = [
    ("torch_module", "loss / k", "loss", "no-divide"),
    ("lax_scan", "g / window[-1].sum()", "g", "vector-loss-summed"),
]


def needs(file: Path) -> None:
    """Skip what this machine has no library for."""
    for name in sorted(imports(file)):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{file.name} needs {name}: pip install -c constraints.txt '.[gallery]'")


@pytest.mark.parametrize(
    "port",
    [pytest.param(p, marks=[] if p in QUICK else pytest.mark.slow) for p in ports()],
)
def test_the_check_says_of_a_port_what_was_recorded(request, port) -> None:
    needs(file_of(port))
    if "keras" not in imports(file_of(port)):  # which has one backend, and one dtype, in a process
        request.getfixturevalue("in_one_process")
    assert record(port) == RECORDED[port]


@pytest.mark.parametrize(("name", "old", "new", "said"), CHANGES)
def test_the_check_sees_a_change_to_a_port(tmp_path, name, old, new, said) -> None:
    original = FOLDER / f"{name}.py"
    needs(original)
    source = original.read_text()
    assert source.count(old) == 1
    file = tmp_path / f"{name}.py"
    file.write_text(source.replace(old, new))
    found = check(str(file), only=["plain", "windows", "epochs"])
    assert said in {each for e in found.diagnosis.explanations for each in e.names}, str(found)


def test_every_port_was_recorded_and_no_other() -> None:
    assert list(RECORDED) == ports()
    assert {file_of(port) for port in ports()} == set(FILES)
    assert len(FILES) >= 16


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_file_is_short_and_stands_alone(file) -> None:
    lines = file.read_text().splitlines()
    assert len(lines) <= 60
    assert max(map(len, lines)) <= 100
    assert "lockstep" not in file.read_text()
    assert imports(file)


def test_nothing_of_lockstep_imports_the_gallery() -> None:
    sources = [file for file in (ROOT / "lockstep").rglob("*.py") if "gallery" in file.read_text()]
    assert not sources


@pytest.mark.parametrize("port", RECORDED)
def test_a_record_names_each_difference_in_its_place(port) -> None:
    found = RECORDED[port]
    assert list(found["table"]) == [EVERY, *ASPECTS]
    first = found["explanations"][0] if found["explanations"] else []
    placed = {name for cell in found["table"].values() for name in cell.split("; ")}
    assert set(first) <= placed
    assert all(each in found["headline"] for each in first)
    assert set(first) <= {*mistakes.names(), *(form.name for form in UNNAMED)}
    assert bool(found["left"]) == bool(
        placed & {record_gallery.UNEXPLAINED, record_gallery.FLOAT32}
    )
    same = found["verdict"] == "same"
    assert same == (not found["differ"])
    assert same == (placed <= {"the same", "refused"})
    assert verdict.STATUS[found["verdict"]] < 2


@pytest.mark.parametrize("port", RECORDED)
def test_each_difference_has_its_reason_and_no_other_has_one(port) -> None:
    cells = RECORDED[port]["table"].values()
    named = {name for cell in cells for name in cell.split("; ")} - {"the same", "refused"}
    assert set(WHY[port.removeprefix("gallery/")]) == named


def test_every_file_has_its_page() -> None:
    assert set(TITLES) == {file.stem for file in FILES}
    assert {f"gallery/{port}" for port in WHY} == set(RECORDED)


@pytest.mark.slow
@pytest.mark.parametrize("file", BUGS, ids=lambda file: file.stem)
def test_a_bug_is_still_there(file) -> None:
    """Where this fails, a library was mended: its page, its port and its script have to follow."""
    needs(file)
    assert "lockstep" not in file.read_text()
    done = subprocess.run([sys.executable, file], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told = re.findall(r"^(expected|actual)(.*?) +(\S.*)$", done.stdout, re.MULTILINE)
    said = {kind: [rest for each, *rest in told if each == kind] for kind, *_ in told}
    assert len(said["expected"]) == len(said["actual"]) >= 1
    assert said["expected"] != said["actual"]


def test_a_page_shows_the_file_and_what_the_check_says(tmp_path) -> None:
    pytest.importorskip("sphinx", reason="the pages are made by Sphinx")
    from docs._ext import gallery_pages

    gallery_pages.make(tmp_path)
    index = (tmp_path / "index.md").read_text()
    for file in FILES:
        page = (tmp_path / f"{file.stem}.md").read_text()
        assert file.read_text().rstrip() in page
        own = [port for port in RECORDED if file_of(port) == file]
        assert all(RECORDED[port]["headline"] in page for port in own)
        assert index.count(f"]({file.stem}.md)") == len(own)
    for file in BUGS:
        assert f"`{file.name}`" in index
