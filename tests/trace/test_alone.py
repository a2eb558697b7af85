"""A run that is what its settings say, with each rule of the libraries, decayed and clipped."""

from functools import partial

import numpy as np
import optax
import pytest
import torch
from jax import grad, jit
from jax import numpy as jnp
from written import write_trace

import lockstep.record
from lockstep.trace import TraceError, check_trace, compare_traces

UPDATES, RATE, DECAY, LIMIT = 5, 1e-2, 0.1, 0.3
NUMBERS = np.random.default_rng(0)
NAME = "opt-state-dropped"
# The second bias has few numbers, and begins at 0.
START = {
    "w1": NUMBERS.normal(size=(6, 10)) * 0.4, "b1": NUMBERS.normal(size=10) * 0.1,
    "w2": NUMBERS.normal(size=(10, 3)) * 0.4, "b2": np.zeros(3),
}  # fmt: skip
START = {name: array.astype("float32") for name, array in START.items()}
X, Y = (NUMBERS.normal(size=(UPDATES, 8, size)).astype("float32") for size in (6, 3))


def loss_of(p, x, y, tanh):
    return ((tanh(x @ p["w1"] + p["b1"]) @ p["w2"] + p["b2"] - y) ** 2).mean()


def in_pytorch(folder, make, limit=None, momenta=None):
    """Train; momenta: what each update sets before its step."""
    model = torch.nn.ParameterDict(
        {name: torch.nn.Parameter(torch.tensor(array)) for name, array in START.items()}
    )
    optimizer = make(model.parameters())
    with lockstep.record.torch(folder, model, optimizer):
        for number, (x, y) in enumerate(zip(torch.tensor(X), torch.tensor(Y), strict=True)):
            if momenta:
                optimizer.param_groups[0]["momentum"] = momenta[number]
            optimizer.zero_grad()
            loss_of(model, x, y, torch.tanh).backward()
            if limit:
                torch.nn.utils.clip_grad_norm_(model.parameters(), limit)
            optimizer.step()
    return folder


def in_jax(folder, make, limit=None, anew=0):
    """Train; what a clip leaves is not shown; anew: before which update the state is made anew."""
    parameters = {name: jnp.asarray(array) for name, array in START.items()}
    recorder = lockstep.record.jax(folder)
    clip = [optax.clip_by_global_norm(limit)] if limit else []
    optimizer = recorder.wrap(optax.chain(*clip, make()))
    gradient = jit(recorder.gradient(grad(partial(loss_of, tanh=jnp.tanh))))
    state = optimizer.init(parameters)
    for update, (x, y) in enumerate(zip(X, Y, strict=True), 1):
        if update == anew:
            state = optimizer.init(parameters)
        changes, state = optimizer.update(gradient(parameters, x, y), state, parameters)
        parameters = optax.apply_updates(parameters, changes)
    recorder.close()
    return folder


def rule(name, **settings):
    return partial(getattr(torch.optim, name), lr=RATE, weight_decay=DECAY, **settings)


def decayed(name, *settings, **more):
    return lambda: optax.chain(
        optax.add_decayed_weights(DECAY), getattr(optax, name)(RATE, *settings, **more)
    )


RULES = {
    "Nesterov": (in_pytorch, rule("SGD", momentum=0.9, nesterov=True)),
    "dampening": (in_pytorch, rule("SGD", momentum=0.9, dampening=0.5)),
    "SGD upwards": (in_pytorch, rule("SGD", momentum=0.9, maximize=True)),
    "AdamW upwards": (in_pytorch, rule("AdamW", maximize=True)),
    "Adamax": (in_pytorch, rule("Adamax")),
    "RMSprop": (in_pytorch, rule("RMSprop", momentum=0.9, centered=True)),
    "Adadelta": (in_pytorch, rule("Adadelta")),
    "Adagrad": (in_pytorch, rule("Adagrad", lr_decay=0.1, initial_accumulator_value=0.1)),
    "optax' SGD": (in_jax, decayed("sgd")),
    "optax' momentum": (in_jax, decayed("sgd", 0.9)),
    "optax' Nesterov": (in_jax, decayed("sgd", 0.9, nesterov=True)),
    "optax' Adam": (in_jax, decayed("adam", 0.8, 0.99, 1e-6)),
    "optax' Adamax": (in_jax, decayed("adamax")),
    "optax' RMSprop": (in_jax, decayed("rmsprop", momentum=0.9)),
    "optax' Adadelta": (in_jax, decayed("adadelta", 0.9)),
}


@pytest.mark.parametrize("limit", [None, LIMIT], ids=["whole", "clipped"])
@pytest.mark.parametrize("name", RULES)
def test_a_right_run_is_what_its_settings_say(tmp_path, name, limit):
    record, make = RULES[name]
    found = check_trace(record(tmp_path / "run", make, limit))
    assert ([each for each in found.findings if not each.policy], found.left) == ([], [])
    assert found.compared == UPDATES * sum(array.size for array in START.values())


@pytest.mark.parametrize("decay", [0.0, DECAY])
def test_momentum_that_a_schedule_changes_is_what_nesterov_looks_ahead_by(tmp_path, decay):
    settings = {"momentum": 0.95, "nesterov": True, "weight_decay": decay}
    momenta = [0.9, 0.85, 0.8, 0.85, 0.9]
    make = partial(torch.optim.SGD, lr=RATE, **settings)
    run = in_pytorch(tmp_path / "a", make, momenta=momenta)
    found = check_trace(run)
    assert (found.verdict, found.left) == ("same", []), found
    constant = in_pytorch(tmp_path / "b", make, momenta=[0.9] * UPDATES)
    for runs in ((run, constant), (constant, run)):
        found = compare_traces(*runs)
        assert (found.names, found.left) == (("another momentum",), []), found


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (decayed("rmsprop", momentum=0.9, nesterov=True), "RMSprop with Nesterov's momentum"),
        (decayed("nadam"), "NAdam"),
        (decayed("radam"), "optax.scale_by_radam"),
    ],
)
def test_a_rule_that_is_not_known_here_is_said(tmp_path, make, named):
    found = check_trace(in_jax(tmp_path / "run", make))
    assert (found.verdict, found.left) == ("same", [])
    assert any(f"its rule, {named}, is not known here" in each for each in found.notes)


@pytest.mark.parametrize(
    ("settings", "named"),
    [({"momentum": 0.5}, "another momentum"), ({"nesterov": False}, "nesterov-ignored")],
)
def test_what_the_settings_do_not_say_differs(tmp_path, settings, named):
    """The optimizer is told otherwise once the recorder has read its settings."""

    def make(parameters):
        optimizer = rule("SGD", momentum=0.9, nesterov=True)(parameters)
        optimizer.register_step_pre_hook(lambda made, *_: made.param_groups[0].update(settings))
        return optimizer

    assert named in check_trace(in_pytorch(tmp_path / "run", make)).names


@pytest.mark.parametrize("alone", [True, False])
def test_a_run_is_followed_as_long_as_its_parameters_are_numbers(tmp_path, alone):
    wrong = write_trace(tmp_path / "wrong", {"w": np.ones((3, 2))}, updates=3, ends=np.inf)
    first = wrong if alone else write_trace(tmp_path / "right", {"w": np.ones((3, 2))}, updates=3)
    found = check_trace(wrong) if alone else compare_traces(first, wrong)
    assert (found.verdict, found.compared) == ("same", 2 * 6)
    assert any("after update 3 its parameters are no finite numbers" in n for n in found.notes)


def test_a_run_of_no_numbers_is_refused(tmp_path):
    wrong = write_trace(tmp_path / "wrong", {"w": np.ones((3, 2))}, updates=1, ends=np.nan)
    with pytest.raises(TraceError, match="after update 1 its parameters"):
        check_trace(wrong)


@pytest.mark.parametrize(
    ("make", "limit"),
    [
        (partial(optax.sgd, RATE, 0.9), LIMIT),
        (partial(optax.rmsprop, RATE, momentum=0.9), LIMIT),
        (partial(optax.adagrad, RATE), None),
        (partial(optax.adadelta, 1.0, 0.9), LIMIT),
    ],
    ids=["momentum", "RMSprop", "Adagrad", "Adadelta"],
)
def test_a_state_that_counts_nothing_and_is_thrown_away_is_told(tmp_path, make, limit):
    right = in_jax(tmp_path / "right", make, limit)
    wrong = in_jax(tmp_path / "wrong", make, limit, anew=4)
    for runs, name in (((right, wrong), NAME), ((wrong, right), f"without {NAME}")):
        (found,) = compare_traces(*runs).findings
        assert (found.name, found.update) == (name, 4)
    assert compare_traces(wrong, wrong).verdict == check_trace(wrong).verdict == "same"


@pytest.mark.parametrize("name", ["SGD", "RMSprop", "Adagrad", "Adadelta", "Adam"])
def test_what_is_in_no_optimizer_has_no_state_that_counts(tmp_path, name):
    """Whatever the rule keeps of the others."""
    more = {"momentum": 0.9} if name == "SGD" else {}
    right = in_pytorch(tmp_path / "right", rule(name, **more))
    wrong = in_pytorch(tmp_path / "wrong", lambda parameters: rule(name, **more)([*parameters][1:]))
    assert compare_traces(right, wrong).names == ("params-not-in-optimizer",)
    assert compare_traces(wrong, right).names == ("without params-not-in-optimizer",)
