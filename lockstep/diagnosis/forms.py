"""The ways in which a port can differ: those of the catalogue, and those that a run gives away."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, fields, replace
from fractions import Fraction
from functools import cache, lru_cache, partial
from typing import Any

from lockstep import mistakes
from lockstep.diagnosis.probes import MICRO_BATCHES
from lockstep.mistakes import Mistake
from lockstep.oracle.loop import STAGES, Number, Place, Stages, Theta, decayed, learning_rate
from lockstep.problem import PLAIN, Optimizer, Problem
from lockstep.problem.settings import ProblemError

WITHIN = "optimizer."


@dataclass(frozen=True, eq=False)
class Form:
    """A way to make a mistake, as stages of the loop; a described one is in no catalogue."""

    name: str
    stages: Stages
    mistake: Mistake

    @property
    def known(self) -> bool:
        """Whether the catalogue has it."""
        return self.name in mistakes.names()


@cache
def forms_of(name: str) -> tuple[Form, ...]:
    """The forms of a mistake of the catalogue."""
    mistake = mistakes.load(name)
    each = [mistake.stages, *mistake.forms]
    # A port may go by a schedule of its own, and look up rates that it is given, or the reverse.
    each += [
        replace(STAGES, learning_rate=partial(rate_where, field=field, rate=stages.learning_rate))
        for stages in each
        if set(stages.replaced) == {"learning_rate"}
        for field in ("schedule", "learning_rates")
    ]
    return tuple(Form(name, reading_once(stages), mistake) for stages in each)


def reading_once(stages: Stages) -> Stages:
    """Stages that read a problem's settings once, since checking a problem takes time."""
    if stages.settings is STAGES.settings:
        return stages
    return replace(stages, settings=lru_cache(maxsize=None)(stages.settings))


def rate_where(at: Place, field: str, rate: Callable[[Place], Number]) -> Number:
    """A learning rate, on those problems alone that set a field."""
    return learning_rate(at) if getattr(at.problem, field) is None else rate(at)


def described(name: str, title: str, family: str = "model", **stages: Any) -> Form:
    """A form that no catalogue has: its name, a title that says it all, the stages it replaces."""
    mistake = Mistake(title, f"{title}.", "", family, 1, 3, replace(STAGES, **stages))
    return Form(name, reading_once(mistake.stages), mistake)


def cleared(accumulator: Theta, gradient: Theta, at: Place, every: int) -> Theta:
    """Add to an accumulator that is emptied after so many micro-batches of an epoch."""
    empty = at.micro_step > 0 and at.micro_step % every == 0
    return gradient if empty else accumulator + gradient


def spare_bias(problem: Problem) -> Problem:
    """A problem in which W alone decays, where anything does."""
    return replace(problem, decay_bias=False)


def never_ended(at: Place) -> Number:
    """The learning rate that a schedule's formula gives after its end, too."""
    schedule = at.problem.schedule
    if schedule is None or at.update < schedule.updates:
        return learning_rate(at)
    return decayed(Fraction(at.problem.optimizer.learning_rate), schedule, at.update)


# What people do, and would not call a mistake or a policy of their own.
UNNAMED = (
    described(
        "biases never decay",
        "Weight decay spares the biases, whether or not it is meant to act on them",
        "decay",
        settings=spare_bias,
    ),
    described(
        "schedule goes on after its end",
        "After a schedule's last update its formula goes on: a linear decay turns negative, and a"
        " cosine rises again",
        "schedule",
        learning_rate=never_ended,
    ),
    *(
        described(
            f"cleared every {every} micro-batches",
            f"After every {every} micro-batches of an epoch, the accumulator is emptied",
            accumulate=partial(cleared, every=every),
        )
        for every in range(2, MICRO_BATCHES)
    ),
)


def used(problem: Problem) -> list[str]:
    """The settings of a problem that are not plain, "optimizer.eps" of an optimizer's."""
    plain = Optimizer(problem.optimizer.name)
    found = [name for name, value in PLAIN.items() if getattr(problem, name) != value]
    return found + [
        WITHIN + each.name
        for each in fields(Optimizer)
        if getattr(problem.optimizer, each.name) != getattr(plain, each.name)
    ]


def unread(problem: Problem, read: Collection[str]) -> tuple[str, ...]:
    """The settings of a problem that are in use, and that nobody read."""
    if "__dict__" in read:
        return ()
    return tuple(name for name in used(problem) if name not in read)


def ignoring(setting: str, known: Sequence[Form], problem: Problem) -> tuple[Form, ...]:
    """The forms in which a setting makes no difference, under the catalogue's name if it has one.

    What stands in its place may be another library's default: all forms of that name are given.
    """
    plain = ignored(setting, problem.optimizer.name)
    settled = [form for form in known if set(form.stages.replaced) == {"settings"}]
    names = {form.name for form in settled if alike(form, plain, problem)}
    return tuple(form for form in settled if form.name in names) or (plain,)


@cache
def ignored(setting: str, optimizer: str) -> Form:
    """The form in which a setting, of an optimizer where it is one's own, is not there."""
    name = setting.removeprefix(WITHIN)
    of = f" of {optimizer}" if setting.startswith(WITHIN) else ""
    return described(
        f"ignores {name}",
        f"The setting {name}{of} is never read, and makes no difference",
        settings=partial(without, setting=setting, optimizer=optimizer),
    )


def without(problem: Problem, setting: str, optimizer: str) -> Problem:
    """A problem with the plain value of a setting."""
    if not setting.startswith(WITHIN):
        return replace(problem, **{setting: PLAIN[setting]})
    if problem.optimizer.name != optimizer:
        return problem
    name = setting.removeprefix(WITHIN)
    plain = getattr(Optimizer(optimizer), name)
    # What cannot be without it goes too.
    more = {"nesterov": False, "dampening": 0.0} if name == "momentum" else {}
    return replace(problem, optimizer=replace(problem.optimizer, **{name: plain, **more}))


def alike(one: Form, other: Form, problem: Problem) -> bool:
    """Whether two forms make the same settings of a problem; some make none of it."""
    try:
        first, second = one.stages.settings(problem), other.stages.settings(problem)
    except ProblemError:
        return False
    return settings(first) == settings(second)


def settings(problem: Problem) -> list[Any]:
    """All settings of a problem but its arrays, of which there are some or none."""
    plain = [getattr(problem, name) for name in PLAIN if name != "example_weights"]
    counts = [problem.epochs, problem.accumulation_steps, problem.dtype]
    return [problem.optimizer, problem.example_weights is None, *plain, *counts]
