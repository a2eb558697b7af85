"""The layers of a model in Keras, and what of their calls was seen in a forward pass."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import keras

from lockstep.record.writer import RecordError


class Layers:
    """Which layers are looked at, by name; and what a step has shown of them."""

    def __init__(self, network: Any, activations: bool | Collection[str]) -> None:
        """Look at all layers, or at those of some names."""
        self.network = network
        self.asked = None if activations is True else frozenset(activations or ())
        self.known: set[int] = set()
        self.seen: dict[str, Any] = {}
        # Whether the model is called once more, only to be looked at.
        self.again = False

    def new(self) -> Iterator[tuple[str, Any]]:
        """The layers that were not there before, with their names."""
        for name, layer in layer_names(self.network).items():
            if id(layer) not in self.known and (self.asked is None or name in self.asked):
                self.known.add(id(layer))
                yield name, layer

    def returned(self) -> list[str]:
        """The layers in the order in which their calls returned."""
        return [key.split("|", 1)[1] for key in self.seen if key.startswith("output.0|")]

    def check(self) -> None:
        """Refuse names of no layer."""
        for name in sorted((self.asked or frozenset()) - layer_names(self.network).keys()):
            raise RecordError(f"activations: the model has no layer {name!r}")

    def check_seen(self) -> None:
        """Refuse a loop in which no layer can be seen."""
        self.check()
        if not self.returned():
            raise RecordError(
                "activations= sees no layer in a compiled loop of your own; use model.fit, or"
                " tf.config.run_functions_eagerly(True)"
            )


def layer_names(network: Any) -> dict[str, Any]:
    """A model's layers at any depth, by the path under which their parameters are known."""
    found: dict[str, Any] = {}
    layers = network._flatten_layers(include_self=False)
    within = any((layer.path or "").startswith(f"{network.name}/") for layer in layers)
    for parent, layer in descendants(network, network.name if within else ""):
        path, others = parent, 0
        while path in found and found[path] is not layer:
            others += 1
            path = f"{parent}#{others}"
        found[path] = layer
    return found


def descendants(layer: Any, path: str) -> Iterator[tuple[str, Any]]:
    """The layers within one, each with its path; some, such as Softmax, do not know their own."""
    for child in layer._flatten_layers(recursive=False, include_self=False):
        own = [variable.path.rpartition("/")[0] for variable in child._trainable_variables]
        name = own[0] if own else child.path or f"{path}/{child.name}".lstrip("/")
        yield name, child
        yield from descendants(child, name)


def arrays(values: Any) -> list[Any]:
    """The arrays among what a layer is called with, or returns."""
    return [
        value
        for value in keras.tree.flatten(values)
        if hasattr(value, "__array__")
        and not isinstance(value, keras.KerasTensor)
        and "string" not in str(value.dtype)
    ]


def training() -> bool:
    """Whether a gradient will be asked for of what is called now; JAX would be tracing it."""
    if keras.backend.backend() == "torch":
        import torch

        return torch.is_grad_enabled()
    if keras.backend.backend() == "jax":
        return False
    from tensorflow.python.eager import record

    return record.could_possibly_record()
