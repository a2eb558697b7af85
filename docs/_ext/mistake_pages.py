"""Makes a page for each mistake, and one of all, from the catalogue and from what was measured."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping, Sequence, Set
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from sphinx.application import Sphinx

from docs import plots, record_mistakes
from docs._ext.prose import render
from docs.plots import Line
from docs.written import stale, write
from lockstep import mistakes
from lockstep.diagnosis.matrix import correct_matrix, in_words, plain
from lockstep.diagnosis.probes import Probe, probes
from lockstep.frameworks import FRAMEWORKS, NAMES
from lockstep.source import columns

FOLDER = Path(__file__).parent.parent / "mistakes"
# Where two losses are nearer to each other, a picture shows one line.
VISIBLE = 0.05
KINDS = {
    "mistake": "",
    "policy": "A [policy](index.md#what-is-a-policy): right where both sides mean it. ",
    "library": "A [library](index.md#what-libraries-do) does it, and nobody's own hand. ",
}
ABOUT = {
    "zeroing": "The accumulator is emptied at the wrong time, not at all, or in the wrong place.",
    "scaling": "A window's gradient is not the sum over its examples divided by their number.",
    "windows": "A boundary is in the wrong place, or a partial window goes wrong.",
    "clipping": "The gradient is clipped by another norm, at another time, or not at all.",
    "precision": "Numbers are held in too few bits, or those that are not finite get through.",
    "schedule": "An update takes the learning rate of another one.",
    "decay": "Weights are decayed by another rule, too often, or those that should not be.",
    "optimizer": "The rule or its state is not that of `torch.optim`'s documentation.",
    "model": "The loss is not the one that was meant.",
}
HEAD = re.compile(r"^diff --git a/(\S+) .*\n--- .*\n\+\+\+ .*\n", re.MULTILINE)
RANGE = re.compile(r"^@@ .*", re.MULTILINE)
Measured = Mapping[str, Any]
Row = dict[str, Any]


@cache
def known_probes() -> dict[str, Probe]:
    """All probes, by name."""
    return {probe.name: probe for probe in probes()}


def make(folder: Path = FOLDER) -> None:
    """Write all pages, and the plots that are older than what they show."""
    measured = record_mistakes.load()
    sources = [record_mistakes.FILE, Path(plots.__file__), Path(__file__)]
    for name in mistakes.names():
        found = measured["mistakes"][name]
        write(folder / f"{name}.md", page(name, found))
        if stale(plots.files(folder / name).values(), sources):
            plots.save(plot(found), folder / name)
    rows = [row(name, measured["mistakes"][name]) for name in mistakes.names()]
    for family, about in ABOUT.items():
        own = [each for each in rows if each["mistake"].family == family]
        values = {"family": family, "about": about, "rows": own}
        write(folder / f"{family}.md", render("family.md.jinja", values))
    write(folder / "index.md", overview(rows, measured))


def page(name: str, found: Measured) -> str:
    """One mistake."""
    mistake = mistakes.load(name)
    values = {
        **found,
        "name": name,
        "mistake": mistake,
        "kind": KINDS[mistake.kind],
        "probe": known_probes()[found["probe"]],
        "frameworks": NAMES,
        **diffs(name, plain=found["plain"]),
        "symptoms": symptoms(found),
        "themes": list(plots.INK),
        "alt": alt(found),
        "caption": caption(found),
        "named_by": named_by(name),
        "common": len(found["distances"]["reference"]),
        "measured": MEASURED[found["quantity"]],
        "setting": setting(known_probes()[found["probe"]]),
        "sizes": {label: sizes(found, each) for each, label in NAMES.items()},
        "others": " and ".join(others(found)),
    }
    if found["coefficients"]:
        matrix, probe = np.array(found["coefficients"]), known_probes()["coefficients"]
        values["words"] = " ".join(
            f"{s[:1].upper()}{s[1:]}." for s in in_words(matrix, probe.problem)
        )
        correct = correct_matrix(probe.problem).tolist()
        values["matrices"] = {"the correct loop": correct, name: found["coefficients"]}
    return render("mistake.md.jinja", values, weight=weight, fraction=fraction)


def diffs(name: str, plain: bool) -> dict[str, dict[str, str]]:
    """The diffs of the plain loop, if it can make the mistake, and what is left for the recipe.

    None where they are empty in every framework.
    """
    found: dict[str, dict[str, str]] = {"loop_diffs": {}, "recipe_diffs": {}}
    for framework in FRAMEWORKS:
        hunks = hunks_by_file(mistakes.diff(name, framework))
        own = {file for file in hunks if plain and file in plain_files(framework)}
        found["loop_diffs"][framework] = shown_diff(hunks, own)
        found["recipe_diffs"][framework] = shown_diff(hunks, hunks.keys() - own)
    return {each: texts if any(texts.values()) else {} for each, texts in found.items()}


def hunks_by_file(diff: str) -> dict[str, str]:
    """The hunks of each file of a diff, by the name of its module."""
    _, *parts = HEAD.split(diff)
    return {Path(path).stem: hunks for path, hunks in zip(parts[::2], parts[1::2], strict=True)}


@cache
def plain_files(framework: str) -> frozenset[str]:
    """The modules that the plain loop is made of: training.py, and what it imports."""
    found, new = set[str](), {"training"}
    while new:
        found |= new
        new = {name for module in new for name in imported(framework, module)} - found
    return frozenset(found)


def imported(framework: str, module: str) -> Iterator[str]:
    """The modules of its own folder that a module imports."""
    for node in ast.parse(columns.source(framework, module)).body:
        if isinstance(node, ast.ImportFrom) and node.level:
            yield from [node.module] if node.module else [each.name for each in node.names]


def shown_diff(hunks: Mapping[str, str], files: Set[str]) -> str:
    """The hunks of these files, with one line for each file instead of those for programs."""
    texts = (f"diff {file}.py\n{hunks[file]}" for file in hunks if file in files)
    return RANGE.sub("@@", "".join(texts)).rstrip("\n")


def weight(cell: float) -> str:
    """How dark a cell is."""
    return f"{min(1.0, abs(cell)):.3g}"


def fraction(cell: float) -> str:
    """What is written into a cell."""
    return plain(cell) if cell else ""


def named_by(name: str) -> list[str]:
    """The mistakes that name this one as a look-alike, and that it does not name itself."""
    mine = mistakes.load(name).look_alikes
    return [
        other
        for other in mistakes.names()
        if name in mistakes.load(other).look_alikes and other not in mine
    ]


MEASURED = {
    "parameters": (
        "How far the parameters are from the correct ones, relative to the largest parameter,"
        " where rounding does not explain it."
    ),
    "loss": (
        "How far the reported loss is from the window's, relative to it; every parameter is right"
        " after every update."
    ),
}


def setting(probe: Probe) -> str:
    """A probe in a sentence."""
    problem = probe.problem
    epochs = "one epoch" if problem.epochs == 1 else f"{problem.epochs} epochs"
    return (
        f"The probe is “{probe.title}”: {problem.optimizer.name}, K = {problem.accumulation_steps},"
        f" {epochs} of {len(problem.micro_batches)} micro-batches, {problem.dtype}."
    )


def sizes(found: Measured, framework: str) -> tuple[str, str, str]:
    """A framework's first update that differs, and its sizes then and at the end."""
    distances = found["distances"].get(framework)
    if distances is None:
        return "cannot be made here", "", ""
    first = first_differing(distances)
    if first is None:
        return "none on this probe", "", ""
    return str(first), size(distances[first - 1]), size(distances[-1])


def first_differing(distances: Sequence[float | None]) -> int | None:
    """The first update, from 1, that rounding does not explain."""
    return next((u for u, each in enumerate(distances, 1) if each != 0), None)


def size(distance: float | None) -> str:
    """A relative size in two digits."""
    if distance is None:
        return "not finite"
    return f"{distance:.0f}" if distance >= 10 else f"{distance:#.2g}"


def others(found: Measured) -> list[str]:
    """The frameworks whose numbers are not those of the mistake's first form."""
    distances = found["distances"]
    return [
        NAMES[each]
        for each in FRAMEWORKS
        if each in distances and distances[each] != distances["reference"]
    ]


def symptoms(found: Measured) -> list[str]:
    """What is to be seen of a mistake, in words that are the same for all that show it."""
    return [
        first_wrong(found),
        *multiples(found["factors"]["loss"], "reported loss", "wrong"),
        *multiples(found["factors"]["update"], "gradient", "in another direction"),
        *endings(found),
    ]


def first_wrong(found: Measured) -> str:
    """Which update is right, and which is the first that is not."""
    if found["quantity"] == "loss":
        return "every update right"
    first = first_differing(found["distances"]["reference"]) or 0
    before = {1: "", 2: "update 1 right, "}.get(first, f"{first - 1} updates right, ")
    return f"{before}update {first} wrong"


def multiples(factors: Sequence[float | None], of: str, otherwise: str) -> Iterator[str]:
    """By what a quantity is off on all the probes that its factors are measured on."""
    if all(factor == 1 for factor in factors):
        return
    for name in window_sizes()[0]:
        sizes = [each[name] for each in window_sizes()]
        if all(near(*pair) for pair in zip(factors, sizes, strict=True)):
            yield f"{of} {name}"
            return
    yield f"{of} {otherwise}"


@cache
def window_sizes() -> tuple[dict[str, float], ...]:
    """What may be a factor, on each probe that factors are measured on."""
    found = []
    for problem in (known_probes()[name].problem for name in record_mistakes.SIZES):
        examples = sum(len(problem.micro_batches[j][0]) for j in problem.windows[0])
        sizes = {
            "K": problem.accumulation_steps,
            "the outputs": problem.W.shape[1],
            "the window's examples": examples,
            "2": 2,
        }
        large = {f"too high by {name}": size for name, size in sizes.items()}
        small = {f"too low by {name}": 1 / size for name, size in sizes.items()}
        found.append(large | small | {"is 0": 0, "has the wrong sign": -1})
    return tuple(found)


def near(factor: float | None, size: float) -> bool:
    """Whether a measured factor, of three digits, is this one; where K = 1, 0 may not show."""
    if factor is None:
        return False
    return abs(factor - size) <= 0.002 * abs(size) or (factor == 1 and size == 0)


def endings(found: Measured) -> Iterator[str]:
    """What else is to be seen: how many updates, where the numbers go, what is right."""
    shown, due = found["updates"]["with"], found["updates"]["without"]
    if shown != due:
        yield "too few updates" if shown < due else "too many updates"
    losses = found["losses"]["with"]
    if None in found["losses"]["without"] + losses:
        if None in found["distances"]["reference"]:
            yield "infinite or not a number"
    elif found["quantity"] == "parameters" and losses[-1] > losses[0]:
        yield "loss grows"
    if found["quantity"] == "parameters" and not found["sgd"]:
        yield "right under plain SGD"
    if found["probe"] not in record_mistakes.SIZES:
        yield f"seen with: {known_probes()[found['probe']].title}"


def by_loss(found: Measured) -> bool:
    """Whether the losses are far enough apart to be seen."""
    pairs = list(zip(found["losses"]["without"], found["losses"]["with"]))
    if any(each is None for pair in pairs for each in pair):
        return False
    return any(abs(a - b) > VISIBLE * max(a, b) for a, b in pairs)


def plot(found: Measured) -> Figure:
    """The losses, or, where these look the same, the distances."""
    if not by_loss(found):
        drawn = [
            Line(NAMES[each], found["distances"][each], 1, plots.FRAMEWORKS[each])
            for each in FRAMEWORKS
            if each in found["distances"]
        ]
        return plots.lines(drawn, "update", "off by", logarithmic=True)
    first = 1 if found["quantity"] == "loss" else 0
    drawn = [
        Line(f"{which} the mistake", found["losses"][which], first, look)
        for which, look in (("without", plots.RIGHT), ("with", plots.WRONG))
    ]
    return plots.lines(drawn, "update", "reported loss" if first else "loss")


def alt(found: Measured) -> str:
    """What the plot shows, in words."""
    if by_loss(found):
        told = [
            f"{which} the mistake from {numbers[0]:.3g} to {numbers[-1]:.3g}"
            for which, numbers in found["losses"].items()
        ]
        return f"Two lines: the loss goes {', '.join(told)}."
    told = [
        f"{NAMES[each]} {size(numbers[(first_differing(numbers) or 1) - 1])} after update"
        f" {first_differing(numbers)}, {size(numbers[-1])} after update {len(numbers)}"
        for each, numbers in found["distances"].items()
        if each in NAMES
    ]
    return f"How far off the parameters are, a line for each framework: {'; '.join(told)}."


def caption(found: Measured) -> str:
    """What the plot is of."""
    if not by_loss(found):
        return (
            "How far off the parameters are after each update, in each framework; what rounding"
            " explains is not drawn."
        )
    what = "What is reported of every window"
    if found["quantity"] == "parameters":
        what = "The objective over an epoch, at the start and after each update"
    longer = len(found["losses"]["without"]) - 1 > found["updates"]["without"]
    more = ", for more epochs than the probe below has" if longer else ""
    return f"{what}, in the reference loop{more}."


def overview(rows: Sequence[Row], measured: Measured) -> str:
    """All mistakes with their symptoms, and apart from them what libraries do, and policies."""
    return render(
        "mistakes.md.jinja",
        {
            "rows": rows,
            "count": len(rows),
            "families": ABOUT,
            "libraries": [row for row in rows if row["mistake"].kind == "library"],
            "policies": [row for row in rows if row["mistake"].kind == "policy"],
            "updates": sorted(m["updates"]["without"] for m in measured["mistakes"].values()),
            "runs": sum(len(each["distances"]) - 1 for each in measured["mistakes"].values()),
            "versions": ", ".join(f"{name} {v}" for name, v in measured["versions"].items()),
        },
        framework=NAMES.__getitem__,
    )


def row(name: str, found: Measured) -> Row:
    """A mistake in a table."""
    mistake = mistakes.load(name)
    return {"name": name, "mistake": mistake, "size": furthest(found), "symptoms": symptoms(found)}


def furthest(found: Measured) -> str:
    """The size after the last update, in the framework that is furthest off."""
    last = [numbers[-1] for each, numbers in found["distances"].items() if each in NAMES]
    if found["quantity"] == "loss":
        return "0"
    return size(None if None in last else max(last))


def setup(app: Sphinx) -> dict[str, bool]:
    """Make the pages before Sphinx looks for them."""
    app.connect("builder-inited", lambda app: make())
    app.add_css_file("mistakes.css")
    app.add_js_file("mistakes.js", loading_method="defer")
    return {"parallel_read_safe": True, "parallel_write_safe": True}
