"""The updates of a run, a tensor at a time, under one set of names for all libraries."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np

from lockstep.record.writer import sketch
from lockstep.trace.names import likeness
from lockstep.trace.numbers import Number, stored_as, unit
from lockstep.trace.reading import Array, Trace, Update
from lockstep.trace.whole import parts, stored

# What each library calls the state that torch.optim's optimizers keep, by its last words.
SLOTS = {
    "ScaleByAdamState.mu": "exp_avg", "ScaleByAdamState.nu": "exp_avg_sq",
    "ScaleByAmsgradState.mu": "exp_avg", "ScaleByAmsgradState.nu": "exp_avg_sq",
    "ScaleByAmsgradState.nu_max": "max_exp_avg_sq", "TraceState.trace": "momentum_buffer",
    "EmaState.ema": "momentum_buffer", "ScaleByRmsState.nu": "square_avg",
    "ScaleByRStdDevState.mu": "grad_avg", "ScaleByRStdDevState.nu": "square_avg",
    "ScaleByRStdDevWithCountState.mu": "grad_avg",
    "ScaleByRStdDevWithCountState.nu": "square_avg", "ScaleByRmsWithCountState.nu": "square_avg",
    "ScaleByRssState.sum_of_squares": "sum", "ScaleByLionState.mu": "exp_avg",
    "ScaleByAdaDeltaState.e_g": "square_avg", "ScaleByAdaDeltaState.e_x": "acc_delta",
    "ScaleByAdamaxState.mu": "exp_avg", "ScaleByAdamaxState.nu": "exp_inf",
    "velocity_hat": "max_exp_avg_sq", "accumulator": "sum", "buffer": "momentum_buffer",
}  # fmt: skip
KEPT = frozenset(SLOTS.values())
HALF = ("bfloat16", "float16")
# What Keras' optimizers call it, by their class, where one word has several meanings.
OF_KERAS = {
    "RMSprop": {"velocity": "square_avg", "average_gradient": "grad_avg"},
    "Adadelta": {"accumulated_grad": "square_avg", "accumulated_delta_var": "acc_delta"},
    "Adamax": {"momentum": "exp_avg", "norm": "exp_inf"},
    "Lion": {"momentum": "exp_avg"},
    "Adam": {"momentum": "exp_avg", "velocity": "exp_avg_sq"},
}
# How the phases of the state before an update begin.
BEFORE = "state-before."
# What libraries call the number of an optimizer's updates, by its last word; Keras' is of calls.
COUNTS = {"step", "count", "iteration"}
# The optimizer whose rule keeps just that; what stands first wins.
FAMILIES: tuple[tuple[str, set[str]], ...] = (
    ("adam", {"exp_avg", "exp_avg_sq"}),
    ("adamax", {"exp_avg", "exp_inf"}),
    ("adadelta", {"square_avg", "acc_delta"}),
    ("rmsprop", {"square_avg"}),
    ("adagrad", {"sum"}),
    ("lion", {"exp_avg"}),
    ("sgd", set()),
)


@dataclass(frozen=True, eq=False)
class Step:
    """What an update did to one tensor.

    update: its number in the trace; taken: how many the optimizer had taken before; before, after:
    the parameter; accumulated: the window's gradient, before clipping; clipped: as the rule got it;
    either is None where it was not recorded. kept_before, kept: the optimizer's state, under
    torch.optim's names. dtype: the parameter's. All arrays are sketches if one is.
    """

    update: int
    taken: int
    name: str
    before: Array
    after: Array
    accumulated: Array | None
    clipped: Array | None
    kept_before: Mapping[str, Array]
    kept: Mapping[str, Array]
    dtype: str
    dtypes: Mapping[str, str] = field(default_factory=dict)

    def dtype_of(self, slot: str) -> str:
        """The dtype in which a part of the state is kept."""
        return self.dtypes.get(slot, self.dtype)

    @property
    def rounding(self) -> Array:
        """What the numbers of the parameter round, at most, before and after."""
        return unit(self.dtype) * (abs(self.before) + abs(self.after))

    @property
    def stands(self) -> bool:
        """Whether the update leaves the parameter, and its state, as they are."""
        pairs = [
            (self.before, self.after),
            *((self.kept_before[n], a) for n, a in self.kept.items()),
        ]
        return all(np.array_equal(before, after) for before, after in pairs)

    @property
    def gradient(self) -> Array | None:
        """The gradient that is nearest to what the rule got."""
        return self.clipped if self.clipped is not None else self.accumulated


@dataclass(frozen=True, eq=False)
class Steps:
    """A run's steps, by update and tensor.

    anew: the updates before which the optimizer's state was thrown away; rate_inside: whether its
    momentum has the rate in it, and is shown without; momentum: RMSprop's, if its state shows it.
    """

    trace: Trace
    of: dict[tuple[int, str], Step] = field(default_factory=dict)
    anew: list[int] = field(default_factory=list)
    rate_inside: bool = False
    momentum: Number | None = None

    @cached_property
    def slots(self) -> frozenset[str]:
        """The state that the optimizer keeps, under torch.optim's names."""
        return frozenset().union(*(step.kept for step in self.of.values()))

    @cached_property
    def family(self) -> str:
        """The optimizer of the rule, by what it keeps."""
        return family_of(self.slots)

    @cached_property
    def families(self) -> dict[str, str]:
        """The same of each tensor that moves, where there may be several optimizers."""
        kept: dict[str, set[str]] = {}
        for step in self.of.values():
            kept.setdefault(step.name, set()).update(step.kept)
        return {name: family_of(each) for name, each in kept.items() if name not in self.still}

    @cached_property
    def begins_at(self) -> dict[str, float]:
        """By slot: the one number that its state is, in all tensors, before the first update."""
        firsts = self.at(self.numbers[0]).values() if self.numbers else ()
        found: dict[str, set[float]] = {}
        for step in firsts:
            for slot, array in step.kept_before.items():
                found.setdefault(slot, set()).update(map(float, np.unique(array)[:2]))
        return {slot: values.pop() for slot, values in found.items() if len(values) == 1}

    @cached_property
    def still(self) -> frozenset[str]:
        """The tensors that never move, where others do."""
        every = {name for _, name in self.of}
        moved = {s.name for s in self.of.values() if not np.array_equal(s.before, s.after)}
        return frozenset(every - moved) if moved else frozenset()

    @cached_property
    def coarse(self) -> str:
        """The half precision of parameters, if some update moves one by no more than that rounds.

        Otherwise "".
        """
        for step in self.of.values():
            if step.dtype not in HALF or step.name in self.still:
                continue
            if np.linalg.norm(step.after - step.before) < np.linalg.norm(step.rounding):
                return step.dtype
        return ""

    @cached_property
    def left_alone(self) -> frozenset[str]:
        """Those of them that have a gradient all the same, as far as it was recorded."""
        pushed = {s.name for s in self.of.values() if s.gradient is None or s.gradient.any()}
        return self.still & pushed

    @cached_property
    def bare(self) -> frozenset[str]:
        """Those that an optimizer has, and that never have a gradient, where others do."""
        seen = {step.name for step in self.of.values() if step.gradient is not None}
        return self.left_alone & owners(self.trace).keys() - seen if seen else frozenset()

    @cached_property
    def between(self) -> list[tuple[int, str, float]]:
        """Where a parameter changed between two updates: the later one, its name, by how much."""
        return parameters_between(self.trace)

    @cached_property
    def targets(self) -> dict[str, str]:
        """The parameters that are averages of others, as those of a target network, and of which.

        No optimizer moves them, but something does between two updates. They begin as the others.
        """
        begins, found = self.trace.first("before"), dict[str, str]()
        for name in sorted(self.still & {name for _, name, _ in self.between}):
            others = (other for other in begins if other not in self.still)
            likes = [o for o in others if np.array_equal(begins[o], begins[name])]
            if likes:
                found[name] = max(likes, key=lambda other: likeness(name, other))
        return found

    @cached_property
    def shows_clipped(self) -> bool:
        """Whether what the rule got was recorded."""
        return any(step.clipped is not None for step in self.of.values())

    @cached_property
    def by_update(self) -> dict[int, dict[str, Step]]:
        """The steps, by update and then by tensor."""
        return nested(self.of)

    def at(self, update: int) -> dict[str, Step]:
        """The steps of an update, by tensor."""
        return self.by_update.get(update, {})

    @cached_property
    def numbers(self) -> list[int]:
        """The updates, by their numbers."""
        return sorted(self.by_update)


def family_of(slots: Collection[str]) -> str:
    """The optimizer that keeps just this."""
    return next(name for name, kept in FAMILIES if kept <= {*slots})


def nested(of: Mapping[tuple[int, str], Any]) -> dict[int, dict[str, Any]]:
    """What is kept by update and tensor, by update and then by tensor."""
    found: dict[int, dict[str, Any]] = {}
    for (update, name), each in of.items():
        found.setdefault(update, {})[name] = each
    return found


@dataclass(frozen=True)
class Keeping:
    """How a run's optimizer keeps its state.

    names: what it has names of its own for; start: at what Adagrad's sums begin.
    """

    names: Mapping[str, str]
    start: float

    @staticmethod
    def of(trace: Trace) -> Keeping:
        """That of a run, as far as it was recorded."""
        optimizers, groups = trace.facts.get("optimizers", ()), trace.groups
        start = float(groups[0].get("initial_accumulator_value") or 0.0) if groups else 0.0
        if trace.framework != "keras":
            return Keeping({}, start)
        known = [OF_KERAS[str(e["name"])] for e in optimizers if e.get("name") in OF_KERAS]
        # A class that somebody wrote keeps two means, as Adam does, or one.
        two = any(phase.endswith("velocity") for phase in trace.updates[0].phases)
        return Keeping(known[0] if known else OF_KERAS["Adam"] if two else {}, start)


def steps(trace: Trace, taken: int | None = None) -> Steps:
    """The steps of a trace.

    taken: how many updates the optimizer had taken before, if it has any in its state; as many as
    that counts, if None.
    """
    found, owner, keeps = Steps(trace), owners(trace), Keeping.of(trace)
    taken = begun(trace) if taken is None else taken
    counted = dict.fromkeys([*owner.values(), None], taken if goes_on(trace) else 0)
    previous, last = trace.earlier, dict[str, Update]()
    # What has no state is not counted, where others have one: optax begins anew with what is new.
    without = Counter[str]()
    for update in trace.updates:
        if previous is not None and emptied(update, previous):
            found.anew.append(update.number)
            counted, previous, last = dict.fromkeys(counted, 0), None, {}
            without.clear()
        behind = fewer(update, owner)
        moved = stepped(update)
        kept = with_state(update, keeps)
        without.update(moved - kept if kept else ())
        takes = {owner.get(name) for name in moved}
        for name in trace.parameters:
            if name in owner and owner[name] not in takes:
                continue  # it is another optimizer's, and this is no update of it
            own = max(counted[owner.get(name)] - max(behind.get(name, 0), without[name]), 0)
            step = step_of(update, last.get(name, previous), own, name, keeps)
            if step is not None:
                found.of[update.number, name] = step
                last[name] = update
        for each in takes:
            counted[each] += 1
        previous = update
    return found


def with_state(update: Update, keeps: Keeping) -> set[str]:
    """The tensors of which an optimizer keeps anything."""
    phases = (phase for phase in update.phases if slot_of(phase, keeps.names))
    return {name for phase in phases for name in update.phases[phase]}


def stepped(update: Update) -> set[str]:
    """The tensors that an update's optimizer steps, as far as that was recorded."""
    return {*(update.facts.get("rates") or update.phases.get("after") or update.phases["before"])}


def owners(trace: Trace) -> dict[str, int]:
    """By tensor, which of a run's optimizers steps it, as far as that was recorded."""
    return {
        name: index
        for index, optimizer in enumerate(trace.facts.get("optimizers", ()))
        for group in optimizer.get("groups", ())
        for name in group.get("parameters", ())
    }


def counts(update: Update) -> dict[str, int]:
    """What an optimizer, or its schedule, has counted of its updates, or calls, by phase."""
    return {
        phase: max(int(update.stored(phase, name)) for name in names)
        for phase, names in update.phases.items()
        if phase.startswith("state.") and phase.split(".")[-1].split("#")[0] in COUNTS
    }


def fewer(update: Update, owner: Mapping[str, int]) -> dict[str, int]:
    """By tensor, how many updates fewer than others of its optimizer it was taken along.

    PyTorch's optimizers begin to count with its first gradient, and those of others at once.
    """
    recorded = update.phases.get("state.step", ())
    own = {name: int(update.stored("state.step", name)) for name in recorded}
    most: dict[int | None, int] = {}
    for name, count in own.items():
        most[owner.get(name)] = max(count, most.get(owner.get(name), 0))
    return {name: most[owner.get(name)] - count for name, count in own.items()}


def begun(trace: Trace) -> int:
    """How many updates the optimizer had taken before the trace begins, as its state counts."""
    # A schedule's count may be another one, and is not what a rule goes by.
    each = [
        next((n for phase, n in counts(update).items() if "Schedule" not in phase), 0)
        for update in trace.updates[:2]
    ]
    calls = each[1] - each[0] if len(each) == 2 else 1
    return max(each[0] // calls - 1, 0) if calls > 0 else 0


def goes_on(trace: Trace) -> bool:
    """Whether the optimizer's state has anything in it when the trace begins."""
    update, start = (trace.earlier, "state.") if trace.earlier else (trace.updates[0], BEFORE)
    return any(
        bool(update.stored(phase, name).any())
        for phase, names in update.phases.items()
        if phase.startswith(start) and slot_of(phase.replace(BEFORE, "state.", 1), {})
        for name in names
    )


def emptied(update: Update, previous: Update) -> bool:
    """Whether the optimizer's state was thrown away between two updates."""
    before, after = counts(previous), counts(update)
    back = any(after[phase] < before.get(phase, 0) for phase in after)
    if after.keys() - before.keys():  # with new ones, which is whose may be another
        back = max(after.values()) < max(before.values(), default=0)
    return back or bool(update.facts.get("emptied"))


def step_of(
    update: Update, previous: Update | None, taken: int, name: str, keeps: Keeping
) -> Step | None:
    """What an update did to a tensor; None where the parameter was not recorded.

    Where its state before is kept as a sketch, or the update is, all of it is looked at as one.
    """
    step = step_by(Update.array, update, previous, taken, name, keeps)
    if step is None or all(step.kept_before[n].shape == a.shape for n, a in step.kept.items()):
        return step
    sketched = step_by(Update.sketch, update, previous, taken, name, keeps)
    if sketched and any(sketched.kept_before[n].shape != a.shape for n, a in sketched.kept.items()):
        # What was kept before is another tensor's, which had its name.
        return step_by(Update.sketch, update, None, taken, name, keeps)
    return sketched


def step_by(
    look: Callable[[Update, str, str], Array | None],
    update: Update,
    previous: Update | None,
    taken: int,
    name: str,
    keeps: Keeping,
) -> Step | None:
    """The same, of arrays that are looked at in one way."""
    before, after = look(update, "before", name), look(update, "after", name)
    if before is None or after is None:
        return None
    kept, kept_before, dtypes, own = {}, {}, {}, update.dtype("before", name)
    for phase in update.phases:
        if not phase.startswith("state.") or (slot := slot_of(phase, keeps.names)) is None:
            continue
        array = look(update, phase, name)
        if array is None or array.shape != before.shape:
            continue
        kept[slot] = array
        dtype = update.dtype(phase, name)
        if dtype != own:
            dtypes[slot] = dtype
        begun = look(update, phase.replace("state.", BEFORE, 1), name)
        if begun is None and previous is not None:
            begun = look(previous, phase, name)
        start = stored_as(keeps.start if slot == "sum" else 0.0, dtype)
        kept_before[slot] = np.full_like(array, start) if begun is None else begun
    return Step(
        update.number, taken, name, before, after, look(update, "accumulated", name),
        look(update, "clipped", name), kept_before, kept, own, dtypes,
    )  # fmt: skip


def slot_of(phase: str, own: Mapping[str, str]) -> str | None:
    """The name that torch.optim has for a state, or None; own: names of one optimizer."""
    name = phase.removeprefix("state.")
    if name in KEPT or name in own:
        return own.get(name, name)
    if name in ("momentum", "velocity"):
        return "momentum_buffer"
    for known, slot in SLOTS.items():
        if name == known or name.endswith(f".{known}"):
            return slot
    return None


def parameters_between(trace: Trace) -> list[tuple[int, str, float]]:
    """Where a parameter changed between two updates: the later one, its name, by how much.

    What is added up inside of a compiled step may be added up outside again, and round otherwise;
    what is added to all parameters and taken away again, as for a gradient beside them, rounds as
    the largest of them.
    """
    found: list[tuple[int, str, float]] = []
    for earlier, later in pairwise(trace.updates):
        moved, largest = dict[str, float](), 0.0
        for name in trace.parameters:
            left, begun = stored(earlier, "after", name), stored(later, "before", name)
            if left is None or begun is None:
                continue
            if left.shape != begun.shape:
                left, begun = sketch(left), sketch(begun)
            moved[name] = 0.0
            for ended, begins in parts(left, begun):
                moved[name] = max(moved[name], float(abs(ended - begins).max(initial=0.0)))
                largest = max(largest, float(abs(ended).max(initial=0.0)))
        for name, by in moved.items():
            if by > unit(later.dtype("before", name)) * largest:
                found.append((later.number, name, by))
    return found
