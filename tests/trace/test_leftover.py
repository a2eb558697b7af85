"""What two loops do with the micro-batches that are left of an epoch, in either of two runs."""

from collections.abc import Iterator

import numpy as np
import pytest

from lockstep import record
from lockstep.trace import check_trace, compare_traces

torch = pytest.importorskip("torch")

MICRO_BATCHES, K = 10, 4
NUMBERS = np.random.default_rng(6)
X, Y = (NUMBERS.normal(size=(MICRO_BATCHES, 8, n)).astype("float32") for n in (6, 3))

# Beside a loop that takes them as an update of their own, and divides by their number.
NAMES = {
    "drops": "leftover-dropped",
    "never sees": "leftover-dropped",
    "leaks": "leftover-leaks",
    "carries": "leftover-carried",
    "divides by K": "leftover-divided-by-k",
}


def windows(loop: str, epochs: int) -> Iterator[tuple[list[int], int, bool]]:
    """The micro-batches of each window, what they are divided by, and whether it is an update."""
    window: list[int] = []
    for _ in range(epochs):
        for index in range(MICRO_BATCHES):
            window.append(index)
            left = index >= MICRO_BATCHES // K * K
            at = index if loop == "counts from 0" else index + 1
            whole = len(window) == K if loop == "carries" else at % K == 0
            ends = index == MICRO_BATCHES - 1 and loop in ("right", "drops", "divides by K")
            if loop == "never sees" and left:
                window.clear()
            elif whole or ends:
                yield (
                    [*window],
                    K if loop == "divides by K" else len(window),
                    (whole or loop != "drops"),
                )
                window.clear()


def train(folder, loop: str, epochs: int, decay: float = 1.0) -> None:
    """Train; decay: what is left of the rate after each epoch."""
    torch.manual_seed(3)
    model = torch.nn.Linear(6, 3)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    with record.torch(folder, model, optimizer):
        begun = 0
        for window, divisor, update in windows(loop, epochs):
            begun += 0 in window
            optimizer.param_groups[0]["lr"] = 1e-2 * decay ** (begun - 1)
            for index in window:
                loss = torch.nn.functional.mse_loss(
                    model(torch.tensor(X[index])), torch.tensor(Y[index])
                )
                (loss / divisor).backward()
            if update:
                optimizer.step()
            optimizer.zero_grad()


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    for loop in ("right", *NAMES):
        for epochs in (1, 2):
            train(folder / f"{loop} {epochs}", loop, epochs)
    return folder


@pytest.mark.parametrize("loop", NAMES)
def test_what_a_loop_does_with_them_is_named_in_either_run(runs, loop) -> None:
    for both, name in ((("right", loop), NAMES[loop]), ((loop, "right"), f"without {NAMES[loop]}")):
        found = compare_traces(*(runs / f"{each} 2" for each in both))
        assert (found.verdict, found.names, found.left) == ("differs", (name,), [])


@pytest.mark.parametrize("loop", ["drops", "never sees", "leaks"])
def test_a_schedule_of_epochs_comes_early_by_them_and_is_no_other(runs, tmp_path, loop) -> None:
    train(tmp_path / "right", "right", 3, decay=0.5)
    train(tmp_path / "port", loop, 3, decay=0.5)
    found = compare_traces(tmp_path / "right", tmp_path / "port")
    assert (found.names, found.left) == ((NAMES[loop],), []), found
    train(tmp_path / "constant", loop, 3)
    found = compare_traces(tmp_path / "right", tmp_path / "constant")
    assert {*found.names} == {NAMES[loop], "schedule-ignored"}, found


def test_a_boundary_that_is_off_by_one_is_no_leftover(runs, tmp_path) -> None:
    train(tmp_path / "other", "counts from 0", 1)
    for first, second, less in (("right 1", "", ""), ("", "right 1", "without ")):
        found = compare_traces(
            *(runs / run if run else tmp_path / "other" for run in (first, second))
        )
        assert found.names == (f"{less}boundary-off-by-one",)


@pytest.mark.parametrize("loop", NAMES)
def test_in_one_epoch_alone_they_are_told_to_be_left_out(runs, loop) -> None:
    name = NAMES[loop] if loop == "divides by K" else "leftover-dropped"
    for both, said in ((("right", loop), name), ((loop, "right"), f"without {name}")):
        assert compare_traces(*(runs / f"{each} 1" for each in both)).names == (said,)


def test_a_run_that_was_ended_earlier_drops_nothing(runs, tmp_path) -> None:
    """It took what was left of the epoch before."""
    earlier = tmp_path / "earlier"
    earlier.mkdir()
    last = max((runs / "right 2").glob("update-*"))
    for file in (runs / "right 2").iterdir():
        if file != last:
            (earlier / file.name).write_bytes(file.read_bytes())
    found = compare_traces(runs / "right 2", earlier)
    assert found.verdict == "same"
    assert "the first run goes on for 1 more update: it was not compared" in found.notes


def test_two_loops_that_drop_them_are_the_same(runs) -> None:
    for first, second in (("drops", "never sees"), ("never sees", "drops")):
        found = compare_traces(runs / f"{first} 2", runs / f"{second} 2")
        assert (found.verdict, found.names, found.compared) == ("same", (), 4 * 21)


def test_alone_it_is_said_and_no_mistake(runs) -> None:
    found = check_trace(runs / "drops 2")
    assert (found.verdict, found.names) == ("same", ("leftover-dropped",))
    for loop in {"right", *NAMES} - {"drops"}:
        assert check_trace(runs / f"{loop} 2").names == ()
