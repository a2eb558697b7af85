"""What a person who ports an optimizer is told, as text: lines to paste, and a table's cells."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping

from lockstep.frameworks import NAMES
from lockstep.optimizers.measurement import DTYPE, Measurement, differing
from lockstep.optimizers.stock import MODULES, naive_call, stock_name
from lockstep.optimizers.translation import RATES, WIDTH, Lines, lines, moving_rate
from lockstep.optimizers.variants import UPDATES, VARIANTS
from lockstep.problem.settings import OPTIMIZERS, Optimizer, ProblemError, require

# A stock optimizer is as good as the lines if it is no further off than so many times as much:
# what rounding does differs by less, and what a setting does by much more.
AS_GOOD = 10.0


def changed(settings: Optimizer, changes: list[str]) -> Optimizer:
    """The settings with some of them replaced, each change a text: eps=1e-6, betas=0.9,0.95.

    The names are torch.optim's; `lr` is learning_rate. Raises ProblemError for a change that does
    not make sense.
    """
    found = {name: getattr(settings, name) for name in OPTIMIZERS[settings.name]}
    for change in changes:
        name, equals, text = change.partition("=")
        name = {"lr": "learning_rate"}.get(name.strip(), name.strip())
        require(bool(equals) and bool(name), f"--set: {change!r} must be NAME=VALUE")
        require(
            name in found,
            f"--set: {name!r} is not a setting of {settings.name}, which has {', '.join(found)}",
        )
        found[name] = value(name, text.strip(), found[name])
    return Optimizer(settings.name, **found)


def value(name: str, text: str, like: object) -> object:
    """A setting's value of the kind that it has; what it must be besides, Optimizer says."""
    try:
        if isinstance(like, bool):
            return {"true": True, "false": False}[text.lower()]
        if isinstance(like, tuple):
            return tuple(map(float, text.strip("()").split(",")))
        return float(text)
    except (KeyError, ValueError):
        kind = {bool: "True or False", tuple: "two numbers, as in 0.9,0.999"}
        raise ProblemError(
            f"--set: {name}: {text!r} must be {kind.get(type(like), 'a number')}"
        ) from None


def program(
    variant: str,
    settings: Optimizer,
    source: str,
    target: str,
    measured: Mapping[str, Measurement],
    dtype: str = "float32",
    decay_bias: bool = True,
) -> str:
    """The lines of the target, below comments that say what they replace and why.

    The comments hold the source's statements. What was measured of the variant is told where these
    are its settings.
    """
    take = lines(target, settings, dtype, decay_bias)
    here = [f"The update of {rule(settings)} in {NAMES[target]}."]
    if source != target:
        here[0] += f" What you have, in {NAMES[source]}:"
        have = lines(source, settings, dtype, decay_bias)
        here.append(textwrap.indent(have.statements, "    "))
    remarks = []
    if target in measured:
        known = settings, target, measured[target]
        remarks = [missing(*known), other_defaults(*known)]
        if settings == VARIANTS[variant]:
            remarks.insert(0, distances(variant, target, measured[target]))
    here.append("\n".join(filled(each) for each in [*remarks, *reasons(take)] if each))
    rate = moving_rate(target)
    here.append(filled(brought(take, decay_bias) + " Before every update:" * bool(rate)))
    here.append(textwrap.indent(rate, "    "))
    comment = "\n\n".join(each for each in here if each)
    return textwrap.indent(comment, "# ", lambda row: True).replace("# \n", "#\n") + f"\n\n{take}\n"


def filled(text: str) -> str:
    """A paragraph in rows that fit behind a comment's sign."""
    return textwrap.fill(text, WIDTH - 2)


def rule(settings: Optimizer) -> str:
    """Whose update it is."""
    name = stock_name("pytorch", settings)
    return f"{MODULES['pytorch']}.{name}" if name else settings.name.capitalize()


def distances(variant: str, framework: str, measured: Measurement) -> str:
    """How far off a naive port is, and how far the lines."""
    found = measured.distances[variant]
    if found.naive is None:
        return ""
    if found.naive <= AS_GOOD * found.here:
        return (
            f"{found.call} does as well: {found.naive:.0e} off in {UPDATES} updates in {DTYPE},"
            f" and these lines {found.here:.0e}."
        )
    return (
        f"{found.call} alone is up to {found.naive:.0e} off in {UPDATES} updates in {DTYPE},"
        f" these lines {found.here:.0e}."
    )


def missing(settings: Optimizer, framework: str, measured: Measurement) -> str:
    """What the library does not have of what the settings need."""
    call = naive_call(framework, settings, measured.signatures)
    if call is None:
        return f"{MODULES[framework]} has no {settings.name.capitalize()}."
    name = f"{MODULES[framework]}.{stock_name(framework, settings)}"
    return f"{name} has no {' and no '.join(call.left_out)}." if call.left_out else ""


def other_defaults(settings: Optimizer, framework: str, measured: Measurement) -> str:
    """The defaults that are not torch.optim's, if there are any."""
    found = "; ".join(map(str, differing(framework, settings, measured)))
    name = f"{MODULES[framework]}.{stock_name(framework, settings)}"
    return f"Defaults of {name}: {found}." if found else ""


def reasons(take: Lines) -> list[str]:
    """What the sources say of the lines: why they are not the library's own optimizer."""
    return [*take.notes, *(f"{name}: {doc}" for name, doc in take.why.items())]


def brought(take: Lines, decay_bias: bool) -> str:
    """What the lines expect to find."""
    text = "Yours: parameters"
    if not decay_bias:
        text += ", that is W and b, of which b does not decay"
    if RATES in take.statements:
        text += f"; {RATES}, a list with the rate of every update"
    return text + "."


# The rows of a table: each rule, and the settings that ports of it get wrong.
ROWS = (
    "momentum", "adam", "adam-decay", "adamw", "amsgrad", "adamax", "nadam", "rmsprop",
    "rmsprop-momentum", "adagrad", "adadelta", "lion",
)  # fmt: skip


def pytorch_cell(name: str, measured: Mapping[str, Measurement]) -> str:
    """The stock call without what every call has."""
    call = measured["pytorch"].distances[name].call
    if call is None:
        return "(has none)"
    text = call.removeprefix(f"{MODULES['pytorch']}.").replace("parameters, learning_rate", "")
    return f"`{text.replace('(, ', '(').replace('()', '')}`"


def keras_cell(name: str) -> str:
    """The class, and what its docstring says of the one it is made of, and of weight_decay."""
    take = lines("tensorflow", VARIANTS[name])
    found = take.links[0].partition("(")[0]
    decay = [doc for doc in take.why.values() if "weight_decay" in doc]
    reasons = [take.why[found].removeprefix("The stock one"), *(sentence(doc, -1) for doc in decay)]
    return f"`{found}`" + "; ".join(each.rstrip(".") for each in reasons)


def optax_cell(name: str) -> str:
    """The links of the chain; for one that is adapted, what its docstring says first."""
    take = lines("jax", VARIANTS[name])
    cells = []
    for link in take.links:
        text = link.removeprefix("optax.").replace("()", "")
        why = sentence(take.why.get(text, ""), 0)
        cells.append(f"`adapted.{text}`: {why[:1].lower()}{why[1:]}" if why else f"`{text}`")
    return ", ".join(cells)


def sentence(text: str, which: int) -> str:
    """One of a text's sentences, without its point."""
    return [each.rstrip(".") for each in text.split(". ")][which]
