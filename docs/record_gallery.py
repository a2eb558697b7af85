"""What the check says of every port of the gallery: `python -m docs.record_gallery`.

Writes docs/measured/gallery.json, from which the gallery's pages are made. Nothing in it is written
by hand: what a port does with ragged windows, say, are the differences that change the ragged
probes and no others.
"""

from __future__ import annotations

import ast
import json
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from docs.written import write
from lockstep.diagnosis import Report, check
from lockstep.diagnosis.forms import Form
from lockstep.diagnosis.naming import Run
from lockstep.diagnosis.probes import probes
from lockstep.diagnosis.verdict import headline
from lockstep.experiments.planted import changes
from lockstep.workers.installed import installed

FOLDER = Path(__file__).parent.parent / "gallery"
FILE = Path(__file__).parent / "measured" / "gallery.json"
# By what a file imports, the most particular first.
LIBRARIES = {
    "accelerate": "Accelerate", "lightning": "Lightning", "transformers": "Transformers",
    "flax": "Flax", "optax": "optax", "keras": "Keras", "tensorflow": "TensorFlow",
    "torch": "PyTorch", "jax": "JAX",
}  # fmt: skip
BACKENDS = {"keras-pytorch": "torch", "keras-jax": "jax", "tensorflow": "tensorflow"}
# What the table asks of a loop, and the ingredients of the probes that show it.
ASPECTS = {
    "ragged windows": {"ragged"},
    "partial windows": {"partial", "drop", "carry"},
    "clipping": {"clip"},
    "schedules": {"rates", "schedule"},
    "decay": {"decay"},
    "the optimizer's rule": {
        *("momentum", "nesterov", "dampening", "adam", "adamw", "adamax", "nadam"),
        *("rmsprop", "adagrad", "adadelta", "lion"),
    },
    "weighted examples": {"weights"},
    "windows that are not finite": {"skip"},
    "float64": {"precision"},
}
EVERY = "every window"
# Where probes alone do not tell, since a difference shows under two things at once.
FAMILIES = {
    "windows": "partial windows", "clipping": "clipping", "schedule": "schedules",
    "decay": "decay", "optimizer": "the optimizer's rule", "precision": "float64",
}  # fmt: skip
UNEXPLAINED, FLOAT32 = "not explained", "of float32 size"
Found = dict[str, Any]


def ports() -> list[str]:
    """All ports: `train` of every file, and what else yields updates of a problem."""
    return [
        f"gallery/{file.name}" + (f":{name}" if name != "train" else "")
        for file in sorted(FOLDER.glob("*.py"))
        for name in functions(file)
    ]


def functions(file: Path) -> Iterator[str]:
    """The names of a file's ports."""
    yield "train"
    for node in ast.parse(file.read_text()).body:
        if not isinstance(node, ast.FunctionDef) or node.name == "train":
            continue
        yields = any(isinstance(each, ast.Yield | ast.YieldFrom) for each in ast.walk(node))
        if yields and [each.arg for each in node.args.args] == ["problem"]:
            yield node.name


def file_of(port: str) -> Path:
    """The file of a port."""
    return FOLDER / port.removeprefix("gallery/").partition(":")[0]


@cache
def imports(file: Path) -> frozenset[str]:
    """The libraries that a file imports, or a neighbour of it that it uses."""
    found = set[str]()
    for node in ast.walk(ast.parse(file.read_text())):
        names = [each.name for each in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        for name in (each.partition(".")[0] for each in names):
            neighbour = file.with_name(f"{name}.py")
            found |= imports(neighbour) if neighbour.exists() else {name} & LIBRARIES.keys()
    return frozenset(found)


def versions(file: Path, framework: str) -> dict[str, str]:
    """The versions of what a file uses, the most particular library first."""
    used = imports(file) | {BACKENDS.get(framework, framework)}
    found = {name: installed(name) or "" for name in LIBRARIES if name in used}
    # A wheel may say for which machine it was built: 2.13.0+cpu.
    return {name: each.partition("+")[0] for name, each in found.items()}


def aspects(ingredients: Collection[str]) -> set[str]:
    """What of the table these ingredients are about."""
    return {name for name, about in ASPECTS.items() if not about.isdisjoint(ingredients)}


def told_apart(some: Sequence[Run], others: Sequence[Run]) -> set[str]:
    """What some probes are about, all of them, and no other one is."""
    shared = frozenset.intersection(*(run.probe.ingredients for run in some))
    return aspects(shared.difference(*(run.probe.ingredients for run in others)))


def rarest(some: Sequence[Run], others: Sequence[Run]) -> set[str]:
    """What some probes are about, all of them, and the fewest others are."""
    shared = frozenset.intersection(*(run.probe.ingredients for run in some))
    counts = {
        name: sum(name in aspects(run.probe.ingredients) for run in others)
        for name in aspects(shared)
    }
    return {name for name, count in counts.items() if count == min(counts.values())}


def place(form: Form, runs: Sequence[Run]) -> set[str]:
    """Where a difference belongs: to what all the probes are about that it alone changes.

    Its family decides where that is more than one thing, and where it shows under two at once.
    """
    family = FAMILIES.get(form.mistake.family, EVERY)
    shown = [run for run in runs if changes(form.stages, run.probe)]
    if not shown or family == "float64":
        return {family}
    found = told_apart(shown, [run for run in runs if run not in shown])
    if family in found:
        return {family}
    plain = any(not aspects(run.probe.ingredients) for run in shown)
    return found or {EVERY if plain else family}


def table(report: Report) -> dict[str, str]:
    """What a port does with everything that the table asks of a loop."""
    runs, named = report.diagnosis.runs, {name: list[str]() for name in (EVERY, *ASPECTS)}
    first = report.diagnosis.explanations[0].forms if report.diagnosis.explanations else ()
    for form in first:
        for each in place(form, runs):
            named[each].append(form.name)
    for name, found in unexplained(report).items():
        named[name] += found
    covered = {EVERY}.union(*(aspects(run.probe.ingredients) for run in runs))
    return {
        name: "; ".join(found) or ("the same" if name in covered else "refused")
        for name, found in named.items()
    }


def unexplained(report: Report) -> dict[str, list[str]]:
    """Where the differences are that no name explains; the small ones are the dtype's."""
    found = dict[str, list[str]]()
    left = report.diagnosis.left if report.diagnosis.explanations else report.diagnosis.parts
    if any(part.small for part in left):
        found["float64"] = [FLOAT32]
    gross = {part.probe.name for part in left if not part.small}
    some = [run for run in report.diagnosis.runs if run.probe.name in gross]
    others = [run for run in report.diagnosis.runs if run not in some]
    if some:
        for each in told_apart(some, others) or rarest(some, others) or {EVERY}:
            found.setdefault(each, []).append(UNEXPLAINED)
    return found


def record(port: str) -> Found:
    """What the check says of a port."""
    report = check(str(FOLDER.parent / port))
    found = report.diagnosis.explanations
    forms = {form.name: form.mistake for each in found for form in each.forms}
    return {
        "headline": headline(report),
        "verdict": report.verdict,
        "framework": report.framework,
        "versions": versions(file_of(port), report.framework),
        "dtype": report.dtype,
        "explanations": [list(each.names) for each in found],
        "kinds": {name: mistake.kind for name, mistake in forms.items()},
        "compared": len(report.diagnosis.runs),
        "differ": len(report.diagnosis.parts),
        "left": [part.probe.name for part in report.diagnosis.left],
        "refused": names(report.refused),
        "failed": names(report.failures),
        "table": table(report),
    }


def names(some: Collection[str]) -> list[str]:
    """The probes of these names, in their order."""
    return [probe.name for probe in probes() if probe.name in some]


def as_text(measured: Mapping[str, Found]) -> str:
    """As JSON, a port a line."""
    lines = (f" {json.dumps(port)}: {json.dumps(found)}" for port, found in measured.items())
    return "{\n" + ",\n".join(lines) + "\n}\n"


def load() -> dict[str, Found]:
    """What was measured."""
    found: dict[str, Found] = json.loads(FILE.read_text())
    return found


def main() -> None:
    """Check the ports that are named, or all, and write what was found."""
    known = load() if FILE.exists() else {}
    for port in sys.argv[1:] or ports():
        known[port] = record(port)
        print(port, known[port]["headline"], file=sys.stderr)
        write(FILE, as_text({each: known[each] for each in ports() if each in known}))


if __name__ == "__main__":
    main()
