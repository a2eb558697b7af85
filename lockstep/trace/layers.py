"""What a module, or an operation between two, computes: found by doing it again from its inputs.

Each of a few layers has signatures that real ports get wrong: which GELU, which epsilon, which
scale of attention. A difference has a name where the first run's numbers are what one form of the
layer makes of the inputs, and the second run's what another does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations, product
from typing import NamedTuple

import numpy as np

from lockstep.record.writer import lattice
from lockstep.trace.activations import ACTIVATIONS, IN_SINGLE
from lockstep.trace.convolution import AROUND, Windows, channels_first, windows
from lockstep.trace.forward import Module, Parting, distance
from lockstep.trace.names import words
from lockstep.trace.reading import Array


class Reason(NamedTuple):
    """A name for a difference, and a sentence with what was found."""

    name: str
    said: str


@dataclass(frozen=True, eq=False)
class Case:
    """What a difference is explained from.

    parting: where the runs part; parameters: the first run's, by module, each by its last name;
    floor: what rounding leaves.
    """

    parting: Parting
    parameters: Mapping[str, Mapping[str, Array]]
    floor: float

    def fits(self, made: Array, got: Array) -> bool:
        """Whether an array is what was got, but for rounding."""
        return made.size == got.size and distance(got.ravel(), made.ravel()) <= self.floor

    def sources(self) -> Iterator[Module]:
        """The modules whose output the difference may follow from, the last first."""
        yield from reversed(self.parting.before)


def explained(case: Case) -> Reason | None:
    """The name of a difference, where one of the layers has it."""
    ways = {
        "inside": (normalised, turned, dense, with_activation, convolved, scaled),
        "between": (dropped, activated, attended, turned, scaled),
    }.get(case.parting.kind, ())
    return next((reason for way in ways if (reason := way(case)) is not None), None)


# Activations.


def activation(case: Case, x: Array, got: Array) -> str | None:
    """The activation that makes an array of another, the nearest that fits."""
    ways = [*ACTIVATIONS.items(), *IN_SINGLE.items()]
    apart, name = min((distance(got.ravel(), f(x).ravel()), name) for name, f in ways)
    return name if apart <= case.floor else None


def activated(case: Case) -> Reason | None:
    """One activation here, another there."""
    for source in case.sources():
        x = first(source.outputs)
        if x is None or x.size != case.parting.got[0].size:
            continue
        if (reason := another_activation(case, x, source.name)) is not None:
            return reason
    return None


def another_activation(case: Case, x: Array, name: str) -> Reason | None:
    """One activation of an array here, another there."""
    here, there = (activation(case, x, got) for got in case.parting.got)
    if not here or not there or here == there:
        return None
    gelus = here.startswith("GELU") and there.startswith("GELU")
    said = f"it has {there}, and {here} is right, behind {name}"
    return Reason("gelu" if gelus else "activation", said)


# Dropout.


def dropped(case: Case) -> Reason | None:
    """Numbers set to zero here and there, and the others made larger."""
    here, there = case.parting.got
    outputs = [first(source.outputs) for source in case.sources()]
    bases = [x.reshape(here.shape) for x in outputs if x is not None and x.size == here.size]
    for base in (np.zeros_like(here), *bases):
        for one, other, which in ((here, there, "it"), (there, here, "the first run")):
            rate = dropout(one - base, other - base, case.floor)
            if rate is not None:
                return Reason("dropout-on", f"dropout of {rate:.2g} acts in {which} alone")
    return None


def dropout(whole: Array, thinned: Array, floor: float) -> float | None:
    """The rate of dropout that leaves the second array of the first; None if none does."""
    tiny = floor * float(np.abs(whole).max(initial=0.0))
    shown = np.abs(whole) > 64 * tiny
    ratios = thinned[shown] / whole[shown]
    kept = np.abs(ratios) > 1e-3
    if kept.all() or not kept.any():
        return None
    scale = float(np.median(ratios[kept]))
    if scale <= 1 or distance(np.where(shown, whole, 0)[shown][kept] * scale,
                              thinned[shown][kept]) > floor:  # fmt: skip
        return None
    return 1 - 1 / scale


# Dense layers.


def products(case: Case, module: Module) -> dict[str, Array]:
    """What a dense layer may make of its input: with its kernel, turned, without its bias."""
    own = case.parameters.get(module.name, {})
    kernel, bias = parameter(own, "weight"), parameter(own, "bias")
    x, y = first(module.inputs), first(module.outputs)
    if kernel is None or kernel.ndim < 2 or x is None or y is None or x.dtype.kind != "f":
        return {}
    # A product of (rows, into) and (into, out) is (rows, out).
    rows = math.isqrt(x.size * y.size // kernel.size)
    if not rows or rows * rows * kernel.size != x.size * y.size or x.size % rows:
        return {}
    into, out = x.size // rows, y.size // rows
    if into * out != kernel.size:  # it is no product: a convolution's window goes over its input
        return {}
    flat = x.reshape(rows, into)
    found = {}
    for name, matrix in (
        ("as it stands", kernel.reshape(into, out)),
        ("turned", kernel.reshape(out, into).T),
    ):
        made = flat @ matrix
        found[name] = made if bias is None else made + bias.ravel()
        if bias is not None and bias.any():
            found[f"{name}, without its bias"] = made
    return found


def divisors(number: int) -> list[int]:
    """All divisors."""
    small = [n for n in range(1, math.isqrt(number) + 1) if number % n == 0]
    return sorted({*small, *(number // n for n in small)})


def dense(case: Case) -> Reason | None:
    """A dense layer whose kernel is transposed, or whose bias is missing."""
    module = case.parting.mine
    made = products(case, module)
    here = [name for name, array in made.items() if case.fits(array, case.parting.got[0])]
    there = [name for name, array in made.items() if case.fits(array, case.parting.got[1])]
    return kernel_reason(here, there, module.name)


def with_activation(case: Case) -> Reason | None:
    """A dense layer with another activation inside."""
    module = case.parting.mine
    made = (array for array in products(case, module).values())
    found = (another_activation(case, array, module.name) for array in made)
    return next((reason for reason in found if reason is not None), None)


def kernel_reason(here: Sequence[str], there: Sequence[str], name: str) -> Reason | None:
    """What tells two ways of a dense layer apart."""
    if not here or not there or set(here) & set(there):
        return None
    if here[0].split(",")[0] != there[0].split(",")[0]:
        return Reason("transposed-kernel", f"the kernel of {name} is transposed")
    which = "it" if "without" in there[0] else "the first run"
    return Reason("missing-bias", f"{which} leaves the bias of {name} out")


def turned(case: Case) -> Reason | None:
    """A dense layer that the second run never calls, in another way in an operation of its own."""
    here, there = case.parting.got
    for module in case.parting.missing:
        output = first(module.outputs)
        if output is None or output.size != here.size or not (made := products(case, module)):
            continue
        right = [way for way, array in made.items() if case.fits(array, output)]
        if not right or (name := activation(case, output, here)) is None:
            continue
        f = ACTIVATIONS[name]
        wrong = [way for way, array in made.items() if case.fits(f(array), there)]
        if (reason := kernel_reason(right, wrong, module.name)) is not None:
            return reason
    return None


def scaled(case: Case) -> Reason | None:
    """A number times what is right."""
    here, there = (array.ravel().astype(float) for array in case.parting.got)
    square = float(here @ here)
    factor = float(here @ there) / square if square else 0.0
    if not factor or not case.fits(here * factor, there):
        return None
    return Reason("scaled", f"it has {factor:.6g} times what is right")


# Convolutions.


def convolved(case: Case) -> Reason | None:
    """A convolution whose windows lie elsewhere, or with something else around its input."""
    module = case.parting.mine
    own = case.parameters.get(module.name, {})
    kernel, bias = parameter(own, "weight"), parameter(own, "bias")
    x = first(module.inputs)
    if kernel is None or x is None:
        return None
    found: list[list[Windows]] = []
    for got in case.parting.got:
        if (arrays := channels_first(x, kernel, got)) is None:
            return None
        given, weights, y = arrays
        if bias is not None and bias.size != len(weights):
            return None
        made = y if bias is None else y - bias.reshape(-1, *(1 for _ in y.shape[2:]))
        found.append([*windows(given, weights, made, case.floor)])
    here, there = found
    if not here or not there or {*here} & {*there}:
        return None
    pairs = product(here, there)
    one, other = min(pairs, key=lambda both: sum(a != b for a, b in zip(*both, strict=True)))
    if one.around != other.around:
        said = f"it pads its input with {AROUND[other.around]} instead of {AROUND[one.around]}"
    else:
        said = f"its first window begins {other.ahead} ahead of its input instead of {one.ahead}"
    return Reason("convolution-padding", said)


# Normalisation.


class Norm(NamedTuple):
    """How an array was normalised: over what, with which epsilon."""

    kind: str
    epsilon: float
    error: float

    def apart(self, other: Norm) -> bool:
        """Whether another epsilon is another one."""
        return abs(self.epsilon - other.epsilon) > self.error + other.error


def normalised(case: Case) -> Reason | None:
    """Another epsilon, other statistics."""
    module = case.parting.mine
    own = case.parameters.get(module.name, {})
    x = first(module.inputs)
    if x is None or x.ndim < 2 or any(array.ndim != 1 for array in own.values()):
        return None
    if any(got.shape != x.shape for got in case.parting.got):
        return None
    here, there = ([*norms(case, x, got, own)] for got in case.parting.got)
    for one in here:
        for other in there:
            if one.kind == other.kind and one.apart(other):
                name = f"{one.kind.split()[0]}-epsilon"
                said = f"its epsilon is {other.epsilon:.2g}, and {one.epsilon:.2g} is right"
                return Reason(name, said)
    kinds = [{each.kind for each in found} for found in (here, there)]
    if "batchnorm" in kinds[0] and by_channel(case, x, case.parting.got[1], own):
        said = "it normalises by statistics that are not this batch's, as in evaluation"
        return Reason("batchnorm-eval", said)
    if here and there and not kinds[0] & kinds[1]:
        return Reason("another norm", f"it is a {there[0].kind}, and {here[0].kind} is right")
    return None


def norms(case: Case, x: Array, y: Array, own: Mapping[str, Array]) -> Iterator[Norm]:
    """The normalisations that make one array of another."""
    scale, shift = parameter(own, "weight"), parameter(own, "bias")
    length = next((array.size for array in own.values()), x.shape[-1])
    grouped = []
    for axis in [axis for axis, size in enumerate(x.shape) if size == length]:
        shape = [length if each == axis else 1 for each in range(x.ndim)]
        g = np.ones(shape) if scale is None else scale.reshape(shape)
        b = np.zeros(shape) if shift is None else shift.reshape(shape)
        plain = (y - b) / np.where(g == 0, 1, g)
        rest = tuple(each for each in range(x.ndim) if each != axis)
        for kind, over in (("layernorm", (axis,)), ("rmsnorm", (axis,)), ("batchnorm", rest)):
            centred = x if kind == "rmsnorm" else x - x.mean(over, keepdims=True)
            if (found := epsilon(centred, plain, over, case.floor)) is not None:
                yield Norm(kind, *found)
        if axis and x.ndim > 2:
            grouped.append([np.moveaxis(each, axis, 1) for each in (x, plain)])
    # Groups of one place are what a layer norm has: that is the simpler one.
    for groups, both in product(divisors(length), grouped):
        given, made = (each.reshape(len(x), groups, -1) for each in both)
        centred = given - given.mean(2, keepdims=True)
        if (found := epsilon(centred, made, (2,), case.floor)) is not None:
            yield Norm(f"groupnorm of {groups} groups", *found)


def epsilon(x: Array, y: Array, over: tuple[int, ...], floor: float) -> tuple[float, float] | None:
    """The epsilon with which y = x / sqrt(mean(x²) + epsilon), and its error; None if none has."""
    variance = (x * x).mean(over, keepdims=True)
    factor = (x * y).mean(over, keepdims=True) / variance
    if distance(y, factor * x) > floor or not (factor > 0).all():
        return None
    sums = 1 / factor**2
    # The smallest variance shows the epsilon best.
    at = int(np.argmin(variance))
    value = float(sums.flat[at] - variance.flat[at])
    error = 4 * floor * float(sums.flat[at])
    made = x / np.sqrt(variance + max(value, 0.0))
    return (value, error) if distance(y, made) <= 4 * floor else None


def by_channel(case: Case, x: Array, y: Array, own: Mapping[str, Array]) -> bool:
    """Whether each channel is a line in what came in."""
    length = next((array.size for array in own.values()), 0)
    for axis in [axis for axis, size in enumerate(x.shape) if size == length]:
        rest = tuple(each for each in range(x.ndim) if each != axis)
        flat_x, flat_y = x - x.mean(rest, keepdims=True), y - y.mean(rest, keepdims=True)
        slope = (flat_x * flat_y).sum(rest, keepdims=True) / (flat_x**2).sum(rest, keepdims=True)
        if distance(flat_y, slope * flat_x) <= case.floor:
            return True
    return False


# Attention.


class Attention(NamedTuple):
    """A form of attention: heads, what scores are multiplied by, what may be looked at."""

    heads: int
    scale: str
    mask: str


SCALES: dict[str, Callable[[int, int], float]] = {
    "1 / sqrt(width of a head)": lambda width, heads: width**-0.5,
    "1": lambda width, heads: 1.0,
    "1 / sqrt(width of all heads)": lambda width, heads: (width * heads) ** -0.5,
    "1 / width of a head": lambda width, heads: 1 / width,
}
MASKS = ("what came before", "all")
# How many times of an example are made at once, and by how many a form is known.
TIMES = 16


def attended(case: Case) -> Reason | None:
    """Attention with another scale, mask, or number of heads."""
    here, there = (got[:1] for got in case.parting.got)
    if here.ndim < 3 or here.shape[1] < 2:
        return None
    size = case.parting.got[0].size
    parts: list[Array] = []
    for output in (first(each.outputs) for each in case.parting.ahead):
        if output is not None and output.size == size:
            parts.append(output)
        elif output is not None and output.size == 3 * size and output.shape[-1] % 3 == 0:
            parts += np.split(output, 3, axis=-1)  # one layer makes all three
    some = [each[:1] for each in parts[-3:]]
    if len(some) < 3:
        return None
    whole = np.ones(here.shape[1], dtype=bool)
    for each in permutations(some):
        qkv = [array.reshape(len(whole), -1) for array in each]
        for one, other in ((here, there), (there, here)):
            for known in attentions(case, qkv, one, whole, 0.5):
                # What nothing attends to is padding, and the other run need not make it either.
                keys = made_at(case, qkv, one, known, whole, np.arange(len(whole)))
                for form in attentions(case, qkv, other, keys, 1.0):
                    right, own = (known, form) if one is here else (form, known)
                    return attention_reason(right, own)
    return None


def attentions(
    case: Case, qkv: Sequence[Array], got: Array, keys: Array, share: float
) -> Iterator[Attention]:
    """The forms of attention that make an array of queries, keys and values (time, width).

    keys: the times that are attended to; share: at how many of them it is made, at least.
    """
    width, at = qkv[0].shape[1], np.flatnonzero(keys)
    some = at[lattice(len(at), 1, TIMES)]
    # At the first time there is nothing else to attend to, whatever the scale.
    enough = max(2, share * len(some))
    for heads, scale, mask in product(divisors(width), SCALES, MASKS):
        form = Attention(heads, scale, mask)
        if not made_at(case, qkv, got, form, keys, at[1:2]).any():
            continue  # one time tells most forms apart
        if made_at(case, qkv, got, form, keys, some).sum() >= enough:
            yield form


def made_at(
    case: Case, qkv: Sequence[Array], got: Array, form: Attention, keys: Array, times: Array
) -> Array:
    """At which of some times a form of attention makes an array of queries, keys and values.

    An example may end with padding, which changes nothing before if each time looks back alone.
    """
    time, width = qkv[0].shape
    got = got.reshape(time, width)
    bound = case.floor * np.linalg.norm(got, axis=1).max()
    q, k, v = (each.reshape(time, form.heads, -1).transpose(1, 0, 2) for each in qkv)
    factor = SCALES[form.scale](width // form.heads, form.heads)
    found = []
    for some in np.array_split(times, -(-len(times) // TIMES)):
        scores = q[:, some] @ k.transpose(0, 2, 1) * factor
        looked_at = keys & (np.arange(time) <= some[:, None]) if form.mask == MASKS[0] else keys
        seen = np.where(looked_at, scores, -np.inf)
        weights = np.exp(seen - seen.max(-1, keepdims=True))
        made = weights @ v / weights.sum(-1, keepdims=True)
        made = made.transpose(1, 0, 2).reshape(len(some), width)
        found.append(np.linalg.norm(made - got[some], axis=1) <= bound)
    return np.concatenate(found)


def attention_reason(here: Attention, there: Attention) -> Reason | None:
    """What tells two forms of attention apart."""
    if here.heads != there.heads:
        said = f"attention has {there.heads} heads, and {here.heads} is right"
        return Reason("attention-heads", said)
    if here.mask != there.mask:
        return Reason("attention-mask", f"it attends to {there.mask}, and {here.mask} is right")
    if here.scale != there.scale:
        said = f"scores are multiplied by {there.scale}, and {here.scale} is right"
        return Reason("attention-scale", said)
    return None


def parameter(own: Mapping[str, Array], kind: str) -> Array | None:
    """A module's weight or bias, by whatever name it has."""
    return next((array for name, array in own.items() if words(name)[-1:] == [kind]), None)


def first(arrays: Sequence[Array]) -> Array | None:
    """The first of a module's arrays, if it has one."""
    return arrays[0] if arrays else None
