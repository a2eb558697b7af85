"""With which weight micro-batches enter, where a part of the model is another one, too."""

import numpy as np
import pytest
import torch
from torch import nn

import lockstep.record
from lockstep.trace import compare_traces
from lockstep.trace.numbers import Number
from lockstep.trace.windows import either_name

UPDATES, K = 3, 3
SIZES = (2, 3, 4)  # of a window's micro-batches
WHOLE = float(sum(SIZES))


def run(folder, *, padding=None, means=False, times=1.0, other_loss=False, drops="none"):
    """Train on ragged micro-batches.

    padding: the row of the embedding that gets no gradient; means: whether those of micro-batches
    are averaged; times: what the loss is multiplied with; drops: before which passes the gradients
    are emptied once more.
    """
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(6, 5), nn.Flatten(), nn.Linear(20, 4), nn.Linear(4, 3))
    model[0].padding_idx = padding
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    with lockstep.record.torch(folder, model, optimizer):
        for update in range(UPDATES):
            optimizer.zero_grad()
            for index, size in enumerate(SIZES):
                if index == 1 and drops in ("all", str(update)):
                    optimizer.zero_grad()
                tokens, labels = torch.randint(0, 6, (size, 4)), torch.randint(0, 3, (size,))
                logits = model(tokens) * (0.5 if other_loss else 1.0)
                loss = nn.functional.cross_entropy(logits, labels, reduction="sum")
                (times * loss / (K * size if means else WHOLE)).backward()
            optimizer.step()
    return folder


@pytest.fixture(scope="module")
def right(tmp_path_factory):
    return run(tmp_path_factory.mktemp("right") / "run")


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"padding": 0, "times": WHOLE}, ("masked-gradient", "another factor")),
        ({"padding": 0, "means": True}, ("masked-gradient", "mean-of-means")),
    ],
)
def test_what_most_tensors_have_is_the_weight(right, tmp_path, options, names):
    wrong = run(tmp_path / "wrong", **options)
    assert compare_traces(right, wrong).names == names
    assert set(compare_traces(wrong, right).names) >= {f"without {names[0]}"}


def test_where_no_two_tensors_have_one_no_weight_is_told(right, tmp_path):
    wrong = run(tmp_path / "wrong", other_loss=True)
    for runs in ((right, wrong), (wrong, right)):
        assert compare_traces(*runs).names == ("another gradient",)


def test_what_is_emptied_in_each_window_is_nothing_stale(right, tmp_path):
    """Of an update after the first, the parameters are others already."""
    each, once = run(tmp_path / "each", drops="all"), run(tmp_path / "once", drops="0")
    for first in (each, once):
        (found,) = compare_traces(first, right).findings
        assert found.name == "without micro-batches left out"
        assert ("as a validation" in found.said) == (first == once)


@pytest.mark.parametrize(
    ("weights", "named"),
    [
        ([np.inf, 0.0], ("other micro-batches", "micro-batch 1 enters the update, and not 2")),
        ([0.0, np.inf], ("other micro-batches", "micro-batch 2 enters the update, and not 1")),
        ([np.inf], ("without never-updates", "none of its 1 micro-batches enters the update")),
        ([0.0], ("never-updates", "none of its 1 micro-batches enters the update")),
    ],
)
def test_which_of_a_windows_micro_batches_enter_is_told(weights, named):
    found = either_name([Number(weight, 0.0) for weight in weights], len(weights), len(weights))
    assert (found[0], found[1].removeprefix("in the first run, and not in this one, ")) == named
