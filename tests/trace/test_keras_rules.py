"""Keras' own rules against PyTorch's, and against their own settings."""

import numpy as np
import pytest

from lockstep import record
from lockstep.trace import check_trace, compare_traces

torch = pytest.importorskip("torch")
keras = pytest.importorskip("keras")
pytest.importorskip("tensorflow")

UPDATES, RATE, SIZE = 5, 1e-2, 4
NUMBERS = np.random.default_rng(3)
START = [NUMBERS.normal(size=shape).astype("float32") / 3 for shape in ((5, 7), (7,), (7, 3), (3,))]
X = NUMBERS.normal(size=(SIZE * UPDATES, 5)).astype("float32")
Y = NUMBERS.normal(size=(SIZE * UPDATES, 3)).astype("float32")
FALLING = [RATE / 2**update for update in range(UPDATES)]


def in_pytorch(folder, name, rates, settings, frozen=False) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.Tanh(), torch.nn.Linear(7, 3))
    for parameter, value in zip(model.parameters(), START, strict=True):
        parameter.data = torch.tensor(np.ascontiguousarray(value.T))
    model[0].requires_grad_(not frozen)
    optimizer = getattr(torch.optim, name)(model.parameters(), rates[0], **settings)
    recorder = record.torch(folder, model, optimizer)
    for update, rate in enumerate(rates):
        rows = slice(update * SIZE, (update + 1) * SIZE)
        optimizer.param_groups[0]["lr"] = rate
        optimizer.zero_grad()
        (model(torch.tensor(X[rows])) - torch.tensor(Y[rows])).square().mean().backward()
        optimizer.step()
    recorder.close()


def in_keras(folder, name, rates, settings, frozen=False) -> None:
    layers = [keras.layers.Dense(7, activation="tanh"), keras.layers.Dense(3)]
    model = keras.Sequential([keras.Input((5,)), *layers])
    model.set_weights(START)
    layers[0].trainable = not frozen
    falls = keras.optimizers.schedules.ExponentialDecay(rates[0], 1, 0.5)
    rate = falls if rates[0] != rates[1] else rates[0]
    model.compile(getattr(keras.optimizers, name)(rate, **settings), "mse")
    recorder = record.keras(folder, model)
    model.fit(X, Y, batch_size=SIZE, shuffle=False, verbose=0, callbacks=[recorder])


MOMENTUM = {"momentum": 0.9}
RULES = {
    "momentum": ("SGD", MOMENTUM, MOMENTUM, ()),
    "nesterov": ("SGD", MOMENTUM | {"nesterov": True}, MOMENTUM | {"nesterov": True}, ()),
    "adagrad": ("Adagrad", {"initial_accumulator_value": 0.1, "eps": 1e-7}, {}, ()),
    "adagrad from 0": ("Adagrad", {"eps": 1e-7}, {}, ("another initial state",)),
    "adadelta": ("Adadelta", {"rho": 0.95, "eps": 1e-7}, {}, ()),
    "adamax": ("Adamax", {"eps": 1e-7}, {}, ()),
    "rmsprop": ("RMSprop", {"alpha": 0.9, "eps": 1e-7}, {"rho": 0.9}, ("rmsprop-variant",)),
    "rmsprop's momentum": (
        "RMSprop",
        MOMENTUM | {"alpha": 0.9, "eps": 1e-7},
        MOMENTUM | {"rho": 0.9},
        ("rmsprop-variant",),
    ),
    "centred": (
        "RMSprop",
        {"centered": True, "alpha": 0.9, "eps": 1e-7},
        {"centered": True, "rho": 0.9},
        ("rmsprop-variant",),
    ),
    "adam": ("Adam", {"eps": 1e-7}, {}, ("adam-eps-hat",)),
}


ITS = {"SGD": "momentum", "RMSprop": "rmsprop's momentum"}


@pytest.mark.parametrize("case", RULES)
def test_a_rule_of_keras_is_known(tmp_path, case) -> None:
    name, settings, own, named = RULES[case]
    rates = [RATE] * UPDATES
    in_pytorch(tmp_path / "a", name, rates, settings)
    in_keras(tmp_path / "b", name, rates, own)
    found = compare_traces(tmp_path / "a", tmp_path / "b")
    assert (found.names, found.left) == (named, [])
    assert found.compared == UPDATES * sum(each.size for each in START)
    assert check_trace(tmp_path / "b").verdict == "same"
    back = compare_traces(tmp_path / "b", tmp_path / "a")
    assert (back.verdict, back.left) == (found.verdict, [])


def test_what_gets_no_gradient_keeps_the_number_that_its_state_begins_at(tmp_path, monkeypatch):
    """float32 does not hold 0.1, of which the settings speak."""
    monkeypatch.setitem(globals(), "X", X * np.float32([1, 1, 1, 1, 0]))
    name, settings, own, named = RULES["adagrad"]
    in_pytorch(tmp_path / "a", name, [RATE] * UPDATES, settings)
    in_keras(tmp_path / "b", name, [RATE] * UPDATES, own)
    found = compare_traces(tmp_path / "a", tmp_path / "b")
    assert (found.verdict, found.names, found.left) == ("same", named, [])


def test_the_eps_of_adamax_is_where_keras_has_it(tmp_path, monkeypatch):
    """Which shows in small gradients, and was no known rule."""
    monkeypatch.setitem(globals(), "Y", Y * 0 + np.float32(1e-6))
    monkeypatch.setitem(globals(), "START", [array * np.float32(1e-2) for array in START])
    monkeypatch.setitem(globals(), "X", X * np.float32([1, 1, 1, 1, 0]))
    in_keras(tmp_path / "b", "Adamax", [RATE / 100] * UPDATES, {})
    found = check_trace(tmp_path / "b")
    assert (found.verdict, found.names, found.left) == ("same", (), [])


def test_a_first_rate_of_nothing_is_no_difference(tmp_path, monkeypatch) -> None:
    """Keras' momentum is then nothing, too, and says nothing of what went into it."""
    rates = [0.0, RATE, RATE, RATE, RATE]

    @keras.saving.register_keras_serializable("tests")
    class Warm(keras.optimizers.schedules.LearningRateSchedule):
        def __call__(self, step):
            return keras.ops.where(step < 1, 0.0, RATE)

        def get_config(self):
            return {}

    warm = Warm()
    monkeypatch.setattr(keras.optimizers.schedules, "ExponentialDecay", lambda *_: warm)
    in_keras(tmp_path / "b", "SGD", rates, MOMENTUM)
    assert check_trace(tmp_path / "b").verdict == "same"


@pytest.mark.parametrize("name", ["SGD", "RMSprop"])
def test_a_rate_inside_of_the_momentum_shows_where_the_rate_changes(tmp_path, name) -> None:
    in_pytorch(tmp_path / "a", name, FALLING, RULES[ITS[name]][1])
    in_keras(tmp_path / "b", name, FALLING, RULES[ITS[name]][2])
    found = compare_traces(tmp_path / "a", tmp_path / "b")
    own = RULES[ITS[name]][3]
    assert found.names == (*own, "momentum-lr-placement")
    assert found.findings[-1].update == 2
    back = compare_traces(tmp_path / "b", tmp_path / "a")
    assert back.names == tuple(f"without {each}" for each in found.names)
    assert check_trace(tmp_path / "b").verdict == "same"


def test_layers_that_are_frozen_in_both_are_no_difference(tmp_path) -> None:
    """Keras records no layer that it does not train."""
    in_pytorch(tmp_path / "a", "SGD", [RATE] * UPDATES, {}, frozen=True)
    in_keras(tmp_path / "b", "SGD", [RATE] * UPDATES, {}, frozen=True)
    in_pytorch(tmp_path / "c", "SGD", [RATE] * UPDATES, {})
    same = compare_traces(tmp_path / "a", tmp_path / "b")
    assert (same.verdict, same.names) == ("same", ())
    assert any("which no update moves, has no counterpart" in note for note in same.notes)
    for runs in ("cb", "bc"):
        found = compare_traces(*(tmp_path / run for run in runs))
        assert (found.verdict, found.names, len(found.left)) == ("differs", (), 2)
