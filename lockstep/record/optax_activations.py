"""What goes into modules and comes out of them, in JAX: of the first micro-batch of whole updates.

The function that returns the gradients runs once more for it. What is looked at is compiled in
another way and would end in other bits, so nothing is looked at in the run itself.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import io_callback

from lockstep.record import optax_modules, optax_names
from lockstep.record.optax_arrays import Arrays, decoded, encoded, forms_of, traced
from lockstep.record.writer import Array, RecordError, activation_key

OLD = "activations= needs jax.make_user_context: update jax, or record without activations"
FAILED = (
    "activations: the function in recorder.gradient() could not run a second time ({}); "
    "record without activations"
)


class Activations:
    """Which activations are wanted, and those that have come.

    guarded: calls a function with what has come to the host, and keeps its errors from the run.
    """

    def __init__(self, wanted: bool | Collection[str], guarded: Callable[..., None]) -> None:
        """Know what is wanted: all modules, some by their names, or nothing."""
        if wanted and optax_modules.ANEW is None:
            raise RecordError(OLD)
        self.wanted, self.guarded = wanted, guarded
        self.looking = False
        # Callbacks come in no order: those that have one cannot be used on several devices. So the
        # order is that of tracing: of modules, as they returned first, and of all calls.
        self.order: dict[str, int] = {}
        self.calls = 0
        # What has come of each module, with the call's number.
        self.come: dict[str, tuple[int, dict[str, Array]]] = {}

    def look(
        self, call: Callable[[], Any], looks: Callable[[], Any], known: Any,
        parameters: Mapping[str, Any], key: object,
    ) -> Arrays:  # fmt: skip
        """Call once more what returns gradients where the host wants to look.

        known: what goes into it and comes out. What is returned is there when all has been seen.
        """
        if not self.wanted:
            return {}
        if not traced(known):
            if looks():
                self.again(call, parameters, key)
                jax.effects_barrier()
            return {}

        def again() -> Any:
            self.again(call, parameters, key)
            # A number from outside is one that the compiler cannot know before.
            return io_callback(lambda: np.int32(1), jax.ShapeDtypeStruct((), jnp.int32))

        wanted = io_callback(looks, jax.ShapeDtypeStruct((), jnp.bool_), ordered=True)
        return {"looked": jax.lax.cond(wanted, again, lambda: jnp.int32(0))}

    def again(self, call: Callable[[], Any], parameters: Mapping[str, Any], key: object) -> None:
        """Call it, and see what it shows."""
        self.looking = True
        try:
            with optax_modules.watching(self.see, parameters, key):
                call()
            self.check()
        except RecordError:
            raise
        except Exception as error:
            raise RecordError(FAILED.format(error)) from error
        finally:
            self.looking = False

    def see(self, name: str, inputs: Any, outputs: Any) -> None:
        """Send what went into a module and came out, if it is wanted and somebody looks."""
        if not self.looking:
            return
        self.order.setdefault(name, len(self.order))
        if not isinstance(self.wanted, bool) and name not in self.wanted:
            return
        arrays = {
            activation_key(kind, index, name): jnp.asarray(array)
            for kind, tree in (("input", inputs), ("output", outputs))
            for index, array in enumerate(filter(_kept, jax.tree_util.tree_leaves(tree)))
        }
        self.calls += 1
        _send(
            functools.partial(self.guarded, functools.partial(self.got, name, self.calls)), arrays
        )

    def got(self, name: str, call: int, arrays: dict[str, Array], *_: Any) -> None:
        """Keep what has come: of several calls of a module, the first one's."""
        if name not in self.come or call < self.come[name][0]:
            self.come[name] = call, arrays

    def taken(self) -> tuple[dict[str, Array], list[str]]:
        """Hand over what has come, and the names of its modules, the innermost first."""
        modules = sorted(self.come, key=self.order.__getitem__)
        arrays: dict[str, Array] = {}
        for name in modules:
            arrays |= self.come[name][1]
        self.come = {}
        return arrays, modules

    def check(self) -> None:
        """Refuse names that no module has."""
        wanted = () if isinstance(self.wanted, bool) else self.wanted
        missing = [name for name in wanted if name not in self.order]
        if missing:
            there = ", ".join(map(repr, self.order)) or "none"
            raise RecordError(f"activations: no module {missing[0]!r} was called, but {there}")


def _kept(leaf: Any) -> bool:
    """Whether a leaf is kept: masks mean the opposite of each other in some frameworks."""
    return optax_names.is_array(leaf) and jnp.issubdtype(leaf.dtype, jnp.number)


def _send(receive: Callable[..., None], arrays: Arrays) -> None:
    """Send arrays to the host from under gradients, loops and vmap, of which the batch is sent.

    Of the callbacks, debug.callback alone is called in all of these; io_callback is left out of a
    loop of which the gradient is taken.
    """

    @jax.custom_batching.custom_vmap
    def shown(arrays: Arrays) -> Any:
        forms = forms_of(arrays)
        jax.debug.callback(lambda found: receive(decoded(found, forms), {}, {}), encoded(arrays))
        return jnp.int32(0)

    @shown.def_vmap
    def batched(size: int, which: Any, arrays: Arrays) -> tuple[Any, bool]:
        del size, which
        return shown(arrays), False

    shown(jax.lax.stop_gradient(arrays))
