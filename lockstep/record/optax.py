"""Record a run in JAX with optax, whatever is jitted.

    recorder = lockstep.record.jax("run-b/")
    optimizer = recorder.wrap(optimizer)
    loss_and_gradients = recorder.gradient(jax.value_and_grad(loss))

The optimizer's state keeps its form, so a checkpoint does too. Inside `jax.jit` and `lax.scan`
arrays come to the host through ordered callbacks: the first asks how much to send, so that a
sketch is all that leaves the device after the first updates. What was clipped is not seen from
outside of a chain: `recorder.clipped(optax.clip_by_global_norm(1.0))` in it shows that.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
from collections.abc import Callable, Collection, Mapping
from importlib import metadata
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.experimental import io_callback

from lockstep.record import optax_modules, optax_names, writer
from lockstep.record.optax_activations import Activations
from lockstep.record.optax_arrays import (
    Arrays,
    decoded,
    encoded,
    equal,
    flat_sketches,
    forms_of,
    host,
    is_scalar,
    pack,
    pack_now,
    packed_squares,
    sketches,
    square,
    traced,
    unpack,
)
from lockstep.record.writer import LARGE, Array, RecordError

INSIDE = (
    "optax.MultiSteps calls what it holds on every micro-batch and throws the result away: "
    "wrap it from outside, recorder.wrap(optax.MultiSteps(optimizer, K))"
)
AGAIN = (
    "an update started where the one before it had, whose result was thrown away; if the recorder "
    "is inside optax.MultiSteps or the like, wrap that from outside: recorder.wrap(MultiSteps(...))"
)
SAM = (
    "optax.contrib.sam takes its own steps in updates that are none of the optimizer's: make it"
    " with opaque_mode=True, which takes them inside of an update (and a grad_fn= there)"
)
SEVERAL = (
    "a recorder of JAX records one optimizer, and a second one has stepped other parameters: record"
    " each with a recorder of its own, in a folder of its own"
)
# What a callback returns, for others to wait for.
DONE = jax.ShapeDtypeStruct((), jnp.bool_)
VMAP = "a recorder cannot work under jax.vmap: record one run, outside of vmap"
FORM = (
    "recorder.gradient() wraps what returns (value, gradients) or gradients, as jax.value_and_grad "
    "and jax.grad do"
)


class Recorder:
    """Records a run, update by update.

    full: of how many first updates whole tensors are kept; every, at: of which others. activations:
    of these updates, what goes into and comes out of all modules (True) or some (their names) is
    kept too, of the first micro-batch: of flax' modules, which have the names of their parameters,
    and of what `recorder.activation()` shows. For that the function in `recorder.gradient()` is
    called twice: what it changes that is none of its arguments is changed twice.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        full: int = 3,
        every: int | None = None,
        at: Collection[int] = (),
        activations: bool | Collection[str] = False,
    ) -> None:
        """Make the folder, and see to it that all is written before the process ends."""
        self.writer = writer.Writer(folder, "jax", full, every, at)
        self.activations = Activations(activations, self._guarded)
        self.lock = threading.RLock()
        self.facts: dict[str, Any] = {}
        self.names: list[str] = []
        self.decays: dict[str, float] = {}
        self.micro_batches: list[dict[str, Any]] = []
        self.pending: dict[str, Array] = {}
        self.sizes: dict[str, Any] = {}
        self.taken = 0  # how many of the micro-batches MultiSteps has seen
        self.last: dict[str, Any] = {}
        self.begun: tuple[Arrays, dict[str, Any]] | None = None
        self.sees_gradients = False
        self.refused: str | None = None
        self.closed = False
        atexit.register(self._finish)

    # What a user calls.

    def wrap(self, transformation: Any) -> optax.GradientTransformationExtraArgs:
        """A transformation that does the same and is recorded; also around optax.MultiSteps."""
        if not callable(getattr(transformation, "update", None)):
            raise RecordError("recorder.wrap() takes an optax transformation or optax.MultiSteps")
        several = _multi_steps(transformation)
        inner = several or transformation
        if not isinstance(inner, (optax.MultiSteps, optax.GradientTransformationExtraArgs)):
            # Whatever has both is one.
            inner = optax.GradientTransformation(transformation.init, transformation.update)
            inner = optax.with_extra_args_support(inner)
        found = optax_names.links(transformation)

        def update(gradients: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
            self.check()
            _refuse_inside()
            _refuse_sam(state)
            updates, new = inner.update(gradients, state, params, **extra)
            call = _Call(gradients, state, params, updates, new, several, found)
            self._describe(call)
            self._send_begun(call.before())
            self._send_update(call)
            return updates, new

        return optax.GradientTransformationExtraArgs(transformation.init, update)

    def gradient(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, which returns (value, gradients) or gradients, recorded."""
        self.sees_gradients = True
        key = object()

        def recorded(*args: Any, **kwargs: Any) -> Any:
            self.check()
            result = function(*args, **kwargs)
            value, gradients = _parts(result, args)

            def again() -> None:
                own, named = optax_modules.cloned((args, kwargs))
                function(*own, **named)

            known = (args, kwargs, result)
            _refuse_vmap(jax.tree_util.tree_leaves(known))
            names = optax_names.named(gradients)
            looked = self.activations.look(again, self._looks, known, names, key)
            data = jax.tree_util.tree_leaves((args[1:], kwargs))
            data = [array for array in data if optax_names.is_array(array)]
            self._send_gradient(value, gradients, data, looked)
            return result

        return recorded

    def activation(self, name: str, value: Any, inputs: Any = ()) -> Any:
        """The value unchanged, kept as what comes out of a module of this name, and its inputs.

        It is for what is written without modules, and called in what recorder.gradient() wraps.
        """
        self.activations.see(name, inputs, value)
        return value

    def average(self, value: Any) -> Any:
        """The value unchanged: an average of the parameters, kept as it is at the next update."""
        self.check()
        arrays = {f"average|{n}": a for n, a in optax_names.named(value).items()}
        self._send(self._got_average, arrays, {})
        return value

    def clipped(self, clip: Any) -> optax.GradientTransformationExtraArgs:
        """A clipping link of a chain that does the same, and of which the result is recorded.

        What is recorded is clipped a second time: a product that is looked at is compiled in
        another way, and would end in other bits.
        """
        inner = optax.with_extra_args_support(clip)

        def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
            again = jax.lax.optimization_barrier(updates) if traced(updates) else updates
            seen = inner.update(again, state, params, **extra)[0]
            arrays = {f"clipped|{n}": a for n, a in optax_names.named(seen).items()}
            self._send(self._got_clipped, arrays, {})
            return inner.update(updates, state, params, **extra)

        return optax.GradientTransformationExtraArgs(clip.init, update)

    def check(self) -> None:
        """Raise what could not be recorded, where a user sees it."""
        if self.refused is not None:
            raise RecordError(self.refused)

    def close(self) -> None:
        """Wait until all is written; raise what could not be recorded."""
        jax.effects_barrier()
        self.closed = True
        self.check()

    def __enter__(self) -> Recorder:
        """Itself."""
        return self

    def __exit__(self, kind: Any, *_: Any) -> None:
        """Close, and leave an error that is under way alone."""
        if kind is None:
            self.close()

    def _finish(self) -> None:
        """At the process' end: wait, and say what nobody has seen yet."""
        jax.effects_barrier()
        if self.refused is not None and not self.closed:
            print(f"lockstep: not recorded: {self.refused}", file=sys.stderr)

    # What runs where the arrays are, traced or not.

    def _send_gradient(self, value: Any, gradients: Any, data: list[Any], looked: Arrays) -> None:
        """Send a micro-batch's own gradient, when its activations have been sent."""
        arrays = {f"gradient|{n}": a for n, a in optax_names.named(gradients).items()}
        always = {
            f"data|{i}": array for i, array in enumerate(data) if array.size <= LARGE
        } | looked
        large = {f"data|{i}": array for i, array in enumerate(data) if array.size > LARGE}
        losses = [leaf for leaf in jax.tree_util.tree_leaves(value) if is_scalar(leaf)]
        if losses:
            always["loss"] = losses[0]
        if not traced([arrays, always, large]):
            self._send(self._got_gradient, arrays, always, large)
            return
        _refuse_vmap([*arrays.values(), *always.values()])
        # Each by itself: one condition for all would keep all gradients where they are.
        wholes: dict[str, Array] = {}
        wanted = io_callback(self._whole, DONE)
        sent = [
            jax.lax.cond(wanted, self._to(wholes), lambda _: jnp.bool_(True), {name: array})
            for name, array in arrays.items()
        ]
        flat, forms = flat_sketches(arrays), forms_of(arrays)

        def receive(rest: Arrays, sizes: dict[str, Any], always: Arrays) -> None:
            found, _ = unpack({n: always.pop(n) for n in flat}, forms)
            always.pop("sent", None)
            if wholes.keys() == found.keys() and self._whole():
                found = dict(wholes)
            wholes.clear()
            self._got_gradient(found | rest, {}, always)

        always |= flat | ({"sent": jnp.stack(sent)} if sent else {})
        self._send(receive, {}, always, large)

    def _send_begun(self, before: Arrays) -> None:
        """Send sketches of the state that the run begins with.

        Sent whole, all of it would be copied at each update, for none but a run that was resumed.
        """
        if not before:
            return
        forms = forms_of(before)
        if not traced(before):
            if self.begun is None:
                self._guarded(self._got_begun, *unpack(flat_sketches(before), forms), {})
            return
        flat = flat_sketches(before)
        decode = forms_of(flat)

        def got(flat: Arrays) -> None:
            if self.begun is None:
                self._guarded(self._got_begun, *unpack(decoded(flat, decode), forms), {})

        io_callback(got, None, encoded(flat), ordered=True)

    def _send_update(self, call: _Call) -> None:
        """Send an update; of a micro-batch that ends no window of MultiSteps, its gradient."""
        _refuse_vmap(jax.tree.leaves((call.gradients, call.params)))
        boundary: Any = np.bool_(True)
        if call.several is not None:
            own = {} if self.sees_gradients else call.own()
            moved = call.new.mini_step != call.state.mini_step
            boundary = call.new.gradient_step != call.state.gradient_step
            self._send(self._got_micro_batch, own, {"taken": jnp.logical_or(moved, boundary)})
        if not traced([boundary, call.gradients]):
            if bool(boundary):
                self._send(self._got_update, call.arrays() | call.begun(), call.scalars())
            return
        wholes: dict[str, Array] = {}
        begun, forms = self._sketch_begun(call, boundary, wholes)

        def receive(arrays: Arrays, sizes: dict[str, Any], always: Arrays) -> None:
            first, first_sizes = unpack({n: always.pop(n) for n in begun}, forms)
            if self._whole() and wholes.keys() == first.keys():
                first, first_sizes = dict(wholes), {}
            elif self._whole():
                arrays = sketches(arrays)  # in a program of several windows
            wholes.clear()
            self._got_update(first | arrays, first_sizes | sizes, always)

        def send(arrays: Arrays, always: Arrays) -> None:
            self._send(receive, arrays, always)

        jax.lax.cond(boundary, send, lambda *_: None, call.arrays(), call.scalars() | begun)

    def _sketch_begun(
        self, call: _Call, boundary: Any, wholes: dict[str, Array]
    ) -> tuple[Arrays, dict[str, tuple[str, tuple[int, ...]]]]:
        """What an update begins with, as `pack` would have it, and of what forms.

        Each tensor is looked at by itself, as soon as its gradient is there and before the update
        takes its place in memory: for all at once, all would be there twice, and be copied. Where
        all is wanted, `wholes` gets it.
        """
        # In no order: what is in order waits for all gradients.
        wanted = io_callback(self._whole, DONE)
        code = jnp.where(boundary, 1 + wanted.astype(jnp.int32), 0)
        parameters, parts = call.parameters(), call.parts()
        squares: list[Any] = []
        small: Arrays = {}
        for name, own in parts.items():
            before = {f"before|{name}": parameters[name]} if name in parameters else {}
            squares.append(self._look_at(call, code, name, before, own, wholes))
            small |= {n: writer.sketch(array) for n, array in before.items()}
            small[f"accumulated|{name}"] = call.summed(*map(writer.sketch, own[:2]), *own[2:])
        return flat_sketches(small) | packed_squares(squares), forms_of(call.begun())

    def _to(self, wholes: dict[str, Array]) -> Callable[[Arrays], Any]:
        """What sends arrays whole, in no order, and says when they are there."""

        def send(arrays: Arrays) -> Any:
            forms = forms_of(arrays)

            def got(arrays: Arrays) -> Any:
                self._guarded(
                    lambda found, *_: wholes.update(found), decoded(arrays, forms), {}, {}
                )
                return np.bool_(True)

            return io_callback(got, DONE, encoded(arrays))

        return send

    def _look_at(
        self, call: _Call, code: Any, name: str, before: Arrays, parts: tuple[Any, ...],
        wholes: dict[str, Array],
    ) -> Any:  # fmt: skip
        """The square of the norm of an accumulated gradient, sent whole where that is wanted."""

        def measured(_: Arrays, parts: tuple[Any, ...]) -> Any:
            return square(call.summed(*parts))

        def whole(before: Arrays, parts: tuple[Any, ...]) -> Any:
            arrays = before | {f"accumulated|{name}": call.summed(*parts)}
            # Whatever comes later waits for it, for it has its number.
            return jnp.where(self._to(wholes)(arrays), measured(before, parts), jnp.nan)

        wide = jnp.promote_types(parts[0].dtype, jnp.float32)
        ways = [lambda *_: jnp.zeros((), wide), measured, whole]
        return jax.lax.switch(code, ways, before, parts)

    def _send(
        self,
        receive: Callable[..., None],
        arrays: Arrays,
        always: Arrays,
        extra: Arrays | None = None,
    ) -> None:
        """Send arrays to the host: sketches or all of them; `always` in any case, `extra` rarely.

        Large data are extra: they go where all is asked for.
        """
        extra = extra or {}
        _refuse_vmap([*arrays.values(), *always.values(), *extra.values()])
        if not traced([arrays, always, extra]):
            self._send_now(receive, arrays, always, extra)
            return
        wanted = io_callback(self._whole, DONE, ordered=True)

        def call(
            arrays: Arrays, always: Arrays, finish: Callable[[Arrays], tuple[Arrays, Arrays]]
        ) -> None:
            decode, decode_always = forms_of(arrays), forms_of(always)

            def got(arrays: Arrays, always: Arrays) -> None:
                arrays = decoded(arrays, decode)
                self._guarded(receive, *finish(arrays), decoded(always, decode_always))

            io_callback(got, None, encoded(arrays), encoded(always), ordered=True)

        def sketched(arrays: Arrays, always: Arrays, extra: Arrays) -> None:
            del extra
            forms = forms_of(arrays)
            call(pack(arrays), always, lambda packed: unpack(packed, forms))

        def whole(arrays: Arrays, always: Arrays, extra: Arrays) -> None:
            call(arrays | extra, always, lambda found: (found, {}))

        jax.lax.cond(wanted, whole, sketched, arrays, always, extra)

    def _send_now(
        self, receive: Callable[..., None], arrays: Arrays, always: Arrays, extra: Arrays
    ) -> None:
        """The same, of arrays that are there."""
        if self._whole():
            self._guarded(receive, arrays | extra, {}, always)
            return
        packed = pack_now(arrays)
        self._guarded(receive, *unpack(packed, forms_of(arrays)), always)

    # What runs on the host, one call after the other.

    def _whole(self) -> Any:
        """Whether all is wanted of the update that is under way."""
        return np.bool_(self.writer.whole(self.writer.written + 1))

    def _looks(self) -> Any:
        """Whether activations are wanted of the micro-batch that is under way."""
        return np.bool_(not self.micro_batches and self._whole())

    def _guarded(
        self, receive: Callable[..., None], arrays: Arrays, sizes: Arrays, always: Arrays
    ) -> None:
        """Receive; what fails must not end the run, and is told at the next call."""
        if self.refused is not None:
            return
        with self.lock:
            try:
                receive({n: host(a) for n, a in arrays.items()}, sizes,
                        {n: host(a) for n, a in always.items()})  # fmt: skip
            except Exception as error:
                self._refuse(str(error) or type(error).__name__)

    def _refuse(self, reason: str) -> None:
        """Stop, and put the reason where the trace is read."""
        self.refused = reason
        self.facts.setdefault("notes", []).append(f"stopped: {reason}")
        self.writer.run(self.facts)

    def _keep(self, arrays: dict[str, Array], sizes: Mapping[str, Any], old: str, new: str) -> None:
        """Keep arrays, under the phase that they have in a file."""
        for name, array in arrays.items():
            if name.startswith(f"{old}|"):
                renamed = new + name[len(old) :]
                self.pending[renamed] = array
                if name in sizes:
                    self.sizes[renamed] = sizes[name]

    def _got_gradient(
        self, arrays: dict[str, Array], sizes: dict[str, Any], always: dict[str, Array]
    ) -> None:
        """A micro-batch: its gradient, loss and data."""
        number = len(self.micro_batches)
        self._keep(arrays, sizes, "gradient", f"gradient.{number}")
        data = {n: a for n, a in (arrays | always).items() if n.startswith("data|")}
        names = sorted(data, key=lambda name: int(name.split("|")[1]))
        facts: dict[str, Any] = {"data": [writer.fingerprint(data[name]) for name in names]}
        if self.activations.wanted and self._looks():
            kept = {f"data.0|{name.split('|')[1]}": data[name] for name in names}
            self.pending |= {name: array for name, array in kept.items() if array.size <= LARGE}
        if "loss" in always:
            facts["loss"] = float(always["loss"])
        self.micro_batches.append(facts)

    def _got_clipped(
        self, arrays: dict[str, Array], sizes: dict[str, Any], _: dict[str, Array]
    ) -> None:
        """What came out of clipping; inside MultiSteps, the last one of a window counts."""
        self._keep(arrays, sizes, "clipped", "clipped")

    def _got_average(
        self, arrays: dict[str, Array], sizes: dict[str, Any], _: dict[str, Array]
    ) -> None:
        """An average of the parameters; before an update, the last one counts."""
        self._keep(arrays, sizes, "average", "average")

    def _got_micro_batch(
        self, arrays: dict[str, Array], sizes: dict[str, Any], always: dict[str, Array]
    ) -> None:
        """A call of MultiSteps, which may leave the micro-batch out."""
        if not bool(always["taken"]):
            self._forget(self.taken)
            return
        if not self.sees_gradients:
            self._keep(arrays, sizes, "gradient", f"gradient.{len(self.micro_batches)}")
            self.micro_batches.append({})
        self.taken += 1

    def _forget(self, number: int) -> None:
        """Forget the micro-batches from this one on."""
        del self.micro_batches[number:]
        if not number:
            self.activations.taken()
        for name in [n for n in self.pending if n.startswith(("gradient.", "data."))]:
            if int(name.split("|")[0].split(".")[1]) >= number:
                del self.pending[name]
                self.sizes.pop(name, None)

    def _got_begun(self, arrays: dict[str, Array], sizes: dict[str, Any], _: Any) -> None:
        """The state before the first update, unless it is zero, as in all but resumed runs."""
        there = any(array.any() for array in arrays.values())
        self.begun = (arrays, sizes) if there else ({}, {})

    def _got_update(
        self, arrays: dict[str, Array], sizes: dict[str, Any], always: dict[str, Array]
    ) -> None:
        """An update: write it, with the micro-batches of its window."""
        self._look_for_repeats(arrays, always)
        number = self.writer.written + 1
        facts: dict[str, Any] = {}
        if self.micro_batches:
            facts["micro_batches"] = self.micro_batches
        activations, modules = self.activations.taken()
        if modules:
            facts["modules"] = modules
        if "rate" in always:
            facts["rates"] = dict.fromkeys(self.names, float(always["rate"]))
        if self.decays:
            facts["decays"] = self.decays
        scalars = {n: a for n, a in always.items() if n.startswith("state.")}
        if number == 1:
            scalars |= {n: a for n, a in always.items() if n.startswith("state-before.")}
            begun, shapes = self.begun or ({}, {})
            scalars, sizes = scalars | begun, sizes | shapes
        known = self.pending | activations | arrays | scalars
        self.writer.update(number, known, facts | {"sizes": self.sizes | sizes})
        self.pending, self.sizes, self.micro_batches, self.taken = {}, {}, [], 0

    def _look_for_repeats(self, arrays: dict[str, Array], always: dict[str, Array]) -> None:
        """Refuse where what the last update gave was thrown away.

        The same parameters and the same counts come in again, although the parameters had changed.
        """
        before = {n: a for n, a in arrays.items() if n.startswith("before|")}
        after = {"before" + n[5:]: a for n, a in arrays.items() if n.startswith("after|")}
        before |= {n: a for n, a in always.items() if n.startswith("state-before.")}
        last, then = self.last.get("before", {}), self.last.get("after", {})
        moved = any(not np.array_equal(then[n], last[n]) for n in then)
        if moved and equal(before, last):
            raise RecordError(AGAIN)
        self.last = {"before": sketches(before), "after": sketches(after)}

    # What is known of the run.

    def _describe(self, call: _Call) -> None:
        """Write what is known, when the first update is traced; refuse a second optimizer."""
        parameters = call.named_parameters()
        if self.facts:
            shapes = {each["name"]: each["shape"] for each in self.facts["parameters"]}
            known = [name for name in parameters if name in shapes]
            if not known or any(shapes[name] != [*parameters[name].shape] for name in known):
                raise RecordError(SEVERAL)
            return
        self.names, self.decays = list(parameters), call.decays()
        self.facts = {
            "versions": _versions(),
            "parameters": [
                {"name": n, "shape": list(a.shape), "dtype": str(a.dtype), "trainable": True,
                 "tied": []}
                for n, a in parameters.items()
            ],
            "optimizers": [call.settings()],
            "notes": self._notes(call),
        }  # fmt: skip
        self.writer.run(self.facts)

    def _notes(self, call: _Call) -> list[str]:
        """What cannot be seen in this run, as sentences."""
        found = []
        if not self.sees_gradients and call.several is None:
            found.append("Micro-batches, losses and data are not seen without recorder.gradient().")
        elif not self.sees_gradients:
            found.append("Losses and data are not seen without recorder.gradient().")
        if not self.sees_gradients and self.activations.wanted:
            found.append("Activations are not seen without recorder.gradient().")
        names = [link["name"] for link in call.links]
        if any("clip" in name for name in names) and "Recorder" not in names:
            found.append("What was clipped is not seen without recorder.clipped() in the chain.")
        if call.params is None:
            found.append("Parameters are not seen: update() was called without them.")
        return found


class _Call:
    """A call of an optimizer: what went in and what came out, by name."""

    def __init__(
        self, gradients: Any, state: Any, params: Any, updates: Any, new: Any, several: Any,
        links: list[dict[str, Any]],
    ) -> None:  # fmt: skip
        """Keep all of it."""
        self.gradients, self.state, self.params = gradients, state, params
        self.updates, self.new, self.several, self.links = updates, new, several, links

    def named_parameters(self) -> Arrays:
        """The parameters, or what has their names and shapes."""
        return optax_names.named(self.gradients if self.params is None else self.params)

    def own(self) -> Arrays:
        """The micro-batch's gradient that MultiSteps got."""
        return {f"gradient|{n}": a for n, a in optax_names.named(self.gradients).items()}

    def arrays(self) -> Arrays:
        """What is sketched or kept whole of what an update ends with."""
        found: Arrays = {}
        if self.params is not None:
            after = optax.apply_updates(self.params, self.updates)
            found = {f"after|{n}": a for n, a in optax_names.named(after).items()}
        return found | {n: a for n, a in self._state("state", self.new).items() if a.ndim}

    def before(self) -> Arrays:
        """The state before, as far as it is arrays."""
        return {n: a for n, a in self._state("state-before", self.state).items() if a.ndim}

    def scalars(self) -> Arrays:
        """The numbers in the state, before and after, and the learning rate."""
        found = {n: a for n, a in self._state("state-before", self.state).items() if not a.ndim}
        found |= {n: a for n, a in self._state("state", self.new).items() if not a.ndim}
        state = self.new if _injects(self.new) else self.state
        rate = optax_names.rate(self.links, state)
        if rate is not None:
            found["rate"] = jnp.asarray(rate)
        return found

    def _state(self, phase: str, state: Any) -> Arrays:
        """The arrays of a state, by name."""
        found = optax_names.named_state(state, self.named_parameters())
        return {f"{phase}.{name}": array for name, array in found.items()}

    def parameters(self) -> Arrays:
        """The parameters before."""
        return {} if self.params is None else optax_names.named(self.params)

    def begun(self) -> Arrays:
        """What an update begins with: the parameters, and what was accumulated."""
        found = {f"before|{n}": a for n, a in self.parameters().items()}
        return found | {f"accumulated|{n}": self.summed(*p) for n, p in self.parts().items()}

    def parts(self) -> dict[str, tuple[Any, ...]]:
        """By tensor, of what its accumulated gradient is made: what came in, alone or beside."""
        new = optax_names.named(self.gradients)
        if self.several is None:
            return {name: (gradient,) for name, gradient in new.items()}
        old = jax.tree.map(lambda _, each: each, self.gradients, self.state.acc_grads)
        named = optax_names.named(old)
        return {name: (new[name], named[name], self.state.mini_step) for name in new}

    def summed(self, new: Any, *old: Any) -> Any:
        """An accumulated gradient: what came in, or what MultiSteps adds it to."""
        if not old:
            return new
        return self.several._acc_update(new, old[0], n_acc=old[1]).astype(new.dtype)

    def decays(self) -> dict[str, float]:
        """The weight decay of each parameter, where it can be seen."""
        return optax_names.decays(self.links, self.params) if self.params is not None else {}

    def settings(self) -> dict[str, Any]:
        """The links of the chain, with their settings."""
        shown = [
            {key: value for key, value in link.items() if isinstance(value, (bool, int, float, str))
             and not (key == "partial" and not value)}
            for link in self.links
            if link["name"] != "Recorder"
        ]  # fmt: skip
        group = {"parameters": list(self.named_parameters()), "links": shown}
        return {"name": "optax", "groups": [group]}


# What is refused, and what is known from outside.


def _refuse_inside() -> None:
    """Refuse to be called by MultiSteps, which can be seen while its update is on the stack."""
    frame = sys._getframe(2)
    while frame is not None:
        if isinstance(frame.f_locals.get("self"), optax.MultiSteps):
            raise RecordError(INSIDE)
        frame = frame.f_back  # type: ignore[assignment]


def _refuse_sam(state: Any) -> None:
    """Refuse what moves parameters away and back again; it keeps where it began."""
    for node in optax_names.states(state):
        if type(node).__name__ == "SAMState" and node.cache is not None:
            raise RecordError(SAM)


def _refuse_vmap(arrays: list[Any]) -> None:
    """Refuse arrays that are one of a batch of runs."""
    if any(type(array).__name__ == "BatchTracer" for array in arrays):
        raise RecordError(VMAP)


def _multi_steps(transformation: Any) -> Any:
    """The MultiSteps that a transformation is, or is made of, or None."""
    owner = getattr(transformation.update, "__self__", None)
    return next((t for t in (transformation, owner) if isinstance(t, optax.MultiSteps)), None)


def _parts(result: Any, args: tuple[Any, ...]) -> tuple[Any, Any]:
    """Value and gradients of what a function returned; the value is None where there is none."""
    structure = jax.tree.structure(args[0]) if args else None

    def fits(tree: Any) -> bool:
        # What flax.nnx makes of a model's gradients has a form of its own.
        return jax.tree.structure(tree) == structure or type(tree).__name__ == "State"

    if fits(result):
        return None, result
    if not isinstance(result, tuple) or len(result) != 2:
        raise RecordError(FORM)
    if not fits(result[1]) and fits(result[0]):
        return None, result[0]
    return result


def _injects(state: Any) -> bool:
    """Whether a state holds hyperparameters, which are those of the update that made it."""
    return any("hyperparams" in node._fields for node in optax_names.states(state))


def _versions() -> dict[str, str]:
    """The versions of what takes part."""
    found = {}
    for package in ("jax", "jaxlib", "optax", "flax", "numpy", "equinox", "dm-haiku", "orbax"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
