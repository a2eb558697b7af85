"""Tensors that are frozen for a time, and how many updates an optimizer has counted of them."""

from functools import partial

import jax
import numpy as np
import optax
import pytest
import torch
from jax import numpy as jnp
from torch import nn

import lockstep.record
from lockstep.trace import check_trace, compare_traces
from lockstep.trace.frozen import COUNTED, NAME

UPDATES, FREE_FROM = 6, 3


def run(folder, *, free_from=FREE_FROM, zeros=False, rule=torch.optim.AdamW):
    """Train a network whose first layer is frozen at first; zeros: its gradient is 0, not none."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    frozen = [*model[0].parameters()]
    hooks = [each.register_hook(torch.zeros_like) for each in frozen] if zeros else []
    optimizer = rule(model.parameters(), lr=0.01, weight_decay=0.0)
    with lockstep.record.torch(folder, model, optimizer, full=UPDATES):
        for update in range(UPDATES):
            for each in frozen if not zeros else ():
                each.requires_grad_(update >= free_from)
            if zeros and update == free_from:
                for hook in hooks:
                    hook.remove()
            optimizer.zero_grad()
            model(torch.randn(8, 4, dtype=torch.float64)).square().mean().backward()
            optimizer.step()
    return folder


def test_what_is_frozen_for_a_time_in_both_is_no_difference(tmp_path):
    runs = run(tmp_path / "a"), run(tmp_path / "b")
    assert compare_traces(*runs).verdict == check_trace(runs[0]).verdict == "same"


@pytest.mark.parametrize("rule", [torch.optim.AdamW, torch.optim.SGD])
def test_what_is_frozen_in_other_updates_is_told_with_the_first(tmp_path, rule):
    first, later = run(tmp_path / "a", rule=rule), run(tmp_path / "b", free_from=4, rule=rule)
    never = run(tmp_path / "c", free_from=0, rule=rule)
    for runs, names, at, which in (
        ((first, later), (NAME,), 4, "in update 4,"),
        ((later, first), (f"without {NAME}",), 4, "in update 4,"),
        ((first, never), (f"without {NAME}",), 1, "in updates 1, 2, 3,"),
        ((never, first), (NAME,), 1, "in updates 1, 2, 3,"),
    ):
        found = compare_traces(*runs)
        assert (found.names, found.left) == (names, []), found
        [finding] = found.findings
        assert (finding.update, finding.tensors) == (at, ("0.weight", "0.bias"))
        assert which in finding.said


def test_updates_that_are_counted_while_a_tensor_is_frozen_are_told(tmp_path):
    none, zeros = run(tmp_path / "a"), run(tmp_path / "b", zeros=True)
    for runs, own, right in (((none, zeros), 4, 1), ((zeros, none), 1, 4)):
        found = compare_traces(*runs)
        assert (found.names, found.left) == ((COUNTED,), []), found
        assert found.findings[0].update == FREE_FROM + 1
        said = found.findings[0].said
        assert f"is number {own} to the optimizer" in said
        assert f"in the first run it is number {right}" in said


def test_plain_descent_goes_by_no_count(tmp_path):
    none = run(tmp_path / "a", rule=torch.optim.SGD)
    zeros = run(tmp_path / "b", zeros=True, rule=torch.optim.SGD)
    assert compare_traces(none, zeros).verdict == "same"


def test_each_of_two_optimizers_counts_its_own_updates(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    often, seldom = (torch.optim.Adam(model[i].parameters(), lr=0.01) for i in (0, 2))
    with lockstep.record.torch(tmp_path, model, often, seldom, full=2 * UPDATES):
        for number in range(2 * UPDATES):
            stepped = (often, seldom) if number % 3 == 0 else (often,)
            for optimizer in (often, seldom):
                optimizer.zero_grad()
            model(torch.randn(8, 4, dtype=torch.float64)).square().mean().backward()
            for optimizer in stepped:
                optimizer.step()
    found = check_trace(tmp_path)
    assert (found.verdict, found.names, found.left) == ("same", (), [])


NUMBERS = np.random.default_rng(0)
SHAPES = {"inner": (4, 5), "outer": (5, 3)}
NETS = {name: NUMBERS.normal(size=size).astype("float32") for name, size in SHAPES.items()}
X = NUMBERS.normal(size=(UPDATES, 8, 4)).astype("float32")


def loss_of(nets, x, tanh):
    return ((tanh(x @ nets["inner"]) @ nets["outer"] - 1.0) ** 2).mean()


def in_groups(folder, free_from=FREE_FROM):
    nets = nn.ParameterDict({name: nn.Parameter(torch.tensor(a)) for name, a in NETS.items()})
    optimizer = torch.optim.Adam(nets.parameters(), 0.01)
    with lockstep.record.torch(folder, nets, optimizer):
        for update, x in enumerate(torch.tensor(X)):
            nets["inner"].requires_grad_(update >= free_from)
            optimizer.zero_grad()
            loss_of(nets, x, torch.tanh).backward()
            optimizer.step()
    return folder


def in_optax(folder, free_from=FREE_FROM, anew=False):
    """optax begins with what it was not given before, and counts that from there."""
    own, labels = {name: optax.adam(0.01) for name in NETS}, {name: name for name in NETS}
    recorder = lockstep.record.jax(folder)
    gradient = recorder.gradient(jax.grad(partial(loss_of, tanh=jnp.tanh)))
    frozen = optax.multi_transform({**own, "inner": optax.set_to_zero()}, labels)
    optimizer, parameters = recorder.wrap(frozen), {n: jnp.asarray(a) for n, a in NETS.items()}
    state = optimizer.init(parameters)
    for update, x in enumerate(X):
        if update == free_from:
            kept = state.inner_states["outer"]
            optimizer = recorder.wrap(optax.multi_transform(own, labels))
            state = optimizer.init(parameters)
            if not anew:
                state = state._replace(inner_states={**state.inner_states, "outer": kept})
        changes, state = optimizer.update(gradient(parameters, x), state, parameters)
        parameters = optax.apply_updates(parameters, changes)
    recorder.close()
    return folder


def test_what_optax_begins_later_is_counted_from_there(tmp_path):
    runs = in_groups(tmp_path / "a"), in_optax(tmp_path / "b")
    # PyTorch skips what is frozen, of 20 numbers.
    for first, second, skipped in ((*runs, 0), (*runs[::-1], 20 * FREE_FROM)):
        found = compare_traces(first, second)
        assert (found.names, found.left, found.compared) == ((), [], UPDATES * 35 - skipped)
        assert check_trace(first).verdict == "same"
    anew = in_optax(tmp_path / "anew", anew=True)
    assert compare_traces(runs[0], anew).names == ("opt-state-dropped",)
    never = in_optax(tmp_path / "never", free_from=UPDATES)
    found = compare_traces(runs[0], never)
    assert (found.names, found.left) == (("params-not-in-optimizer",), [])


def adapted(folder, *, rate=0.01):
    """Train a product of which the second factor begins at 0, so that the first one waits."""
    torch.manual_seed(0)
    first, second = nn.Parameter(torch.randn(4, 2)), nn.Parameter(torch.zeros(2, 3))
    model = nn.ParameterDict({"first": first, "second": second})
    groups = [{"params": [first]}, {"params": [second], "lr": rate}]
    optimizer = torch.optim.Adam(groups, 0.01)
    with lockstep.record.torch(folder, model, optimizer):
        for x in torch.randn(UPDATES, 8, 4):
            optimizer.zero_grad()
            (x @ first @ second - 1).square().mean().backward()
            optimizer.step()
    return folder


def test_what_moves_first_has_a_rate_of_its_own_all_the_same(tmp_path):
    runs = adapted(tmp_path / "a"), adapted(tmp_path / "b", rate=0.02)
    for first, second in (runs, runs[::-1]):
        found = compare_traces(first, second)
        assert (found.names, found.left) == (("other rates by tensor",), [])
        assert found.findings[0].tensors == ("second",)


def later(folder, *, added=None, frozen=None, zeros=False, stale=False):
    """Train; added: the update whose optimizer gets the first layer; frozen: from when on it is.

    zeros: whether gradients are emptied, and not thrown away; stale: whether only those that are
    asked for are.
    """
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    first, rest = [*model[0].parameters()], [*model[2].parameters()]
    optimizer = torch.optim.AdamW(rest if added else [*first, *rest], lr=0.01)
    with lockstep.record.torch(folder, model, optimizer, full=UPDATES):
        for update in range(UPDATES):
            if added is not None and update == added:
                optimizer.add_param_group({"params": first})
            asked = (added is None or update >= added) and (frozen is None or update < frozen)
            for each in first:
                each.requires_grad_(asked)
            for each in [*first, *rest] if stale else ():
                if each.requires_grad:
                    each.grad = None
            if not stale:
                optimizer.zero_grad(set_to_none=not zeros)
            model(torch.randn(8, 4, dtype=torch.float64)).square().mean().backward()
            optimizer.step()
    return folder


def test_what_an_optimizer_is_given_later_is_frozen_until_then(tmp_path):
    runs = {added: later(tmp_path / f"{added}", added=added) for added in (3, 2)}
    by_flag = run(tmp_path / "flag", free_from=3)
    assert compare_traces(runs[3], later(tmp_path / "again", added=3)).verdict == "same"
    for pair, name in (
        ((runs[3], runs[2]), f"without {NAME}"),
        ((runs[2], runs[3]), NAME),
        ((runs[3], later(tmp_path / "never")), f"without {NAME}"),
        ((runs[3], by_flag), "wd-ignored"),
    ):
        found = compare_traces(*pair)
        assert (found.names, found.left) == ((name,), []), found
    assert check_trace(runs[3]).verdict == "same"


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({}, NAME),
        ({"zeros": True}, "frozen with zeros"),
        ({"stale": True}, "frozen-with-stale-grad"),
    ],
    ids=["none", "zeros", "stale"],
)
def test_what_is_frozen_again_may_move_by_what_is_left(tmp_path, given, name):
    right, port = later(tmp_path / "a"), later(tmp_path / "b", frozen=3, **given)
    for runs, less in (((right, port), ""), ((port, right), "without ")):
        found = compare_traces(*runs)
        assert (found.names, found.left) == ((less + name,), []), found
        assert (found.findings[0].update, found.findings[0].tensors) == (4, ("0.weight", "0.bias"))


def test_zeros_that_are_left_are_the_gradient_of_what_has_no_work(tmp_path):
    """As of an expert: times 0 in one run, and not called in the other."""

    def expert(folder, called):
        torch.manual_seed(0)
        model = nn.ModuleDict({"a": nn.Linear(4, 3), "b": nn.Linear(4, 3)}).double()
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        with lockstep.record.torch(folder, model, optimizer, full=UPDATES):
            for update in range(UPDATES):
                x = torch.randn(8, 4, dtype=torch.float64)
                optimizer.zero_grad(set_to_none=False)
                made = model["a"](x)
                if called or update % 2 == 0:
                    made = made + model["b"](x) * (update % 2 == 0)
                made.square().mean().backward()
                optimizer.step()
        return folder

    runs = expert(tmp_path / "a", True), expert(tmp_path / "b", False)
    for pair in (runs, runs[::-1]):
        found = compare_traces(*pair)
        assert (found.verdict, found.left) == ("same", []), found
