"""What each stage of a recorded run did after its gradients, in numbers: no settings are needed.

Every relation is one update of one tensor, from the state that the run itself had recorded. What is
found of one stage is used in the next, in the order in which they run, so that a mistake in one
stage does not show as another in the next.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache, partial
from typing import Any

import numpy as np

from lockstep.oracle.loop import STAGES, Place, Stages
from lockstep.oracle.rounding import PRECISION
from lockstep.oracle.rules import initial_state
from lockstep.oracle.tracked import Rounded, banded, rounded
from lockstep.problem import Optimizer, Problem
from lockstep.trace.masked import Mask, mask_of
from lockstep.trace.numbers import Fit, Number, agreed, fit, unit
from lockstep.trace.reading import Array, Update
from lockstep.trace.steps import Step, Steps, nested, stepped
from lockstep.trace.weights import held, shown, window_fit
from lockstep.trace.whole import Both

# What a norm of 0 is divided by.
TINY = 1e-300
# Which slot is an average of gradients, and which of their squares.
FIRST = {"adam": "exp_avg", "adamax": "exp_avg", "lion": "exp_avg", "sgd": "momentum_buffer"}
SECOND = {"adam": "exp_avg_sq", "rmsprop": "square_avg", "adadelta": "square_avg"}
# The rules that divide the gradient itself: one that decays goes into it before, as into what
# Nesterov's momentum looks ahead by.
RAW = ("rmsprop", "adadelta", "adagrad", "adamax")
# By update and tensor: a gradient, and what it may be off, relatively.
Gradients = Mapping[tuple[int, str], tuple[Array, float]]
# Fewer numbers than these are explained by many weights: they may have those of other tensors.
FEW = 16
# Up to what part of the largest weight one is known to be 0, and of itself a rate is known.
SURE = 0.1
# A factor that does nothing.
NOTHING = Number(1.0, 0.0)
# What a replay of a mistake may end with, where it makes no sense.
FAILURES = (ArithmeticError, KeyError, ValueError, TypeError, AttributeError, NotImplementedError)
# How many roundings the sum of a window's gradients may have, in the size of what it comes to.
SUMMED = 4


@dataclass(frozen=True, eq=False)
class Average:
    """How a moment of a tensor went on: decay * moment + gain * gradient + pull * parameter."""

    step: Step
    decay: Number
    gain: Number
    pull: Number
    fit: Fit


@dataclass(frozen=True, eq=False)
class Move:
    """How a tensor moved: by -rate * direction - shrink * parameter.

    error: of the direction; fit: what is left over.
    """

    step: Step
    direction: Array
    error: Array
    rate: Number
    shrink: Number
    fit: Fit


@dataclass(eq=False)
class Identified:
    """What a run's stages did.

    steps: the run's; optimizer: its rule's settings as far as they are known: read off, or given;
    rates: of its updates, where what is missing of them in these is what clipping did; eps: by
    tensor, where each is to have its own; in_loss: by tensor, with what weight its loss has a decay
    in it.
    """

    steps: Steps
    optimizer: Optimizer
    rates: Mapping[int, Number] = field(default_factory=dict)
    eps: Mapping[str, float] = field(default_factory=dict)
    in_loss: dict[str, Number] = field(default_factory=dict)

    @cached_property
    def accumulation(self) -> int:
        """Of how many micro-batches an update is made, the most of all."""
        return max((update.micro_batches for update in self.steps.trace.updates), default=1) or 1

    def moving(self, update: Update) -> list[str]:
        """What an update steps: what is accumulated of others, or never moves, comes to nothing."""
        names = stepped(update)
        return [n for n in self.steps.trace.parameters if n in names - self.steps.left_alone]

    def before(self, update: Update) -> list[Update]:
        """The updates from the last one of the same optimizer on, the last first."""
        found, names = list[Update](), stepped(update)
        for index in reversed(range(update.number - 1)):
            found.append(self.steps.trace.updates[index])
            if names & stepped(found[-1]):
                break
        return found

    @cached_property
    def window(self) -> dict[int, tuple[Fit, int]]:
        """By update: the weights with which its micro-batches, and what was left, entered it."""
        found = {}
        for update in self.steps.trace.updates:
            fitted = window_fit(update, self.before(update), self.moving(update))
            if fitted is not None:
                found[update.number] = fitted, update.micro_batches
        return found

    @cached_property
    def by_tensor(self) -> dict[int, dict[str, Fit]]:
        """The same of each tensor alone, in updates in which they do not agree."""
        found: dict[int, dict[str, Fit]] = {}
        for update in self.steps.trace.updates:
            if update.number in self.window and not self.window[update.number][0].exact:
                before, names = self.before(update), self.moving(update)
                each = {name: window_fit(update, before, [name]) for name in names}
                found[update.number] = {n: fitted for n, fitted in each.items() if fitted}
        return found

    @cached_property
    def pulls(self) -> dict[str, Number]:
        """By tensor: with what weight the parameter itself was added to what was accumulated."""
        weights: dict[str, list[Number]] = {}
        for number, fits in self.by_tensor.items():
            update = self.steps.trace.updates[number - 1]
            for name, fitted in fits.items():
                if not fitted.exact:
                    with_it = window_fit(update, (), [name], "before")
                    known = with_it is not None and with_it.exact
                    weight = with_it.coefficients[-1] if with_it and known else None
                    weights.setdefault(name, []).append(weight or Number(0.0, math.inf))
        found = {name: agreed(each) for name, each in weights.items()}
        return {
            name: weight
            for name, weight in found.items()
            if weight is not None and all(math.isfinite(each.error) for each in weights[name])
        }

    @cached_property
    def lost(self) -> dict[int, int]:
        """By update: how many micro-batches were lost before its last ones, all of which count."""
        found = {}
        for update, (fitted, count) in self.window.items():
            weights = fitted.coefficients[:count]
            known = fitted.exact and all(math.isfinite(each.error) for each in weights)
            # Of two that are multiples of each other, either may be 0.
            sure = SURE * max((abs(each.value) for each in weights), default=0.0)
            none = [each.equals(0.0) and each.error < sure for each in weights] if known else []
            lost = none.index(False) if False in none else 0
            found[update] = 0 if any(none[lost:]) else lost
        return found

    @cached_property
    def left_out(self) -> dict[int, int]:
        """By update: how many windows no step was taken for, until then."""
        counts = [count for update, (_, count) in self.window.items() if not self.lost[update]]
        usual = max(counts or [count for _, count in self.window.values()], default=1)
        found, total = {}, 0
        for update in self.steps.trace.updates:
            total += int(update.facts.get("skipped") or 0)
            total += int(self.lost.get(update.number, 0) // usual)
            found[update.number] = total
        return found

    @cached_property
    def norms(self) -> dict[int, dict[str, float]]:
        """By update and tensor: the norm of what may be clipped, of the whole tensor."""
        return {
            update.number: {
                name: norm
                for name in update.phases.get("accumulated", ())
                if (norm := self.norm(update, name)) is not None
            }
            for update in self.steps.trace.updates
        }

    def norm(self, update: Update, name: str) -> float | None:
        """The norm of what was accumulated; None where it is not known."""
        if name not in self.decay_clipped:
            return update.norm("accumulated", name)
        if any(f"{phase}|{name}" in update.facts["sizes"] for phase in ("accumulated", "before")):
            return None
        gradient, begun = (shown(update, phase, name) for phase in ("accumulated", "before"))
        if gradient is None or begun is None:
            return None
        weight = self.by_hand.get(name) or self.coupled[name]
        return float(np.linalg.norm(gradient + weight.value * begun))

    @cached_property
    def whole_gain(self) -> Number | None:
        """With what a gradient that was not clipped enters its average."""
        decay = agreed([each.decay for each in self.averages if each.fit.exact])
        if decay is None or self.steps.family != "sgd":
            return None if decay is None else Number(1.0 - decay.value, decay.error)
        # A gain that never changes is the rule's, and nothing was clipped.
        return agreed([each.gain for each in self.averages if each.fit.exact]) or NOTHING

    def factors_of_averages(self) -> dict[tuple[int, str], Fit]:
        """The factors by how much of the accumulated gradient enters an average."""
        whole = self.whole_gain
        if whole is None:
            return {}
        return {
            (each.step.update, each.step.name): replace(
                each.fit, coefficients=(each.gain.over(whole),)
            )
            for each in self.averages
        }

    def factors_of_squares(self) -> dict[tuple[int, str], Fit]:
        """The factors by how much of the square of the accumulated gradient is kept."""
        whole = self.share_of_squares
        return {
            key: replace(fitted, coefficients=(fitted.coefficients[1].over(whole).root(),))
            for key, fitted in self.kept_squares.items()
            if whole is not None and fitted.coefficients[1].value > 0
        }

    @cached_property
    def kept_squares(self) -> dict[tuple[int, str], Fit]:
        """How the second moment went on of a rule that has no first one.

        decay * moment + gain * gradient^2, and where that is not all, what a decay that goes into
        the gradient adds: gain * weight * 2 gradient * parameter + gain * weight^2 * parameter^2.
        """
        found: dict[tuple[int, str], Fit] = {}
        slot = SECOND.get(self.steps.family, "sum")
        known = {key: step for key, step in self.steps.of.items() if slot in step.kept}
        if self.steps.family in FIRST:
            return found
        for key in sorted(known, key=lambda key: known[key].before.size < FEW):
            step = known[key]
            gradient = step.gradient
            if gradient is None:
                continue
            square, mixed, pull = gradient**2, 2 * gradient * step.before, step.before**2
            off = 2 * unit(step.dtype) * square
            columns, dtype = [step.kept_before[slot], square], step.dtype_of(slot)
            fitted = linear(step.kept[slot], columns, 2, dtype, off)
            if not fitted.exact or (square.size < FEW and unlike(fitted, key[0], found)):
                more = linear(step.kept[slot], [*columns, mixed, pull], 4, dtype)
                fitted = more if more.exact else fitted
            found[key] = fitted
        return found

    @cached_property
    def share_of_squares(self) -> Number | None:
        """With what a square enters such a moment, if nothing was clipped."""
        if self.steps.family not in SECOND:
            return NOTHING
        fits = self.kept_squares.values()
        decay = agreed([each.coefficients[0] for each in fits if each.exact])
        return None if decay is None else Number(1.0 - decay.value, decay.error)

    def factors_of_rates(self) -> dict[tuple[int, str], Fit]:
        """The factors by what each update is of one at the rate that it should have."""
        given = {
            key: (step.accumulated, 0.0)
            for key, step in self.steps.of.items()
            if step.accumulated is not None
        }
        return {
            (update, name): replace(move.fit, coefficients=(move.rate.over(self.rates[update]),))
            for update, each in moves(self, given).items()
            for name, move in each.items()
            if update in self.rates
        }

    @cached_property
    def averages(self) -> list[Average]:
        """How the first moment of each tensor went on.

        What all tensors have in common is found first, and then what each has of its own.
        """
        slot = FIRST.get(self.steps.family, "")
        alone = [
            average(step, slot, step.gradient)
            for step in self.steps.of.values()
            if slot in step.kept and step.gradient is not None
        ]
        decay = agreed([each.decay for each in alone if each.fit.exact])
        gain = agreed([each.gain for each in alone if each.fit.exact])
        if decay is not None and gain is not None:
            return [pulled(each, slot, decay, gain) for each in alone]
        # Too few numbers show none of their own: they may have those of another tensor.
        sure = [each for each in alone if math.isfinite(each.decay.error + each.gain.error)]
        known = [each for each in sure if each.fit.exact]
        kinds = {(each.decay.short, each.gain.short): each for each in known}
        beside: dict[int, dict[tuple[float, float], Average]] = {}
        for each in known:  # of one update, what is clipped together is one kind
            kind = each.decay.short, each.gain.short
            beside.setdefault(each.step.update, {})[kind] = each
        for index, each in enumerate(alone):
            if not math.isfinite(each.decay.error) and each.step.kept_before[slot].any():
                likes = (beside.get(each.step.update) or kinds).values()
                ways = [pulled(each, slot, like.decay, like.gain) for like in likes]
                found = [way for way in ways if way is not each]
                # A pull explains any single number: the less there is of it, the better.
                alone[index] = min(found, key=partial(pull_of, slot=slot), default=each)
        return alone

    @cached_property
    def coupled(self) -> dict[str, Number]:
        """By tensor: the decay that goes into its gradient, 0 for none."""
        pulls: dict[str, list[Number]] = {}
        for each in self.averages:
            if each.fit.exact and math.isfinite(each.pull.error) and each.gain.value:
                pulls.setdefault(each.step.name, []).append(each.pull.over(each.gain))
        if not self.steps.shows_clipped:
            pulls |= {n: each for n, each in self.added.items() if agreed(each) is not None}
        for (_, name), fitted in self.kept_squares.items():
            if fitted.exact and self.share_of_squares and len(fitted.coefficients) > 2:
                gain, mixed = fitted.coefficients[1:3]
                # What was clipped before the decay was added.
                clip = NOTHING if self.steps.shows_clipped else gain.over(self.share_of_squares)
                if gain.value > 0 and math.isfinite(mixed.error):
                    pulls.setdefault(name, []).append(mixed.over(gain).times(clip.root()))
        found = {}
        for name, numbers in pulls.items():
            weight = agreed(numbers)
            if weight is not None:
                found[name] = Number(0.0, weight.error) if weight.equals(0.0) else weight
        others = list(found.values())
        for (_, name), fitted in self.kept_squares.items():
            if name not in found and others and len(fitted.coefficients) > 2:
                # It has too few numbers to show a decay of its own: that of another tensor, then.
                found[name] = others[0]
        return found

    @cached_property
    def added(self) -> dict[str, list[Number]]:
        """By tensor: the decay that is added to what was clipped, as each update shows it."""
        whole, found = self.whole_gain, dict[str, list[Number]]()
        for each in self.averages:
            if whole is not None and each.fit.exact and math.isfinite(each.pull.error):
                found.setdefault(each.step.name, []).append(each.pull.over(whole))
        return found

    @cached_property
    def decay_clipped(self) -> frozenset[str]:
        """The tensors whose decay is clipped with the gradient: so it is one number, and no other.

        What a run clips is seen, or read off its averages.
        """
        if self.steps.shows_clipped:
            weights = {n: [e.coefficients[1] for e in self.beside_of[n]] for n in self.by_hand}
            return frozenset(name for name, each in weights.items() if agreed(each) is None)
        return frozenset(
            name
            for name, weight in self.coupled.items()
            if not weight.equals(0.0) and name in self.added and agreed(self.added[name]) is None
        )

    @cached_property
    def squares(self) -> list[Average]:
        """How the second moment of each tensor went on, of the gradient with its coupled decay."""
        slot = SECOND.get(self.steps.family, "")
        found = []
        for key, step in self.steps.of.items():
            if slot not in step.kept or key not in self.gradients:
                continue
            weight = self.coupled.get(step.name, Number(0.0, 0.0))
            pull = weight.value * step.before
            clipped, unknown = self.gradients[key]
            if step.name in self.decay_clipped:
                pull = pull * self.factors[key].coefficients[0].value
            gradient = clipped + pull
            columns = [step.kept_before[slot], gradient * gradient]
            # Where decay and gradient cancel, what both have rounded is left.
            off = unit(step.dtype) * (abs(clipped) + abs(pull)) + unknown * abs(clipped)
            off += weight.error * abs(step.before)
            squared = (2 * abs(gradient) + off) * off
            fitted = linear(step.kept[slot], columns, 2, step.dtype_of(slot), squared)
            decay, gain = fitted.coefficients
            found.append(Average(step, decay, gain, Number(0.0, math.inf), fitted))
        return found

    @cached_property
    def momenta(self) -> dict[tuple[int, str], Number]:
        """By update and tensor, the momentum that Nesterov's step looks ahead by, if it changes.

        As the buffers of the update show it, or, before there is anything in one, as it was set.
        """
        if self.steps.family != "sgd" or not self.optimizer.nesterov:
            return {}
        shown: dict[int, dict[str, Number]] = {}
        for each in self.averages:
            if each.fit.exact and each.decay.error < SURE:
                shown.setdefault(each.step.update, {})[each.step.name] = each.decay
        found = {}
        for update, steps in self.steps.by_update.items():
            own = shown.get(update, {})
            of_all = agreed([*own.values()])
            settings = self.steps.trace.updates[update - 1].facts.get("settings", {})
            for name in steps:
                given = settings.get(name, {}).get("momentum")
                known = of_all or own.get(name) or (given and Number(float(given), 0.0))
                if known and not known.equals(self.optimizer.momentum):
                    found[update, name] = known
        return found

    @cached_property
    def betas(self) -> dict[tuple[int, str], tuple[Number, Number]]:
        """By update and tensor, the decays of its moments, where they are not those of all."""
        decays: dict[str, tuple[dict[int, Average], dict[int, Average]]] = {}
        if self.steps.family not in ("adam", "adamax"):
            return {}
        for index, averages in enumerate((self.averages, self.squares)):
            for each in averages:
                if each.fit.exact:
                    of_tensor = decays.setdefault(each.step.name, ({}, {}))
                    of_tensor[index][each.step.update] = each
        recorded, found = self.steps.trace.by_tensor("betas"), {}
        for name, both in decays.items():
            given = recorded.get(name, self.optimizer.betas)
            for update in both[0].keys() | both[1].keys():
                first, second = (
                    decay_at(update, each, beta) for each, beta in zip(both, given, strict=True)
                )
                known = min(first.value, second.value) >= 0 and max(first.value, second.value) < 1
                if known and (first.value, second.value) != self.optimizer.betas:
                    found[update, name] = first, second
        return found

    @cached_property
    def factors(self) -> dict[tuple[int, str], Fit]:
        """By update and tensor: what clipping multiplied the accumulated gradient with.

        Where what the rule got was not recorded, what it keeps of its gradients tells; if it keeps
        nothing, how far it went.
        """
        if not self.steps.shows_clipped:
            if not self.steps.slots:
                return self.factors_of_rates()
            first = self.steps.family in FIRST
            return self.factors_of_averages() if first else self.factors_of_squares()
        known = {
            key: Fit((Number(mask.factor, SUMMED * unit(self.steps.of[key].dtype)),), 0.0, 0.0)
            for key, mask in self.masks.items()
        }
        kept = {key: self.beside[key].coefficients for key in self.beside if key[1] in self.by_hand}
        return self.multiples | {key: Fit(both[:1], 0.0, 0.0) for key, both in kept.items()} | known

    @cached_property
    def multiples(self) -> dict[tuple[int, str], Fit]:
        """By update and tensor: how many times what was accumulated the clipped gradient is."""
        found = {}
        for key, step in self.steps.of.items():
            if step.accumulated is None or step.clipped is None or not step.accumulated.any():
                continue
            found[key] = fit(step.clipped, [step.accumulated], summed(step))
            both = self.clipped_of(key)
            if found[key].exact and both.first.size > step.clipped.size:
                terms = [both.second, both.first]
                found[key] = held(found[key], terms, SUMMED * unit(step.dtype))
        return found

    @cached_property
    def beside(self) -> dict[tuple[int, str], Fit]:
        """The same of what is no multiple, with how many times the parameter it is beside that."""
        found = {}
        for key, fitted in self.multiples.items():
            if not fitted.exact and key not in self.masks:
                step = self.steps.of[key]
                assert step.accumulated is not None
                assert step.clipped is not None
                found[key] = fit(step.clipped, [step.accumulated, step.before], summed(step))
        return found

    @cached_property
    def beside_of(self) -> dict[str, list[Fit]]:
        """The same by tensor."""
        found: dict[str, list[Fit]] = {}
        for (_, name), fitted in self.beside.items():
            found.setdefault(name, []).append(fitted)
        return found

    @cached_property
    def by_hand(self) -> dict[str, Number]:
        """By tensor: the decay that is added to its gradient before the rule gets it."""
        found = {}
        for name, fits in self.beside_of.items():
            both = [each.coefficients for each in fits]
            clipped = [weight.over(factor) for factor, weight in both if factor.value]
            # What is added before a clip is clipped with the gradient.
            weight = agreed([weight for _, weight in both]) or agreed(clipped)
            if all(e.exact for e in fits) and weight is not None and math.isfinite(weight.error):
                found[name] = weight
        return found

    @cached_property
    def masks(self) -> dict[tuple[int, str], Mask]:
        """By update and tensor: what is emptied between what is accumulated and what is clipped."""
        others = (key for key, fitted in self.multiples.items() if not fitted.exact)
        found = {
            key: mask_of(self.clipped_of(key), SUMMED * unit(self.steps.of[key].dtype))
            for key in others
        }
        return {key: mask for key, mask in found.items() if mask is not None}

    def clipped_of(self, key: tuple[int, str]) -> Both:
        """All that was accumulated of a tensor, and all that was left of it.

        Or what is looked at of both, where what was left was read off.
        """
        update, step = self.steps.trace.updates[key[0] - 1], self.steps.of[key]
        accumulated, clipped = (shown(update, p, key[1]) for p in ("accumulated", "clipped"))
        if accumulated is None or clipped is None:
            accumulated, clipped = step.accumulated, step.clipped
        assert accumulated is not None
        assert clipped is not None
        return Both(accumulated, clipped)

    @cached_property
    def gradients(self) -> Gradients:
        """What the rule got; where that was not recorded, as clipping must have left it."""
        found: dict[tuple[int, str], tuple[Array, float]] = {}
        factors = nested(self.factors)
        for update, steps in self.steps.by_update.items():
            known = {
                name: fitted.coefficients[0]
                for name, fitted in factors.get(update, {}).items()
                if fitted.exact and fitted.coefficients[0].value > 0
            }
            common = agreed(list(known.values()))
            for name, step in steps.items():
                factor = common or known.get(name, NOTHING)
                if step.clipped is not None:
                    found[update, name] = step.clipped, 0.0
                elif step.accumulated is not None and factor.equals(1.0):
                    found[update, name] = step.accumulated, 0.0
                elif step.accumulated is not None:
                    off = factor.error / factor.value
                    found[update, name] = factor.value * step.accumulated, off
        return found


def summed(step: Step) -> Array:
    """What a gradient that was clipped may be off from what was accumulated.

    The accumulator may have been added up in another order than it was recorded.
    """
    assert step.clipped is not None
    size = abs(step.clipped)
    return SUMMED * unit(step.dtype) * (size + float(size.mean()))


def decay_at(update: int, averages: Mapping[int, Average], given: float) -> Number:
    """The decay of a moment in an update: as it was given, unless another one was read off.

    It is one in all updates, if it can be, and may otherwise follow a schedule. Where there was
    nothing to decay yet, it is what the gain of the gradient leaves.
    """
    one = agreed([each.decay for each in averages.values()])
    if one is not None:
        return Number(given if one.equals(given) else one.short, 0.0)
    each = averages.get(update)
    if each is None or (not math.isfinite(each.decay.error) and each.step.clipped is None):
        return Number(given, 0.0)
    left = Number(1.0 - each.gain.value, each.gain.error)
    read = each.decay if math.isfinite(each.decay.error) else left
    return Number(given, 0.0) if read.equals(given) else read


def uncorrected(betas: tuple[Number, Number], count: int) -> float:
    """What an error of the decays leaves in a direction that is corrected for so many updates."""
    first, second = (
        count * beta.value ** (count - 1) * beta.error / (1 - beta.value**count) for beta in betas
    )
    return first + second / 2


def average(step: Step, slot: str, gradient: Array) -> Average:
    """How a moment went on, as one tensor shows it."""
    columns = [step.kept_before[slot], gradient, step.before]
    fitted = linear(step.kept[slot], columns, 2, step.dtype_of(slot))
    decay, gain, pull = fitted.coefficients
    return Average(step, decay, gain, pull, fitted)


def pulled(each: Average, slot: str, decay: Number, gain: Number) -> Average:
    """The same with the decay and the gain that all tensors have, where they may be its own."""
    step = each.step
    before, after, gradient = step.kept_before[slot], step.kept[slot], step.gradient
    assert gradient is not None
    rest = after - decay.value * before - gain.value * gradient
    size = 2 * (abs(after) + abs(before) + abs(gradient))
    off = decay.error * abs(before) + gain.error * abs(gradient)
    fitted = fit(rest, [step.before], unit(step.dtype_of(slot)) * size + off)
    if not fitted.exact:
        return each
    return Average(step, decay, gain, fitted.coefficients[0], fitted)


def pull_of(each: Average, slot: str) -> float:
    """How much of a moment is neither what it was nor its gradient."""
    step = each.step
    assert step.gradient is not None
    kept = each.decay.value * step.kept_before[slot] + each.gain.value * step.gradient
    return float(np.linalg.norm(step.kept[slot] - kept))


def linear(
    target: Array, columns: Sequence[Array], averaged: int, dtype: str, off: Array | float = 0.0
) -> Fit:
    """target as a sum of the columns, each product and sum of which rounds.

    averaged: so many of the columns are averaged, which may be written with their difference; off:
    how far the last column may be from what went into the target.
    """
    size = 2 * (abs(target) + sum(map(abs, columns[:averaged])))
    once = unit(dtype)
    noise: list[Array | float] = [0.0] * averaged
    noise += [once * abs(column) for column in columns[averaged:]]
    noise[-1] = noise[-1] + off
    return fit(target, columns, once * size, noise)


def setting(optimizer: Optimizer) -> Optimizer:
    """The same rule at rate 1, without decay: what it moves by is its direction."""
    more: dict[str, Any] = {"learning_rate": 1.0, "weight_decay": 0.0}
    return replace(optimizer, **more)


def replayed(
    stages: Stages, optimizer: Optimizer, step: Step, gradient: Array, k: int, isolated: bool
) -> tuple[Rounded, Mapping[str, Rounded]]:
    """The direction in which a rule moves a tensor, and the state that it leaves, with errors.

    k: of how many micro-batches an update is made. isolated: from the state that the run has
    afterwards, as an average leaves it, so that how it came about is not looked at. Raises one of
    FAILURES where the rule makes no sense of it.
    """
    number = rounded(2.0 ** -PRECISION[step.dtype], step.dtype)
    band = banded(number)
    problem = stages.settings(problem_of(optimizer, step.dtype, k))
    place = Place(
        problem, number, np.dtype(object), None, stages,
        update=step.taken, micro_step=(step.taken + 1) * k - 1,
    )  # fmt: skip
    numbers = stages.constants(number(1.0), place)
    kept = step.kept_before
    if isolated:
        kept = step.kept
        one, none = number(1.0), number(0.0)
        numbers |= {"first": (one, none), "second": (one, none), "momentum": one, "gain": none}
    needed = initial_state(problem.optimizer, np.zeros(1))
    zeros = np.zeros_like(step.before)
    state = {name: band(kept[name] if name in kept else zeros + needed[name]) for name in needed}
    theta, new = stages.rule(band(zeros), band(gradient), state, numbers, place)
    moved: Any = theta  # a rule keeps the kind of numbers that it is given
    return -moved, new  # type: ignore[return-value]


@lru_cache(maxsize=64)
def problem_of(optimizer: Optimizer, dtype: str, k: int) -> Problem:
    """The smallest problem with these settings: a rule looks at nothing else of it."""
    one = np.ones((1, 1), dtype)
    return Problem(
        W=one, b=np.ones(1, dtype), micro_batches=[(one, one)], accumulation_steps=k,
        optimizer=optimizer, dtype=dtype,
    )  # fmt: skip


def moves(
    run: Identified,
    gradients: Gradients,
    stages: Stages = STAGES,
    optimizer: Optimizer | None = None,
) -> dict[int, dict[str, Move]]:
    """By update and tensor: how far each went in the direction of a rule, and how it shrank.

    gradients: what the rule got. The rate is one for all
    tensors of an update where it can be; what remains is how each shrank.
    """
    settings = setting(optimizer or run.optimizer)
    found: dict[int, dict[str, Move]] = {}
    for (update, name), step in run.steps.of.items():
        move = move_by(run, step, gradients, stages, settings)
        if move is None:
            return {}
        found.setdefault(update, {})[name] = move
    return {update: together(each) for update, each in found.items()}


def move_by(
    run: Identified,
    step: Step,
    gradients: Gradients,
    stages: Stages,
    settings: Optimizer,
) -> Move | None:
    """How far one tensor went in the direction of a rule; None where the rule makes no sense."""
    isolated = run.steps.family == "adam" or (
        run.steps.family == "sgd" and "momentum_buffer" in run.steps.slots and not settings.nesterov
    )
    gradient, known = gradients.get((step.update, step.name), (None, 0.0))
    off: Array | float = known
    if gradient is None and not isolated:
        return None
    given = np.zeros_like(step.before) if gradient is None else gradient
    if betas := run.betas.get((step.update, step.name)):
        settings = replace(settings, betas=(betas[0].value, betas[1].value))
        off = off + uncorrected(betas, step.taken + 1)
    momentum = run.momenta.get((step.update, step.name)) if settings.nesterov else None
    if momentum is not None:
        settings = replace(settings, momentum=momentum.value)
    if settings.eps == run.optimizer.eps and step.name in run.eps:
        settings = replace(settings, eps=run.eps[step.name])
    lost: Array | float = 0.0
    if (run.steps.family in RAW or settings.nesterov) and step.name in run.coupled:
        given, lost = decayed(run, step, given, off)
        if settings.nesterov:  # which goes by the gradient and by its momentum, of which it is part
            off, lost = 0.0, 2 * lost
        elif run.steps.family == "adamax":
            off = lost = lost / (step.kept["exp_inf"] + TINY)
        else:
            off, lost = over(lost, given), 0.0
    if momentum is not None:
        lost = lost + momentum.error * abs(step.kept["momentum_buffer"])
    try:
        with np.errstate(invalid="ignore"):  # of a frozen tensor's state, which may be anything
            direction, _ = replayed(stages, settings, step, given, run.accumulation, isolated)
    except FAILURES:
        return None
    value = np.asarray(direction.value)
    # What the update used was not yet rounded to the dtype that the state is kept in.
    coarse = max((unit(dtype) for dtype in step.dtypes.values()), default=0.0)
    error = np.asarray(direction.error) + lost + abs(value) * (off + coarse)
    return move_of(step, value, error)


def unlike(fitted: Fit, update: int, others: Mapping[tuple[int, str], Fit]) -> bool:
    """Whether a fit has weights that all of some others, of more numbers, have otherwise.

    The first is that of all updates, and the second of one.
    """
    exact = {key: each.coefficients for key, each in others.items() if each.exact}
    decay = agreed([each[0] for each in exact.values()])
    gain = agreed([each[1] for key, each in exact.items() if key[0] == update])
    both = zip(fitted.coefficients, (decay, gain), strict=False)
    return any(one is not None and not own.equals(one) for own, one in both)


def decayed(
    run: Identified, step: Step, gradient: Array, off: Array | float
) -> tuple[Array, Array]:
    """What a rule gets of a gradient with a decay that goes into it, and what that may be off.

    off: what the gradient may be, relatively.
    """
    weight = run.coupled.get(step.name, Number(0.0, 0.0))
    lost = off * abs(gradient) + weight.error * abs(step.before)
    return gradient + weight.value * step.before, lost


def over(error: Array, value: Array) -> Array:
    """An error, relatively; of nothing there is none."""
    return np.divide(error, abs(value), out=np.zeros_like(value), where=value != 0)


def move_of(step: Step, direction: Array, error: Array, rate: Number | None = None) -> Move:
    """How far a tensor moved in a direction, and how it shrank; at a rate, if that is known."""
    change = step.after - step.before
    scale = abs(rate.value) if rate else float(np.median(ratio(change, direction)))
    with np.errstate(invalid="ignore"):  # of what may be anything, at a rate of 0
        bound = step.rounding + scale * (error + unit(step.dtype) * abs(direction))
    if rate is not None:
        bound = bound + rate.error * abs(direction)
        fitted = fit(change + rate.value * direction, [-step.before], bound)
        return Move(step, direction, error, rate, fitted.coefficients[0], fitted)
    fitted = fit(change, [-direction, -step.before], bound)
    rate, shrink = fitted.coefficients
    return Move(step, direction, error, rate, shrink, fitted)


def ratio(change: Array, direction: Array) -> Array:
    """How many times the direction a change is, element by element, where there is one."""
    there = direction != 0
    return abs(change[there] / direction[there]) if there.any() else np.zeros(1)


def together(moves: Mapping[str, Move]) -> dict[str, Move]:
    """The moves of an update's tensors at the rate that they all may have, if there is one."""
    common = agreed([move.rate for move in moves.values() if move.fit.exact])
    if common is None:
        return dict(moves)
    found = {}
    for name, move in moves.items():
        again = move_of(move.step, move.direction, move.error, common)
        # At a rate that may be any, all is explained.
        sure = move.fit.exact or common.error <= SURE * abs(common.value)
        found[name] = again if again.fit.exact and sure else move
    return found


def norm_of(norms: Mapping[str, float]) -> float:
    """The global norm of tensors of these norms."""
    return math.sqrt(sum(each * each for each in norms.values()))
