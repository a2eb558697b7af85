"""The coefficient matrix: what it shows of the loop, and the words for it."""

import numpy as np
import pytest

from lockstep import mistakes
from lockstep.diagnosis.matrix import coefficient_matrix, correct_matrix, in_words, plain
from lockstep.diagnosis.probes import probes
from lockstep.oracle import loop
from lockstep.oracle.loop import STAGES

PROBLEM = probes()[0].problem


def matrix_of(name: str) -> np.ndarray:
    stages = mistakes.load(name).stages if name else STAGES
    return coefficient_matrix(loop.trajectory(PROBLEM, stages=stages))


def test_the_matrix_of_the_correct_loop() -> None:
    found = matrix_of("")
    assert found.shape == (6, 7)
    assert found == pytest.approx(correct_matrix(PROBLEM), abs=1e-4)
    assert in_words(found, PROBLEM) == []
    assert correct_matrix(PROBLEM)[:3].tolist() == [
        [1 / 3] * 3 + [0] * 4,
        [0] * 3 + [1 / 3] * 3 + [0],
        [0] * 6 + [1],
    ]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (
            "missing-zero-grad",
            ["every update also contains the micro-batches of all windows before it"],
        ),
        (
            "zero-once-per-epoch",
            ["every update also contains the micro-batches of its epoch's windows before it"],
        ),
        (
            "zero-per-microbatch",
            [
                "micro-batches 1 and 2 of every window never reach the parameters",
                "the micro-batches of a window weigh 0, 0, 1/3 instead of 1/3",
            ],
        ),
        ("no-divide", ["every micro-batch of a window enters with 3 times its weight"]),
        (
            "divide-twice",
            ["every micro-batch of a window enters with 1/3 times its weight"],
        ),
        (
            "leftover-divided-by-k",
            ["every micro-batch of a partial window enters with 1/3 times its weight"],
        ),
        (
            "leftover-dropped",
            [
                "the parameters were shown 4 times, for 6 windows",
                "micro-batch 7 of an epoch never reaches the parameters",
            ],
        ),
        (
            "summed-loss-backward",
            ["the micro-batches of a window weigh 1, 2/3, 1/3 instead of 1/3"],
        ),
        ("zero-before-update", ["no micro-batch ever reaches the parameters"]),
    ],
)
def test_the_words_for_a_mistake(name, words) -> None:
    assert in_words(matrix_of(name), PROBLEM) == words


def test_a_matrix_that_is_not_finite_has_its_words() -> None:
    found = correct_matrix(PROBLEM)
    found[2, 3] = np.nan
    assert in_words(found, PROBLEM) == ["the parameters become infinite, or not a number"]


def test_a_place_that_never_counts_is_told_apart_from_a_micro_batch_that_never_does() -> None:
    found = correct_matrix(PROBLEM)
    found[:, [2, 5, 6]] = 0
    assert in_words(found, PROBLEM)[:2] == [
        "micro-batch 3 of every window never reaches the parameters",
        "micro-batch 7 of an epoch never reaches the parameters",
    ]
    found = correct_matrix(PROBLEM)
    found[:, [0, 1, 4, 6]] = 0
    assert in_words(found, PROBLEM)[0] == (
        "micro-batches 1, 2, 5 and 7 of an epoch never reach the parameters"
    )


def test_what_enters_an_update_without_a_pattern_is_told_by_update() -> None:
    found = correct_matrix(PROBLEM)
    found[1, 0] = found[4, 6] = found[4, 2] = 1 / 3
    assert in_words(found, PROBLEM) == [
        "update 2 also contains micro-batch 1",
        "update 5 also contains micro-batches 3 and 7",
    ]


def test_weights_that_are_right_at_first_and_not_later_are_told() -> None:
    found = correct_matrix(PROBLEM)
    found[3, 0] *= 2
    found[5] *= 3
    assert in_words(found, PROBLEM) == [
        "a window's micro-batches have the right weights at first, and others later",
        "a partial window's micro-batches have the right weights at first, and others later",
    ]
    found[1, 0] = 1
    assert in_words(found, PROBLEM) == ["update 2 also contains micro-batch 1"]


def test_the_first_window_of_each_length_speaks_for_all() -> None:
    found = correct_matrix(PROBLEM)
    found[0] *= 2
    assert in_words(found, PROBLEM) == [
        "every micro-batch of a window enters with 2 times its weight"
    ]
    found[1] = 0
    found[0, :3] = [1, 1 / 2, 1 / 5]
    found[2] /= 4
    assert in_words(found, PROBLEM) == [
        "the micro-batches of a window weigh 1, 1/2, 1/5 instead of 1/3",
        "every micro-batch of a partial window enters with 1/4 times its weight",
    ]


@pytest.mark.parametrize(
    ("number", "text"),
    [(1 / 3, "1/3"), (2.0, "2"), (0.1234, "0.123"), (1 / 36, "1/36"), (1 / 37, "0.027")],
)
def test_weights_are_shown_as_fractions(number, text) -> None:
    assert plain(number) == text
