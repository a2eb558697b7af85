"""A comparison of two runs in words, line by line."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from lockstep import mistakes
from lockstep.diagnosis.matrix import plain
from lockstep.diagnosis.verdict import WAYS, Line, listed
from lockstep.trace.comparison import Comparison
from lockstep.trace.findings import STAGES, Finding
from lockstep.trace.reading import Trace

NAMES = {"pytorch": "PyTorch", "jax": "JAX", "keras": "Keras"}
# How many of a kind a report lists.
FEW = 6


def text(found: Comparison, width: int = 80) -> str:
    """The report as plain text."""
    return "".join(f"{line.text}\n" for line in lines(found, width))


def lines(found: Comparison, width: int) -> Iterator[Line]:
    """The report, line by line."""
    yield Line(f"{found.theirs.folder} {headline(found)}", "verdict")
    yield Line(covered(found), "aside")
    if found.floor is not None:
        yield Line(bound(found), "aside")
    for finding in found.findings:
        yield from explained(finding, width)
    if found.left:
        yield Line("\nwhat no known mistake explains", "heading")
        yield from (Line(f"  {each}", "differs") for each in found.left)
    yield from coefficients(found)
    if found.findings and (first := found.first) is not None:
        yield Line("\nwhere they part", "heading")
        yield Line(f"  {place(first)}")
    yield from names(found)
    if found.notes:
        yield Line("\nnot looked at", "aside")
        yield from (Line(f"  {each}", "aside") for each in found.notes)


def headline(found: Comparison) -> str:
    """The verdict in a line."""
    real = [each.name for each in found.findings if not each.policy]
    policies = [each.name for each in found.findings if each.policy]
    rest = f"; a policy of its library: {', '.join(policies)}" if policies else ""
    real = list(dict.fromkeys(real))
    right = "its own settings" if found.alone else found.mine.folder
    far = f", as far as {found.coarse} shows" if found.coarse else ""
    if not real and not found.left and found.alone:
        return f"does what its settings say{far}{rest}"
    if not real and not found.left:
        return f"takes the same updates as {right}{far}{rest}"
    if not real:
        return f"differs from {right}, and no known mistake says why{rest}"
    more = ", and more that has no name" if found.left else ""
    if len(real) == 1:
        return f"differs from {right}: {real[0]}{more}{rest}"
    ways = WAYS.get(len(real), str(len(real))) if isinstance(WAYS, dict) else WAYS[len(real)]
    return f"differs from {right} in {ways} ways: {listed(real)}{more}{rest}"


def covered(found: Comparison) -> str:
    """What was compared, in a line."""
    both = " and ".join(dict.fromkeys(NAMES.get(t.framework, t.framework) for t in sides(found)))
    if found.alone:
        return (
            f"{both}: {len(found.mine.updates)} updates, {spaced(found.compared)} numbers compared"
        )
    updates = min(len(each.updates) for each in sides(found))
    count = len(found.matching.matches)
    how = [each.how for each in found.matching.matches.values() if each.how]
    some = f" ({len(how)} of them in another layout)" if how else ""
    every = count + len(found.matching.left)
    return (
        f"{both}: {updates} updates, {count} of {every} parameters matched{some},"
        f" {spaced(found.compared)} numbers compared with their rounding bound"
    )


def bound(found: Comparison) -> str:
    """What is taken for rounding in a gradient, why, and how much of it is seen, in a line."""
    if found.floor is None:
        return ""
    seen = ""
    if found.seen is not None:
        share = found.seen / found.floor.relative
        much = "less than a tenth" if share < 0.1 else f"{share:.0%}"
        seen = f", of which {much} is seen"
    most = f"{found.floor.relative:.0e} of a gradient's norm ({found.floor.said})"
    return f"rounding: up to {most}{seen}"


def spaced(number: int) -> str:
    """12 345 rather than 12345."""
    return f"{number:,}".replace(",", " ")


def sides(found: Comparison) -> tuple[Trace, Trace]:
    """Both runs."""
    return found.mine, found.theirs


def explained(finding: Finding, width: int) -> Iterator[Line]:
    """A difference, and what is known of it."""
    known = mistakes.load(finding.name) if finding.known else None
    yield Line(f"\n{finding.name}" + (f": {known.title}" if known else ""), "heading")
    said = f"update {finding.update}, {STAGES[finding.stage]}: {finding.said}"
    for row in textwrap.wrap(said, width - 2, break_on_hyphens=False, break_long_words=False):
        yield Line(f"  {row}")
    if known:
        yield Line(f"  lockstep mistakes {finding.name}    all that is known of it", "aside")


def place(finding: Finding) -> str:
    """Where a difference first shows."""
    where = f"update {finding.update}, {finding.phase or STAGES[finding.stage]}"
    tensors = f", {finding.tensors[0]} first" if finding.tensors else ""
    return f"{where}{tensors}; up to there both are the same, but for rounding"


def coefficients(found: Comparison) -> Iterator[Line]:
    """The weights with which micro-batches enter, beside the right ones, where they are others."""
    rows = matrix(found)
    if not any(finding.stage == "window" for finding in found.findings) or not rows:
        return
    yield Line("\nwith which weight each micro-batch enters, beside the right one", "heading")
    columns = max(len(row) for _, row in rows)
    table = [["update", *(f"m{index + 1}" for index in range(columns))]]
    table += [[str(number), *map(plain, row)] for number, row in rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for head, row in enumerate(table):
        yield Line("  " + "  ".join(map(str.rjust, row, widths)), "" if head else "aside")


def matrix(found: Comparison) -> list[tuple[int, list[float]]]:
    """The coefficients, by update, of windows of one length."""
    each: dict[int, list[float]] = {}
    for pair in found.pairs:
        if pair.micro_batch is not None:
            each.setdefault(pair.update, []).append(pair.coefficient.value)
    longest = max(map(len, each.values()), default=0)
    return [(number, row) for number, row in each.items() if len(row) == longest][:FEW]


def names(found: Comparison) -> Iterator[Line]:
    """Which parameter is which, where that is not plain."""
    each = [m for m in found.matching.matches.values() if m.how]
    if not each:
        return
    yield Line("\nparameters", "aside")
    for match in each[:FEW]:
        yield Line(f"  {match.name} = {', '.join(match.others)}, {match.how}", "aside")
    if len(each) > FEW:
        yield Line(f"  and {len(each) - FEW} more in another layout", "aside")
