"""Records a run in Keras, on TensorFlow, JAX or PyTorch: `fit`, and loops of one's own.

What an optimizer gets is seen in its own methods, which are wrapped while the run is recorded:
`_backend_apply_gradients` (each micro-batch), `_clip_gradients` and `_backend_update_step` (once a
window). In a graph of TensorFlow, compiled or not, what passes there is assigned to variables of
the recorder's, which are read when the step is over. A step of JAX's returns it beside its logs.

    recorder = lockstep.record.keras("run-c/", model)
    model.fit(..., callbacks=[recorder])

A loop of one's own says which optimizer it has; `data` names what a micro-batch is made of.

    recorder = lockstep.record.keras("run-c/", model, optimizer=optimizer)
    recorder.data(x, y)  # before each micro-batch, where its fingerprint is wanted
    recorder.update()  # after each call of a `tf.function`, in which nothing else can be seen
    recorder.close()  # at the end, or use it in a `with`
"""

from __future__ import annotations

import atexit
import functools
import importlib
import os
import sys
import weakref
from collections.abc import Callable, Collection, Iterator
from typing import Any

import keras
import numpy as np

from lockstep.record.keras_layers import Layers, arrays, training
from lockstep.record.keras_tensors import (
    Cells,
    Kept,
    compiled_by_xla,
    copied,
    dense,
    either,
    graph,
    host,
    is_sketch,
    pieces,
    sketches,
)
from lockstep.record.writer import (
    LARGE,
    MEASURED,
    STATISTICS,
    Array,
    RecordError,
    Writer,
    activation_key,
    fingerprint,
)

# The backend's own package.
PACKAGES = {"tensorflow": "tensorflow", "jax": "jax", "torch": "torch"}
# Under which name a step of JAX's returns what was seen, beside its logs.
SEEN = "lockstep"
# Slots of an optimizer's that belong to no parameter stand under this name.
NOBODY = ""
UNREAD = "nothing was recorded of a compiled step: call recorder.update() after each call of it"


def complain(reference: weakref.ref[Recorder]) -> None:
    """Say at the process' end what `close` would have."""
    recorder = reference()
    if recorder is not None and recorder.unread:
        print(f"lockstep.record: {UNREAD}", file=sys.stderr)


def renamed(found: dict[str, Kept], phase: str, other: str) -> dict[str, Kept]:
    """What was kept under a phase, under another one."""
    begins = f"{phase}|"
    return {
        f"{other}|{key.removeprefix(begins)}": kept
        for key, kept in found.items()
        if key.startswith(begins)
    }


class Recorder(keras.callbacks.Callback):
    """Writes a trace of a run of `model`: a callback of `fit`, or attached to `optimizer`.

    full, every, at: of which updates whole tensors are kept (see `Writer`). activations: True for
    all layers, or the names of some, of which inputs and outputs are kept, and the data with them,
    in the first micro-batch of whole updates.

    Raises RecordError where a run cannot be recorded.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        model: Any,
        optimizer: Any = None,
        full: int = 3,
        every: int | None = None,
        at: Collection[int] = (),
        activations: bool | Collection[str] = False,
    ) -> None:
        """Attach to the optimizer that is given, or the compiled one where there is one yet."""
        super().__init__()
        self.backend = keras.backend.backend()
        if self.backend not in PACKAGES:
            raise RecordError(f"Keras on {self.backend} is not recorded; use {', '.join(PACKAGES)}")
        self.writer = Writer(folder, "keras", full, every, at)
        # Not `model`: that property of a callback's copies JAX's state back.
        self.network = model
        self.layers = Layers(model, activations) if activations else None
        self.cells = Cells(self.writer.whole(1)) if self.backend == "tensorflow" else None
        self.wrapped: list[tuple[Any, str]] = []
        self.outer: Any = None
        self.optimizer: Any = None
        # What was put by the step that runs, and what a step of JAX's left of the variables.
        self.values: dict[str, list[Any]] = {}
        self.state: dict[int, Any] = {}
        # Of the window that runs: its arrays, and facts of its micro-batches.
        self.arrays: dict[str, Kept] = {}
        self.window: list[dict[str, Any]] = []
        self.inputs: list[list[dict[str, Any]]] = []
        self.given: list[Array] = []
        self.modules: list[str] | None = None
        self.slots_before: dict[str, Array] | None = None
        self.fitting, self.keeping, self.described = False, True, False
        self.held = True
        # Whether a graph of a loop of one's own was made, and nothing was read after it ran.
        self.unread = False
        atexit.register(complain, weakref.ref(self))
        self.variables: list[Any] = []
        self.clips = self.loss_seen = False
        self.skipped = self.started = 0
        self.functions: dict[bool, Any] = {}
        optimizer = optimizer or getattr(model, "optimizer", None)
        if optimizer is not None:
            self.attach(optimizer)

    # What is wrapped.

    def attach(self, optimizer: Any) -> None:
        """Wrap what an optimizer's updates go through."""
        if optimizer is self.outer and self.wrapped:
            return
        self.detach()
        self.outer = optimizer
        self.optimizer = getattr(optimizer, "inner_optimizer", optimizer)
        if self.outer is not self.optimizer and self.backend == "jax":
            raise RecordError("LossScaleOptimizer on JAX is not recorded; record on TensorFlow")
        self.wrap(self.optimizer, "_backend_apply_gradients", self.saw_gradients)
        self.wrap(self.optimizer, "_clip_gradients", self.saw_clipping)
        self.wrap(self.optimizer, "_backend_update_step", self.saw_update)
        self.wrap(self.outer, "scale_loss", self.saw_loss)
        self.wrap(self.outer, "apply", self.saw_apply)
        if self.layers is not None:
            self.wrap(self.network, "call", self.network_called)
            self.wrap_layers()
            if self.network.built:
                self.layers.check()
        self.started = self.iterations()
        self.scale = self.loss_scale()

    def wrap(self, owner: Any, name: str, seen: Callable[..., Any]) -> None:
        """Put `seen` before a method: it gets the method, and what that is called with."""
        method = getattr(owner, name)

        def wrapper(*arguments: Any, **named: Any) -> Any:
            return seen(method, *arguments, **named)

        if self.backend == "tensorflow":
            import tensorflow as tf

            # In a loop of one's own, AutoGraph would rewrite the recorder.
            wrapper = tf.autograph.experimental.do_not_convert(wrapper)
        setattr(owner, name, wrapper)
        self.wrapped.append((owner, name))

    def __enter__(self) -> Recorder:
        """As a context, it is closed at the end."""
        return self

    def __exit__(self, kind: Any, *_: Any) -> None:
        """Close; what was raised is not covered up."""
        self.unread = self.unread and kind is None
        self.close()

    def close(self) -> None:
        """Leave optimizer and model as they were, at the end of a loop of one's own.

        Raises RecordError where it has seen nothing of a loop that is compiled.
        """
        self.detach()
        unread, self.unread = self.unread, False
        if unread:
            raise RecordError(UNREAD)

    def detach(self) -> None:
        """Leave optimizer and model as they were."""
        for owner, name in reversed(self.wrapped):
            delattr(owner, name)
        self.wrapped = []
        if self.layers is not None:
            self.layers.known.clear()

    def wrap_layers(self) -> None:
        """See what goes through the layers; some are made only when the model is built."""
        assert self.layers is not None
        for name, layer in self.layers.new():
            self.wrap(layer, "call", functools.partial(self.layer_called, name))

    def network_called(self, call: Any, /, *inputs: Any, **named: Any) -> Any:
        """Keep what the model is called with, where nobody has said what the data are."""
        self.wrap_layers()
        if not self.inputs and self.watching("data.0|0"):
            for index, value in enumerate(arrays((inputs, list(named.values())))):
                self.see(f"data.0|{index}", value)
        if self.layers is not None and self.layers.asked is None:
            return self.layer_called("", call, *inputs, **named)
        return call(*inputs, **named)

    def layer_called(self, name: str, call: Any, /, *inputs: Any, **named: Any) -> Any:
        """Keep what goes into a layer and comes out, the first time that it is called."""
        outputs = call(*inputs, **named)
        if self.watching(f"output.0|{name}"):
            for phase, values in (("input", (inputs, list(named.values()))), ("output", outputs)):
                for index, value in enumerate(arrays(values)):
                    self.see(activation_key(phase, index, name), value)
        return outputs

    def watching(self, key: str) -> bool:
        """Whether what has a key is to be kept: in the first micro-batch of whole updates, once."""
        assert self.layers is not None
        if self.window or key in self.layers.seen or not self.writer.whole(self.number):
            return False
        return graph() is None and (self.layers.again or training())

    def see(self, key: str, value: Any) -> None:
        """Keep something that a layer was called with or returned, whole."""
        assert self.layers is not None
        if self.concrete(value):
            self.layers.seen[key] = copied(dense(value))

    def second_pass(self, batch: Any, state: Any) -> None:
        """Show the layers where `fit` compiles its own pass: once more, leaving nothing behind.

        To look into what is compiled would keep operations from being fused, and change roundings.
        """
        layers, network = self.layers, self.network
        eager = self.backend == "torch" or (self.backend == "tensorflow" and network.run_eagerly)
        if layers is None or eager or self.window or not self.keeping:
            return
        inputs, _, _ = keras.utils.unpack_x_y_sample_weight(batch)
        variables = network.trainable_variables, network.non_trainable_variables
        if self.backend == "jax":
            values = state[:2]
        else:
            values = tuple([dense(variable) for variable in each] for each in variables)
        trains = {"training": True} if network._call_has_training_arg else {}
        layers.again = True
        try:
            network.stateless_call(*values, inputs, **trains)
        finally:
            layers.again = False

    def concrete(self, value: Any) -> bool:
        """Whether something has a value now: it is not a symbol that JAX traces."""
        if self.backend != "jax":
            return True
        import jax

        return not isinstance(value, jax.core.Tracer)

    # What is seen.

    def saw_loss(self, method: Any, loss: Any) -> Any:
        """Keep a loss before it is scaled."""
        # On JAX it is inside what is differentiated, and seen elsewhere.
        if not (self.backend == "jax" and self.fitting) and len(loss.shape) == 0:
            self.loss_seen = True
            self.put("loss|", loss)
        return method(loss)

    def saw_gradients(self, method: Any, gradients: Any, variables: Any) -> Any:
        """Keep a micro-batch's gradient, as it comes to the optimizer, unscaled."""
        self.check_place(gradients)
        self.variables = list(variables)
        if self.slots_before is None:
            self.before_first()
        for gradient, variable in zip(gradients, variables, strict=True):
            self.put(f"gradient|{self.name(variable)}", gradient, variable.shape)
        return method(gradients, variables)

    def check_place(self, gradients: Any) -> None:
        """Refuse where what is seen cannot be read afterwards."""
        if self.backend == "tensorflow":
            import tensorflow as tf

            if tf.distribute.get_strategy().num_replicas_in_sync > 1:
                raise RecordError("several replicas are not recorded; record a run on one")
        if self.backend == "jax" and not self.fitting and not self.concrete(gradients[0]):
            raise RecordError(
                "stateless_apply in a loop of your own is not seen by lockstep.record.keras; use"
                " model.fit, or call optimizer.apply outside of jax.jit"
            )

    def saw_clipping(self, method: Any, gradients: Any) -> Any:
        """Keep the window's gradient, the parameters before, and the rate, once a window."""
        if not self.apart:
            for variable in self.variables:
                self.put(f"before|{self.name(variable)}", variable)
        self.put("rate|", self.optimizer.learning_rate)
        if self.accumulation > 1:
            for gradient, variable in zip(gradients, self.variables, strict=True):
                self.put(f"accumulated|{self.name(variable)}", gradient, variable.shape)
        clipped = method(gradients)
        self.clips = any(new is not old for new, old in zip(clipped, gradients, strict=True))
        return clipped

    def saw_update(self, method: Any, gradients: Any, variables: Any, rate: Any) -> Any:
        """Keep what the optimizer's rule gets."""
        if self.clips:
            for gradient, variable in zip(gradients, variables, strict=True):
                self.put(f"clipped|{self.name(variable)}", gradient, variable.shape)
        return method(gradients, variables, rate)

    def saw_apply(self, method: Any, *arguments: Any, **named: Any) -> Any:
        """Write an update that a loop of one's own made, where it ran eagerly."""
        if self.fitting:
            return method(*arguments, **named)
        eager = graph() is None
        self.unread = not eager
        if eager:
            self.keeping = self.writer.whole(self.number)
        result = method(*arguments, **named)
        if eager:
            self.update()
        return result

    def put(self, key: str, value: Any, shape: Any = None) -> None:
        """Keep something until the step is over: whole, or its sketch, and norm if asked for.

        Its shape may be known where a graph does not know it, as of the rows of an embedding.
        """
        measured = self.measured(key)
        if graph() is None:
            kept = pieces(value, self.holding, measured, shape)
            self.values[key] = [copied(piece) for piece in kept]
            return
        assert self.cells is not None
        if self.fitting or compiled_by_xla():
            kept = pieces(value, self.holding, measured, shape)
        else:
            kept = either(self.cells.whole, value, measured, shape)
        self.cells.assign(self.seen_whole, key, kept)

    @property
    def holding(self) -> bool:
        """Whether what is put is held whole, though it may be sketched when the step is over.

        A sketch in a program that XLA compiles would change the roundings of the update beside it.
        """
        return self.seen_whole or self.compiled

    @property
    def compiled(self) -> bool:
        """Whether XLA compiles the steps of `fit`."""
        return bool(self.fitting and self.network.jit_compile and not self.network.run_eagerly)

    @property
    def apart(self) -> bool:
        """Whether parameters are sketched before the step: within, all would have to be copied."""
        return self.compiled and self.backend == "tensorflow" and not self.keeping

    @property
    def seen_whole(self) -> bool:
        """Whether the step that runs is one of which all is kept, or may be.

        In a loop of one's own, a graph is traced once, for all updates.
        """
        return self.keeping or (not self.fitting and graph() is not None)

    # When a step is over.

    def data(self, *arrays: Any, loss: Any = None) -> None:
        """Say what the next micro-batch of a loop of one's own is made of.

        Those of a loop that adds gradients up by itself are all of them said before its update.
        """
        found = [array for array in keras.tree.flatten(arrays) if hasattr(array, "shape")]
        given = [host(array) for array in found]
        self.given = self.given or given
        self.inputs.append([fingerprint(array) for array in given])
        if loss is not None:
            self.values["loss|"] = [loss]

    def update(self) -> None:
        """Read what the last micro-batch left, and write the window where it ended."""
        self.unread = False
        if self.optimizer is None:
            raise RecordError("no optimizer: lockstep.record.keras(folder, model, optimizer=...)")
        self.describe()
        iterations = self.iterations()
        calls, self.started = iterations - self.started, iterations
        scale, self.scale = self.scale, self.loss_scale()
        if calls == 0:
            self.skip()
        elif calls > 1:
            raise RecordError(
                f"{calls} micro-batches ran in one step; apply the optimizer once a step, and call"
                " recorder.update() after each call of a tf.function"
            )
        else:
            ends = iterations % self.accumulation == 0
            found = self.read(ends)
            self.micro_batch(found)
            if ends:
                self.finish(found, scale)
        self.values, self.given = {}, []
        if self.layers is not None:
            self.layers.seen = {}

    def skip(self) -> None:
        """Count a micro-batch that was left out because its gradient was not finite."""
        if self.outer is self.optimizer:
            raise RecordError(
                f"{type(self.optimizer).__name__} took no step: does the loop use another one?"
                " lockstep.record.keras(folder, model, optimizer=...)"
            )
        self.skipped += 1
        self.inputs = []

    def micro_batch(self, found: dict[str, Kept]) -> None:
        """Keep a micro-batch's gradient and facts."""
        index = len(self.window)
        if self.layers is not None and not index and self.writer.whole(self.number):
            self.take_activations(self.layers)
        # An optimizer that adds up nothing may get the sum of several micro-batches' gradients.
        several = self.inputs if self.accumulation == 1 else self.inputs[-1:]
        facts: list[dict[str, Any]] = [{"data": each} for each in several or [[]]]
        if "loss|" in found:
            facts[-1]["loss"] = float(found["loss|"][0])
        if len(facts) == 1:
            self.arrays |= renamed(found, "gradient", f"gradient.{index}")
        self.window += facts
        self.inputs = []

    def finish(self, found: dict[str, Kept], scale: float | None) -> None:
        """Write an update."""
        number, whole = self.number, self.writer.whole(self.number)
        # With one micro-batch, its gradient is what is accumulated.
        accumulated = "accumulated" if self.accumulation > 1 else "gradient"
        self.arrays |= renamed(found, accumulated, "accumulated")
        self.arrays |= renamed(found, "clipped" if self.clips else accumulated, "clipped")
        left = ("before|", "after|", "state.")
        self.arrays |= {key: kept for key, kept in found.items() if key.startswith(left)}
        facts = self.facts(found, scale)
        arrays = {key: array for key, (array, _) in self.arrays.items()}
        sizes = {} if whole else {n: norm for n, (array, norm) in self.arrays.items() if array.ndim}
        # Of the state before there are whole arrays, which the writer sketches.
        arrays |= {f"state-before.{key}": slot for key, slot in (self.slots_before or {}).items()}
        self.slots_before = {}
        self.writer.update(number, arrays, facts | {"sizes": sizes})
        self.arrays, self.window, self.modules, self.skipped = {}, [], None, 0
        if self.cells is not None:
            self.cells.whole.assign(self.writer.whole(self.number))
        if self.writer.whole(self.number) and not whole:
            self.slots_before = self.slots()

    @property
    def number(self) -> int:
        """Which update is under way."""
        return self.writer.written + 1

    @property
    def accumulation(self) -> int:
        """How many micro-batches a window has."""
        return self.optimizer.gradient_accumulation_steps or 1

    def iterations(self) -> int:
        """How many micro-batches the optimizer has counted."""
        return int(host(self.value(self.optimizer._iterations)))

    def loss_scale(self) -> float | None:
        """What the loss is multiplied by."""
        if self.outer is self.optimizer:
            return self.optimizer.loss_scale_factor
        if not self.outer.built:
            return float(self.outer.initial_scale)
        return float(host(self.outer.dynamic_scale))

    def read(self, ends: bool) -> dict[str, Kept]:
        """What the step that is over put or, at a window's end, left: whole, or its sketch."""
        names = [self.name(variable) for variable in self.variables]
        keys = ["loss|", *(f"gradient|{name}" for name in names)]
        if ends:
            phases = ["before", *["accumulated"] * (self.accumulation > 1)]
            phases += ["clipped"] * self.clips
            keys += ["rate|", *(f"{phase}|{name}" for phase in phases for name in names)]
        put = {key: kept for key in keys if (kept := self.kept(key)) is not None}
        put |= {key: [value] for key, value in (self.left() if ends else {}).items()}
        found: dict[str, Kept] = {}
        due = {}
        for key, (array, *norm) in put.items():
            measured = self.measured(key) and not norm
            if self.writer.whole(self.number) or (is_sketch(array.shape) and not measured):
                found[key] = (host(array), float(host(norm[0])) if norm else None)
            else:
                due[key] = array
        return found | sketches(due, {key for key in due if self.measured(key)})

    def kept(self, key: str) -> list[Any] | None:
        """The pieces that the step that is over put under a key."""
        if key in self.values or self.cells is None:
            return self.values.get(key)
        held = self.cells.variables.get((self.held, key))
        return None if held is None else [dense(each) for each in held]

    def measured(self, key: str) -> bool:
        """Whether a norm is wanted; with one micro-batch, its gradient is what is accumulated."""
        return key.startswith("gradient|" if self.accumulation == 1 else MEASURED)

    def take_activations(self, layers: Layers) -> None:
        """Move what went through the layers, and the data, into the window's arrays."""
        layers.check_seen()
        found = {key: host(value) for key, value in layers.seen.items()}
        if not self.inputs:
            self.given = [found[key] for key in found if key.startswith("data.")]
            self.inputs = [[fingerprint(array) for array in self.given]]
        found |= {f"data.0|{index}": array for index, array in enumerate(self.given)}
        for key, array in found.items():
            if array.size <= LARGE or not key.startswith("data."):
                self.arrays[key] = (array, None)
        self.modules = layers.returned()

    # What is known.

    def name(self, variable: Any) -> str:
        """A variable's name: its path, as the model has it."""
        key = self.optimizer._var_key(variable)
        if key not in self.names():
            self.named[key] = getattr(variable, "path", None) or variable.name
        return self.named[key]

    def names(self) -> dict[Any, str]:
        """The names of the model's parameters; a path that is there twice is counted."""
        if not hasattr(self, "named"):
            self.named: dict[Any, str] = {}
            for variable in self.parameters():
                path, others = variable.path, 0
                while path in self.named.values():
                    others += 1
                    path = f"{variable.path}#{others}"
                self.named[self.optimizer._var_key(variable)] = path
        return self.named

    def parameters(self) -> list[Any]:
        """The model's parameters, frozen ones among them, and not its statistics or seeds."""
        found = {}
        for layer in self.network._flatten_layers():
            for variable in layer._trainable_variables:
                found[id(variable)] = variable
        for variable in self.network.trainable_variables:
            found[id(variable)] = variable
        for variable in getattr(self.optimizer, "_trainable_variables", ()):
            if hasattr(variable, "path"):
                found[id(variable)] = variable
        return list(found.values())

    def value(self, variable: Any) -> Any:
        """A variable's value: on JAX, `fit` has it elsewhere."""
        return self.state.get(id(variable), variable)

    def before_first(self) -> None:
        """Keep the optimizer's state before the first update that is recorded."""
        if self.backend == "tensorflow":
            import tensorflow as tf

            with tf.init_scope():
                self.slots_before = self.slots()
        else:
            self.slots_before = self.slots()

    def slots(self) -> dict[str, Array]:
        """The optimizer's state, whole, as NumPy has it, by `NAME|P`.

        What TensorFlow makes while it traces the first step has no value before that.
        """
        found = {key: (v, host(self.value(v))) for key, v in self.slot_variables()}
        return {key: array for key, (v, array) in found.items() if array.shape == tuple(v.shape)}

    def slot_variables(self) -> Iterator[tuple[str, Any]]:
        """The optimizer's variables, by `NAME|P`: Keras puts a parameter's path before a slot."""
        owners: dict[str, list[str]] = {}
        for parameter in getattr(self.optimizer, "_trainable_variables", ()):
            path = getattr(parameter, "path", None) or parameter.name
            prefix = path.replace("/", "_").replace(":", "_") + "_"
            owners.setdefault(prefix, []).append(self.name(parameter))
        taken: dict[tuple[str, str], int] = {}
        for variable in self.outer.variables:
            found = [prefix for prefix in owners if variable.name.startswith(prefix)]
            if not found:
                yield f"{variable.name}|{NOBODY}", variable
                continue
            prefix = max(found, key=len)
            slot = variable.name[len(prefix) :]
            index = taken[prefix, slot] = taken.get((prefix, slot), -1) + 1
            yield f"{slot}|{owners[prefix][min(index, len(owners[prefix]) - 1)]}", variable

    def left(self) -> dict[str, Any]:
        """What a step left: parameters and the optimizer's state."""
        variables = {f"after|{self.name(each)}": each for each in self.parameters()}
        variables |= {f"state.{key}": each for key, each in self.slot_variables()}
        return {key: self.value(variable) for key, variable in variables.items()}

    def facts(self, found: dict[str, Kept], scale: float | None) -> dict[str, Any]:
        """What is known of an update beside its arrays."""
        names = [self.name(variable) for variable in self.variables]
        facts: dict[str, Any] = {"micro_batches": self.window}
        if "rate|" in found:
            facts["rates"] = dict.fromkeys(names, float(found["rate|"][0]))
        decays = {self.name(each): self.decay(each) for each in self.variables}
        if None not in decays.values():
            facts["decays"] = decays
        if scale is not None:
            # What is kept is unscaled already.
            facts["loss_scale"] = scale
        if self.modules is not None:
            facts["modules"] = self.modules
        if self.skipped:
            facts["skipped"] = self.skipped
        return facts

    def decay(self, variable: Any) -> float | None:
        """A variable's weight decay; a rule that is not Keras' own may have one of its own."""
        if self.optimizer.weight_decay is None:
            return 0.0 if type(self.optimizer).__module__.startswith("keras.") else None
        return float(self.optimizer.weight_decay) if self.decays(variable) else 0.0

    def decays(self, variable: Any) -> bool:
        """Whether a variable is not excluded from weight decay."""
        if self.backend == "tensorflow" and isinstance(variable, keras.Variable):
            variable = variable.value  # whose name, not the path, is what Keras excludes by
        return self.optimizer._use_weight_decay(variable)

    def describe(self) -> None:
        """Write what is known of the run, once there is something to describe."""
        if self.described:
            return
        self.described = True
        packages = ("keras", PACKAGES[self.backend], "numpy")
        names = self.names()
        self.writer.run(
            {
                "backend": self.backend,
                "versions": {name: importlib.import_module(name).__version__ for name in packages},
                "parameters": [
                    {
                        "name": names[self.optimizer._var_key(variable)],
                        "shape": list(variable.shape),
                        "dtype": keras.backend.standardize_dtype(variable.dtype),
                        "trainable": bool(variable.trainable),
                        "tied": [],
                    }
                    for variable in self.parameters()
                ],
                "optimizers": [self.settings()],
                "notes": self.notes(),
            }
        )

    def settings(self) -> dict[str, Any]:
        """The optimizer's hyperparameters: a group for each weight decay."""
        plain = {
            key: value
            for key, value in self.optimizer.get_config().items()
            if isinstance(value, bool | int | float | str | list | np.generic)
        }
        groups: dict[float | None, list[str]] = {}
        for variable in getattr(self.optimizer, "_trainable_variables", ()):
            groups.setdefault(self.decay(variable), []).append(self.name(variable))
        return {
            "name": type(self.optimizer).__name__,
            "module": type(self.optimizer).__module__,
            "groups": [
                plain | {"parameters": names} | ({} if decay is None else {"weight_decay": decay})
                for decay, names in groups.items()
            ],
        }

    def notes(self) -> list[str]:
        """What cannot be seen."""
        notes = ["Keras gives a tied weight one name; its other uses are not listed."]
        if self.outer is not self.optimizer or self.optimizer.loss_scale_factor:
            notes.append("Gradients are kept as the optimizer unscaled them.")
        if self.accumulation > 1:
            notes.append("Keras divides the accumulated gradient by its steps, before clipping.")
        if self.layers is not None and self.fitting:
            notes.append("Layers were seen in a second pass, where fit had compiled its own.")
        if any(each.name == "moving_mean" for each in self.network.non_trainable_variables):
            notes.append(STATISTICS)
        return notes

    # fit.

    def set_model(self, model: Any) -> None:
        """Attach before `fit` makes the function that it trains with."""
        super().set_model(model)
        if model is not self.network:
            raise RecordError("the recorder was made for another model than the one that is fitted")
        if getattr(model, "steps_per_execution", 1) > 1:
            raise RecordError("steps_per_execution > 1 is not recorded; compile the model with 1")
        if self.backend == "torch" and model.jit_compile:
            raise RecordError("torch.compile is not recorded; compile with jit_compile=False")
        self.attach(model.optimizer)
        model.train_function = None

    def on_train_begin(self, logs: Any = None) -> None:
        """Take the place of the function that `fit` trains with."""
        self.fitting, self.functions = True, {}
        self.started = self.iterations()
        if self.backend == "jax":
            # While `fit` runs, variables have no values.
            self.describe()
            if self.slots_before is None:
                self.slots_before = self.slots()
        self.network.train_function = self.step

    def on_train_end(self, logs: Any = None) -> None:
        """Leave the model as it was: what it is fitted with next is not recorded."""
        self.detach()
        self.fitting, self.held, self.functions = False, True, {}
        self.network.train_function = None

    def step(self, *arguments: Any) -> Any:
        """Train on a batch as `fit` would, and record it."""
        self.keeping = self.writer.whole(self.number)
        batch, spec = self.batch(arguments[-1])
        self.held = self.keeping
        if self.cells is not None and self.writer.over(self.number):
            self.functions.pop(True, None)
            self.cells.drop(True)
        self.second_pass(batch, arguments[0])
        if self.held not in self.functions:
            self.functions[self.held] = self.make(spec)
        if self.apart:
            parameters = {f"before|{self.name(v)}": v for v in self.network.trainable_variables}
            before = sketches(parameters, measured=())
            self.values |= {key: [array] for key, (array, _) in before.items()}
        result = self.functions[self.held](*arguments[:-1], batch)
        if self.backend == "jax":
            logs, state = result
            self.values = logs.pop(SEEN)
            variables = (self.network.trainable_variables, self.network.non_trainable_variables)
            held = zip((*variables, self.optimizer.variables), state, strict=False)
            self.state = {
                id(variable): value
                for names, values in held
                for variable, value in zip(names, values, strict=True)
            }
        self.update()
        self.state = {}
        return result

    def batch(self, source: Any) -> tuple[Any, Any]:
        """The batch that a step is about to take, and what TensorFlow knows of its shapes."""
        batch = source[0] if self.backend == "torch" else next(source)
        self.data(batch)
        return ([batch] if self.backend == "torch" else batch), getattr(
            source, "element_spec", None
        )

    def make(self, spec: Any) -> Callable[..., Any]:
        """Make the function that `fit` trains with again, with what is to be kept in it."""
        model = self.network
        if self.backend == "jax":
            self.wrap_step()
        model.train_function = None
        model.make_train_function()
        function, model.train_function = model.train_function, self.step
        if self.backend == "torch":
            return function
        if self.backend == "jax":
            return lambda state, batch: function(state, iter([batch]))
        if model.run_eagerly or spec is None:
            return lambda batch: function(iter([batch]))
        import tensorflow as tf

        # As `fit` calls it: in a graph that knows no more of the shapes than the data set does.
        # Constants for what is unknown there would be folded into other roundings.
        return tf.function(
            lambda batch: function(iter([batch])), input_signature=[spec], autograph=False
        )

    def wrap_step(self) -> None:
        """Let a step of JAX's return what was seen beside its logs."""
        model = self.network
        for name in ("train_step", "_update_metrics_variables"):
            if (model, name) in self.wrapped:
                self.wrapped.remove((model, name))
                delattr(model, name)

        def seen(method: Any, state: Any, data: Any) -> Any:
            self.values = {}
            logs, state = method(state, data)
            values, self.values = self.values, {}
            return dict(logs) | {SEEN: values}, state

        def saw_metrics(method: Any, variables: Any, loss: Any, *others: Any) -> Any:
            self.put("loss|", loss)
            return method(variables, loss, *others)

        self.wrap(model, "train_step", seen)
        self.wrap(model, "_update_metrics_variables", saw_metrics)
