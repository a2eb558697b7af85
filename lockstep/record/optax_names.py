"""What optax' trees and transformations say of themselves: names, and settings.

A transformation is a pair of functions; what it was made with is in their closures. That is read
only, and what is not found there is not known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
import optax

# What hands on to other transformations and has no setting of its own.
TRANSPARENT = ("chain", "named_chain", "with_extra_args_support", "masked", "partition")
# Under these, a link sees some of the parameters alone.
PARTIAL = ("masked", "partition", "multi_transform")


def join(path: Any) -> str:
    """The name of a leaf: its path, joined by "/"; what flax.nnx puts a value in has no part."""
    parts = []
    for key in path:
        part = next(
            (getattr(key, kind) for kind in ("key", "name", "idx") if hasattr(key, kind)), key
        )
        parts.append(str(part))
    if len(parts) > 1 and parts[-1] == "value":
        parts.pop()
    return "/".join(parts)


def named(tree: Any) -> dict[str, Any]:
    """The arrays of a tree of parameters (or gradients) by name; one array alone is `parameter`."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {join(path) or "parameter": leaf for path, leaf in leaves if is_array(leaf)}


def is_array(leaf: Any) -> bool:
    """Whether a leaf is an array of numbers (and no key of random numbers)."""
    if not hasattr(leaf, "dtype") or not hasattr(leaf, "shape"):
        return False
    return not jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def is_state(node: Any) -> bool:
    """Whether a node of a tree is one of optax' named states."""
    return isinstance(node, tuple) and hasattr(node, "_fields")


def states(tree: Any) -> Iterator[Any]:
    """The named states in a tree, in order, the outer ones before the inner ones."""
    for node in jax.tree_util.tree_leaves(tree, is_leaf=is_state):
        if is_state(node):
            yield node
            for value in node:
                yield from states(value)


def named_state(state: Any, parameters: dict[str, Any]) -> dict[str, Any]:
    """The arrays of an optimizer's state as `ScaleByAdamState.mu|layer/kernel`.

    An array that belongs to no parameter has nothing behind the bar. Where a name comes twice, the
    second has `#2` before the bar.
    """
    found: dict[str, Any] = {}
    for node in states(state):
        for field, value in zip(node._fields, node, strict=True):
            # The accumulator of optax.MultiSteps is empty again where an update ends.
            if (type(node).__name__, field) != ("MultiStepsState", "acc_grads"):
                _add(found, f"{type(node).__name__}.{field}", value, parameters)
    return found


def _add(found: dict[str, Any], prefix: str, value: Any, parameters: dict[str, Any]) -> None:
    """Add the arrays of a field of a state, without the named states in it."""
    for path, leaf in jax.tree_util.tree_flatten_with_path(value, is_leaf=is_state)[0]:
        if is_state(leaf) or not is_array(leaf):
            continue
        name = join(path) or ("parameter" if "parameter" in parameters else "")
        if name in parameters and (name != "parameter" or leaf.shape == parameters[name].shape):
            key = f"{prefix}|{name}"
        else:
            rest = "" if name in ("", "parameter", "value") else f".{name}"
            key = f"{prefix}{rest}|"
        head, owner = key.split("|", 1)
        number = 1
        while key in found:
            number += 1
            key = f"{head}#{number}|{owner}"
        found[key] = leaf


def links(transformation: Any, partial: bool = False) -> list[dict[str, Any]]:
    """The links of a chain in order, each with its name and the settings it was made with.

    `mask` and `schedule` are kept as they are, and `partial` says that a link sees some of the
    parameters alone. Functions without a closure have nothing to tell.
    """
    if isinstance(transformation, optax.MultiSteps):
        return [{"name": "MultiSteps", "partial": partial}, *links(transformation.inner_opt)]
    return _of_function(getattr(transformation, "update", transformation), partial)


def _of_function(function: Any, partial: bool) -> list[dict[str, Any]]:
    """The links behind an update function."""
    if isinstance(getattr(function, "__self__", None), optax.MultiSteps):
        return links(function.__self__)
    name = getattr(function, "__qualname__", "").split(".")[0]
    inside = _closure(function)
    known: dict[str, Any] = {"name": name, "partial": partial}
    known |= {key: value for key, value in inside.items() if _plain(value)}
    if callable(inside.get("step_size_fn")):
        known["schedule"] = inside["step_size_fn"]
    found = [] if name in TRANSPARENT else [known]
    for key, value in inside.items():
        if key in ("init", "init_fn", "init_fns", "inner_factory"):
            continue
        for child in value.values() if isinstance(value, dict) else _several(value):
            if _transforms(key, child):
                found += links(child, partial or name in PARTIAL)
    if "mask" in inside and name == "masked":
        found = [{"mask": inside["mask"]} | link for link in found]
    return found


def _closure(function: Any) -> dict[str, Any]:
    """The names and values that a function closes over."""
    names = getattr(getattr(function, "__code__", None), "co_freevars", ())
    found = {}
    for name, cell in zip(names, getattr(function, "__closure__", None) or (), strict=True):
        try:
            found[name] = cell.cell_contents
        except ValueError:  # not set yet
            continue
    return found


def _several(value: Any) -> tuple[Any, ...]:
    """The members of a plain tuple or list, or the value alone."""
    return tuple(value) if isinstance(value, (tuple, list)) and not is_state(value) else (value,)


def _transforms(key: str, child: Any) -> bool:
    """Whether a member of a closure is a transformation, or the update function of one."""
    if isinstance(child, (optax.GradientTransformation, optax.MultiSteps)):
        return True
    return key == "update_fns" and callable(child)


def _plain(value: Any) -> bool:
    """Whether a setting is a number, a flag or a text."""
    return isinstance(value, (bool, int, float, str))


def rate(found: list[dict[str, Any]], state: Any) -> Any:
    """The learning rate of the update that starts at a state, or None where it cannot be seen.

    It is what the links that only scale multiply by, all together and turned around.
    """
    injected = [node for node in states(state) if "hyperparams" in node._fields]
    if injected:
        return injected[0].hyperparams.get("learning_rate") if len(injected) == 1 else None
    scales = [link for link in found if link["name"] in ("scale", "scale_by_schedule")]
    counts = [node.count for node in states(state) if type(node).__name__ == "ScaleByScheduleState"]
    schedules = [link["schedule"] for link in scales if "schedule" in link]
    constants = [link["step_size"] for link in scales if "step_size" in link]
    if not scales or any(link["partial"] for link in scales):
        return None
    if len(counts) != len(schedules) or len(schedules) + len(constants) != len(scales):
        return None
    product: Any = -1
    for constant in constants:
        product = product * constant
    for schedule, count in zip(schedules, counts, strict=True):
        product = product * schedule(getattr(count, "value", count))
    return product


def decays(found: list[dict[str, Any]], parameters: Any) -> dict[str, float]:
    """The weight decay of each parameter, where one link of the chain adds it."""
    adding = [link for link in found if link["name"] == "add_decayed_weights"]
    if len(adding) != 1 or not isinstance(adding[0].get("weight_decay"), (int, float)):
        return {}
    link, mask = adding[0], adding[0].get("mask")
    if mask is None:
        return {} if link["partial"] else dict.fromkeys(named(parameters), link["weight_decay"])
    taken = _masked(mask, parameters)
    if taken is None:
        return {}
    return {name: link["weight_decay"] * bool(value) for name, value in taken.items()}


def _masked(mask: Callable[[Any], Any] | Any, parameters: Any) -> dict[str, Any] | None:
    """Whether each parameter is in a mask, or None where the mask is of another form."""
    tree = mask(parameters) if callable(mask) else mask
    names = [join(path) or "parameter" for path, _ in
             jax.tree_util.tree_flatten_with_path(parameters)[0]]  # fmt: skip
    try:
        flags = jax.tree_util.tree_leaves(
            jax.tree.map(lambda flag, part: jax.tree.map(lambda _: flag, part), tree, parameters)
        )
    except (ValueError, TypeError):
        return None
    return dict(zip(names, flags, strict=True)) if len(flags) == len(names) else None
