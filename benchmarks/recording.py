"""What a recorder costs a real update, in time and memory: `python -m benchmarks.recording`.

An MLP of 25 million parameters in float32, AdamW, K micro-batches an update. A run with a recorder
and one without are processes of their own, which take turns, an update each, so that a busy moment
of the machine meets both. What is timed are updates of which sketches are kept, after a whole one.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.memory import forget_peak, resident

# Layers of so many units, and examples of a micro-batch: an update takes about a second.
LAYERS, WIDTH, EXAMPLES, K = 6, 2048, 192, 2
# One update that is kept whole, and some until all is compiled and every buffer there.
FULL, WARM, TIMED = 1, 4, 15
MODES = {
    "pytorch": ("loop",),
    "jax": ("jit", "scan"),
    "keras": ("fit", "fit, K = 1", "fit, XLA", "loop", "loop, XLA"),
}
# The time that passes, and what all cores take, which other work of the machine changes less.
CLOCKS = ("seconds", "cpu")


def weights() -> list[Any]:
    """The kernels to begin with, and zeros for the biases."""
    rng = np.random.default_rng(0)
    kernels = [rng.standard_normal((WIDTH, WIDTH), np.float32) for _ in range(LAYERS)]
    return [kernel * np.float32((2 / WIDTH) ** 0.5) for kernel in kernels]


def data() -> tuple[Any, Any]:
    """A micro-batch; all are the same one, for what is in it does not change the time."""
    rng = np.random.default_rng(1)
    x, y = (rng.standard_normal((EXAMPLES, WIDTH), np.float32) for _ in range(2))
    return x, y


class Clock:
    """Times updates when it is told to, through pipes: the other process waits meanwhile."""

    def begin(self) -> None:
        """Wait for the word; before the first update that counts, forget how large memory was."""
        if not sys.stdin.readline():
            os._exit(0)
        forget_peak()
        self.began, self.cpu = time.perf_counter(), time.process_time()

    def end(self) -> None:
        """Tell how long the update took, on all cores too, and the most memory in use."""
        seconds, cpu = time.perf_counter() - self.began, time.process_time() - self.cpu
        found = {"seconds": seconds, "cpu": cpu, "memory": resident("VmHWM")}
        print(json.dumps(found), flush=True)


def pytorch(mode: str, folder: str | None, clock: Clock) -> None:
    """A loop in PyTorch."""
    import torch

    import lockstep.record

    layers: list[Any] = []
    for kernel in weights():
        layer = torch.nn.Linear(WIDTH, WIDTH)
        with torch.no_grad():
            layer.weight.copy_(torch.from_numpy(kernel))
        layers += [layer, torch.nn.ReLU()]
    model = torch.nn.Sequential(*layers[:-1])
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4)
    if folder:
        lockstep.record.torch(folder, model, optimizer, full=FULL)
    x, y = (torch.from_numpy(array) for array in data())
    while True:
        clock.begin()
        optimizer.zero_grad()
        for _ in range(K):
            (torch.nn.functional.mse_loss(model(x), y) / K).backward()
        optimizer.step()
        clock.end()


def jax(mode: str, folder: str | None, clock: Clock) -> None:
    """A micro-step that is compiled, or a whole window; buffers are donated."""
    import jax
    import jax.numpy as jnp
    import optax

    import lockstep.record

    def loss(params: Any, x: Any, y: Any) -> Any:
        for number, (kernel, bias) in enumerate(params):
            x = (jax.nn.relu(x) if number else x) @ kernel + bias
        return jnp.mean((x - y) ** 2)

    optimizer: Any = optax.MultiSteps(optax.adamw(1e-4), K)
    gradients = jax.value_and_grad(loss)
    if folder:
        recorder = lockstep.record.jax(folder, full=FULL)
        optimizer, gradients = recorder.wrap(optimizer), recorder.gradient(gradients)

    def micro_step(carry: Any, batch: Any) -> Any:
        params, state = carry
        value, found = gradients(params, *batch)
        changes, state = optimizer.update(found, state, params)
        return (optax.apply_updates(params, changes), state), value

    params = [(jnp.asarray(kernel), jnp.zeros(WIDTH)) for kernel in weights()]
    carry, batch = (params, optimizer.init(params)), tuple(map(jnp.asarray, data()))
    step = jax.jit(micro_step, donate_argnums=0)
    window = jax.jit(lambda carry, xs: jax.lax.scan(micro_step, carry, xs), donate_argnums=0)
    several = jax.tree.map(lambda array: jnp.stack([array] * K), batch)
    while True:
        clock.begin()
        if mode == "scan":
            carry, _ = window(carry, several)
        else:
            for _ in range(K):
                carry, _ = step(carry, batch)
        jax.block_until_ready(carry)
        jax.effects_barrier()
        clock.end()


def keras(mode: str, folder: str | None, clock: Clock) -> None:
    """`fit`, or a loop of one's own, on TensorFlow."""
    os.environ["KERAS_BACKEND"] = "tensorflow"
    import keras

    layers: list[Any] = [keras.layers.Dense(WIDTH, "relu") for _ in range(LAYERS - 1)]
    model = keras.Sequential([keras.Input((WIDTH,)), *layers, keras.layers.Dense(WIDTH)])
    for layer, kernel in zip(model.layers, weights(), strict=True):
        layer.set_weights([kernel, np.zeros(WIDTH, np.float32)])
    several = None if "K = 1" in mode else K
    optimizer = keras.optimizers.AdamW(1e-4, gradient_accumulation_steps=several)
    model.compile(optimizer, "mse", jit_compile="XLA" in mode)
    (keras_fit if mode.startswith("fit") else keras_loop)(model, folder, clock, several or 1)


def keras_fit(model: Any, folder: str | None, clock: Clock, k: int) -> None:
    """`fit`, whose callbacks wait for the word."""
    import keras
    import tensorflow as tf

    import lockstep.record

    class Waits(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
            if batch % k == 0:
                clock.begin()

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            if batch % k == k - 1:
                clock.end()

    callbacks = [lockstep.record.keras(folder, model, full=FULL)] if folder else []
    batches = tf.data.Dataset.from_tensors(data()).repeat()
    model.fit(batches, steps_per_epoch=10**6, callbacks=[*callbacks, Waits()], verbose=0)


def keras_loop(model: Any, folder: str | None, clock: Clock, k: int) -> None:
    """A loop of one's own, in a graph."""
    import tensorflow as tf

    import lockstep.record

    optimizer = model.optimizer
    recorder = (
        lockstep.record.keras(folder, model, optimizer=optimizer, full=FULL) if folder else None
    )
    x, y = (tf.constant(array) for array in data())

    @tf.function(jit_compile=model.jit_compile)
    def micro_step(x: Any, y: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((model(x, training=True) - y) ** 2)
        variables = model.trainable_variables
        optimizer.apply(tape.gradient(loss, variables), variables)
        return loss

    while True:
        clock.begin()
        for _ in range(k):
            float(micro_step(x, y))
            if recorder:
                recorder.update()
        clock.end()


class Process:
    """A run in a process of its own, which takes an update when it is told to."""

    def __init__(self, framework: str, mode: str, folder: str) -> None:
        """Start it; without a folder, it is not recorded."""
        command = [sys.executable, "-m", "benchmarks.recording", "--one", framework, mode, folder]
        self.name, pipe = f"{framework}, {mode}", subprocess.PIPE
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
        self.run = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment)

    def update(self) -> dict[str, float]:
        """Let it take one: its seconds, and the most memory that it had."""
        assert self.run.stdin is not None
        assert self.run.stdout is not None
        self.run.stdin.write("\n")
        self.run.stdin.flush()
        said = self.run.stdout.readline()
        if not said:
            raise SystemExit(f"benchmarks.recording: {self.name} ended")
        return dict(json.loads(said))

    def end(self) -> None:
        """Let it end, which it does when nothing more comes."""
        assert self.run.stdin is not None
        self.run.stdin.close()
        self.run.wait()


def measure(framework: str, mode: str, updates: int) -> dict[str, Any]:
    """Let both runs take turns; the ratio is that of an update and the one beside it."""
    with tempfile.TemporaryDirectory() as folder:
        plain, recorded = (Process(framework, mode, at) for at in ("", f"{folder}/run"))
        rounds = [(plain.update(), recorded.update()) for _ in range(WARM + updates)][WARM:]
        for process in (plain, recorded):
            process.end()
    found: dict[str, Any] = {"framework": framework, "mode": mode}
    for clock in CLOCKS:
        plain_time, recorded_time = (
            statistics.median(e[clock] for e in run) for run in zip(*rounds)
        )
        ratio = statistics.median(after[clock] / before[clock] for before, after in rounds)
        found[clock] = [round(each, 3) for each in (plain_time, recorded_time, ratio)]
    without, beside = (max(each["memory"] for each in run) for run in zip(*rounds))
    return found | {"extra": round((beside - without) / copy_size(), 2)}


def copy_size() -> int:
    """The bytes of one copy of the parameters."""
    return LAYERS * (WIDTH + 1) * WIDTH * 4


def main() -> None:
    """Measure what is asked for, and print a line for each mode."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=MODES, action="append", help="a framework; several times")
    parser.add_argument("--mode", help="one mode of it")
    parser.add_argument("--updates", type=int, default=TIMED)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        framework, mode, folder = arguments.one
        {"pytorch": pytorch, "jax": jax, "keras": keras}[framework](mode, folder or None, Clock())
    print(f"{copy_size() / 4e6:.1f} M parameters, K = {K}, medians of {arguments.updates} updates")
    print("                         seconds               of all cores          extra memory,")
    print("framework  mode        plain recorded ratio  plain recorded ratio  in parameters")
    found = []
    for framework in arguments.only or MODES:
        for mode in MODES[framework]:
            if arguments.mode in (None, mode):
                each = measure(framework, mode, arguments.updates)
                found.append(each)
                times = "  ".join("{:5.2f} {:8.2f} {:5.2f}".format(*each[c]) for c in CLOCKS)
                print(f"{framework:9}  {mode:10}  {times}  {each['extra']:5.2f}", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
