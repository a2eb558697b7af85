"""Problems: what is trained on, and what is refused, in one line that says where."""

import dataclasses

import numpy as np
import pytest
from conftest import random_problem
from safetensors.numpy import save_file

from lockstep.problem import (
    LossScale,
    Optimizer,
    Problem,
    ProblemError,
    Schedule,
    hadamard,
    iris_adamw,
    iris_examples,
    iris_sgd,
)


def test_iris_is_fishers() -> None:
    x, y = iris_examples()
    assert x.shape == (150, 4)
    assert y.shape == (150, 3)
    assert y.sum(axis=0).tolist() == [50, 50, 50]
    # The means of Fisher's table I, species by species, in centimetres.
    means = [x[y[:, k] == 1].mean(axis=0).round(3).tolist() for k in range(3)]
    assert means == [
        [5.006, 3.428, 1.462, 0.246],
        [5.936, 2.77, 4.26, 1.326],
        [6.588, 2.974, 5.552, 2.026],
    ]


def test_the_default_problems_are_what_the_readme_says() -> None:
    assert iris_adamw().updates == 100
    assert {len(x) for x, _ in iris_adamw().micro_batches} == {1}
    sgd = iris_sgd()
    sizes = [len(x) for x, _ in sgd.micro_batches]
    assert sum(sizes) == 150
    assert len(set(sizes)) > 1
    assert len(sizes) % sgd.accumulation_steps != 0
    assert sgd.epochs > 1
    assert hadamard().W.shape == (4, 3)


def test_arrays_are_read_only_copies_in_the_dtype() -> None:
    W = np.ones((4, 3))
    problem = Problem(W, np.zeros(3), random_problem(0).micro_batches, dtype="float32")
    W[:] = 7
    assert problem.W.dtype == np.float32
    assert (problem.W == 1).all()
    with pytest.raises(ValueError, match="read-only"):
        problem.W[0, 0] = 1


def test_a_file_holds_the_same_bits(tmp_path) -> None:
    problem = dataclasses.replace(
        random_problem(1, epochs=3, accumulation_steps=2, max_norm=0.1),
        optimizer=Optimizer("adamw", learning_rate=0.1, betas=(0.8, 0.99)),
        schedule=Schedule(6, 2, "cosine"),
        decay_bias=False,
        example_weights=[[1, 0.5], [1], [0, 1, 2], [3]],
        partial_windows="carry",
        non_finite="skip",
        compute_dtype="bfloat16",
        loss_scale=LossScale(8.0, 5),
    )
    problem.save(tmp_path / "p.safetensors")
    loaded = Problem.load(tmp_path / "p.safetensors")
    assert loaded.W.tobytes() == problem.W.tobytes()
    assert loaded.b.tobytes() == problem.b.tobytes()
    compared = 0
    for (x, y), (x2, y2) in zip(problem.micro_batches, loaded.micro_batches, strict=True):
        assert x.tobytes() == x2.tobytes()
        assert y.tobytes() == y2.tobytes()
        compared += x.size + y.size
    assert compared == 7 * 7
    for w, w2 in zip(problem.example_weights, loaded.example_weights, strict=True):
        assert w.tobytes() == w2.tobytes()
    settings = {field.name for field in dataclasses.fields(Problem)}
    settings -= {"W", "b", "micro_batches", "example_weights"}
    assert len(settings) == 12
    for name in settings:
        assert getattr(loaded, name) == getattr(problem, name), name


def test_a_file_holds_the_same_numbers_whatever_the_memory_order(tmp_path) -> None:
    W, x = np.arange(12.0).reshape(4, 3), np.arange(8.0).reshape(2, 4)
    problem = Problem(np.asfortranarray(W), np.zeros(3), [(np.asfortranarray(x), np.ones((2, 3)))])
    problem.save(tmp_path / "p.safetensors")
    loaded = Problem.load(tmp_path / "p.safetensors")
    assert (loaded.W == W).all()
    assert (loaded.micro_batches[0][0] == x).all()


GOOD = {
    "W": np.zeros((4, 3)),
    "b": np.zeros(3),
    "micro_batches": [(np.zeros((2, 4)), np.zeros((2, 3)))],
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"W": np.zeros((4, 2))}, r"W, b: shapes \(4, 2\) and \(3,\)"),
        ({"W": np.full((4, 3), np.nan)}, r"W\[0, 0\]: nan must be a finite number"),
        ({"b": ["a", "b", "c"]}, "b: not an array of numbers"),
        ({"micro_batches": []}, "micro_batches: an epoch needs at least one"),
        (
            {"micro_batches": [*GOOD["micro_batches"], (np.zeros((0, 4)), np.zeros((0, 3)))]},
            r"micro_batches\[1\]: shapes \(0, 4\)",
        ),
        (
            {"micro_batches": [(np.zeros((2, 4)), np.zeros((3, 3)))]},
            r"micro_batches\[0\]: shapes \(2, 4\) and \(3, 3\)",
        ),
        (
            {"micro_batches": [(np.zeros((2, 4)), np.array([[0, 0, 0], [0, np.inf, 0]]))]},
            r"micro_batches\[0\]\.y\[1, 1\]: inf",
        ),
        ({"micro_batches": [3]}, r"micro_batches\[0\]: must be a pair"),
        ({"accumulation_steps": 0}, "accumulation_steps: 0 must be a whole number"),
        ({"epochs": 1.5}, "epochs: 1.5 must be a whole number"),
        ({"dtype": "float16"}, "dtype: 'float16' must be one of float64, float32"),
        ({"learning_rates": []}, "learning_rates: 0 for 1 updates"),
        ({"learning_rates": [-1.0]}, r"learning_rates\[0\]: -1.0"),
        ({"max_norm": 0.0}, "max_norm: 0.0"),
        ({"schedule": Schedule(3), "learning_rates": [0.1]}, "a schedule or learning_rates"),
        ({"partial_windows": "keep"}, "partial_windows: 'keep' must be one of apply, drop, carry"),
        (
            {"partial_windows": "drop", "accumulation_steps": 2},
            "'drop' leaves no window of K = 2 micro-batches in 1 epochs of 1",
        ),
        ({"non_finite": "ignore"}, "non_finite: 'ignore' must be one of apply, skip, raise"),
        ({"loss_scale": LossScale()}, "loss_scale: needs non_finite 'skip' or 'raise'"),
        ({"compute_dtype": "int8"}, "compute_dtype: 'int8' must be one of None, bfloat16, float16"),
        ({"example_weights": [[1.0]]}, r"example_weights\[0\]: must be 2 numbers of at least 0"),
        ({"example_weights": [[-1.0, 1.0]]}, r"example_weights\[0\]: must be 2 numbers"),
        ({"example_weights": []}, "example_weights: 0 for 1 micro-batches"),
        ({"example_weights": [[0.0, 0.0]]}, "example_weights: window 0 has padding only"),
    ],
)
def test_bad_problems_say_what_and_where(change, message) -> None:
    Problem(**GOOD)
    with pytest.raises(ProblemError, match=message) as error:
        Problem(**(GOOD | change))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "sdg"}, "optimizer.name: 'sdg' is unknown"),
        ({"learning_rate": -0.1}, "optimizer.learning_rate: -0.1"),
        ({"momentum": float("nan")}, "optimizer.momentum: nan"),
        ({"momentum": 1.5}, r"optimizer.momentum: 1.5 must be in \[0, 1\]"),
        ({"betas": (0.9, 1.0)}, "optimizer.betas"),
        ({"nesterov": True}, "optimizer.nesterov: needs a momentum above 0 and no dampening"),
        ({"nesterov": True, "momentum": 0.9, "dampening": 0.1}, "optimizer.nesterov: needs"),
        ({"dampening": 0.1}, "optimizer.dampening: needs a momentum above 0"),
        ({"name": "adam", "momentum": 0.9}, "momentum: 0.9 is not a setting of adam, which has"),
        ({"name": "rmsprop", "alpha": 1.0}, r"optimizer.alpha: 1.0 must be in \[0, 1\)"),
        ({"name": "adam", "betas": (0.9, float("nan"))}, "optimizer.betas"),
        ({"name": "adam", "betas": 0.9}, "optimizer.betas: 0.9 must be two numbers"),
        ({"name": "adam", "amsgrad": 1}, "optimizer.amsgrad: 1 must be True or False"),
        ({"weight_decay": True}, "optimizer.weight_decay: True must be a finite number"),
    ],
)
def test_bad_optimizers_say_what(change, message) -> None:
    with pytest.raises(ProblemError, match=message) as error:
        Optimizer(**change)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Schedule(0), "schedule.updates: 0 must be a whole number of at least 1"),
        (lambda: Schedule(10, warmup=11), "schedule.warmup: 11 is longer than the schedule's 10"),
        (lambda: Schedule(10, -1), "schedule.warmup: -1 must be a whole number of at least 0"),
        (lambda: Schedule(10, decay="square"), "schedule.decay: 'square' must be one of constant"),
        (lambda: LossScale(3.0), "loss_scale.initial: 3.0 must be a power of two"),
        (lambda: LossScale(2.0, 0), "loss_scale.growth_interval: 0 must be a whole number"),
    ],
)
def test_bad_schedules_and_scales_say_what(make, message) -> None:
    with pytest.raises(ProblemError, match=message):
        make()


def test_what_is_not_given_is_torchs_default() -> None:
    assert Optimizer("adamw").weight_decay == 0.01
    assert Optimizer("adagrad").eps == 1e-10
    assert Optimizer("sgd").eps == 0.0
    assert Optimizer("lion").betas == (0.9, 0.99)


def test_windows_of_each_policy() -> None:
    problem = random_problem(0, accumulation_steps=3, epochs=2)
    for policy, windows in (
        ("apply", [[0, 1, 2], [3], [0, 1, 2], [3]]),
        ("drop", [[0, 1, 2], [0, 1, 2]]),
        ("carry", [[0, 1, 2], [3, 4, 5]]),
    ):
        made = dataclasses.replace(problem, partial_windows=policy)
        assert [list(window) for window in made.windows] == windows
        assert made.updates == len(windows)


def test_a_file_that_is_no_problem_is_refused(tmp_path) -> None:
    with pytest.raises(ProblemError, match=r"missing\.safetensors"):
        Problem.load(tmp_path / "missing.safetensors")
    (tmp_path / "text.safetensors").write_text("not a problem at all")
    with pytest.raises(ProblemError, match="not a readable safetensors file"):
        Problem.load(tmp_path / "text.safetensors")
    save_file({"W": np.zeros((4, 3))}, tmp_path / "other.safetensors")
    with pytest.raises(ProblemError, match=r"not a problem written by Problem\.save"):
        Problem.load(tmp_path / "other.safetensors")


def test_the_exact_problem_says_which_k_it_has() -> None:
    with pytest.raises(ProblemError, match="K must be 1 to 8, not 9"):
        hadamard(accumulation_steps=9)
