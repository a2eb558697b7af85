"""What `lockstep trace init` prints: what was placed, and by what, and how to load it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console

from lockstep.trace.initial import Initial, Placed
from lockstep.trace.words import NAMES
from lockstep.views.console import say, spaced

# How to load the file, by framework.
LOAD = {
    "pytorch": (
        "from safetensors.torch import load_file",
        "model.load_state_dict(load_file({file!r}), strict=False)  # buffers are not in it",
    ),
    "jax": (
        "from flax.traverse_util import unflatten_dict; from safetensors.flax import load_file",
        'params = unflatten_dict(load_file({file!r}), sep="/")',
    ),
    "keras": (
        "from safetensors.numpy import load_file; values = load_file({file!r})",
        "for v in model.variables: v.path in values and v.assign(values[v.path])",
    ),
}


def show(out: Console, found: Initial, file: Path) -> None:
    """The tensors that go by more than their names, what has no place, and how to load them."""
    for text, style in lines(found, file):
        say(out, text, style)


def lines(found: Initial, file: Path) -> Iterator[tuple[str, str]]:
    """The report, line by line, with its style."""
    numbers = spaced(sum(each.array.size for each in found.placed))
    side = NAMES[found.to] if found.like is None else f"{found.like.folder} ({NAMES[found.to]})"
    where = file if found.complete else "not written"
    yield (
        f"{where}: what {found.run.folder} begins with, as {side} has it:"
        f" {len(found.placed)} tensors, {numbers} numbers",
        "bold green" if found.complete else "bold red",
    )
    if found.like is None:
        yield (
            f"names and layouts are those of {NAMES[found.to]}'s own layers: --like a run of your"
            " model has its own",
            "yellow",
        )
    every = {
        "placed by convention, for their shapes fit other layouts too": [
            each for each in found.placed if each.by_convention
        ],
        "placed by their shapes, for their names do not say it: look at these": [
            each for each in found.placed if each.by_shape
        ],
    }
    for heading, placed in every.items():
        yield from listed(heading, placed)
    for heading, missing in (
        (f"without a place in {side}", found.left),
        (f"of {side}, without values", found.other_left),
    ):
        if missing:
            yield f"\n{heading}", "bold"
            yield from ((f"  {name}: {why}", "red") for name, why in missing.items())
    if found.complete:
        yield f"\nload it in {NAMES[found.to]}", "bold"
        yield from ((f"  {line.format(file=str(file))}", "") for line in LOAD[found.to])


def listed(heading: str, placed: Sequence[Placed]) -> Iterator[tuple[str, str]]:
    """Some tensors, each with what it is made of."""
    if placed:
        yield f"\n{heading}", "bold"
        for each in placed:
            how = f", {each.how}" if each.how else ""
            yield f"  {each.name} = {', '.join(each.sources)}{how}", ""
