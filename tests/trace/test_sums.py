"""What a loop adds up that is not its micro-batches' gradients, each with one weight."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from lockstep import record
from lockstep.trace import check_trace, compare_traces
from lockstep.trace.gradients import Pair, pulls_of
from lockstep.trace.numbers import Number
from lockstep.trace.windows import either_name, inverse

jax = pytest.importorskip("jax")
optax = pytest.importorskip("optax")
jnp = jax.numpy

K, UPDATES = 3, 4
NUMBERS = np.random.default_rng(7)
X = NUMBERS.normal(size=(K * UPDATES, 6, 5)).astype("float32")
START = {
    name: NUMBERS.normal(size=shape).astype("float32") / 2
    for name, shape in {"inner": (5, 8), "bias": (8,), "outer": (8, 3)}.items()
}
NUMBERS_OF_START = sum(each.size for each in START.values())


def loss(parameters: Any, x: Any) -> Any:
    hidden = jnp.tanh(x @ parameters["inner"] + parameters["bias"])
    return jnp.square(hidden @ parameters["outer"] - 1).mean()


def train(
    folder: Any,
    changed: Callable[[Any, Any], Any] = lambda total, _: total,
    optimizer: Any = None,
    dtype: Any = jnp.float32,
    stays: str = "",
    recorder: Any = None,
) -> Any:
    """Add gradients up by hand; changed: the sum and the parameters to what the optimizer gets."""
    parameters = {name: jnp.array(value) for name, value in START.items()}
    recorder = recorder or record.jax(folder)
    gradient = recorder.gradient(jax.grad(loss))
    optimizer = recorder.wrap(optimizer or optax.adam(0.01))
    state = optimizer.init(parameters)
    total = jax.tree.map(lambda value: jnp.zeros_like(value, dtype), parameters)
    for number, x in enumerate(X):
        for name, value in gradient(parameters, x).items():
            total[name] += (value / K).astype(dtype)
        if number % K == K - 1:
            whole = {name: value.astype(jnp.float32) for name, value in total.items()}
            changes, state = optimizer.update(changed(whole, parameters), state, parameters)
            parameters = optax.apply_updates(parameters, changes)
            for name, value in total.items():
                total[name] = value if name == stays else jnp.zeros_like(value)
    recorder.close()
    return folder


def noisy(total: Any, _: Any) -> Any:
    keys = jax.random.split(jax.random.key(int(1e6 * abs(total["bias"]).sum())), len(total))
    return {
        name: value + 1e-3 * jax.random.normal(key, value.shape)
        for key, (name, value) in zip(keys, total.items(), strict=True)
    }


def decayed(total: Any, parameters: Any) -> Any:
    return {name: value + 0.02 * parameters[name] for name, value in total.items()}


OTHERS = {
    "noise": ({"changed": noisy}, "another sum"),
    "one tensor": (
        {"changed": lambda total, _: total | {"outer": total["outer"] * 0.1}},
        "other weights by tensor",
    ),
    "frozen": (
        {"changed": lambda total, _: total | {"inner": jnp.zeros_like(total["inner"])}},
        "other weights by tensor",
    ),
    "bfloat16": ({"dtype": jnp.bfloat16}, "low-precision-accumulator"),
    "float16": ({"dtype": jnp.float16}, "low-precision-accumulator"),
    "one stays": ({"stays": "outer"}, "missing-zero-grad"),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_what_is_added_up_besides_is_told_in_either_run(kind, tmp_path) -> None:
    options, name = OTHERS[kind]
    plain, other = train(tmp_path / "plain"), train(tmp_path / "other", **options)
    found = compare_traces(plain, other)
    assert (found.names[0], found.left, found.compared) == (name, [], UPDATES * NUMBERS_OF_START)
    assert compare_traces(other, plain).names[0] == f"without {name}"
    assert compare_traces(other, other).verdict == "same"
    assert name in check_trace(other).names


def test_two_loops_that_add_noise_of_their_own_are_not_the_same(tmp_path) -> None:
    first = train(tmp_path / "first", noisy)
    second = train(tmp_path / "second", lambda total, _: noisy(noisy(total, _), _))
    assert compare_traces(first, second).names == ("another gradient",)


def test_a_decay_that_a_loss_has_in_it_is_a_decay(tmp_path, monkeypatch) -> None:
    """Of the kernels alone, as model code has it."""
    plain = train(tmp_path / "plain")
    mask = {"inner": True, "outer": True, "bias": False}
    coupled = optax.chain(optax.add_decayed_weights(0.02, mask), optax.adam(0.01))
    in_the_rule = train(tmp_path / "rule", optimizer=coupled)
    decoupled = train(tmp_path / "adamw", optimizer=optax.adamw(0.01, weight_decay=0.02, mask=mask))
    without = loss

    def decayed_loss(parameters: Any, x: Any) -> Any:
        squares = jnp.square(parameters["inner"]).sum() + jnp.square(parameters["outer"]).sum()
        return without(parameters, x) + 0.01 * squares

    monkeypatch.setitem(globals(), "loss", decayed_loss)
    in_the_loss = train(tmp_path / "loss")
    for pair in ((in_the_loss, in_the_rule), (in_the_rule, in_the_loss)):
        found = compare_traces(*pair)
        assert (found.verdict, found.names, found.left) == ("same", (), [])
        assert found.compared == UPDATES * NUMBERS_OF_START
    for pair in ((in_the_loss, decoupled), (decoupled, in_the_loss)):
        assert compare_traces(*pair).names == ("l2-vs-decoupled",)
    assert compare_traces(plain, in_the_loss).verdict == "differs"
    assert compare_traces(in_the_loss, plain).names == ("wd-ignored",)


def test_a_decay_that_a_loop_adds_to_the_gradient_is_a_decay(tmp_path) -> None:
    """As PyTorch's Adam has it; beside AdamW, it goes into the gradient."""
    by_hand = train(tmp_path / "by hand", decayed)
    adam = optax.chain(optax.add_decayed_weights(0.02), optax.adam(0.01))
    in_the_rule = train(tmp_path / "rule", optimizer=adam)
    decoupled = train(tmp_path / "adamw", optimizer=optax.adamw(0.01, weight_decay=0.02))
    for pair in ((by_hand, in_the_rule), (in_the_rule, by_hand)):
        found = compare_traces(*pair)
        assert (found.verdict, found.names, found.left) == ("same", (), [])
    for pair in ((by_hand, decoupled), (decoupled, by_hand)):
        assert compare_traces(*pair).names == ("l2-vs-decoupled",)


def clipping(limit: float) -> Callable[[Any, Any], Any]:
    """Clip by hand, before the optimizer."""

    def clipped(total: Any, _: Any) -> Any:
        norm = jnp.sqrt(sum(jnp.square(value).sum() for value in total.values()))
        return jax.tree.map(lambda value: value * jnp.minimum(1, limit / norm), total)

    return clipped


def test_clipping_by_hand_is_clipping(tmp_path) -> None:
    by_hand = train(tmp_path / "by hand", clipping(0.3))
    plain = train(tmp_path / "plain")
    chain = optax.chain(optax.clip_by_global_norm(0.3), optax.adam(0.01))
    in_a_chain = train(tmp_path / "chain", optimizer=chain)
    for pair in ((by_hand, in_a_chain), (in_a_chain, by_hand)):
        found = compare_traces(*pair)
        assert (found.verdict, found.names, found.left) == ("same", (), [])
    lower = train(tmp_path / "lower", clipping(0.1))
    assert compare_traces(in_a_chain, lower).names == ("clips to 0.1",)
    assert compare_traces(plain, lower).names == ("clips",)
    assert compare_traces(lower, plain).verdict == "differs"


def test_numbers_that_are_cut_by_hand_are_those_of_a_chain(tmp_path) -> None:
    cut = train(
        tmp_path / "cut", lambda total, _: jax.tree.map(lambda v: v.clip(-0.02, 0.02), total)
    )
    recorder = record.jax(tmp_path / "chain")
    in_a_chain = optax.chain(recorder.clipped(optax.clip(0.02)), optax.adam(0.01))
    chain = train(tmp_path / "chain", optimizer=in_a_chain, recorder=recorder)
    for pair in ((cut, chain), (chain, cut)):
        assert compare_traces(*pair).verdict == "same"
    assert compare_traces(train(tmp_path / "plain"), cut).names == ("another sum",)


def test_what_is_left_over_of_another_model_is_no_decay_in_the_loss() -> None:
    """A bias that began at 0 is a multiple of the gradient that has moved it."""
    pull, floor = {"bias": Number(0.1, 1e-4)}, 1e-5
    explained = Pair(1, 0, Number(1.0, 0.0), {"bias": 0.0}, floor, pull)
    another = replace(explained, update=2, rest={"bias": 0.1}, pulls={})
    later = replace(explained, update=3)
    assert pulls_of([explained, another, later]).keys() == {"bias"}
    assert pulls_of([replace(another, update=1), explained, later]) == {}


def test_a_micro_batch_of_the_first_run_alone_beside_one_of_the_second_has_a_name() -> None:
    """As where each of them takes one of two gradients: either weight has no inverse."""
    assert either_name([Number(math.inf, 0.0), Number(0.0, 0.0)], 2, 2)[0] not in (
        "",
        "never-updates",
    )
    assert inverse(inverse(Number(0.0, 0.0))).value == 0.0
