"""An average of the parameters: what an update leaves of it, and what a port's is beside it."""

import copy

import jax
import numpy as np
import optax
import pytest
import torch
from jax import numpy as jnp
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import lockstep.record
from lockstep.record.writer import RecordError
from lockstep.trace import compare_traces, read
from lockstep.trace.averaging import kept, power
from lockstep.trace.numbers import Number
from lockstep.trace.steps import steps
from lockstep.trace.words import text
from lockstep.views.trace import html

STEPS, UPDATES = 4, 8
FUNCTION = get_ema_multi_avg_fn(0.99)


def by_hand(decay):
    """An average by hand, of a dictionary: it begins as the parameters do."""

    class Average(dict):
        def update_parameters(self, model):
            for name, each in model.named_parameters():
                self[name] = decay * self[name] + (1 - decay) * each.detach()

    return lambda model: Average(copy.deepcopy(dict(model.named_parameters())))


def ema(model):
    return AveragedModel(model, multi_avg_fn=FUNCTION)


def run(folder, average, when="update", dtype=torch.float32, **options):
    """Train, and average at every update, or at every micro-step, before or after its step."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 3)).to(dtype)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    averaged = average(model)
    own = {"average": averaged} if averaged is not None else {}
    draw = torch.Generator().manual_seed(1)
    with lockstep.record.torch(folder, model, optimizer, **own, **options):
        for micro_step in range(1, STEPS * UPDATES + 1):
            x, y = (torch.randn(5, size, generator=draw).to(dtype) for size in (6, 3))
            ((model(x) - y) ** 2).mean().div(STEPS).backward()
            if when == "before" or (when == "before the step" and micro_step % STEPS == 0):
                averaged.update_parameters(model)
            if micro_step % STEPS == 0:
                optimizer.step()
                optimizer.zero_grad()
                if when == "update" and averaged is not None:
                    averaged.update_parameters(model)
            if when == "micro-step":
                averaged.update_parameters(model)
    return folder


def in_jax(folder, early=False):
    """A loop of JAX, with an average of a part that is taken before the step, or behind it."""
    parameters = {"net": {"w": jnp.linspace(-1.0, 1.0, 12).reshape(4, 3)}}
    average = parameters["net"]
    recorder = lockstep.record.jax(folder)
    optimizer = recorder.wrap(optax.adam(1e-2))
    gradient = recorder.gradient(jax.grad(lambda p, x: ((x @ p["net"]["w"]) ** 2).mean()))
    state = optimizer.init(parameters)
    for x in np.random.default_rng(0).normal(size=(UPDATES, 5, 4)).astype("float32"):
        changes, state = optimizer.update(gradient(parameters, x), state, parameters)
        new = optax.apply_updates(parameters, changes)
        towards = parameters if early else new
        average = optax.incremental_update(towards["net"], average, 0.01)
        average, parameters = recorder.average(average), new
    recorder.close()
    return folder


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("average", [ema, by_hand(0.99)], ids=["AveragedModel", "by hand"])
@pytest.mark.parametrize(
    ("when", "left"), [("update", 0.99), ("micro-step", 0.99**STEPS), ("before", 0.99**STEPS)]
)
def test_what_an_update_leaves_of_an_average_is_known(tmp_path, average, when, left, dtype) -> None:
    found = kept(steps(read(run(tmp_path / "run", average, when, dtype, full=1))))
    assert {*found} == {*range(1, UPDATES)}
    # Where it is a copy of the parameters, an average that goes towards these does not show.
    unseen = {1, 2} if average is ema and when == "update" else {1}
    assert {update for update, each in found.items() if not each.seen} == unseen
    for update in {*found} - unseen:
        assert found[update].left.equals(left), update
        assert found[update].left.error < (1e-3 if dtype is torch.float32 else 1e-12)


@pytest.mark.parametrize(
    ("average", "when", "names", "words"),
    [
        (by_hand(0.99), "update", (), ""),
        (by_hand(0.99), "micro-step", ("average per micro-step",), "its 4th power"),
        (by_hand(0.9), "update", ("another average",), "0.9 instead of 0.99"),
        (AveragedModel, "update", ("another average",), "instead of 0.99"),
    ],
    ids=["right", "per micro-step", "another decay", "equal weights"],
)
def test_an_average_is_held_against_the_first_runs(tmp_path, average, when, names, words) -> None:
    right = run(tmp_path / "a", by_hand(0.99))
    found = compare_traces(right, run(tmp_path / "b", average, when))
    assert found.names == names
    assert found.verdict == ("differs" if names else "same")
    assert all(words in each.said for each in found.findings)
    assert text(found).count("the average of the parameters: ") == len(names)
    assert ("the average of the parameters" in html(found)) == bool(names)
    if "per micro-step" in "".join(names):
        (back,) = compare_traces(tmp_path / "b", right).findings
        assert back.name == "average per update"


def of_pytorch(folder, early=False):
    return run(folder, by_hand(0.99), "before the step" if early else "update")


@pytest.mark.parametrize("record", [of_pytorch, in_jax])
def test_an_average_that_is_taken_before_the_step_is_told(tmp_path, record) -> None:
    """It goes on by as much, and is one update behind."""
    right, early = record(tmp_path / "right"), record(tmp_path / "early", early=True)
    assert compare_traces(right, early).names == ("average before the step",)
    assert compare_traces(early, right).names == ("without average before the step",)
    assert compare_traces(right, right).verdict == compare_traces(early, early).verdict == "same"


def test_an_average_that_begins_as_a_copy_is_told(tmp_path) -> None:
    """AveragedModel's first average is no mean of the parameters before and behind it."""
    right, copied = run(tmp_path / "a", by_hand(0.99)), run(tmp_path / "b", ema)
    (found,) = compare_traces(right, copied).findings
    assert (found.name, found.update) == ("average copied", 1)
    assert "after update 1 it is a copy of the parameters" in found.said
    (back,) = compare_traces(copied, right).findings
    assert back.name == "average copied"
    assert "the first run's is a copy" in back.said


def test_an_average_of_one_run_alone_is_said(tmp_path) -> None:
    right = run(tmp_path / "with", ema)
    found = compare_traces(right, run(tmp_path / "without", lambda _: None))
    assert found.verdict == "same"
    assert "an average of the parameters was recorded of with alone" in found.notes


def test_what_is_no_average_is_told(tmp_path) -> None:
    """What goes somewhere else leaves no share of itself."""

    class Noise(dict):
        def update_parameters(self, model):
            for name, each in model.named_parameters():
                self[name] = torch.randn_like(each)

    other = run(tmp_path / "b", lambda model: Noise(model.named_parameters()))
    found = compare_traces(run(tmp_path / "a", by_hand(0.99)), other)
    assert found.names == ("another average",)
    assert "goes where no mean of it and the parameters does" in found.findings[0].said
    back = compare_traces(other, tmp_path / "a")
    assert back.names == ("another average",)
    assert back.findings[0].said.startswith("in the first run, from update 2 on it goes where")


def test_an_average_of_another_model_is_refused(tmp_path) -> None:
    with pytest.raises(RecordError, match="average: it has no parameter by a name of the model's"):
        run(tmp_path / "run", lambda _: {"other": torch.zeros(1)})


def test_a_power_has_the_error_of_its_number() -> None:
    found = power(Number(0.99, 1e-4), 4)
    assert found.value == pytest.approx(0.99**4)
    assert found.error == pytest.approx(abs(0.9901**4 - 0.99**4), rel=1e-2)
    assert np.isfinite(power(Number(0.0, 1e-9), 4).error)
