"""Traces that a test writes itself, with plain descent: no framework is needed for them."""

from pathlib import Path

import numpy as np

from lockstep.record.writer import Writer

RATE = 0.1


def write_trace(
    folder: Path, values, framework="pytorch", weights=(1.0, 1.0), updates=2, ends=0.0
) -> Path:
    """A run of plain descent whose micro-batches enter with these weights, on drawn gradients.

    ends: what is added to the parameters after the last update.
    """
    numbers = np.random.default_rng(1)
    writer = Writer(folder, framework)
    facts = [{"name": name, "shape": list(a.shape)} for name, a in values.items()]
    group = {"parameters": list(values), "lr": RATE}
    writer.run({"parameters": facts, "optimizers": [{"name": "SGD", "groups": [group]}]})
    before = dict(values)
    for update in range(1, updates + 1):
        drawn = [
            {name: numbers.standard_normal(a.size).reshape(a.shape) for name, a in values.items()}
            for _ in weights
        ]
        total = {n: sum(w * g[n] for w, g in zip(weights, drawn)) / len(weights) for n in values}
        more = ends if update == updates else 0.0
        after = {name: array - RATE * total[name] + more for name, array in before.items()}
        phases = {"before": before, "accumulated": total, "clipped": total, "after": after}
        phases |= {f"gradient.{index}": each for index, each in enumerate(drawn)}
        arrays = {f"{phase}|{n}": a for phase, each in phases.items() for n, a in each.items()}
        writer.update(update, arrays, {"rates": dict.fromkeys(values, RATE)})
        before = after
    return folder
