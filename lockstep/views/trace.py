"""What `lockstep trace` found: for a terminal, and as JSON."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from lockstep.trace import Comparison
from lockstep.trace.words import headline, lines
from lockstep.views.console import finite, say
from lockstep.views.report import STYLES, VERDICTS


def show(out: Console, found: Comparison) -> None:
    """The report for a terminal."""
    for text, kind in lines(found, out.width):
        say(out, text, VERDICTS[found.verdict] if kind == "verdict" else STYLES.get(kind, ""))


def as_json(found: Comparison) -> dict[str, Any]:
    """Everything that a comparison found."""
    return {
        "runs": [str(found.mine.folder), str(found.theirs.folder)],
        "frameworks": [found.mine.framework, found.theirs.framework],
        "verdict": found.verdict,
        "headline": headline(found),
        "updates": min(len(found.mine.updates), len(found.theirs.updates)),
        "compared": found.compared,
        "findings": [
            {
                "name": each.name,
                "known": each.known,
                "stage": each.stage,
                "said": each.said,
                "update": each.update,
                "phase": each.phase,
                "tensors": list(each.tensors),
                "modules": list(each.modules),
                "or": list(each.others),
                "policy": each.policy,
            }
            for each in found.findings
        ],
        "left": list(found.left),
        "parameters": {
            each.name: {"is": list(each.others), "how": each.how}
            for each in found.matching.matches.values()
        },
        "unmatched": [list(found.matching.left), list(found.matching.other_left)],
        "coefficients": [
            {
                "update": pair.update,
                "micro_batch": pair.micro_batch,
                "coefficient": finite([pair.coefficient.value])[0],
                "rest": max(finite(list(pair.rest.values())), key=lambda each: each or 0.0),
                "floor": pair.floor,
            }
            for pair in found.pairs
        ],
        "notes": list(found.notes),
    }
