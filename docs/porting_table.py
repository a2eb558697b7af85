"""What to write for what you have: snippets cut from the programs of docs/porting/programs.

A snippet begins with a comment `# concept[ + concept]: sentence`, and ends before the next one,
at an empty line, or where its block ends. A concept may have several.
"""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass
from pathlib import Path

PROGRAMS = Path(__file__).parent / "porting" / "programs"
CONCEPTS = (
    "reset", "forward", "gradient", "accumulate", "update", "clip", "schedule", "decay",
    "loss scale", "state",
)  # fmt: skip
START = re.compile(rf"( *)# ((?:{'|'.join(CONCEPTS)})(?: \+ (?:{'|'.join(CONCEPTS)}))*): (.+)\.$")


@dataclass(frozen=True)
class Snippet:
    """The code of one concept, or of several that the framework fuses, and what is said of it."""

    concepts: tuple[str, ...]
    sentence: str
    code: str


def program(framework: str) -> Path:
    """The framework's program."""
    return PROGRAMS / f"in_{framework}.py"


def snippets(framework: str) -> dict[str, list[Snippet]]:
    """By concept, in the order of CONCEPTS, what the framework's program does there."""
    rows = program(framework).read_text().splitlines()
    cut = [snippet(rows, i, found) for i, row in enumerate(rows) if (found := START.match(row))]
    return {concept: [each for each in cut if concept in each.concepts] for concept in CONCEPTS}


def snippet(rows: list[str], start: int, found: re.Match[str]) -> Snippet:
    """The one that starts in this row."""
    indent, concepts, sentence = found.groups()
    end = start + 1
    while end < len(rows) and rows[end].startswith(f"{indent}") and not START.match(rows[end]):
        if not rows[end].strip():
            break
        end += 1
    code = textwrap.dedent("\n".join(rows[start + 1 : end]))
    return Snippet(tuple(concepts.split(" + ")), sentence, code)
