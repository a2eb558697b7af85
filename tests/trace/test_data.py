"""What two runs were given: the same micro-batches, cut into other windows."""

from pathlib import Path

import pytest
import torch

import lockstep
from lockstep.trace import compare_traces
from lockstep.trace.data import Window, cut_findings, data_findings


def train(folder: Path, windows: list[int], activation: str = "none") -> Path:
    """Record updates of so many micro-batches each, one after the other from one stream."""
    torch.manual_seed(0)
    gelu = torch.nn.GELU(approximate=activation)
    model = torch.nn.Sequential(torch.nn.Linear(6, 8), gelu, torch.nn.Linear(8, 3)).double()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    recorder = lockstep.record.torch(folder, model, optimizer)
    stream = torch.Generator().manual_seed(1)
    for count in windows:
        for _ in range(count):
            x, y = torch.randn(2, 5, 6, generator=stream, dtype=torch.float64)
            (torch.nn.functional.mse_loss(model(x), y[:, :3]) / count).backward()
        optimizer.step()
        optimizer.zero_grad()
    recorder.close()
    return folder


@pytest.mark.parametrize(
    ("first", "second", "name", "update"),
    [
        ([2] * 6, [4] * 3, "other windows", 1),
        ([4] * 3, [2] * 6, "other windows", 1),
        ([2] * 6, [1] * 12, "step-every-microbatch", 1),
        ([2, 2, 1] * 2, [2] * 5, "leftover-carried", 3),
        ([3, 3, 3], [3, 3, 2, 1], "other windows", 3),
    ],
)
@pytest.mark.parametrize("activation", ["none", "tanh"])
def test_windows_that_are_cut_otherwise_are_told(
    first, second, name, update, activation, tmp_path
) -> None:
    """Once, as what they are, and nothing is made of what follows; another model is told beside."""
    found = compare_traces(
        train(tmp_path / "first", first), train(tmp_path / "second", second, activation)
    )
    told = [(each.name, each.update) for each in found.findings]
    other_model = [("another gradient", 1)] * (activation == "tanh")
    assert told == [*other_model, (name, update)]
    assert {pair.update for pair in found.pairs} >= {1}


def test_of_data_that_were_not_recorded_nothing_is_said() -> None:
    """Not that they are the same, whichever run has none."""
    known = [{"shape": [2], "sum": 1.0, "crc": 7}]

    def told(first: list, second: list) -> list[int]:
        windows = [(Window([first] * 2), Window([second] * 4)), (Window([first] * 2), Window([]))]
        return [each.update for each in cut_findings(windows)]

    assert told(known, known) == [1]
    assert not told(known, [])
    assert not told([], known)


def fingerprint(shape: list[int], total: float, crc: int) -> dict:
    return {"shape": shape, "sum": total, "crc": crc}


TOKENS, WHOLE, MASK = (
    fingerprint([4, 5], 90.0, 1), fingerprint([4, 6], 120.0, 2), fingerprint([4, 5], 14.0, 3),
)  # fmt: skip
OTHERS, ROUNDED = fingerprint([4, 5], 77.0, 4), fingerprint([4, 5], 90.0 + 1e-6, 5)


@pytest.mark.parametrize(
    ("first", "second", "off", "told"),
    [
        ([TOKENS], [OTHERS], True, True),
        ([TOKENS], [OTHERS], None, True),
        # Of other data, the gradients would be others.
        ([TOKENS], [OTHERS], False, False),
        # A model is given a sequence without its last step, and a loss all of it, and a mask.
        ([TOKENS], [WHOLE, MASK], True, False),
        ([WHOLE, MASK], [TOKENS], True, False),
        ([TOKENS], [WHOLE, MASK], None, False),
        # A micro-batch of one example more is another one.
        ([TOKENS], [fingerprint([5, 5], 120.0, 6)], None, True),
        # Targets of one feature less are no part of the inputs, which have a counterpart.
        ([fingerprint([4, 5, 3], 6.0, 7)],
         [fingerprint([4, 5, 3], 9.0, 8), fingerprint([4, 5, 2], -2.0, 9)], None, True),
        # Of the same shapes, they are the same things.
        ([TOKENS, WHOLE], [OTHERS, WHOLE], True, True),
    ],
)  # fmt: skip
def test_data_are_others_where_the_gradients_may_be(first, second, off, told) -> None:
    known = {} if off is None else {1: off}
    found = list(data_findings([(Window([first]), Window([second]))], known))
    assert [each.name for each in found] == ["other data"] * told


def test_what_a_run_computes_of_its_data_differs_later_too() -> None:
    windows = [(Window([[TOKENS]]), Window([[other]])) for other in (ROUNDED, OTHERS)]
    assert not list(data_findings(windows, {1: False}))
    assert [each.update for each in data_findings(windows[::-1], {1: True})] == [1]


@pytest.mark.parametrize(("total", "told"), [(167.0, False), (100.0, True)])
def test_a_gradient_of_all_micro_batches_at_once_is_of_the_same_data(total, told) -> None:
    """As under vmap, or of processes whose gradients are averaged."""
    several, one = Window([[TOKENS], [OTHERS]]), Window([[fingerprint([2, 4, 5], total, 10)]])
    for windows in ((several, one), (one, several)):
        found = list(data_findings([windows], {}))
        assert [each.name for each in found] == ["other data"] * told
