"""How long comparing two large runs takes, beside reading them: `python -m benchmarks.comparing`.

A residual net of 8 million parameters in 87 tensors, with AdamW, K = 2, in PyTorch and in JAX: six
updates, three of which are kept whole. Both runs are read from the disk, one file after the other,
and then compared from there, each in a process of its own, which takes no page of them from memory.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

TOKENS, WIDTH, INNER, BLOCKS = 3000, 256, 1024, 14
UPDATES, K, EXAMPLES, LENGTH, RATE = 6, 2, 8, 16, 1e-3
CHUNK = 1 << 22
REPEATS = 5


def initial() -> dict[str, Any]:
    """The initial values, under PyTorch's names, (out, in)."""
    numbers = np.random.default_rng(0)

    def drawn(*shape: int) -> Any:
        return (numbers.standard_normal(shape) / shape[-1] ** 0.5).astype(np.float32)

    found = {"embedding.weight": drawn(TOKENS, WIDTH)}
    for i in range(BLOCKS):
        found |= {
            f"blocks.{i}.norm.weight": np.ones(WIDTH, np.float32),
            f"blocks.{i}.norm.bias": np.zeros(WIDTH, np.float32),
            f"blocks.{i}.inner.weight": drawn(INNER, WIDTH),
            f"blocks.{i}.inner.bias": drawn(INNER),
            f"blocks.{i}.outer.weight": drawn(WIDTH, INNER),
            f"blocks.{i}.outer.bias": drawn(WIDTH),
        }
    return found | {"head.weight": drawn(TOKENS, WIDTH), "head.bias": drawn(TOKENS)}


def windows() -> Any:
    """Tokens, and what comes next: (UPDATES, K, 2, EXAMPLES, LENGTH)."""
    return np.random.default_rng(1).integers(0, TOKENS, (UPDATES, K, 2, EXAMPLES, LENGTH))


def pytorch(folder: str) -> None:
    """Record the run in PyTorch."""
    import torch
    from torch import nn

    import lockstep.record

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.LayerNorm(WIDTH)
            self.inner, self.outer = nn.Linear(WIDTH, INNER), nn.Linear(INNER, WIDTH)

        def forward(self, x: Any) -> Any:
            return x + self.outer(nn.functional.gelu(self.inner(self.norm(x))))

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(TOKENS, WIDTH)
            self.blocks = nn.Sequential(*(Block() for _ in range(BLOCKS)))
            self.head = nn.Linear(WIDTH, TOKENS)

        def forward(self, tokens: Any) -> Any:
            return self.head(self.blocks(self.embedding(tokens)))

    model = Net()
    model.load_state_dict({name: torch.tensor(each) for name, each in initial().items()})
    optimizer = torch.optim.AdamW(model.parameters(), RATE, weight_decay=0.01)
    recorder = lockstep.record.torch(folder, model, optimizer)
    for window in windows():
        optimizer.zero_grad()
        for tokens, following in map(torch.tensor, window):
            logits = model(tokens).flatten(0, 1)
            (nn.functional.cross_entropy(logits, following.flatten()) / K).backward()
        optimizer.step()
    recorder.close()


def jax(folder: str) -> None:
    """Record the same run in JAX."""
    import jax
    import optax

    import lockstep.record

    values = initial()
    tree: dict[str, Any] = {}
    for name, value in values.items():
        *modules, kind = name.split(".")
        matrix = value.ndim == 2 and modules[-1] != "embedding"
        kernel = "kernel" if matrix else kind
        tree.setdefault(".".join(modules), {})[kernel] = value.T if matrix else value
    parameters = jax.tree.map(jax.numpy.array, tree)

    def dense(layer: Any, x: Any) -> Any:
        return x @ layer["kernel"] + layer["bias"]

    def loss(tree: Any, tokens: Any, following: Any) -> Any:
        x = tree["embedding"]["weight"][tokens]
        for i in range(BLOCKS):
            norm, inner, outer = (tree[f"blocks.{i}.{n}"] for n in ("norm", "inner", "outer"))
            normal = jax.nn.standardize(x, axis=-1, epsilon=1e-5) * norm["weight"] + norm["bias"]
            x = x + dense(outer, jax.nn.gelu(dense(inner, normal), approximate=False))
        logits = dense(tree["head"], x)
        return optax.softmax_cross_entropy_with_integer_labels(logits, following).mean() / K

    recorder = lockstep.record.jax(folder)
    optimizer = recorder.wrap(optax.adamw(RATE, weight_decay=0.01))
    gradient = recorder.gradient(jax.jit(jax.grad(loss)))
    state = optimizer.init(parameters)
    for window in windows():
        total = jax.tree.map(jax.numpy.zeros_like, parameters)
        for tokens, following in window:
            total = jax.tree.map(jax.numpy.add, total, gradient(parameters, tokens, following))
        updates, state = optimizer.update(total, state, parameters)
        parameters = optax.apply_updates(parameters, updates)
    recorder.close()


def forget(folder: Path) -> None:
    """Let go of the pages of files that are in memory, so that the disk is asked for them."""
    for file in folder.rglob("*.*"):
        handle = os.open(file, os.O_RDONLY)
        os.fsync(handle)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(handle)


def read(folder: Path) -> dict[str, Any]:
    """Read both runs, one file after the other."""
    buffer, size = bytearray(CHUNK), 0
    forget(folder)
    began = time.perf_counter()
    for file in folder.rglob("*.*"):
        with file.open("rb", buffering=0) as stream:
            while count := stream.readinto(buffer):
                size += count
    return {"seconds": time.perf_counter() - began, "bytes": size}


def compare(folder: Path) -> dict[str, Any]:
    """Compare them, from the disk, and once more from memory."""
    from lockstep.trace import compare_traces

    forget(folder)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    seconds = []
    for _ in range(2):
        began = time.perf_counter()
        found = compare_traces(folder / "pytorch", folder / "jax")
        seconds.append(time.perf_counter() - began)
        if found.verdict != "same":
            raise RuntimeError(f"{found.verdict}: {found.findings}")
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    return {"seconds": seconds[0], "again": seconds[1], "memory": memory}


def alone(what: str, folder: Path) -> Any:
    """Do it in a process of its own; what it says."""
    command = [sys.executable, "-m", "benchmarks.comparing", "--one", what, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Record both runs, read and compare them in turns, and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        what, folder = arguments.one[0], Path(arguments.one[1])
        if what in ("read", "compare"):
            print(json.dumps({"read": read, "compare": compare}[what](folder)))
        else:
            {"pytorch": pytorch, "jax": jax}[what](str(folder / what))
            print("null")
        return
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        for framework in ("pytorch", "jax"):
            alone(framework, folder)
        turns = [(alone("read", folder), alone("compare", folder)) for _ in range(REPEATS)]
    found = {
        "gigabytes": round(turns[0][0]["bytes"] / 1e9, 2),
        "read": round(statistics.median(each["seconds"] for each, _ in turns), 2),
        "compare": round(statistics.median(each["seconds"] for _, each in turns), 2),
        "again": round(statistics.median(each["again"] for _, each in turns), 2),
        "memory": round(max(each["memory"] for _, each in turns) / 1e9, 2),
    }
    print(
        "{gigabytes} GB: read in {read} s, compared in {compare} s from the disk and {again} s from"
        " memory; {memory} GB of memory, with the pages of the files".format(**found)
    )
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
