"""Recording a run in JAX: the same bits with and without, and whole updates of every loop."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open

jax = pytest.importorskip("jax")
optax = pytest.importorskip("optax")
jnp = jax.numpy

import lockstep.record  # noqa: E402
import lockstep.trace.averaging  # noqa: E402
from lockstep.problem import Optimizer  # noqa: E402
from lockstep.record.writer import RecordError  # noqa: E402
from lockstep.trace import compare_traces  # noqa: E402
from lockstep.trace.identify import Identified  # noqa: E402
from lockstep.trace.steps import steps as steps_of  # noqa: E402

BATCHES, MICRO_BATCHES = 6, 2


def loss(params: Any, x: Any) -> Any:
    """A small model's loss."""
    layer = params["layer"]
    return jnp.mean((jax.nn.gelu(x @ layer["kernel"] + layer["bias"]) - 1) ** 2)


def start() -> Any:
    """Initial parameters; the kernel is larger than its sketch."""
    kernel = np.random.default_rng(0).standard_normal((20, 30)).astype("float32") / 5
    return {"layer": {"kernel": jnp.asarray(kernel), "bias": jnp.zeros(30)}}


def data() -> Any:
    """A micro-batch for each call."""
    return jnp.asarray(np.random.default_rng(1).standard_normal((BATCHES, 5, 20)), jnp.float32)


def chain(recorder: Any = None) -> Any:
    """An optimizer that clips, decays some parameters and has a schedule."""
    clip = optax.clip_by_global_norm(0.1)
    return optax.chain(
        recorder.clipped(clip) if recorder else clip,
        optax.adamw(optax.linear_schedule(0.1, 0.0, 20), weight_decay=0.1,
                    mask=lambda params: jax.tree.map(lambda array: array.ndim > 1, params)),
    )  # fmt: skip


def train(
    way: str, recorder: Any = None, steps: int = 1, loss: Any = loss, begun: Any = None
) -> Any:
    """Train in one of the ways that people do; return the parameters and the optimizer's state."""
    optimizer: Any = chain(recorder)
    if steps > 1:
        optimizer = optax.MultiSteps(optimizer, steps)
    gradients = jax.value_and_grad(loss)
    if recorder:
        optimizer, gradients = recorder.wrap(optimizer), recorder.gradient(gradients)

    def step(carry: Any, x: Any) -> Any:
        params, state = carry
        value, found = gradients(params, x)
        changes, state = optimizer.update(found, state, params)
        return (optax.apply_updates(params, changes), state), value

    carry = begun or (start(), optimizer.init(start()))
    if way == "scan":
        return jax.jit(lambda carry: jax.lax.scan(step, carry, data())[0])(carry)
    if way == "jit":
        step = jax.jit(step, donate_argnums=0)

    def loop(carry: Any) -> Any:
        for x in data():
            carry, _ = step(carry, x)
        return carry

    return jax.jit(loop)(carry) if way == "unrolled" else loop(carry)


def read(folder: Path) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """The arrays and facts of each update."""
    found = []
    for path in sorted(folder.glob("update-*")):
        with safe_open(path, "np") as file:
            arrays = {name: file.get_tensor(name) for name in list(file.keys())}
            found.append((arrays, json.loads(file.metadata()["lockstep"])))
    return found


def same(first: Any, second: Any) -> bool:
    """Whether two trees have the same bits."""
    pairs = zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True)
    return all(np.asarray(a).tobytes() == np.asarray(b).tobytes() for a, b in pairs)


@pytest.mark.parametrize("steps", [1, MICRO_BATCHES])
@pytest.mark.parametrize("way", ["eager", "jit", "scan"])
def test_same_bits(way: str, steps: int, tmp_path: Path) -> None:
    """Recorded, a run ends where it ends without, and each update is there and fits the next."""
    with lockstep.record.jax(tmp_path / "run", full=2) as recorder:
        recorded = train(way, recorder, steps)
    assert same(recorded, train(way, None, steps))
    updates = read(tmp_path / "run")
    assert len(updates) == BATCHES // steps
    first, second = updates[0][0], updates[1][0]
    assert (first["after|layer/kernel"] == second["before|layer/kernel"]).all()
    # Nobody resumed it: of the state that it begins with, numbers alone are kept.
    begun = [array.size for name, array in first.items() if name.startswith("state-before.")]
    assert begun == [1] * (2 if steps == 1 else 4)
    assert not [name for name in second if name.startswith("state-before.")]
    for number, (arrays, facts) in enumerate(updates):
        assert len(facts["micro_batches"]) == steps
        assert all("loss" in one and one["data"] for one in facts["micro_batches"])
        assert facts["decays"] == {"layer/bias": 0.0, "layer/kernel": 0.1}
        assert facts["rates"]["layer/bias"] == pytest.approx(0.1 - 0.005 * number)
        assert float(arrays["state.ScaleByAdamState.count|"].reshape(())) == number + 1
    assert (updates[-1][0]["after|layer/bias"] == np.asarray(recorded[0]["layer"]["bias"])).all()
    assert updates[-1][0]["after|layer/kernel"].shape == (16, 16)


@pytest.mark.parametrize("steps", [1, MICRO_BATCHES])
def test_several_updates_in_one_program_are_those_of_several(steps: int, tmp_path: Path) -> None:
    """They are sent in the order of the updates, and each is whole or a sketch."""
    for way in ("jit", "unrolled"):
        with lockstep.record.jax(tmp_path / way, full=2) as recorder:
            train(way, recorder, steps)
    found = compare_traces(tmp_path / "jit", tmp_path / "unrolled")
    assert (found.verdict, found.names, found.left) == ("same", (), [])
    assert len(found.theirs.updates) == BATCHES // steps
    for arrays, _ in read(tmp_path / "unrolled"):
        phases = ("before", "after", "accumulated")
        assert len({arrays[f"{phase}|layer/kernel"].shape for phase in phases}) == 1


@pytest.mark.parametrize("way", ["eager", "jit"])
def test_a_resumed_run_is_compared_from_sketches_of_its_state(way: str, tmp_path: Path) -> None:
    """The first update has them; its rule is found, and nothing of the others is lost."""
    begun = train("jit", None, MICRO_BATCHES)
    left = jax.tree.map(np.array, optax.tree_utils.tree_get(begun, "nu"))
    with lockstep.record.jax(tmp_path / "run", full=2) as recorder:
        train(way, recorder, MICRO_BATCHES, begun=begun)
    (first, facts), *_ = read(tmp_path / "run")
    key = "state-before.ScaleByAdamState.nu|layer/kernel"
    assert (first[key] == lockstep.record.writer.sketch(left["layer"]["kernel"])).all()
    assert facts["sizes"][key] is None
    found = steps_of(lockstep.trace.read(tmp_path / "run"))
    for slot, averages in (("exp_avg", "averages"), ("exp_avg_sq", "squares")):
        fitted = getattr(Identified(found, Optimizer()), averages)
        assert all(each.fit.exact for each in fitted), slot
        sizes = [each.step.kept[slot].size for each in fitted]
        assert sizes == [30, 256, 30, 600, 30, 256]


@pytest.mark.parametrize("way", ["eager", "jit"])
@pytest.mark.parametrize("often", [1, MICRO_BATCHES])
def test_an_average_is_kept_as_it_is_at_the_next_update(
    way: str, often: int, tmp_path: Path
) -> None:
    """Of one that is taken so often a window, the share that an update leaves is known."""
    with lockstep.record.jax(tmp_path / "run", full=1) as recorder:
        optimizer = recorder.wrap(optax.MultiSteps(chain(recorder), MICRO_BATCHES))
        gradients = recorder.gradient(jax.grad(loss))

        def step(params: Any, state: Any, average: Any, x: Any) -> Any:
            changes, new = optimizer.update(gradients(params, x), state, params)
            params = optax.apply_updates(params, changes)
            moved = optax.incremental_update(params, average, 0.1)
            take = (often > 1) | (new.gradient_step > state.gradient_step)
            average = jax.tree.map(lambda a, b: jnp.where(take, a, b), moved, average)
            return params, new, recorder.average(average)

        if way == "jit":
            step = jax.jit(step)
        carry = start(), optimizer.init(start()), start()
        for x in data():
            carry = step(*carry, x)
    found = lockstep.trace.averaging.kept(steps_of(lockstep.trace.read(tmp_path / "run")))
    assert set(found) == {1, 2}
    assert all(each.left.equals(0.9**often) for each in found.values())


def test_what_a_window_holds(tmp_path: Path) -> None:
    """With MultiSteps: gradients of micro-batches, their mean, and what was clipped of it."""
    with lockstep.record.jax(tmp_path / "run") as recorder:
        train("jit", recorder, MICRO_BATCHES)
    arrays = read(tmp_path / "run")[0][0]
    for number in range(MICRO_BATCHES):
        own = jax.grad(loss)(start(), data()[number])["layer"]["kernel"]
        np.testing.assert_allclose(arrays[f"gradient.{number}|layer/kernel"], own, rtol=1e-4)
    mean = (arrays["gradient.0|layer/kernel"] + arrays["gradient.1|layer/kernel"]) / 2
    np.testing.assert_allclose(arrays["accumulated|layer/kernel"], mean, rtol=1e-4, atol=1e-7)
    clipped = [arrays[f"clipped|layer/{name}"] for name in ("bias", "kernel")]
    assert np.sqrt(sum((array**2).sum() for array in clipped)) == pytest.approx(0.1, rel=1e-5)


def test_sizes_are_those_of_the_whole_array(tmp_path: Path) -> None:
    """A sketch has the entries of what a whole update has, and of what is clipped the norm."""
    with lockstep.record.jax(tmp_path / "whole", full=9) as recorder:
        train("jit", recorder)
    with lockstep.record.jax(tmp_path / "sketched", full=0) as recorder:
        train("jit", recorder)
    whole, (sketched, facts) = read(tmp_path / "whole")[2][0], read(tmp_path / "sketched")[2]
    for name, norm in facts["sizes"].items():
        assert (sketched[name] == lockstep.record.writer.sketch(whole[name])).all()
        if name.startswith("accumulated|"):
            assert norm == pytest.approx(np.linalg.norm(whole[name]), rel=1e-5, abs=1e-12)
        else:  # All of it would be read for nobody.
            assert norm is None


def test_numbers_of_64_bits_arrive(tmp_path: Path) -> None:
    """Callbacks run where x64 is off; not a bit may be cut."""
    with jax.enable_x64(True):
        params = jnp.asarray([1 / 3, 2 / 3])
        with lockstep.record.jax(tmp_path / "run") as recorder:
            optimizer = recorder.wrap(optax.sgd(0.1))
            update = jax.jit(optimizer.update)
            state = optimizer.init(params)
            for _ in range(8):
                changes, state = update(params / 7, state, params)
                params = optax.apply_updates(params, changes)
    updates = read(tmp_path / "run")
    assert updates[0][0]["before|parameter"].tolist() == [1 / 3, 2 / 3]
    assert updates[7][0]["after|parameter"].tolist() == np.asarray(params).tolist()


def test_inject_hyperparams_give_the_rate(tmp_path: Path) -> None:
    """The rate is the one that the state holds."""
    params = start()
    with lockstep.record.jax(tmp_path / "run") as recorder:
        optimizer = recorder.wrap(optax.inject_hyperparams(optax.adam)(0.25))
        optimizer.update(params, optimizer.init(params), params)
    assert read(tmp_path / "run")[0][1]["rates"] == {"layer/bias": 0.25, "layer/kernel": 0.25}


def test_multi_steps_around_the_recorder_is_refused(tmp_path: Path) -> None:
    """What is inside MultiSteps runs on each micro-batch: the message says what to write."""
    params, recorder = start(), lockstep.record.jax(tmp_path / "run")
    optimizer = optax.MultiSteps(recorder.wrap(optax.sgd(0.1)), 2)
    with pytest.raises(RecordError, match=r"recorder\.wrap\(optax\.MultiSteps"):
        optimizer.update(params, optimizer.init(params), params)


def test_steps_of_sam_between_the_updates_are_refused(tmp_path: Path) -> None:
    """In transparent mode half of the updates are SAM's own; in opaque mode none is."""
    outer, away = optax.sgd(0.1), optax.chain(optax.contrib.normalize(), optax.sgd(0.05))
    for opaque in (False, True):
        params, recorder = start(), lockstep.record.jax(tmp_path / f"run-{opaque}")
        sam = optax.contrib.sam(outer, away, opaque_mode=opaque)
        optimizer = recorder.wrap(optax.chain(optax.clip(1.0), sam))
        update = partial(optimizer.update, params, optimizer.init(params), params)
        if opaque:
            update(grad_fn=lambda params, _: params)
        else:
            with pytest.raises(RecordError, match="opaque_mode=True"):
                update()
        recorder.close()


@pytest.mark.parametrize("jitted", [False, True])
def test_a_result_thrown_away_is_refused(jitted: bool, tmp_path: Path) -> None:
    """An accumulation of one's own around the recorder: told at the end, and in the trace."""
    params, recorder = start(), lockstep.record.jax(tmp_path / "run")
    optimizer = recorder.wrap(optax.sgd(0.1))
    update = jax.jit(optimizer.update) if jitted else optimizer.update
    state = optimizer.init(params)
    for _ in range(2):
        update(params, state, params)
    with pytest.raises(RecordError, match="thrown away"):
        recorder.close()
    assert "thrown away" in json.loads((tmp_path / "run/trace.json").read_text())["notes"][-1]


def test_vmap_is_refused(tmp_path: Path) -> None:
    """Of several runs at once none can be told from the others."""
    recorder = lockstep.record.jax(tmp_path / "run")
    optimizer = recorder.wrap(optax.sgd(0.1))
    several = jnp.ones((3, 4))
    with pytest.raises(RecordError, match="vmap"):
        jax.vmap(lambda p: optimizer.update(p, optimizer.init(p), p)[0])(several)


def watched(recorder: Any = None) -> Any:
    """The loss of a layer in a jitted function, of one example after the other."""

    @jax.jit
    def layer(params: Any, x: Any) -> Any:
        y = x @ params["kernel"] + params["bias"]
        return recorder.activation("layer", y, (x, x > 0, None)) if recorder else y

    def loss(params: Any, x: Any) -> Any:
        made = jax.vmap(layer, (None, 0))(params["layer"], x)
        return jnp.mean((jax.nn.gelu(made) - 1) ** 2)

    return loss


@pytest.mark.parametrize(("way", "steps"), [("eager", 1), ("jit", 2), ("scan", 2)])
def test_activations_are_of_the_first_micro_batch_of_whole_updates(
    way: str, steps: int, tmp_path: Path
) -> None:
    """Under jit, vmap, and scan over micro-batches: the first one's, and its data."""
    with lockstep.record.jax(tmp_path / "run", full=2, activations=True) as recorder:
        recorded = train(way, recorder, steps, watched(recorder))
    assert same(recorded, train(way, None, steps, watched()))
    updates = read(tmp_path / "run")
    for number, (arrays, facts) in enumerate(updates):
        first = np.asarray(data()[steps * number])
        names = sorted(name for name in arrays if name.startswith(("input", "output", "data")))
        if number >= 2:
            assert not names
            assert "modules" not in facts
            continue
        assert names == ["data.0|0", "input.0|layer", "output.0|layer"]
        assert facts["modules"] == ["layer"]
        assert (arrays["data.0|0"] == first).all()
        assert (arrays["input.0|layer"] == first).all()
        made = first @ arrays["before|layer/kernel"] + arrays["before|layer/bias"]
        np.testing.assert_allclose(arrays["output.0|layer"], made, rtol=1e-5, atol=1e-6)


def test_activations_of_a_loop_under_a_gradient(tmp_path: Path) -> None:
    """Of several calls the first counts, eagerly and in a function that was compiled before."""

    def loss(params: Any, x: Any) -> Any:
        def step(hidden: Any, _: Any) -> Any:
            hidden = jnp.tanh(hidden * params)
            return recorder.activation("step", hidden), None

        return jax.lax.scan(jax.checkpoint(step), x, None, length=3)[0].sum()

    recorder = lockstep.record.jax(tmp_path / "run", activations=["step"])
    params, x = jnp.arange(3.0), jnp.ones(3)
    compiled = jax.jit(jax.grad(loss))
    compiled(params, x)
    gradients = recorder.gradient(compiled)(params, x)
    optimizer = recorder.wrap(optax.sgd(0.1))
    optimizer.update(gradients, optimizer.init(params), params)
    recorder.close()
    np.testing.assert_allclose(read(tmp_path / "run")[0][0]["output.0|step"], np.tanh(params))


def test_activations_of_64_bits_arrive(tmp_path: Path) -> None:
    """What takes long runs on a thread of its own, where x64 is off: not a bit may be cut."""
    with jax.enable_x64(True):
        params, x = jnp.full((600, 600), 1 / 3), jnp.eye(600)
        with lockstep.record.jax(tmp_path / "run", activations=True) as recorder:
            optimizer = recorder.wrap(optax.sgd(0.1))

            def loss(params: Any, x: Any) -> Any:
                return recorder.activation("product", (x @ x @ x @ params)[0]).sum()

            gradients = jax.jit(recorder.gradient(jax.grad(loss)))(params, x)
            optimizer.update(gradients, optimizer.init(params), params)
    assert set(read(tmp_path / "run")[0][0]["output.0|product"].tolist()) == {1 / 3}


TRANSFORMER = [
    "embedding", "positions", "norm1", "attention/query", "attention/key", "attention/value",
    "attention/out", "attention", "norm2", "inner", "outer", "norm3", "embedding.attend", "",
]  # fmt: skip


@pytest.mark.parametrize(
    ("model", "dtype", "names", "dense"),
    [
        ("transformer", "float32", TRANSFORMER, "inner"),
        ("mlp", "float64", ["hidden", "middle", "output", ""], "middle"),
    ],
)
def test_activations_change_no_bit(
    model: str, dtype: str, names: list[str], dense: str, tmp_path: Path
) -> None:
    """What came out of a dense layer is what its inputs and parameters give, not a bit cut."""
    real = pytest.importorskip("benchmarks.real.jax", reason="needs flax")
    settings = {"updates": 2, "full": 1}
    recorded = real.run(tmp_path / "run", model, dtype, 2, activations=True, **settings)
    assert same(recorded, real.run(tmp_path / "no", model, dtype, 2, record=False, **settings))
    (arrays, facts), (_, later) = read(tmp_path / "run")
    assert facts["modules"] == names
    assert "modules" not in later
    kernel, bias = (arrays[f"before|{dense}/{leaf}"] for leaf in ("kernel", "bias"))
    made = arrays[f"input.0|{dense}"] @ kernel + bias
    exact = 1e-13 if dtype == "float64" else 1e-5
    np.testing.assert_allclose(arrays[f"output.0|{dense}"], made, exact, exact)


def test_modules_of_flax_linen_have_the_names_of_their_parameters(tmp_path: Path) -> None:
    """Where the whole of a model's variables is trained, all names begin with "params"."""
    linen = pytest.importorskip("flax.linen")

    class Net(linen.Module):
        @linen.compact
        def __call__(self, x: Any) -> Any:
            return linen.remat(linen.Dense)(2, name="layer")(x)

    net, x = Net(), jnp.ones((3, 4))
    params = net.init(jax.random.key(0), x)
    with lockstep.record.jax(tmp_path / "run", activations=True) as recorder:
        optimizer = recorder.wrap(optax.sgd(0.1))
        gradient = recorder.gradient(jax.jit(jax.grad(lambda p, x: net.apply(p, x).sum())))
        optimizer.update(gradient(params, x), optimizer.init(params), params)
    arrays, facts = read(tmp_path / "run")[0]
    assert facts["modules"] == ["params/layer", "params"]
    made = np.ones((3, 4)) @ arrays["before|params/layer/kernel"]
    np.testing.assert_allclose(arrays["output.0|params/layer"], made, rtol=1e-5)


def nnx_run(whole: bool, recorder: Any = None) -> Any:
    """The state that a model with dropout and statistics ends with; compiled `whole`, or not."""
    nnx = pytest.importorskip("flax.nnx")

    class Net(nnx.Module):
        def __init__(self, rngs: Any) -> None:
            self.layers = nnx.List([nnx.Linear(4, 4, rngs=rngs), nnx.Linear(4, 4, rngs=rngs)])
            self.norm, self.drop = nnx.BatchNorm(4, rngs=rngs), nnx.Dropout(0.5, rngs=rngs)

        def __call__(self, x: Any) -> Any:
            for layer in self.layers:
                x = layer(x)
            return self.drop(self.norm(x))

    net = Net(nnx.Rngs(0))
    compiled: Any = nnx.jit if whole else lambda function: function
    gradients = nnx.grad(lambda net, x: (net(x) ** 2).mean())
    transformation: Any = optax.adam(0.1)
    if recorder:
        gradients, transformation = recorder.gradient(gradients), recorder.wrap(transformation)
    optimizer = nnx.Optimizer(net, transformation, wrt=nnx.Param)

    @compiled
    def step(net: Any, optimizer: Any, x: Any) -> None:
        optimizer.update(net, gradients(net, x))

    for x in data()[:2, :, :4]:
        step(net, optimizer, x)
    return nnx.state(net, (nnx.Param, nnx.BatchStat))


@pytest.mark.parametrize("whole", [False, True])
def test_modules_of_flax_nnx(whole: bool, tmp_path: Path) -> None:
    """They have their paths; what calls change, such as statistics, is changed once."""
    with lockstep.record.jax(tmp_path / "run", full=1, activations=True) as recorder:
        recorded = nnx_run(whole, recorder)
    # XLA fuses a gradient that is looked at otherwise with what takes it, on some CPUs.
    for one, other in zip(*map(jax.tree.leaves, (recorded, nnx_run(whole))), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6 if whole else 0, atol=0)
    (arrays, facts), (_, later) = read(tmp_path / "run")
    assert facts["modules"] == ["layers/0", "layers/1", "norm", "drop", ""]
    assert "modules" not in later
    assert (arrays["input.0|layers/0"] == arrays["data.0|0"]).all()
    made = arrays["input.0|layers/1"] @ arrays["before|layers/1/kernel"]
    np.testing.assert_allclose(arrays["output.0|layers/1"], made, rtol=1e-5, atol=1e-6)


def test_activations_refused(tmp_path: Path) -> None:
    """A name that no module has, and several runs at once: one line says so."""
    recorder = lockstep.record.jax(tmp_path / "run", activations=["lair"])
    gradient = recorder.gradient(jax.grad(watched(recorder)))
    with pytest.raises(RecordError, match="no module 'lair' was called, but 'layer'"):
        gradient(start(), data()[0])
    with pytest.raises(RecordError, match="outside of vmap"):
        jax.vmap(gradient, (None, 0))(start(), data())
    assert recorder.activation("layer", 1) == 1


SHARDED = """
import jax, numpy, optax, sys
from jax.sharding import NamedSharding, PartitionSpec
import lockstep.record
mesh = jax.make_mesh((2,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
params = {"w": jax.device_put(jax.numpy.arange(64.0).reshape(8, 8) + 1,
                              NamedSharding(mesh, PartitionSpec("d")))}
recorder = lockstep.record.jax(sys.argv[1], full=1)
optimizer = recorder.wrap(optax.adam(0.1))
@jax.jit
def step(params, state):
    changes, state = optimizer.update(params, state, params)
    return optax.apply_updates(params, changes), state
state = optimizer.init(params)
for _ in range(3):
    params, state = step(params, state)
assert len(params["w"].sharding.device_set) == 2
numpy.save(sys.argv[2], params["w"])
"""


def test_sharded_arrays_and_no_close(tmp_path: Path) -> None:
    """Arrays on two devices arrive whole, and a process that just ends has written all."""
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    paths = [str(tmp_path / "run"), str(tmp_path / "final.npy")]
    subprocess.run([sys.executable, "-c", SHARDED, *paths], check=True, env=environment)
    updates = read(tmp_path / "run")
    assert len(updates) == 3
    assert (updates[0][0]["before|w"] == np.arange(64.0).reshape(8, 8) + 1).all()
    assert (updates[2][0]["after|w"] == np.load(paths[1])).all()


def test_a_rule_gets_what_else_its_update_is_given(tmp_path) -> None:
    """As the loss, by which optax' reduce_on_plateau goes."""
    from optax.contrib import reduce_on_plateau

    rule = optax.chain(optax.sgd(0.1), reduce_on_plateau(factor=0.5, patience=1))
    ends = []
    for recorder in (None, lockstep.record.jax(tmp_path)):
        optimizer = recorder.wrap(rule) if recorder else rule
        parameters = {"w": jax.numpy.ones(3)}
        state = optimizer.init(parameters)
        for _ in range(4):  # of a loss that does not fall, the rate is halved
            updates, state = optimizer.update(parameters, state, parameters, value=1.0)
            parameters = optax.apply_updates(parameters, updates)
        ends.append(np.asarray(parameters["w"]))
    recorder.close()
    assert ends[0].tobytes() == ends[1].tobytes()
    assert ends[0][0] > 0.9**4 + 0.01
