"""Makes a page for each optimizer, and one of all, from what `lockstep optimizers` ships."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import permutations
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from sphinx.application import Sphinx

from docs import plots
from docs._ext.prose import render
from docs.plots import Look
from docs.written import stale, write
from lockstep.frameworks import FRAMEWORKS, NAMES
from lockstep.optimizers import advice, measurement
from lockstep.optimizers.measurement import FILE, Default, Distance, Measurement, plain
from lockstep.optimizers.stock import MODULES, stock_name
from lockstep.optimizers.translation import lines
from lockstep.optimizers.variants import UPDATES, VARIANTS
from lockstep.problem.settings import OPTIMIZERS, Optimizer

DOCS = Path(__file__).parent.parent
# What rounding explains, in float64 and so few updates.
ROUNDING = 1e-12
LIBRARIES = {"pytorch": "PyTorch", "tensorflow": "Keras", "jax": "optax"}
Measured = Mapping[str, Measurement]


def make(folder: Path = DOCS) -> None:
    """Write all pages, and the plot if it is older than what it shows."""
    measured = measurement.shipped()
    write(folder / "optimizers.md", overview(measured))
    for name in VARIANTS:
        write(folder / "optimizers" / f"{name}.md", page(name, measured))
    stem = folder / "optimizers" / "distances"
    data = Path(measurement.__file__).parent / "data" / FILE
    if stale(plots.files(stem).values(), [data, Path(plots.__file__), Path(__file__)]):
        plots.save(plot(measured), stem)


def overview(measured: Measured) -> str:
    """All variants."""
    rows = [
        {
            "name": name,
            "own": [cell for each in FRAMEWORKS for cell in own(measured[each].distances[name])],
            "here": off(max(measured[each].distances[name].here for each in FRAMEWORKS)),
            "keras": advice.keras_cell(name),
            "optax": advice.optax_cell(name) or "the rate alone",
            "defaults": [differing(each, name, measured) for each in ("tensorflow", "jax")],
        }
        for name in VARIANTS
    ]
    values = {
        "rows": rows,
        "updates": UPDATES,
        "dtype": measurement.DTYPE,
        "themes": list(plots.INK),
        "alt": alt(measured),
        "measured": circumstances(measured),
    }
    return render("optimizers.md.jinja", values)


def own(found: Distance) -> tuple[str, str]:
    """The name of a library's own optimizer, and how far off it is."""
    if found.call is None:
        return "none", ""
    name = found.call.partition("(")[0].rpartition(".")[2]
    return f"`{name}`", off(found.naive) + "\\*" * bool(found.left_out)


def off(distance: float | None) -> str:
    """A distance, of which the digits after the first say nothing."""
    return "" if distance is None else f"{distance:.0e}"


def differing(framework: str, name: str, measured: Measured) -> str:
    """The defaults of a library's optimizer that are not PyTorch's."""
    found = measurement.differing(framework, VARIANTS[name], measured[framework])
    return "; ".join(f"`{each}`" for each in map(str, found))


def circumstances(measured: Measured) -> str:
    """With what, and when."""
    versions: dict[str, str] = {}
    for each in measured.values():
        versions |= each.versions
    days = " and ".join(sorted({each.day for each in measured.values()}))
    told = ", ".join(f"{package} {version}" for package, version in versions.items())
    return f"Measured on {days} with {told}."


def page(name: str, measured: Measured) -> str:
    """One variant."""
    settings = VARIANTS[name]
    take = {each: lines(each, settings) for each in FRAMEWORKS}
    values = {
        "name": name,
        "rule": advice.rule(settings),
        "settings": chosen(settings),
        "updates": UPDATES,
        "dtype": measurement.DTYPE,
        "distances": {label: measured[each].distances[name] for each, label in NAMES.items()},
        "missing": [
            text for each in FRAMEWORKS if (text := advice.missing(settings, each, measured[each]))
        ],
        "heads": heads(settings),
        "defaults": defaults(settings, measured),
        "reasons": [
            (NAMES[each], text) for each in FRAMEWORKS for text in advice.reasons(take[each])
        ],
        "programs": {
            (NAMES[source], NAMES[target]): advice.program(
                name, settings, source, target, measured
            ).rstrip()
            for source, target in permutations(FRAMEWORKS, 2)
        },
    }
    return render("optimizer.md.jinja", values, off=off)


def chosen(settings: Optimizer) -> str:
    """The settings that are not PyTorch's defaults, but for the learning rate."""
    changed = [
        f"`{name}={value!r}`"
        for name, default in OPTIMIZERS[settings.name].items()
        if name != "learning_rate" and (value := getattr(settings, name)) != default
    ]
    return " and ".join(changed)


def heads(settings: Optimizer) -> list[str]:
    """The libraries' own optimizers, of those that have one."""
    return [
        f"`{MODULES[each]}.{own_name}`"
        for each in FRAMEWORKS
        if (own_name := stock_name(each, settings))
    ]


def defaults(settings: Optimizer, measured: Measured) -> dict[str, list[str]]:
    """The defaults side by side, by PyTorch's names, then those that a library has alone."""
    columns = [
        measurement.defaults(each, settings, measured[each])
        for each in FRAMEWORKS
        if stock_name(each, settings)
    ]
    known = dict.fromkeys([*OPTIMIZERS[settings.name], *(name for c in columns for name in c)])
    return {name: [default(name, column.get(name)) for column in columns] for name in known}


def default(setting: str, found: Default | None) -> str:
    """A default, with its name where the library has one of its own."""
    if found is None:
        return "none"
    text = plain(found.value) if found.names == (setting,) else found.named
    return f"`{text}`" + " ≠" * found.differs


def plot(measured: Measured) -> Figure:
    """How far off each library's own optimizers are."""
    return plots.dots(
        {
            label: ({n: d.naive for n, d in measured[each].distances.items() if d.naive}, look)
            for (each, label), look in zip(LIBRARIES.items(), LOOKS)
        },
        list(VARIANTS),
        "off by",
        ROUNDING,
    )


LOOKS = (Look("#0b8a6e", "", "x", 6), Look("#c8590a", "", "s", 6), Look("#2b7bd6", "", "o", 6))


def alt(measured: Measured) -> str:
    """What the plot shows, in words."""
    told = []
    for framework, label in LIBRARIES.items():
        found = [each.naive for each in measured[framework].distances.values() if each.naive]
        near = sum(each <= ROUNDING for each in found)
        told.append(f"{label} {near} of {len(found)}")
    return (
        "A row for each variant, a mark for each library, on a logarithmic scale from 1e-16 to 10."
        f" Within rounding are, of each library's own optimizers: {', '.join(told)}."
    )


def setup(app: Sphinx) -> dict[str, Any]:
    """Make the pages before Sphinx looks for them."""
    app.connect("builder-inited", lambda app: make())
    app.add_css_file("mistakes.css")
    return {"parallel_read_safe": True, "parallel_write_safe": True}
