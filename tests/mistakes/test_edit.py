"""Diffs follow the sources: what can be merged is, and what cannot is left to a person."""

import shutil
from pathlib import Path

import pytest
from conftest import ROOT

from lockstep import mistakes
from lockstep.mistakes import edit

NAME, FRAMEWORK = "no-divide", "pytorch"
PACKAGE = f"{FRAMEWORK}_impl"


@pytest.fixture
def changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The sources and the catalogue, to be changed; the old ones are the real ones."""
    shutil.copytree(ROOT / PACKAGE, tmp_path / PACKAGE)
    shutil.copytree(mistakes.FOLDER / "no_divide", tmp_path / "catalogue" / "no_divide")
    monkeypatch.setattr(edit, "IMPLEMENTATIONS", tmp_path)
    monkeypatch.setattr(edit, "COPIES", tmp_path / "copies")
    for module in (edit, mistakes):
        monkeypatch.setattr(module, "FOLDER", tmp_path / "catalogue")
    return tmp_path


def rewrite(folder: Path, old: str, new: str) -> None:
    file = folder / PACKAGE / "window.py"
    source = file.read_text()
    assert source.count(old) >= 1
    file.write_text(source.replace(old, new))


def test_a_diff_follows_what_moves_around_it(changed) -> None:
    before = mistakes.diff(NAME, FRAMEWORK)
    rewrite(changed, "import torch\n", "import torch\nimport typing\n\n\n")
    rewrite(changed, "linear_model", "a_model")
    assert edit.merged(NAME, FRAMEWORK, ROOT)
    assert mistakes.diff(NAME, FRAMEWORK) != before
    planted = changed / "planted"
    package = mistakes.plant(NAME, FRAMEWORK, planted, changed)
    source = (planted / package / "window.py").read_text()
    assert "total = weights.sum()" in source
    assert "a_model" in source
    assert "import typing" in source
    assert not list((changed / "copies" / "no_divide").iterdir())


def test_a_conflict_is_left_to_a_person_and_loses_nothing(changed) -> None:
    before = mistakes.diff(NAME, FRAMEWORK)
    rewrite(changed, "total = sum(weights.sum()", "total = 2 * sum(weights.sum()")
    assert not edit.merged(NAME, FRAMEWORK, ROOT)
    assert mistakes.diff(NAME, FRAMEWORK) == before
    left = (changed / "copies" / "no_divide" / PACKAGE / "window.py").read_text()
    assert left.count("<<<<<<<") == 1
    assert "2 * sum(weights.sum()" in left


def test_a_file_that_is_gone_is_a_conflict(changed) -> None:
    before = mistakes.diff(NAME, FRAMEWORK)
    (changed / PACKAGE / "window.py").unlink()
    assert not edit.merged(NAME, FRAMEWORK, ROOT)
    assert mistakes.diff(NAME, FRAMEWORK) == before
