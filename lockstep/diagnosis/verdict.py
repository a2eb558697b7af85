"""What a check found: the verdict, and the report in words.

The words are plain lines, each with what it is: a view may colour them, a test prints them.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np

from lockstep import mistakes
from lockstep.diagnosis.fitting import RULES, TOGETHER, having
from lockstep.diagnosis.forms import Form
from lockstep.diagnosis.matrix import coefficient_matrix, in_words, plain
from lockstep.diagnosis.naming import Diagnosis, Explanation, Part, separation
from lockstep.diagnosis.probes import Probe, probes
from lockstep.frameworks import KERAS_ON, NAMES
from lockstep.problem import Array
from lockstep.workers import ports

Verdict = Literal["same", "differs", "broken", "incomplete"]
STATUS: dict[Verdict, int] = {"same": 0, "differs": 1, "broken": 2, "incomplete": 3}
HINTS = {
    "dtype": ": raise NotImplementedError for the dtype that the port does not have (JAX has"
    ' float64 after jax.config.update("jax_enable_x64", True))',
    "silent": ": it hangs, or needs a longer --timeout",
}
WIDTH = 100
# How many probes that differ, and how many explanations, a terminal shows one by one.
FEW = 4
# And how many lines of a diff.
LINES = 24
WAYS = (
    *("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    *("eleven", "twelve"),
)
# What an ingredient of a probe stands for, in words.
INGREDIENTS = {
    "windows": "the accumulation over a window: reset, weight, boundary",
    "ragged": "the weight of a micro-batch in a ragged window",
    "partial": "the partial window of an epoch",
    "epochs": "what happens between epochs",
    "rates": "which learning rate an update takes",
    "schedule": "which learning rate an update takes",
    "linear": "which learning rate an update takes",
    "cosine": "which learning rate an update takes",
    "clip": "clipping",
    "decay": "weight decay",
    "groups": "weight decay of W alone",
    "untouched": "a tensor that has no part in a window",
    "single": "an axis of one element, which broadcasts or is squeezed",
    "precision": "the accumulator's precision",
    "weights": "weighted examples",
    "policy": "the policy for partial windows",
    "rule": "the optimizer's rule",
    "drop": "the policy for partial windows",
    "carry": "the policy for partial windows",
    "skip": "a window that is not finite",
    "scale": "the loss scale",
}

# What every kind of training can meet, by an ingredient of the probes that ask for it.
AREAS = {
    "windows": "several micro-batches an update",
    "ragged": "ragged windows",
    "partial": "partial windows",
    "rates": "learning rates that change",
    "clip": "clipping",
    "groups": "decay of W alone",
}
# What some kinds meet.
MORE = {
    "weights": "weighted examples",
    "skip": "windows that are not finite",
    "scale": "loss scale",
}

KINDS = {
    frozenset({"policy"}): "follows another policy",
    frozenset({"library"}): "does what its library does",
}


def requirable() -> list[str]:
    """What can be required: the ingredients of the probes, and the optimizers' names."""
    return sorted(having(probes()) | set(RULES))


@dataclass(frozen=True)
class Failure:
    """What became of a probe that has no trajectory: what happened, and in which line.

    kind: as a WorkerError has it; printed: what the port last said, where nothing else tells more.
    """

    what: str
    where: str = ""
    kind: str = "error"
    printed: tuple[str, ...] = ()

    def __str__(self) -> str:
        said = "".join(f"\n  | {ports.printable(line)}" for line in self.printed)
        hint = HINTS.get(self.kind, "")
        return self.what + (f" ({self.where})" if self.where else "") + hint + said


@dataclass(frozen=True)
class Report:
    """What a check found.

    port: its name; diagnosis: of what it did; refused: by probe, what it does not support;
    failures: by probe; dtype: what was compared, and whether it was what was asked for; notes: what
    to tell its author; framework: what it is written in, "" where that is not known; seconds: in
    the port, by probe; accepted: the mistakes that are its policy; required: what must be looked
    at.
    """

    port: str
    diagnosis: Diagnosis
    refused: Mapping[str, str] = field(default_factory=dict)
    failures: Mapping[str, Failure] = field(default_factory=dict)
    dtype: str = "float64"
    notes: Sequence[str] = ()
    framework: str = ""
    seconds: Mapping[str, float] = field(default_factory=dict)
    accepted: tuple[str, ...] = ()
    required: tuple[str, ...] = ()

    @property
    def verdict(self) -> Verdict:
        """Whether the port takes the same update on all that it supports."""
        if not self.diagnosis.same:
            return "differs"
        if self.failures or not self.compared:
            return "broken"
        return "incomplete" if self.missing else "same"

    @property
    def status(self) -> int:
        """The exit status: 0 the same update, 1 differs, 2 broken, 3 not all looked at."""
        return STATUS[self.verdict]

    @cached_property
    def asked(self) -> frozenset[str]:
        """What was looked at: the ingredients of the probes that the port was driven with."""
        of = [run.probe for run in self.diagnosis.runs]
        rules = {probe.problem.optimizer.name for probe in of}
        found = rules.union(*(probe.ingredients for probe in of))
        return frozenset(found | ({"rates"} if "schedule" in found else set()))

    @property
    def unasked(self) -> list[str]:
        """Which of the areas were not looked at; without decay, there are no groups to have."""
        needed = [area for area in AREAS if area != "groups" or "decay" in self.asked]
        return [area for area in needed if area not in self.asked]

    @property
    def missing(self) -> list[str]:
        """What is required and was not looked at."""
        names = [name for name in self.required if name != "all"]
        names += self.unasked if "all" in self.required else []
        return [name for name in dict.fromkeys(names) if name not in self.asked]

    @property
    def compared(self) -> int:
        """How many numbers were compared."""
        return sum(theta.size for run in self.diagnosis.runs for theta in run.trajectory)

    @cached_property
    def words(self) -> list[str]:
        """What the coefficient matrix says, a sentence each."""
        found = self.matrix
        return [] if found is None else in_words(found[0], found[1].problem)

    @cached_property
    def matrix(self) -> tuple[Array, Probe] | None:
        """The coefficient matrix of the port, and the probe, if it was driven with that."""
        for run in self.diagnosis.runs:
            if run.probe.name == "coefficients":
                return coefficient_matrix(run.trajectory), run.probe
        return None

    def mend(self, form: Form) -> str:
        """The diff that mends a mistake in the port's own framework, "" where there is none."""
        able = form.known and self.framework in NAMES
        return mistakes.mend(form.name, self.framework) if able else ""

    def uncovered(self, probe: str) -> str:
        """Why the port was not driven with a probe, or with those that fit it; "" if it was."""
        nothing = "it supports nothing that could meet"
        able = not self.compared or self.driven(probe) or probe != TOGETHER
        return self.refused.get(probe, "" if able else nothing)

    def fails(self, probe: str) -> bool:
        """Whether the port differs or breaks on a probe, or on one of those that fit it."""
        wrong = {part.probe.name for part in self.diagnosis.parts} | set(self.diagnosis.differing)
        names = self.driven(probe)
        return not names or any(name in wrong or name in self.failures for name in names)

    def driven(self, probe: str) -> list[str]:
        """The names under which a port was driven with a probe, or with those made of it for it."""
        names = [*(run.probe.name for run in self.diagnosis.runs), *self.failures]
        return [name for name in names if name == probe or name.startswith(f"{probe}.")]

    def assert_same_update(self) -> None:
        """Raise AssertionError, which tells what was found, unless the update is the same."""
        if self.verdict != "same":
            raise AssertionError(f"{self.port}\n{self}")

    def __str__(self) -> str:
        return text(self)


class Line(NamedTuple):
    """A line of a report, and what it is."""

    text: str
    kind: Literal["", "verdict", "heading", "aside", "diff", "differs", "warning"] = ""


def text(report: Report, width: int = WIDTH) -> str:
    """The report as plain text; `width` is for what wraps, the explanations of mistakes."""
    return "".join(f"{line.text}\n" for line in lines(report, width))


def lines(report: Report, width: int = WIDTH) -> Iterator[Line]:
    """The report, line by line."""
    yield Line(f"{report.port} {headline(report)}", "verdict")
    if report.diagnosis.runs:
        yield Line(covered(report), "aside")
    for explanation in report.diagnosis.explanations[:FEW]:
        yield from explained(report, explanation, width)
    for each in apart(report):
        yield Line(each)
    if report.diagnosis.explanations:
        yield from unexplained(report)
    if report.diagnosis.parts:
        yield from parted(report)
    for name, what in report.diagnosis.differing.items():
        yield Line(f"{name}: the parameters are right, but not {', '.join(what)}", "differs")
    for names, failure in grouped({n: str(f) for n, f in report.failures.items()}):
        yield Line(f"{few(names)}: {failure}", "warning")
    for note in report.notes:
        yield Line(f"note: {note}", "warning")
    if report.refused:
        yield Line("\nnot covered", "aside")
    for names, why in grouped(report.refused):
        yield Line(f"  {', '.join(names)}: {why}", "aside")


def explained(report: Report, explanation: Explanation, width: int) -> Iterator[Line]:
    """The mistakes of an explanation, and what mends them."""
    for form in explanation.forms:
        name, mistake = form.name, form.mistake
        yield Line(f"\n{name}: {mistake.title}", "heading")
        yield Line(f"  replaces {', '.join(form.stages.replaced)} of the reference loop", "aside")
        for row in textwrap.wrap(mistake.explanation, width - 2, break_on_hyphens=False):
            yield Line(f"  {row}")
        if not form.known:
            continue
        if mend := report.mend(form):
            yield Line(f"  what mends it, in {report.framework}_impl:", "aside")
            yield from (Line(f"  {row}", "diff") for row in first_lines(mend))
        yield Line(f"  lockstep mistakes {name}    all that is known of it", "aside")
    if explanation.differing:
        what = ", ".join(explanation.differing)
        yield Line(f"  it does not explain what the port yields as {what}", "warning")


def first_lines(diff: str) -> list[str]:
    """The first lines of a diff, without its file headers."""
    rows = [row for row in diff.splitlines() if not row.startswith(("diff ", "--- "))]
    if len(rows) <= LINES:
        return rows
    return [*rows[: LINES - 1], f"... and {len(rows) - LINES + 1} lines more"]


def headline(report: Report) -> str:
    """The verdict in a line."""
    if report.verdict == "broken":
        return "is broken, as a port"
    if report.verdict != "differs":
        return "takes the same update" + looked_at(report) + accepted(report)
    return difference(report) + accepted(report)


def difference(report: Report) -> str:
    """What a port does otherwise, in a line."""
    found, left = report.diagnosis.explanations, report.diagnosis.left
    small = bool(left) and all(part.small for part in left)
    if not found:
        size = " by what is of float32 size" if small else ""
        return f"differs{size}, and none of the known mistakes explains it"
    if all(len(each.names) == 1 for each in found):
        kinds = {form.mistake.kind for each in found for form in each.forms}
        what = KINDS.get(frozenset(kinds), "makes a known mistake")
        if not any(form.known for each in found for form in each.forms):
            what = "differs, and no known mistake does that"
        named = " or ".join(each.names[0] for each in found[:FEW])
        said = f"{what}: {named}" + (" or another" if len(found) > FEW else "")
    else:
        *names, last = found[0].names
        ways = WAYS[len(names) + 1]
        said = f"differs in {ways} ways: {', '.join(names)} and {last}"
        if others := len(found) - 1:
            said += f", or {others} other set{'s' * (others > 1)} that no probe separates"
    if small:
        return f"{said}, and a difference of float32 size"
    count = len(report.diagnosis.runs)
    return said + (f", and more: {len(left)} of {count} probes are not explained" if left else "")


def accepted(report: Report) -> str:
    """What is part of the loop that a port is held against."""
    return f"; accepted: {', '.join(report.accepted)}" if report.accepted else ""


def looked_at(report: Report) -> str:
    """What was looked at, and what was not; "" if it is all that there is to meet."""
    unasked = [AREAS[name] for name in report.unasked]
    lacking = [(AREAS | MORE).get(name, RULES.get(name, name)) for name in report.missing]
    if not unasked and not lacking:
        return ""
    rules = [title for name, title in RULES.items() if name in report.asked]
    areas = [title for name, title in (AREAS | MORE).items() if name in report.asked]
    said = f" in all that it supports: {listed(rules)}"
    said += f", with {listed(areas)}" if areas else ""
    if lacking:
        return f"{said}; required and not looked at: {', '.join(lacking)}"
    return f"{said}; not looked at: {', '.join(unasked)}"


def listed(names: Sequence[str]) -> str:
    """Names as a sentence has them."""
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last


def covered(report: Report) -> str:
    """What was compared, in a line."""
    count = len(report.diagnosis.runs)
    framework = f"{(NAMES | KERAS_ON)[report.framework]}, " if report.framework else ""
    left = len(report.refused)
    rest = f", {left} not covered" if left else ""
    numbers = f"{report.compared:,}".replace(",", " ")
    return (
        f"{framework}{report.dtype}: {count} probes, {numbers} numbers compared with their"
        f" rounding bound, {len(report.diagnosis.parts)} probes differ{rest}"
    )


def stage_words(report: Report) -> str:
    """What must differ: what all probes that differ have in common, and no other has."""
    found = report.diagnosis.suspects
    if not found and any(part.probe.name == "plain" for part in report.diagnosis.parts):
        return "already with one micro-batch of plain SGD an update"
    words = [INGREDIENTS.get(each, f"the optimizer's rule ({each})") for each in found]
    return "; ".join(dict.fromkeys(words))


def apart(report: Report) -> Iterator[str]:
    """What would separate the explanations that no probe does."""
    if len(report.diagnosis.explanations) < 2:
        return
    first, *others = report.diagnosis.explanations
    driven = {run.probe.name for run in report.diagnosis.runs}
    rest = [probe for probe in probes() if probe.name not in driven]
    yield f"\nno probe separates these {1 + len(others)}:"
    for other in others[:FEW]:
        how = separation(first, other, report.diagnosis.runs, rest)
        names = " + ".join(first.names), " + ".join(other.names)
        yield f"  {names[0]} from {names[1]}: {how or told(first, other) or 'nothing known here'}"


def told(first: Explanation, other: Explanation) -> str:
    """What the catalogue says separates two mistakes."""
    for one, another in ((first, other), (other, first)):
        for form in one.forms:
            for look_alike, how in form.mistake.look_alikes.items():
                if look_alike in another.names:
                    return how
    return ""


def parted(report: Report) -> Iterator[Line]:
    """Where the port parts from the correct loop, and what its matrix says."""
    yield Line("\nwhere it first differs", "heading")
    yield from places(report.diagnosis.parts)
    if stage := stage_words(report):
        yield Line(f"  what must differ: {stage}")
    for sentence in report.words:
        yield Line(f"  {sentence}")
    found = report.matrix
    if report.words and found is not None and np.isfinite(found[0]).all():
        head, *rows = matrix_rows(found[0])
        yield Line(f"  {head}", "aside")
        yield from (Line(f"  {row}") for row in rows)


def unexplained(report: Report) -> Iterator[Line]:
    """What is left of a port when all that was named is done as it does it."""
    left = report.diagnosis.left
    if not left:
        return
    yield Line("\nwhat these do not explain", "heading")
    yield from places(left, ", of float32 size")


def places(parts: Sequence[Part], small: str = "") -> Iterator[Line]:
    """The first places where a port differs, and what to say of one that is small."""
    for part in parts[:FEW]:
        yield Line(f"  {part.probe.title}: {part}{small if part.small else ''}")
    if len(parts) > FEW:
        yield Line(f"  and on {', '.join(part.probe.name for part in parts[FEW:])}")


def matrix_rows(matrix: Array) -> list[str]:
    """The coefficient matrix: an update a row, a micro-batch a column."""
    rows = [["update", *(f"m{index + 1}" for index in range(matrix.shape[1]))]]
    for number, row in enumerate(matrix, 1):
        rows.append([str(number), *(plain(weight) if weight else "·" for weight in row)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.rjust, row, widths)) for row in rows]


def grouped(reasons: Mapping[str, str]) -> Iterator[tuple[list[str], str]]:
    """The names of all that have a reason, and the reason."""
    for why in dict.fromkeys(reasons.values()):
        yield [name for name, reason in reasons.items() if reason == why], why


def few(names: Sequence[str]) -> str:
    """Some names, and how many more there are."""
    more = f" and {len(names) - FEW} more" if len(names) > FEW else ""
    return ", ".join(names[:FEW]) + more
