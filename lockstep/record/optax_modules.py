"""What goes into flax' modules and comes out of them, while a function runs once more.

Parameters have the names of the trace, and modules get those that fit: a module's own parameters
are looked for among the trace's.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import jax

from lockstep.record import optax_names

# Gets the name of a module that has returned, what it was called with, and what came out.
See = Callable[[str, Any, Any], None]

# Makes JAX trace anew what it has in its caches: the modules in there would not be called.
ANEW = jax.make_user_context(None) if hasattr(jax, "make_user_context") else None


class Names:
    """The names that modules have, by those of the parameters."""

    def __init__(self, parameters: Mapping[str, Any]) -> None:
        """Know the parameters, by each end that their names have."""
        self.parameters = parameters
        self.begins: dict[str, list[str]] = {}
        for name in parameters:
            parts = name.split("/")
            for start in range(len(parts)):
                begin = "".join(f"{part}/" for part in parts[:start])
                self.begins.setdefault(name[len(begin) :], []).append(begin)

    def begin(self, own: Mapping[str, Any]) -> str | None:
        """What comes before the names of these parameters; None where it may be several things."""
        hits = Counter(
            begin
            for name, array in own.items()
            for begin in self.begins.get(name, ())
            if self.parameters[begin + name].shape == array.shape
        )
        most = max(hits.values(), default=0)
        best = [begin for begin, count in hits.items() if count == most]
        return best[0] if len(best) == 1 else None


@contextmanager
def watching(see: See, parameters: Mapping[str, Any], key: object) -> Iterator[None]:
    """Show what goes through flax' modules; the key is what JAX keeps its traces under."""
    with ExitStack() as stack:
        if ANEW is not None:
            stack.enter_context(ANEW(key))
        linen, nnx = sys.modules.get("flax.linen"), sys.modules.get("flax.nnx")
        names = Names(parameters)
        if linen is not None:
            stack.enter_context(linen.intercept_methods(Linen(see, names, linen.Embed)))
        if nnx is not None:
            stack.enter_context(patched(nnx, Nnx(see, names, nnx)))
        yield


class Linen:
    """Is called for each method of a module of flax.linen."""

    def __init__(self, see: See, names: Names, embed: type) -> None:
        """Begin outside of all modules."""
        self.see, self.names, self.embed = see, names, embed
        self.active: list[Any] = []
        self.begin: str | None = None
        self.depth = 0

    def __call__(self, call: Any, arguments: Any, options: Any, context: Any) -> Any:
        """Call the method, and show what went in and out."""
        module, method = context.module, context.method_name
        attends = method == "attend" and isinstance(module, self.embed)
        if not (method == "__call__" or attends) or any(module is one for one in self.active):
            return call(*arguments, **options)
        if not self.active:
            self.find(module.scope.root)
        self.active.append(module)
        try:
            result = call(*arguments, **options)
        finally:
            self.active.pop()
        if self.begin is not None:
            name = (self.begin + "/".join(module.path[self.depth :])).rstrip("/")
            self.see(f"{name}.attend" if attends else name, (arguments, options), result)
        return result

    def find(self, root: Any) -> None:
        """Find the parameters of a whole model among the trace's."""
        own = optax_names.named(root.variables().get("params", {}))
        self.begin, self.depth = self.names.begin(own), len(root.path)


class Nnx:
    """Is called for each call of a module of flax.nnx."""

    def __init__(self, see: See, names: Names, nnx: Any) -> None:
        """Begin with no module known."""
        self.see, self.names, self.nnx = see, names, nnx
        self.active: list[Any] = []
        # The modules themselves keep their ids from being used again.
        self.known: dict[int, tuple[Any, str | None]] = {}

    def __call__(self, call: Any, module: Any, arguments: Any, options: Any) -> Any:
        """Call the module, and show what went in and out."""
        if any(module is one for one in self.active):
            return call(*arguments, **options)
        name = self.name(module)
        self.active.append(module)
        try:
            result = call(*arguments, **options)
        finally:
            self.active.pop()
        if name is not None:
            self.see(name, (arguments, options), result)
        return result

    def name(self, module: Any) -> str | None:
        """A module's name; with it, those of all that are in it become known."""
        if id(module) not in self.known:
            own = optax_names.named(self.nnx.state(module, self.nnx.Param))
            begin = self.names.begin(own)
            self.known[id(module)] = module, None
            for path, node in self.nnx.iter_graph(module) if begin is not None else ():
                if isinstance(node, self.nnx.Module):
                    name = f"{begin}{'/'.join(map(str, path))}".rstrip("/")
                    self.known[id(node)] = node, name
        return self.known[id(module)][1]


@contextmanager
def patched(nnx: Any, watch: Nnx) -> Iterator[None]:
    """Let all classes of modules call through something that looks on."""
    owners = [kind for kind in kinds(nnx.Module) if "__call__" in vars(kind)]
    originals = [vars(kind)["__call__"] for kind in owners]

    def watched(original: Any) -> Any:
        def call(module: Any, *arguments: Any, **options: Any) -> Any:
            bound = original.__get__(module, type(module))
            return watch(bound, module, arguments, options)

        return call

    for kind, original in zip(owners, originals):
        kind.__call__ = watched(original)
    try:
        yield
    finally:
        for kind, original in zip(owners, originals):
            kind.__call__ = original


def kinds(parent: Any) -> list[Any]:
    """A class and all that are made of it, each once."""
    found = {parent: None}
    for child in parent.__subclasses__():
        found |= dict.fromkeys(kinds(child))
    return list(found)


def cloned(tree: Any) -> Any:
    """The same with copies of what flax.nnx has in it, which calls may change."""
    nnx = sys.modules.get("flax.nnx")
    if nnx is None:
        return tree

    def holds(node: Any) -> bool:
        return isinstance(node, (nnx.Object, nnx.Variable))

    leaves, structure = jax.tree_util.tree_flatten(tree, is_leaf=holds)
    # All at once, so that what they have in common stays that.
    copies = iter(nnx.clone([leaf for leaf in leaves if holds(leaf)]))
    return structure.unflatten([next(copies) if holds(leaf) else leaf for leaf in leaves])
