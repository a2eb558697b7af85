"""Files that are no problem, or not the one that was written: one line each, and no traceback."""

import json
import os
import socket
import threading
from pathlib import Path

import numpy as np
import pytest
from conftest import random_problem
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from lockstep.experiments.checks import build
from lockstep.problem import LossScale, Optimizer, Problem, ProblemError, split

HUGE = 10**400


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "problem.safetensors"


def refused(file: Path) -> str:
    with pytest.raises(ProblemError) as found:
        Problem.load(file)
    assert "\n" not in str(found.value)
    assert str(found.value).startswith(f"{file}: ")
    return str(found.value).removeprefix(f"{file}: ")


def write(file: Path, metadata: str, **changes: np.ndarray | None) -> None:
    random_problem(0).save(file)
    arrays = load_file(file) | {name.replace("_", "."): each for name, each in changes.items()}
    kept = {name: each for name, each in arrays.items() if each is not None}
    save_file(kept, file, metadata={"problem": metadata})


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        ({"optimizer": {"name": "sgd", "learning_rate": HUGE}}, "optimizer.learning_rate: 1000"),
        ({"optimizer": {"name": "sgd", "learning_rate": -HUGE}}, "optimizer.learning_rate: -100"),
        ({"optimizer": {"name": "adam", "betas": [HUGE, 0.9]}}, "optimizer.betas: ["),
        ({"learning_rates": [HUGE] * 9}, "learning_rates[0]: 1000"),
        ({"max_norm": HUGE}, "max_norm: 1000"),
        ({"epochs": HUGE}, "epochs: 1000"),
        ({"loss_scale": {"initial": HUGE}, "non_finite": "skip"}, "loss_scale.initial: 1000"),
        ({"schedule": {"updates": 9, "warmup": HUGE}}, "schedule.warmup: 1000"),
        ({"epochs": "3"}, "epochs: '3' must be a whole number"),
        ({"W": 1}, "not a problem"),
        ({"nonsense": 1}, "not a problem"),
        ([1], "not a problem"),
        (None, "not a problem"),
    ],
)
def test_settings_that_make_no_sense(file, metadata, said) -> None:
    write(file, json.dumps(metadata))
    assert refused(file).startswith(said)


@pytest.mark.parametrize("depth", [50, 900, 5_000, 100_000])
@pytest.mark.parametrize("where", ["%s", '{"epochs": %s}', '{"optimizer": {"name": %s}}'])
def test_metadata_may_be_as_deep_as_it_likes(file, where, depth) -> None:
    for opening, closing in (("[", "]"), ('{"a":', "}")):
        write(file, where % (opening * depth + "1" + closing * depth))
        assert len(refused(file)) < 400


def test_text_that_is_no_json(file) -> None:
    for text in ("", "{", '{"epochs": ' + "9" * 5000 + "}", '{"epochs": 1, "epochs": 2}', "\0"):
        write(file, text)
        refused(file)
    write(file, '{"max_norm": NaN}')
    assert "max_norm: nan" in refused(file)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"weights_1": np.ones(1)}, "arrays: no 'weights.0', 'weights.2', 'weights.3'"),
        ({"y_9": np.ones((2, 3))}, "arrays: unknown 'y.9'"),
        ({"x_9": np.ones((2, 4))}, "arrays: no 'x.4', 'y.4'"),
        ({"y_1": None}, "arrays: no 'y.1'"),
        ({"x_1": None}, "arrays: no 'x.1'"),
        ({"b": None}, "arrays: no 'b'"),
        ({"extra": np.ones(1)}, "arrays: unknown 'extra'"),
        ({"W": np.ones((4, 3), "complex64")}, "W: must hold real numbers"),
        ({"x_1": np.ones((1, 4), bool)}, "micro_batches[1].x: must hold real numbers"),
        ({"x_1": np.ones((0, 4)), "y_1": np.ones((0, 3))}, "micro_batches[1]: shapes (0, 4)"),
        ({"W": np.ones((0, 3))}, "W, b: shapes (0, 3)"),
    ],
)
def test_arrays_that_are_no_problem(file, changes, said) -> None:
    write(file, "{}", **changes)
    assert refused(file).startswith(said)


def test_a_flipped_bit_is_noticed_wherever_it_is(file) -> None:
    problem = random_problem(1, optimizer=Optimizer("adam", 0.5))
    problem.save(file)
    whole = file.read_bytes()
    head = int.from_bytes(whole[:8], "little")
    data = range(8 + head, len(whole))
    assert len(data) == 8 * sum(each.size for each in load_file(file).values())
    for position in [data[0], data[len(data) // 2], data[-1], whole.index(b"0.5")]:
        broken = bytearray(whole)
        broken[position] ^= 1
        file.write_bytes(broken)
        assert "not those that were written" in refused(file)
    file.write_bytes(whole)
    assert (Problem.load(file).W == problem.W).all()


def test_a_file_of_before_has_no_digest_and_is_read(file) -> None:
    write(file, "{}")
    assert Problem.load(file).updates == 4


def test_what_is_no_file_is_not_opened(file, monkeypatch) -> None:
    os.mkfifo(file)
    waiting = threading.Thread(target=lambda: refused(file), daemon=True)
    waiting.start()
    waiting.join(timeout=10)
    assert not waiting.is_alive()
    file.unlink()
    file.mkdir()
    assert "must be a file" in refused(file)
    file.rmdir()
    file.symlink_to("/dev/zero")
    assert "must be a file" in refused(file)
    file.unlink()
    with socket.socket(socket.AF_UNIX) as listening:
        monkeypatch.chdir(file.parent)  # a socket's name is short
        listening.bind(file.name)
        assert "must be a file" in refused(file)


SIZES = st.sampled_from([1e-320, 1e-30, 1.0, 1e5, 1e30, 1e38, 1e154, 1e160, 1e200, 1e308])


@settings(max_examples=60, deadline=None)
@given(
    x=SIZES,
    y=SIZES | st.just(0.0),
    start=SIZES | st.just(0.0),
    rate=st.sampled_from([1e-300, 1e-8, 0.1, 1e308]),
    name=st.sampled_from(["sgd", "adam", "lion", "adadelta", "rmsprop"]),
    non_finite=st.sampled_from(["apply", "raise", "skip"]),
    max_norm=st.sampled_from([None, 1.0, 1e300]),
    dtype=st.sampled_from(["float64", "float32"]),
    compute_dtype=st.sampled_from([None, "float16", "bfloat16"]),
    size=st.sampled_from([1, 2]),
)
def test_numbers_of_any_size_are_checked_or_refused(
    tmp_path_factory, x, y, start, rate, name, non_finite, max_norm, dtype, compute_dtype, size
) -> None:
    """The oracle's work on them ends in an answer, or in a line that says why there is none."""
    try:
        problem = Problem(
            np.full((2, 2), start),
            np.zeros(2),
            split(np.full((4, 2), x), np.full((4, 2), y), [size] * (4 // size)),
            optimizer=Optimizer(name, rate),
            non_finite=non_finite,
            max_norm=max_norm,
            dtype=dtype,
            compute_dtype=compute_dtype,
        )
        file = tmp_path_factory.getbasetemp() / "sizes.safetensors"
        problem.save(file)
        (check,) = build(str(file))
        check.prepare()
    except ProblemError:
        return
    assert len(check.bounds or check.expected) == problem.updates


@pytest.mark.parametrize("size", [1e3, 1e5])
def test_the_range_is_that_of_the_compute_dtype(size, file) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(6, 4)) * size, rng.normal(size=(6, 3))
    plain = Problem(rng.normal(size=(4, 3)), np.zeros(3), split(x, y, [2, 2, 2]))
    for settings_of in (
        {"compute_dtype": "float16"},
        {"compute_dtype": "float16", "non_finite": "raise"},
        {"compute_dtype": "bfloat16", "non_finite": "raise", "loss_scale": LossScale(2.0**127)},
    ):
        problem = Problem(plain.W, plain.b, plain.micro_batches, **settings_of)
        problem.save(file)
        (check,) = build(str(file))
        with pytest.raises(ProblemError, match=f"out of {problem.compute_dtype}'s range"):
            check.prepare()
