"""Plant the traps of a porting page, and say what `lockstep check` says: `python -m docs.traps`.

In `docs/porting/*-to-TARGET.md` a `diff` block is a change to the target's program in
docs/porting/programs, and the `text` block that directly follows is what a check finds then.
Rows of a diff need not be indented as far as they are there; a row `@@` begins another place.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from docs.porting_table import program

BLOCK = re.compile(r"^```diff\n(.*?)^```\n\n```text\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PAGES = Path(__file__).parent / "porting"


class Trap(NamedTuple):
    """A change to a program, and what the page says that a check finds."""

    diff: str
    told: str


def pages() -> list[Path]:
    """The pages of all ordered pairs."""
    return sorted(PAGES.glob("*-to-*.md"))


def target(page: Path) -> str:
    """The framework that a page ports to."""
    return page.stem.partition("-to-")[2]


def traps(text: str) -> list[Trap]:
    """Those of a page."""
    return [Trap(*found.groups()) for found in BLOCK.finditer(text)]


def planted(source: str, diff: str) -> str:
    """The program with a trap in it. Raises ValueError unless every place stands there once."""
    for hunk in re.split(r"^@@\n", diff, flags=re.MULTILINE):
        rows = [(row[:1], row[1:]) for row in hunk.splitlines()]
        width = min(len(text) - len(text.lstrip()) for _, text in rows if text)
        rows = [(sign, text[width:]) for sign, text in rows]
        old = [text for sign, text in rows if sign != "+"]
        places = list(found(source.splitlines(), old))
        if len(places) != 1:
            raise ValueError(f"this stands in {len(places)} places of the program:\n{hunk}")
        ((start, indent),) = places
        new = "\n".join(text for sign, text in rows if sign != "-")
        changed = source.splitlines()
        changed[start : start + len(old)] = textwrap.indent(new, indent).splitlines()
        source = "\n".join(changed) + "\n"
    return source


def found(rows: list[str], old: list[str]) -> Iterator[tuple[int, str]]:
    """Where these rows stand, and how much further they are indented there."""
    for start in range(len(rows) - len(old) + 1):
        indent = rows[start].removesuffix(old[0])
        if not indent.strip() and rows[start : start + len(old)] == [
            f"{indent}{row}" if row else "" for row in old
        ]:
            yield start, indent


def says(framework: str, diff: str) -> str:
    """What `lockstep check` finds, in two lines or three."""
    from lockstep.diagnosis import check
    from lockstep.diagnosis.verdict import few, grouped, headline, stage_words

    with tempfile.TemporaryDirectory(prefix="lockstep-") as name:
        port = Path(name) / "my_port.py"
        port.write_text(planted(program(framework).read_text(), diff))
        report = check(str(port), pairs=False)
    rows = [f"my_port.py {headline(report)}"]
    if parts := report.diagnosis.parts:
        names = ", ".join(part.probe.name for part in parts[:4]) + ", ..." * (len(parts) > 4)
        count = len(report.diagnosis.runs)
        rows.append(f"  {len(parts)} of {count} probes differ: {names}")
        if stage := stage_words(report):
            rows.append(f"  what must differ: {stage}")
    reasons = {name: ", ".join(what) for name, what in report.diagnosis.differing.items()}
    for probes, what in grouped(reasons):
        rows.append(f"  {few(probes)}: the parameters are right, but not {what}")
    rows += [f"  {sentence}" for sentence in report.words[:1]]
    if report.dtype != "float64":
        rows.append(f"  compared in {report.dtype} alone")
    if not report.diagnosis.explanations:
        rows += [f"  {name}: {failure}" for name, failure in [*report.failures.items()][:1]]
    rows += [f"  note: {note}" for note in report.notes]
    return "".join(f"{row}\n" for row in rows)


def renewed(page: Path) -> str:
    """The page with what the checks find now."""

    def new(match: re.Match[str]) -> str:
        diff, told = match.groups()
        start, end = match.span(2)
        whole, offset = match.group(), match.start()
        finds = says(target(page), diff)
        if finds != told:
            print(f"{page.name}:\n{diff}{finds}", flush=True)
        return whole[: start - offset] + finds + whole[end - offset :]

    return BLOCK.sub(new, page.read_text())


def main() -> None:
    """Renew pages, or say which are stale."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pages", nargs="*", type=Path, default=pages())
    parser.add_argument("--write", action="store_true", help="write what is found into the pages")
    arguments = parser.parse_args()
    stale = False
    for page in arguments.pages:
        text = renewed(page)
        if text != page.read_text():
            stale = True
            if arguments.write:
                page.write_text(text)
    if stale and not arguments.write:
        sys.exit(1)


if __name__ == "__main__":
    main()
