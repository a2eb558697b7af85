"""The gallery: what the check says of each port is what was recorded, and its pages show."""

import importlib.util

import pytest
from conftest import ROOT

from docs import record_gallery
from docs.record_gallery import ASPECTS, EVERY, FOLDER, file_of, imports, ports, record
from lockstep import mistakes
from lockstep.diagnosis import check, verdict

RECORDED = record_gallery.load()
FILES = sorted(FOLDER.glob("*.py"))
# The others take more than a few seconds.
QUICK = ("gallery/torch_module.py", "gallery/lax_scan.py")
# port: what the check names of a change to it
CHANGES = [
    ("torch_module", "loss / k", "loss", "no-divide"),
    ("lax_scan", "g / window[-1].sum()", "g", "vector-loss-summed"),
]


def needs(port: str) -> None:
    """Skip what this machine has no library for."""
    for name in sorted(imports(file_of(port))):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{port} needs {name}: pip install -c constraints.txt -e '.[gallery]'")


@pytest.mark.parametrize(
    "port",
    [pytest.param(p, marks=[] if p in QUICK else pytest.mark.slow) for p in ports()],
)
def test_the_check_says_of_a_port_what_was_recorded(port) -> None:
    needs(port)
    assert record(port) == RECORDED[port]


@pytest.mark.parametrize(("name", "old", "new", "said"), CHANGES)
def test_the_check_sees_a_change_to_a_port(tmp_path, name, old, new, said) -> None:
    needs(f"gallery/{name}.py")
    source = (FOLDER / f"{name}.py").read_text()
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
    assert set(first) <= {*mistakes.names()}
    assert bool(found["left"]) == bool(
        placed & {record_gallery.UNEXPLAINED, record_gallery.FLOAT32}
    )
    same = found["verdict"] == "same"
    assert same == (not found["differ"])
    assert same == (placed <= {"the same", "refused"})
    assert verdict.STATUS[found["verdict"]] < 2
