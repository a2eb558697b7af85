"""Whether a diagnosis says what is there, and nothing that is not."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from typing import Literal

from lockstep import mistakes
from lockstep.diagnosis.forms import Form, forms_of, ignoring, used
from lockstep.diagnosis.matrix import coefficient_matrix, in_words
from lockstep.diagnosis.naming import Diagnosis, common
from lockstep.diagnosis.probes import OPTIMIZERS, Probe

Judgement = Literal["right", "wrong", "neither"]
FLOAT32_SETTINGS = "float32-settings"
# Ingredients of probes that point at a family of mistakes, if what differs has them in common.
POINTS = {
    "zeroing": {"windows", "partial", "epochs", "untouched", "skip"},
    "scaling": {"windows", "ragged", "partial", "weights"},
    "windows": {"windows", "partial", "epochs", "drop", "carry", "policy", "skip"},
    "clipping": {"clip"},
    "precision": {"precision", "skip", "scale"},
    "schedule": {"rates", "schedule", "linear", "cosine"},
    "decay": {"decay", "groups"},
    "optimizer": {"momentum", "untouched", "epochs", *OPTIMIZERS, "sgd", "rule"},
    "model": {"single"},
}
# Where a port is wrong already with one micro-batch of plain SGD, and that says where.
AT_ONCE = {"scaling", "optimizer", "model", "schedule"}
# The families of what a described form replaces.
STAGES = {
    **dict.fromkeys(("micro_batch", "boundary", "shows", "take_update"), "windows"),
    **dict.fromkeys(("count", "weigh", "normalise", "error"), "scaling"),
    **dict.fromkeys(("accumulate", "reset"), "zeroing"),
    **dict.fromkeys(("unscale", "finite"), "precision"),
    **dict.fromkeys(("constants", "rule"), "optimizer"),
    "clip": "clipping",
    "learning_rate": "schedule",
}
# And of the settings; the others are the optimizer's.
SETTINGS = {
    **dict.fromkeys(("weight_decay", "decay_bias"), "decay"),
    **dict.fromkeys(("learning_rates", "schedule", "learning_rate"), "schedule"),
    **dict.fromkeys(("partial_windows", "accumulation_steps", "epochs"), "windows"),
    **dict.fromkeys(("non_finite", "loss_scale", "compute_dtype"), "precision"),
    "max_norm": "clipping",
    "example_weights": "scaling",
}
SETTING = re.compile(r"^(?:ignores )?(\w+)(?: is .*)?$")


def first(found: Diagnosis) -> set[str]:
    """The names of the first explanation."""
    return set(found.explanations[0].names) if found.explanations else set()


def said(found: Diagnosis) -> str:
    """What a diagnosis says, in a line."""
    if found.same:
        return "same"
    names = [" + ".join(each.names) for each in found.explanations[:3]]
    what = ", or ".join(names) or f"unknown ({' '.join(found.suspects)})"
    left = [part.probe.name for part in found.left if not part.small]
    small = " and of float32 size" * any(part.small for part in found.left)
    return what + small + (f"; left: {' '.join(left)}" if found.explanations and left else "")


def look_alikes(name: str) -> set[str]:
    """The mistakes that the catalogue says look like one."""
    others = (each for each in mistakes.names() if name in mistakes.load(each).look_alikes)
    return {*mistakes.load(name).look_alikes, *others}


def families(name: str) -> set[str]:
    """The families of a mistake and of the stages that its forms replace."""
    stages = {stage for form in forms_of(name) for stage in form.stages.replaced}
    return {mistakes.load(name).family, *(STAGES[each] for each in stages if each in STAGES)}


def family(form: Form) -> str:
    """The family of a described form."""
    (stage, *_) = form.stages.replaced
    setting = SETTING.match(form.name)
    return STAGES.get(stage) or SETTINGS.get(setting[1] if setting else "", "optimizer")


def pointed(found: Diagnosis, wanted: set[str]) -> bool:
    """Whether what is unknown, or left, points at one of these families."""
    if not found.parts:
        return True  # what it offers beside the parameters is told by its name
    where = found.left if found.explanations else found.parts
    names = {part.probe.name for part in where}
    if shared := set(common(found.runs, names)):
        return any(shared & POINTS[each] for each in wanted)
    if "plain" in names and AT_ONCE & wanted:
        return True
    matrices = [run for run in found.runs if run.probe.name == "coefficients"]
    words = [in_words(coefficient_matrix(r.trajectory), r.probe.problem) for r in matrices]
    return any(words) and bool({"zeroing", "scaling", "windows"} & wanted)


def located(found: Diagnosis, wanted: set[str], allowed: set[str]) -> Judgement:
    """Whether a stage of these families is told, and no name but those allowed."""
    forms = found.explanations[0].forms if found.explanations else ()
    if any(form.known and form.name not in allowed for form in forms):
        return "wrong"
    if any(form.known or family(form) in wanted for form in forms):
        return "right"
    return "right" if not found.same and pointed(found, wanted) else "neither"


def withheld(found: Diagnosis, name: str) -> Judgement:
    """Of a mistake that the catalogue lacks: a look-alike, or its stage and no name."""
    return located(found, families(name), look_alikes(name))


def in_one_stage(found: Diagnosis, names: Sequence[str], settings: Sequence[str]) -> Judgement:
    """Of mistakes, and of other numbers, in one stage: all named, or the stage is."""
    wanted = set().union(*map(families, names))
    wanted |= {SETTINGS.get(each.rpartition(".")[2], "optimizer") for each in settings}
    return located(found, wanted, set(names).union(*map(look_alikes, names)))


def with_more(found: Diagnosis, name: str, setting: str, chosen: Sequence[Probe]) -> bool:
    """Whether a mistake, a setting that is never read and a float32 constant are told."""
    told = first(found)
    small = bool(found.left) and all(part.small for part in found.left)
    rest = told - {name, FLOAT32_SETTINGS}
    single = small or FLOAT32_SETTINGS in told
    return name in told and single and bool(rest) and rest <= ignored(setting, tuple(chosen))


@cache
def ignored(setting: str, chosen: tuple[Probe, ...]) -> set[str]:
    """What a setting that is never read is called."""
    forms = [form for name in mistakes.names() for form in forms_of(name)]
    using = (probe.problem for probe in chosen if setting in used(probe.problem))
    return {form.name for problem in using for form in ignoring(setting, forms, problem)}
