"""Parameters beside those that are trained: a target network, and one that nobody steps."""

import jax
import numpy as np
import optax
import pytest
import torch
from torch import nn

import lockstep.record
from lockstep.trace import compare_traces, read
from lockstep.trace.steps import steps

UPDATES, LEFT = 4, 0.9


def initial():
    """Of a network, and of one that begins as its copy."""
    numbers = np.random.default_rng(0)
    online = {"online.a": numbers.standard_normal((5, 4)), "online.b": numbers.standard_normal(5)}
    online = {name: array.astype(np.float32) for name, array in online.items()}
    return online | {name.replace("online", "target"): array for name, array in online.items()}


def data():
    return np.random.default_rng(1).standard_normal((UPDATES, 8, 4)).astype(np.float32)


def run_torch(folder, *, left=LEFT, grad=True):
    """Train one network towards what another one makes, which follows the first."""
    values = {k.replace(".", "_"): nn.Parameter(torch.tensor(v)) for k, v in initial().items()}
    model = nn.ParameterDict(values)
    for name, each in model.items():
        each.requires_grad_(grad or "online" in name)
    optimizer = torch.optim.Adam([each for name, each in model.items() if "online" in name], 0.01)
    with lockstep.record.torch(folder, model, optimizer, full=UPDATES):
        for x in map(torch.tensor, data()):
            optimizer.zero_grad()
            made = torch.tanh(x @ model["online_a"].T + model["online_b"])
            right = torch.tanh(2 * x @ model["target_a"].T + model["target_b"]).detach()
            (made - right).square().mean().backward()
            optimizer.step()
            with torch.no_grad():
                for name in ("a", "b"):
                    model[f"target_{name}"].lerp_(model[f"online_{name}"], 1 - left)
    return folder


def run_jax(folder, *, left=LEFT):
    """The same in JAX, where the optimizer is told to leave the target alone."""
    parameters = {name: jax.numpy.array(value) for name, value in initial().items()}

    def loss(p, x):
        made = jax.numpy.tanh(x @ p["online.a"].T + p["online.b"])
        right = jax.numpy.tanh(2 * x @ p["target.a"].T + p["target.b"])
        return ((made - jax.lax.stop_gradient(right)) ** 2).mean()

    kinds = {name: name.split(".")[0] for name in parameters}
    rules = {"online": optax.adam(0.01), "target": optax.set_to_zero()}
    recorder = lockstep.record.jax(folder, full=UPDATES)
    optimizer = recorder.wrap(optax.multi_transform(rules, kinds))
    gradient = recorder.gradient(jax.jit(jax.grad(loss)))
    state = optimizer.init(parameters)
    for x in data():
        updates, state = optimizer.update(gradient(parameters, x), state, parameters)
        parameters = optax.apply_updates(parameters, updates)
        for name in ("a", "b"):
            target, online = parameters[f"target.{name}"], parameters[f"online.{name}"]
            parameters |= {f"target.{name}": left * target + (1 - left) * online}
    recorder.close()
    return folder


@pytest.mark.parametrize("grad", [True, False])
def test_a_target_network_goes_on_as_an_average_does(tmp_path, grad):
    first, second = run_torch(tmp_path / "a", grad=grad), run_jax(tmp_path / "b")
    slower = run_torch(tmp_path / "c", left=0.99, grad=grad), run_jax(tmp_path / "d", left=0.99)
    for runs in ((first, second), (second, first), slower):
        found = compare_traces(*runs)
        assert (found.verdict, len(found.matching.matches)) == ("same", 4), found
    for runs, said in (
        ((first, slower[1]), "leaves 0.99 instead of 0.9"),
        ((slower[0], second), "leaves 0.9 instead of 0.99"),
        ((slower[1], first), "leaves 0.9 instead of 0.99"),
    ):
        found = compare_traces(*runs)
        assert (found.names, found.left) == (("another average",), []), found
        assert said in found.findings[0].said


def test_a_target_network_that_never_follows_is_told(tmp_path):
    first, second = run_torch(tmp_path / "a"), run_jax(tmp_path / "b", left=1.0)
    for runs, less in (((first, second), "without "), ((second, first), "")):
        found = compare_traces(*runs)
        assert (found.names, found.left) == ((f"{less}changed between updates",), []), found


def forgetful(folder, *, forgets=False, beside=0.0, detaches=False):
    """Train; the optimizer may not know a bias, and gradients may be taken beside the weights.

    detaches: whether the first layer gets no gradient.
    """
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    nn.init.zeros_(model[2].bias)
    known = [p for name, p in model.named_parameters() if not (forgets and name == "2.bias")]
    optimizer = torch.optim.SGD(known, lr=0.1, momentum=0.9)
    with lockstep.record.torch(folder, model, optimizer, full=UPDATES):
        for x in map(torch.tensor, data()):
            optimizer.zero_grad()
            with torch.no_grad():
                for each in model.parameters():
                    each.add_(beside)
            hidden = model[1](model[0](x))
            model[2](hidden.detach() if detaches else hidden).square().mean().backward()
            with torch.no_grad():
                for each in model.parameters():
                    each.sub_(beside)
            optimizer.step()
    return folder


def test_a_parameter_that_no_optimizer_of_pytorch_steps_is_named_and_nothing_else(tmp_path):
    right, port = forgetful(tmp_path / "a"), forgetful(tmp_path / "b", forgets=True)
    for runs, name in (((right, port), ""), ((port, right), "without ")):
        found = compare_traces(*runs)
        assert (found.names, found.left) == ((f"{name}params-not-in-optimizer",), []), found
        assert found.findings[0].tensors == ("2.bias",)
    assert compare_traces(port, forgetful(tmp_path / "c", forgets=True)).verdict == "same"


def test_parameters_that_no_gradient_reaches_are_in_their_optimizer(tmp_path):
    right, port = forgetful(tmp_path / "a"), forgetful(tmp_path / "b", detaches=True)
    for runs, name in (((right, port), ""), ((port, right), "without ")):
        found = compare_traces(*runs)
        assert (found.names, found.left) == ((f"{name}detached",), []), found
        assert found.findings[0].tensors == ("0.bias", "0.weight")


def test_what_is_added_to_all_parameters_and_taken_away_again_is_rounding(tmp_path):
    """As for the gradient that SAM takes: a bias near 0 does not come back to its bits."""
    run = read(forgetful(tmp_path / "a", beside=0.01))
    ends, begins = (
        run.updates[0].stored("after", "2.bias"),
        run.updates[1].stored("before", "2.bias"),
    )
    assert not np.array_equal(ends, begins)
    assert steps(run).between == []
