"""What `lockstep trace` found: for a terminal, as JSON, and as one page."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

from rich.console import Console

from lockstep import mistakes
from lockstep.diagnosis.matrix import plain
from lockstep.trace import Comparison, Finding
from lockstep.trace.findings import STAGES
from lockstep.trace.gradients import Pair
from lockstep.trace.words import bound, covered, headline, lines, place
from lockstep.views.console import finite, say
from lockstep.views.page import page
from lockstep.views.report import STYLES, VERDICTS

# What a phase of a trace is called on a page.
PHASES = {
    "data": "the data",
    "before": "the parameters before the update",
    "gradient": "the gradient of a micro-batch",
    "accumulated": "the accumulated gradient, before clipping",
    "clipped": "the gradient that the rule got",
    "after": "the parameters after the update",
}
# How many tensors of a finding, and how many updates, are drawn at once.
FEW, UPDATES = 12, 24
# The weight, as a factor from 1, whose cell is of the deepest colour; and that colour's share.
DEEPEST, SHARE = 4.0, 0.45


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
        "rounding": asdict(found.floor) | {"seen": found.seen} if found.floor is not None else None,
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


def html(found: Comparison) -> str:
    """One page that needs nothing else: where the runs part, the weights, which tensor is which."""
    drawn = matrix(found)
    real = [each for each in found.findings if not each.policy]
    return page(
        "trace.html",
        "trace",
        found=found,
        headline=headline(found),
        covered=covered(found),
        bound=bound(found),
        part=place(found.first) if found.first is not None else "",
        real=[finding_words(each) for each in real],
        policies=[finding_words(each) for each in found.findings if each.policy],
        matrix=list(drawn.items())[:UPDATES],
        unshown=max(0, len(drawn) - UPDATES),
        meaning=meaning(found),
        FEW=FEW,
    )


def finding_words(each: Finding) -> dict[str, Any]:
    """A finding as the page has it."""
    state = f"the optimizer's state: {each.phase.removeprefix('state.')}"
    return {
        "finding": each,
        "mistake": mistakes.load(each.name) if each.known else None,
        "stage": STAGES[each.stage],
        "phase": state if each.phase.startswith("state.") else PHASES.get(each.phase, each.phase),
    }


def matrix(found: Comparison) -> dict[int, list[dict[str, Any]]]:
    """The weights that could be compared, by update: a cell for each micro-batch."""
    rows: dict[int, list[dict[str, Any]]] = {}
    for pair in found.pairs:
        rows.setdefault(pair.update, []).append(cell(pair))
    return rows


def cell(pair: Pair) -> dict[str, Any]:
    """A weight: its number, and a colour that is deeper the further it is from 1."""
    value = pair.coefficient.value
    known = math.isfinite(value)
    far = abs(math.log(value, DEEPEST)) if known and value > 0 else 1.0
    return {
        "name": "all" if pair.micro_batch is None else f"m{pair.micro_batch + 1}",
        "text": plain(value),
        "kind": "right" if value == 1 else "more" if value > 1 else "less",
        "share": round(SHARE * min(1.0, far), 3),
    }


def meaning(found: Comparison) -> str:
    """What the weights mean, and whether they are the right ones."""
    values = [pair.coefficient.value for pair in found.pairs]
    said = (
        f"Beside the weight that it has in {found.mine.folder}: 1 enters as it does there, 0 is"
        " left out, 2 counts twice."
    )
    if all(value == 1 for value in values):
        said += " Here each enters as it should."
    compared = {pair.update for pair in found.pairs}
    if len(compared) < min(len(found.mine.updates), len(found.theirs.updates)):
        said += " The other updates begin at other parameters, where gradients are other ones too."
    return said
