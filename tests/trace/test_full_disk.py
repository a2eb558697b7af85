"""A disk that is full ends a recording, and not the run."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.real import common
from lockstep.record import writer
from lockstep.trace import reading

os.environ.setdefault("KERAS_BACKEND", "tensorflow")


@pytest.fixture
def two_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk on which there is place for the files of two updates."""
    save_file, written = writer.save_file, []

    def save(arrays: Any, file: Path, metadata: Any) -> None:
        save_file(arrays, file, metadata)
        written.append(file)
        if len(written) > 2:
            raise OSError("No space left on device")

    monkeypatch.setattr(writer, "save_file", save)


@pytest.mark.parametrize("framework", ["pytorch", "keras", "jax"])
@pytest.mark.usefixtures("two_files")
def test_a_full_disk_ends_the_recording_and_not_the_run(framework: str, tmp_path: Path) -> None:
    if framework == "jax":
        pytest.importorskip("flax")  # which the real model is made of
    tmp_path.chmod(0o755)
    run = importlib.import_module(f"benchmarks.real.{framework}").run
    with pytest.warns(UserWarning, match="recording ends before update 3: No space left on dev"):
        recorded = run(tmp_path, "mlp", "float32", 1)
    plain = run(None, "mlp", "float32", 1, record=False)
    assert len(plain) == 6
    assert all(np.array_equal(recorded[name], plain[name]) for name in plain)
    files = sorted(file.name for file in tmp_path.iterdir())
    assert files == ["trace.json", *(writer.UPDATE.format(number) for number in (1, 2))]
    modes = {file.stat().st_mode & 0o777 for file in tmp_path.iterdir()}
    assert modes == {0o644}
    assert len(reading.read(tmp_path).updates) == 2 < common.UPDATES
