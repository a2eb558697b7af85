"""What two runs' updates do differently, from the gradient and the state that each had."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

import numpy as np

from lockstep.diagnosis.forms import Form
from lockstep.trace.findings import Finding, listed
from lockstep.trace.gradients import Pair
from lockstep.trace.matching import Matching
from lockstep.trace.numbers import Number, unit
from lockstep.trace.reading import LINKS, Trace
from lockstep.trace.rules import KNOWN, Rule, rate_name
from lockstep.trace.settings import FORMULA
from lockstep.trace.steps import Step, Steps
from lockstep.trace.whole import squared, whole


def rule_findings(
    rule: Rule,
    expected: Mapping[int, Number],
    accumulation_steps: int,
    right: Rule,
    matching: Matching,
) -> Iterator[Finding]:
    """What the rule is that is not the right one, and its rates."""
    first = min(rule.moves, default=1)
    alike = rule.optimizer.name == right.optimizer.name
    known = rule.exact and (right.exact or not right.moves)
    if known and not alike:
        own, other = (RULES[each.optimizer.name] for each in (rule, right))
        said = f"it is {own}, and the first run's is {other}"
        yield Finding("another rule", "rule", said, first, phase="after")
        return
    # What the first run does, too, is no difference.
    others = tuple(sorted(matching.others(right.tensors)))
    if (rule.form, rule.tensors) != (right.form, others):
        if rule.form is not None:
            yield Finding(rule.form.name, "rule", title(rule.form), first, rule.tensors, "after")
        if right.form is not None:
            said = f"{title(right.form)}: the first run does so, and this one does not"
            yield Finding(f"without {right.form.name}", "rule", said, first, others, "after")
    if rule.exact and alike and rule.optimizer.eps != right.optimizer.eps:
        said = f"eps is {rule.optimizer.eps:.4g} instead of {right.optimizer.eps:.4g}"
        yield Finding("eps-default", "rule", said, first, phase="after")
    if not rule.exact:
        return
    if known:
        for name in (*FORMULA, "centered", "amsgrad"):
            own, other = getattr(rule.optimizer, name), getattr(right.optimizer, name)
            both = rule.optimizer.momentum and right.optimizer.momentum
            if own != other and (both or name != "nesterov"):
                if name == "amsgrad" and not acts(m.step for m in (*rule.every, *right.every)):
                    continue
                called = "nesterov-ignored" if name == "nesterov" and other else f"another {name}"
                yield Finding(called, "rule", f"{name} is {own} instead of {other}", first)
        beta, right_beta = (each.optimizer.betas[0] for each in (rule, right))
        if rule.optimizer.name == "lion" and beta != right_beta:
            # Its moment goes on with the second alone: the first shows in the signs of updates.
            said = f"beta1 is {beta:.5g} instead of {right_beta:.5g}"
            yield Finding("another beta1", "rule", said, first, phase="after")
    named = rate_name(rule.rates, expected, accumulation_steps)
    if named is not None:
        first = next(
            u for u in rule.rates if u in expected and not rule.rates[u].equals(expected[u])
        )
        yield Finding(named[0], "rate", named[1], first, phase="after")


def acts(steps: Iterable[Step]) -> bool:
    """Whether a maximum of AMSGrad was ever another number than what it is the maximum of."""
    return any(
        not np.array_equal(step.kept["max_exp_avg_sq"], step.kept["exp_avg_sq"])
        for step in steps
        if "max_exp_avg_sq" in step.kept
    )


def still_findings(mine: Steps, theirs: Steps, matching: Matching) -> Iterator[Finding]:
    """Tensors that move in one of the runs alone."""
    every = {name for _, name in theirs.of}
    here, left = (
        {other for name in names for other in matching.others([name])} & every
        for names in (mine.still, mine.left_alone)
    )
    known = {other for _, name in mine.of for other in matching.others([name])} & every
    own = theirs.left_alone & known - here
    first = left - theirs.still
    bare, of_first = theirs.bare, {*matching.others(mine.bare)}
    missing, lone = "params-not-in-optimizer", "detached"
    alone = "{} {}, and never in the first run"
    for names, name, said in (
        (own - bare, missing, "{} never {}"),
        (own & bare, lone, "{} never {}: their optimizer has them, and no gradient reaches them"),
        (first - of_first, f"without {missing}", alone),
        (first & of_first, f"without {lone}", f"{alone}, where no gradient reaches them"),
    ):
        if names:
            which = tuple(sorted(names))
            does = "moves" if len(which) == 1 else "move"
            yield Finding(name, "rule", said.format(listed(which), does), 1, which, "after")


def placement_findings(
    mine: Steps, theirs: Steps, expected: Mapping[int, Number]
) -> Iterator[Finding]:
    """A rate inside of one run's momentum alone, which shows in what follows when it changes."""
    changes = next((n for n in expected if not expected[n].equals(expected[min(expected)])), None)
    if changes is None or mine.rate_inside == theirs.rate_inside:
        return
    name, less = "momentum-lr-placement", "without " if mine.rate_inside else ""
    which = "the first run's momentum" if mine.rate_inside else "its momentum"
    said = f"the rate is inside of {which} alone: from update {changes} on, where it is another one"
    yield Finding(f"{less}{name}", "rule", said, changes, phase="state.momentum_buffer")


def uneven(
    rule: Rule, right: Rule, matching: Matching, still: Collection[str]
) -> Iterator[Finding]:
    """Tensors with a rate of their own, in updates that have no rate of all tensors.

    still: those of the second run that never move in one of both, of which that is said.
    """
    off = []
    for update in sorted(rule.moves.keys() & right.moves.keys()):
        if update in rule.rates and update in right.rates:
            continue
        for name, match in matching.matches.items():
            for other in match.others:
                mine, theirs = right.moves[update].get(name), rule.moves[update].get(other)
                if mine is None or theirs is None or other in still:
                    continue
                if not (mine.fit.exact and theirs.fit.exact):
                    continue
                one, two = theirs.rate, mine.rate
                known = max(one.error, two.error) < KNOWN * max(abs(one.value), abs(two.value))
                if known and not one.equals(two):
                    off.append((update, other, f"{other} at {one} instead of {two}"))
    if off:
        first = off[0][0]
        each = [(name, said) for update, name, said in off if update == first]
        words = f"update {first} moves {listed([said for _, said in each])}"
        names = tuple(name for name, _ in each)
        yield Finding("other rates by tensor", "rate", words, first, names, "after")


def title(form: Form) -> str:
    """What a form's mistake is, as a part of a sentence."""
    whole = form.mistake.title
    name = whole.split()[0].removesuffix("'s")
    return whole if name in {*RULES.values(), *NAMES} else whole[0].lower() + whole[1:]


# What the rules are called.
RULES = {
    "sgd": "SGD", "adam": "Adam", "adamax": "Adamax", "rmsprop": "RMSprop", "adagrad": "Adagrad",
    "adadelta": "Adadelta", "lion": "Lion",
}  # fmt: skip
NAMES = {"AMSGrad", "Keras"}
# Rules of the libraries that are not known here.
FOREIGN = {
    "ASGD", "Adafactor", "Ftrl", "LBFGS", "Lamb", "Muon", "NAdam", "Nadam", "RAdam", "Rprop",
}  # fmt: skip
# The links of optax' chains that are.
KNOWN_LINKS = {*LINKS, "scale_by_learning_rate", "scale_by_schedule"}


def foreign_rule(trace: Trace) -> str | None:
    """The name of a library's rule that is not known here, if a run has one."""
    names = {str(each.get("name", "")) for each in trace.facts.get("optimizers", ())} & FOREIGN
    chain = {link["name"]: link for group in trace.groups for link in group.get("links", ())}
    names |= {f"optax.{n}" for n in chain if n.startswith("scale_by_") and n not in KNOWN_LINKS}
    names |= {f"optax.{n}" for n in chain if n == "apply_every"}
    if chain.get("scale_by_adam", {}).get("nesterov"):
        names.add("NAdam")
    if chain.get("trace", {}).get("nesterov") and chain.keys() & {
        "scale_by_rms",
        "scale_by_stddev",
    }:
        names.add("RMSprop with Nesterov's momentum")
    return min(names, default=None)


def left_of(rule: Rule, right: Rule | None = None, foreign: str | None = None) -> Iterator[str]:
    """The updates that no rule explains.

    right: the first run's; foreign: the name of the rule that it should have, where that is not
    known here.
    """
    if foreign is not None:
        yield (
            f"the first run's rule is {foreign}, which is not known here: whether both take the"
            " same updates cannot be said"
        )
    elif not rule.exact and rule.moves:
        yield f"from its own gradients and state, {unexplained(rule)}"
    elif right is not None and not right.exact and right.moves:
        yield (
            "its updates follow a known rule, and the first run's none: there, from its own"
            f" gradients and state, {unexplained(right)}"
        )


def coincide(mine: Trace, theirs: Trace, matching: Matching, gradients: Sequence[Pair]) -> bool:
    """Whether every update changes all parameters by the same in both, but for rounding."""
    floors = {pair.update: pair.floor for pair in gradients}
    if not all(each.number in floors for each in (*mine.updates, *theirs.updates)):
        return False
    for update, other in zip(mine.updates, theirs.updates, strict=True):
        apart, size, rounding = 0.0, 0.0, 0.0
        for name, match in matching.matches.items():
            begun = whole(update, other, match, "before")
            ended = whole(update, other, match, "after")
            if begun is None or ended is None or begun.first.shape != ended.first.shape:
                return False
            known = unit(update.dtype("before", name))
            for (here, there), (left, left_there) in zip(begun, ended, strict=True):
                apart += squared((left - here) - (left_there - there))
                size += squared(left - here)
                rounding += squared(known * left)
        if apart > floors[update.number] ** 2 * size + rounding:
            return False
    return True


def unexplained(rule: Rule) -> str:
    """The first update that a rule does not explain."""
    off = rule.off
    first = min(move.step.update for move in off)
    names = [move.step.name for move in off if move.step.update == first]
    worst = max(move.fit.relative for move in off if move.step.update == first)
    return (
        f"update {first} moves {len(names)} tensors as no known rule does: {listed(names)},"
        f" {worst:.1e} of their change"
    )
