"""Recording a run in JAX: the same bits with and without, and whole updates of every loop."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open

jax = pytest.importorskip("jax")
optax = pytest.importorskip("optax")
jnp = jax.numpy

import lockstep.record  # noqa: E402
from lockstep.record.writer import RecordError  # noqa: E402

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


def train(way: str, recorder: Any = None, steps: int = 1) -> Any:
    """Train in one of the ways that people do, and return the parameters."""
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

    params = start()
    carry = (params, optimizer.init(params))
    if way == "scan":
        carry, _ = jax.jit(lambda carry: jax.lax.scan(step, carry, data()))(carry)
        return carry[0]
    if way == "jit":
        step = jax.jit(step, donate_argnums=0)
    for x in data():
        carry, _ = step(carry, x)
    return carry[0]


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
    assert "state-before.ScaleByAdamState.mu|layer/kernel" in first
    assert not [name for name in second if name.startswith("state-before.")]
    for number, (arrays, facts) in enumerate(updates):
        assert len(facts["micro_batches"]) == steps
        assert all("loss" in one and one["data"] for one in facts["micro_batches"])
        assert facts["decays"] == {"layer/bias": 0.0, "layer/kernel": 0.1}
        assert facts["rates"]["layer/bias"] == pytest.approx(0.1 - 0.005 * number)
        assert float(arrays["state.ScaleByAdamState.count|"].reshape(())) == number + 1
    assert (updates[-1][0]["after|layer/bias"] == np.asarray(recorded["layer"]["bias"])).all()
    assert updates[-1][0]["after|layer/kernel"].shape == (16, 16)


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
    """A sketch has the entries, the norm and the sum of what a whole update has."""
    with lockstep.record.jax(tmp_path / "whole", full=9) as recorder:
        train("jit", recorder)
    with lockstep.record.jax(tmp_path / "sketched", full=0) as recorder:
        train("jit", recorder)
    whole, (sketched, facts) = read(tmp_path / "whole")[2][0], read(tmp_path / "sketched")[2]
    for name, (norm, total, shape) in facts["sizes"].items():
        if not shape:
            continue
        assert shape == list(whole[name].shape)
        assert norm == pytest.approx(np.linalg.norm(whole[name]), rel=1e-5, abs=1e-12)
        assert total == pytest.approx(whole[name].sum(dtype=float), rel=1e-3, abs=1e-5)
        assert (sketched[name] == lockstep.record.writer.sketch(whole[name])).all()


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
