"""Optimizers of their own live as the libraries' do: saved, loaded, compiled once."""

import json
import subprocess
import sys

import pytest
import torch
from conftest import ROOT

from pytorch_impl.adapted import Lion, NAdam

KERAS = """
import sys, json
from dataclasses import replace
import keras, numpy as np
from lockstep.problem import Optimizer, iris_sgd
from tensorflow_impl.optimizers import make_optimizer

keras.config.set_floatx("float64")
rng = np.random.default_rng(0)
x, y = rng.normal(size=(8, 4)), rng.normal(size=(8, 3))
found = {}
for name, settings in json.loads(sys.argv[2]).items():
    optimizer = Optimizer(name.split("-")[0], 0.05, weight_decay=0.1, **settings)
    problem = replace(iris_sgd(), optimizer=optimizer)
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    model.compile(make_optimizer(tuple(model.trainable_variables), problem), "mse")
    for _ in range(3):
        model.train_on_batch(x, y)
    model.save(sys.argv[1])
    loaded = keras.models.load_model(sys.argv[1])
    again = type(model.optimizer).from_config(model.optimizer.get_config())
    before = [w.copy() for w in model.get_weights()]
    for _ in range(4):
        for each in (model, loaded):
            each.train_on_batch(x, y)
    pairs = list(zip(model.get_weights(), loaded.get_weights(), before, strict=True))
    found[name] = [
        type(loaded.optimizer) is type(model.optimizer) is type(again),
        again.get_config() == model.optimizer.get_config(),
        sum(a.size for a, *_ in pairs),
        sum(int((a != b).sum()) for a, b, _ in pairs),
        sum(int((a != c).sum()) for a, _, c in pairs),
    ]
print(json.dumps(found))
"""
SETTINGS = {
    "sgd": {"momentum": 0.9, "dampening": 0.1},
    "adam": {},
    "adam-amsgrad": {"amsgrad": True, "betas": [0.8, 0.95]},
    "adamw": {"eps": 0.01},
    "adamax": {},
    "nadam": {},
    "rmsprop": {"momentum": 0.5, "centered": True},
    "adagrad": {"lr_decay": 0.1, "initial_accumulator_value": 0.3},
    "adadelta": {},
    "lion": {},
}


def run(code: str, *arguments: str) -> dict:
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_keras_saves_and_loads_a_model_with_any_of_them(tmp_path) -> None:
    found = run(KERAS, str(tmp_path / "model.keras"), json.dumps(SETTINGS))
    # Of one class, of one configuration, 15 numbers, none of which differ and all of which moved.
    assert found == {name: [True, True, 15, 0, 15] for name in SETTINGS}


@pytest.mark.parametrize("make", [Lion, NAdam])
def test_torch_loads_a_state_that_was_saved(make, tmp_path) -> None:
    def start(values: torch.Tensor) -> tuple[torch.Tensor, torch.optim.Optimizer]:
        parameter = values.detach().clone().requires_grad_()
        groups = [{"params": [parameter], "lr": 0.1, "betas": (0.8, 0.9)}]
        return parameter, make(groups, weight_decay=0.1)

    def update(parameter: torch.Tensor, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        (parameter**3).sum().backward()
        optimizer.step()

    one, optimizer = start(torch.linspace(-1, 1, 7, dtype=torch.float64))
    for _ in range(3):
        update(one, optimizer)
    torch.save(optimizer.state_dict(), tmp_path / "state.pt")
    other, loaded = start(one)
    loaded.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    before = one.detach().clone()
    for _ in range(3):
        update(one, optimizer)
        update(other, loaded)
    assert torch.equal(one, other)
    assert not torch.equal(one, before)


def test_lion_takes_a_closure_defaults_and_sound_settings() -> None:
    parameter = torch.ones(3, requires_grad=True)
    optimizer = Lion([parameter], lr=0.5)
    assert optimizer.defaults == {"lr": 0.5, "betas": (0.9, 0.99), "weight_decay": 0.0}
    assert optimizer.param_groups[0]["betas"] == (0.9, 0.99)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = (parameter**2).sum()
        loss.backward()
        return loss

    assert optimizer.step(closure) == 3.0
    assert parameter.tolist() == [0.5] * 3
    assert optimizer.step() is None
    for wrong in ({"lr": -1.0}, {"weight_decay": -1.0}, {"betas": (0.9, 1.0)}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            Lion([parameter], **wrong)


JAX = """
import json
import jax, jax.numpy as jnp
from dataclasses import replace
from jax_impl import recipe, train
from jax_impl.accumulation import apply_gradients
from lockstep.problem import Optimizer, iris_recipe, iris_sgd

sizes = []
for make, run in ((iris_sgd, train), (iris_recipe, recipe.train)) * 3:
    list(run(make(updates=4)))
    sizes.append(apply_gradients._cache_size())
changed = replace(iris_sgd(updates=4), optimizer=Optimizer("sgd", 0.02))
list(train(changed))
afterwards = apply_gradients._cache_size()
trajectory = train(iris_sgd())
first = next(trajectory)
print(json.dumps({
    "sizes": sizes,
    "changed": afterwards,
    "theirs": str(first[0].dtype),
    "ours": str(jnp.ones(1, "float64").dtype),
    "flag": bool(jax.config.jax_enable_x64),
}))
"""


def test_jax_compiles_once_for_each_optimizer_and_leaves_float64_to_its_caller() -> None:
    found = run(JAX)
    assert found["sizes"] == [1, 2, 2, 2, 2, 2]
    assert found["changed"] == 3
    assert (found["theirs"], found["ours"], found["flag"]) == ("float64", "float32", False)
