"""A run that goes on where another one was, with a state that is not the one it had there."""

import pytest

from lockstep import record
from lockstep.trace import compare_traces

torch = pytest.importorskip("torch")

UPDATES, RESUMED = 6, 3
MAKE = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, 0.05, momentum=0.9),
    "adamw": lambda parameters: torch.optim.AdamW(parameters, 0.01),
    "rmsprop": lambda parameters: torch.optim.RMSprop(parameters, 0.01, momentum=0.5),
    "adagrad": lambda parameters: torch.optim.Adagrad(parameters, 0.05),
}


def run(folder, name, change=None):
    """Train; change: of the state with which it goes on, in a run that is recorded from there."""
    torch.manual_seed(0)
    layers = (torch.nn.Linear(5, 5), torch.nn.Tanh(), torch.nn.Linear(5, 5))
    model = torch.nn.Sequential(*layers, torch.nn.Linear(5, 2))
    optimizer = MAKE[name](model.parameters())
    recorder = None
    for update in range(UPDATES):
        if change is not None and update == RESUMED:
            state = optimizer.state_dict()
            change(state["state"])
            optimizer.load_state_dict(state)
        if recorder is None and (change is None or update == RESUMED):
            recorder = record.torch(folder, model, optimizer, full=UPDATES)
        optimizer.zero_grad()
        (model(torch.randn(8, 5)) - torch.randn(8, 2)).square().mean().backward()
        optimizer.step()
    recorder.close()
    return folder


def swapped(state):
    """As where parameters come in another order."""
    state[0], state[2] = state[2], state[0]


def halved(slot):
    def change(state):
        for each in state.values():
            each[slot] /= 2

    return change


def counted_anew(state):
    for each in state.values():
        each["step"] = torch.tensor(0.0)


@pytest.mark.parametrize("name", MAKE)
def test_what_it_goes_on_with_is_the_first_runs(tmp_path, name):
    first = run(tmp_path / "first", name)
    found = compare_traces(first, run(tmp_path / "right", name, lambda state: None))
    assert (found.verdict, found.left) == ("same", []), found
    found = compare_traces(first, run(tmp_path / "swapped", name, swapped))
    assert {*found.names} == {"another initial state"}, found
    assert found.findings[0].tensors == ("0.weight", "2.weight")


@pytest.mark.parametrize(
    ("name", "slot"),
    [
        ("sgd", "momentum_buffer"),
        ("adamw", "exp_avg"),
        ("rmsprop", "square_avg"),
        ("adagrad", "sum"),
    ],
)
def test_a_part_of_the_state_is_named(tmp_path, name, slot):
    found = compare_traces(run(tmp_path / "a", name), run(tmp_path / "b", name, halved(slot)))
    assert (found.names, found.left) == (("another initial state",), []), found
    assert f"it begins with another {slot} of 0.weight" in found.findings[0].said


def test_a_count_that_begins_anew_is_named_and_nothing_else(tmp_path):
    first = run(tmp_path / "a", "adamw")
    found = compare_traces(first, run(tmp_path / "b", "adamw", counted_anew))
    assert (found.names, found.left) == (("another count",), []), found
    assert "as if it had taken 0 updates, and the first run's had taken 3" in found.findings[0].said


def test_a_state_that_counts_nothing_and_is_lost_is_said_by_the_trace(tmp_path):
    first = run(tmp_path / "a", "sgd")
    found = compare_traces(first, run(tmp_path / "b", "sgd", dict.clear))
    assert found.names == ("opt-state-dropped",)
    assert "an empty state, where the first run's has 3 updates in it" in found.findings[0].said
