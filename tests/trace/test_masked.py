"""Rows of an embedding that get no gradient, of padding or by hand, in tensors of any size."""

import numpy as np
import pytest

from lockstep import record
from lockstep.trace import compare_traces

torch = pytest.importorskip("torch")
jax = pytest.importorskip("jax")
optax = pytest.importorskip("optax")

WIDTH, CLASSES, UPDATES, K, RATE, ROW = 16, 5, 3, 2, 0.1, 3
SIZES = {"small": 30, "large": 2500}  # above 2^13 numbers, those at regular places are looked at


def data(rows):
    """Tokens and labels of each micro-batch: the row is in all of them."""
    numbers = np.random.default_rng(4)
    x = numbers.integers(0, rows, (UPDATES, K, 6, 7))
    x[..., 0] = ROW
    return list(zip(x, numbers.integers(0, CLASSES, (UPDATES, K, 6)), strict=True))


def begins(rows):
    """The initial parameters."""
    numbers = np.random.default_rng(2)
    shapes = {"embedding": (rows, WIDTH), "head": (WIDTH, CLASSES)}
    return {n: numbers.standard_normal(shape).astype("float32") for n, shape in shapes.items()}


def in_pytorch(folder, rows, padding=None, emptied=(), moved=()):
    """padding: the row that stands for it; emptied, moved: rows of which the loop empties the
    gradient before the update, or that it moves afterwards.
    """
    begun = begins(rows)
    model = torch.nn.ModuleDict({
        "embedding": torch.nn.Embedding(rows, WIDTH, padding_idx=padding),
        "head": torch.nn.Linear(WIDTH, CLASSES, bias=False),
    })  # fmt: skip
    model["embedding"].weight.data = torch.tensor(begun["embedding"])
    model["head"].weight.data = torch.tensor(begun["head"].T)
    optimizer = torch.optim.SGD(model.parameters(), RATE)
    recorder = record.torch(folder, model, optimizer, full=2)
    for window in data(rows):
        for x, y in zip(*map(torch.tensor, window), strict=True):
            logits = model["head"](model["embedding"](x).mean(1))
            (torch.nn.functional.cross_entropy(logits, y) / K).backward()
        model["embedding"].weight.grad[list(emptied)] = 0
        optimizer.step()
        model["embedding"].weight.data[list(moved)] += 0.5
        optimizer.zero_grad()
    recorder.close()
    return folder


def in_jax(folder, rows, emptied=()):
    """The same, with its sums emptied before the optimizer gets them."""
    recorder = record.jax(folder)

    def loss(parameters, x, y):
        logits = parameters["embedding"][x].mean(1) @ parameters["head"]
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean() / K

    parameters = jax.tree.map(jax.numpy.array, begins(rows))
    optimizer, gradient = recorder.wrap(optax.sgd(RATE)), recorder.gradient(jax.grad(loss))
    state = optimizer.init(parameters)
    for window in data(rows):
        total = jax.tree.map(jax.numpy.zeros_like, parameters)
        for x, y in zip(*window, strict=True):
            total = jax.tree.map(jax.numpy.add, total, gradient(parameters, x, y))
        total["embedding"] = total["embedding"].at[np.array(emptied, int)].set(0)
        changes, state = optimizer.update(total, state, parameters)
        parameters = optax.apply_updates(parameters, changes)
    recorder.close()
    return folder


@pytest.mark.parametrize("rows", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize(
    ("make", "settings", "stage"),
    [
        (in_pytorch, {"padding": ROW}, "model"),
        (in_pytorch, {"emptied": [ROW]}, "clip"),
        (in_jax, {"emptied": [ROW]}, "window"),
    ],
    ids=["padding", "by hand", "in a loop of JAX"],
)
def test_a_row_without_a_gradient_is_named_wherever_it_is_emptied(
    tmp_path, rows, make, settings, stage
):
    """In either run, with its number, be it one of thousands."""
    whole = in_pytorch(tmp_path / "whole", rows)
    masked = make(tmp_path / "masked", rows, **settings)
    for runs, name in (((whole, masked), "masked-gradient"), ((masked, whole), "without ")):
        (found,) = compare_traces(*runs).findings
        assert (found.name, found.stage, found.update) == (
            name if name[-1] != " " else f"{name}masked-gradient", stage, 1
        )  # fmt: skip
        assert f"({WIDTH} of {rows * WIDTH}, in row {ROW} of {rows})" in found.said
        assert "embedding" in found.tensors[0]


@pytest.mark.parametrize("rows", SIZES.values(), ids=SIZES)
def test_the_same_row_emptied_elsewhere_is_the_same_update(tmp_path, rows):
    """The rule gets the same, whether the layer, a line before the update or JAX's loop does it."""
    ways = [
        in_pytorch(tmp_path / "padding", rows, padding=ROW),
        in_pytorch(tmp_path / "by-hand", rows, emptied=[ROW]),
        in_jax(tmp_path / "loop", rows, emptied=[ROW]),
    ]
    for mine in ways:
        for theirs in ways:
            found = compare_traces(mine, theirs)
            assert found.verdict == "same", (mine.name, theirs.name, found.findings)


@pytest.mark.parametrize("rows", SIZES.values(), ids=SIZES)
def test_a_row_that_moves_between_updates_is_seen(tmp_path, rows):
    """And no other gradient is: where sketches are without that row, the runs are no less apart."""
    here = in_pytorch(tmp_path / "here", rows)
    there = in_pytorch(tmp_path / "there", rows, moved=[ROW])
    (found,) = compare_traces(here, there).findings
    assert (found.name, found.update) == ("changed between updates", 2)
    assert found.tensors == ("embedding.weight",)
