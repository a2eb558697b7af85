"""Read a trace: what `lockstep.record` wrote, checked, an array at a time."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from lockstep.problem.settings import ProblemError
from lockstep.record.writer import CHECKSUM, FACTS, FORMAT, RUN, UPDATE, checksum, sketch

Array = np.ndarray[Any, Any]
# How many numbers of a tensor are looked at; of a larger one, those at regular places.
MOST = 2**13
# What safetensors calls the types that a recorder writes.
DTYPES = {"F64": "<f8", "F32": "<f4", "I64": "<i8", "I32": "<i4", "U8": "u1", "BOOL": "?"}
# The phases of what a window comes to, and of what the optimizer's rule gets.
SUM, STEPPED = "accumulated", "clipped"
# That nobody saw an update's gradients before the step.
UNSEEN = "unseen"
NAMED = re.compile(r"update-(\d{8})\.safetensors")


class TraceError(ProblemError):
    """A trace that cannot be read; the message says which file, what is wrong, what to do."""


@dataclass(frozen=True, eq=False)
class Update:
    """One update of a run.

    number: counted from 1; facts: what the recorder knew of it; phases: by phase, the names of the
    arrays that there are; thrown: how many of the file's micro-batches are not looked at.
    """

    file: Path
    number: int
    facts: Mapping[str, Any]
    phases: Mapping[str, tuple[str, ...]]
    thrown: int = 0

    def array(self, phase: str, name: str, whole: bool = False) -> Array | None:
        """An array, in float64 if it is of any float type; None where there is none.

        Gradients are those of the loss, and not of the multiple of it that a loss scaler took. Of a
        large one there are MOST numbers at regular places, unless the whole is asked for.
        """
        if name not in self.phases.get(phase, ()):
            return None
        found = self.stored(phase, name)
        if not whole and found.size > MOST:
            found = sketch(found, MOST)
        return found.astype(np.float64) / self.scale(phase) if found.dtype.kind == "f" else found

    def scale(self, phase: str) -> float:
        """What a loss scaler multiplied a phase with, up to where the optimizer takes it back."""
        scaled = phase == "accumulated" or phase.startswith("gradient.")
        return float(self.facts.get("scale") or 1.0) if scaled else 1.0

    def sketch(self, phase: str, name: str) -> Array | None:
        """The same, of which there is never more than a recorder keeps in a sketch."""
        found = self.array(phase, name, whole=True)
        return None if found is None else sketch(found)

    def stored(self, phase: str, name: str) -> Array:
        """An array that there is, as the file has it, of which only what is looked at is read."""
        arrays, key = opened(self.file).arrays, f"{shifted(phase, self.thrown)}|{name}"
        return arrays[f"{STEPPED}|{name}" if phase == SUM and key not in arrays else key]

    def dtype(self, phase: str, name: str) -> str:
        """The dtype that an array had in the run."""
        key = f"{phase}|{name}"
        if key in self.facts["dtypes"]:
            return str(self.facts["dtypes"][key])
        return self.stored(phase, name).dtype.name

    def sketched(self, phase: str, name: str) -> bool:
        """Whether an array is only a part of the one that there was."""
        return f"{phase}|{name}" in self.facts["sizes"] or self.stored(phase, name).size > MOST

    def norm(self, phase: str, name: str) -> float | None:
        """The norm of a whole array, whether it is a sketch or not; None where it is not known."""
        if (key := f"{phase}|{name}") in self.facts["sizes"]:
            known = self.facts["sizes"][key]
            return None if known is None else float(known) / self.scale(phase)
        array = self.array(phase, name, whole=True)
        if array is None or f"{phase}|{name}" in self.facts.get("partial", ()):
            return None
        return float(np.linalg.norm(array))

    @property
    def micro_batches(self) -> int:
        """Of how many micro-batches a gradient was recorded."""
        return sum(phase.startswith("gradient.") for phase in self.phases)

    def finite(self, phase: str) -> bool:
        """Whether the numbers of a phase that are looked at are finite, as far as there are any."""
        every = (self.array(phase, name) for name in self.phases.get(phase, ()))
        return all(array is None or bool(np.isfinite(array).all()) for array in every)

    def without_thrown(self, usual: int) -> Update:
        """The same without micro-batches that a loop threw away, since one was no finite number.

        A loss scaler, which takes no step for a window of the usual number, leaves as much.
        """
        count = self.micro_batches
        off = [index for index in range(count) if not self.finite(f"gradient.{index}")]
        thrown = off[-1] + 1 if off else 0
        if not 0 < thrown < count or not self.finite("accumulated"):
            return self
        facts = {name: value for name, value in self.facts.items() if name != "modules"}
        facts["micro_batches"] = facts.get("micro_batches", [])[thrown:]
        facts["skipped"] = int(facts.get("skipped") or 0) + max(1, thrown // usual)
        for known in ("sizes", "dtypes"):
            facts[known] = renumbered(facts.get(known, {}), thrown)
        facts["partial"] = [*renumbered(dict.fromkeys(facts.get("partial", ())), thrown)]
        return replace(self, facts=facts, phases=renumbered(self.phases, thrown), thrown=thrown)


# What the links of optax' chains call a setting, and what others do.
LINKS = {
    "trace": {"decay": "momentum", "nesterov": "nesterov"},
    "scale_by_adam": {"b1": "beta_1", "b2": "beta_2", "eps": "eps"},
    "scale_by_amsgrad": {"b1": "beta_1", "b2": "beta_2", "eps": "eps"},
    "scale_by_adamax": {"b1": "beta_1", "b2": "beta_2", "eps": "eps"},
    "scale_by_lion": {"b1": "beta_1", "b2": "beta_2"},
    "scale_by_rms": {"decay": "alpha", "eps": "eps"},
    "scale_by_stddev": {"decay": "alpha", "eps": "eps"},
    "scale_by_adadelta": {"rho": "rho", "eps": "eps"},
    "scale_by_rss": {"eps": "eps"},
}


def of_links(links: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The settings of a chain, as others call them; without what is not the same in all links."""
    found: dict[str, set[Any]] = {}
    for link in links:
        for own, name in LINKS.get(str(link.get("name")), {}).items():
            if own in link:
                found.setdefault(name, set()).add(link[own])
    return {name: each.pop() for name, each in found.items() if len(each) == 1}


@dataclass(frozen=True, eq=False)
class Trace:
    """A recorded run: what was known of it, and its updates, in order.

    earlier: the update before the first, where what is looked at begins later.
    """

    folder: Path
    facts: Mapping[str, Any]
    updates: list[Update] = field(default_factory=list)
    earlier: Update | None = None

    @property
    def framework(self) -> str:
        """What it ran in: pytorch, jax or keras."""
        return str(self.facts["framework"])

    @cached_property
    def groups(self) -> list[dict[str, Any]]:
        """The groups of its optimizers, with their settings."""
        every = [g for each in self.facts.get("optimizers", ()) for g in each.get("groups", ())]
        return [of_links(group.get("links", ())) | dict(group) for group in every]

    def by_tensor(self, setting: str) -> dict[str, Any]:
        """A setting of its optimizers' groups, by tensor, as far as it is known whose they are."""
        return {
            name: group[setting]
            for group in self.groups
            if setting in group
            for name in group.get("parameters", ())
        }

    @cached_property
    def firsts(self) -> dict[str, Update]:
        """By parameter, the first update that shows it: that of its optimizer, at the latest."""
        found: dict[str, Update] = {}
        for update in self.updates:
            for name in update.phases.get("before", ()):
                found.setdefault(name, update)
        return found

    @cached_property
    def parameters(self) -> tuple[str, ...]:
        """The names of the parameters that an update was recorded of."""
        names = [each["name"] for each in self.facts["parameters"]]
        return tuple(name for name in names if name in self.firsts)

    def first(self, phase: str) -> dict[str, Array]:
        """A phase of each parameter's first update, as far as it was recorded."""
        return {
            name: self.firsts[name].stored(phase, name)
            for name in self.parameters
            if name in self.firsts[name].phases.get(phase, ())
        }

    @property
    def sketched(self) -> bool:
        """Whether only a part is there of the parameters before the first update."""
        return any(f"before|{n}" in self.firsts[n].facts["sizes"] for n in self.parameters)

    @property
    def begins(self) -> dict[str, Array]:
        """The parameters before the first update; raises TraceError where they are sketches."""
        if self.sketched:
            raise TraceError(
                f"{self.folder}: update 1 is a sketch; record with full=1 or more, for whole"
                " tensors"
            )
        return self.first("before")

    def since(self, number: int) -> Trace:
        """The same run from an update on, which is the first one then."""
        later = [replace(each, number=each.number - number + 1) for each in self.updates]
        return replace(self, updates=later[number - 1 :], earlier=later[number - 2])

    def finite(self) -> Trace:
        """The run up to where its parameters are no numbers any more; raises TraceError at once.

        Without what it threw away since that was none.
        """
        usual = int(np.median([each.micro_batches for each in self.updates])) or 1
        whole = [each.without_thrown(usual) for each in self.updates]
        for index, update in enumerate(whole):
            if not update.finite("after"):
                said = f"after update {update.number} its parameters are no finite numbers"
                if not index:
                    raise TraceError(f"{self.folder}: {said}, and nothing can be compared")
                notes = [*self.facts.get("notes", ()), f"{said}: from there on it was not compared"]
                return replace(self, facts={**self.facts, "notes": notes}, updates=whole[:index])
        return replace(self, updates=whole)

    def update(self, number: int) -> Update | None:
        """The update of a number, if it was recorded."""
        return next((each for each in self.updates if each.number == number), None)


# A phase of a micro-batch, alone or before the name of a tensor.
OF_MICRO_BATCH = re.compile(r"(gradient|input|output|data|targets)\.(\d+)")


def shifted(phase: str, by: int) -> str:
    """A phase of a micro-batch so many further on."""
    found = OF_MICRO_BATCH.match(phase) if by else None
    if found is None:
        return phase
    return f"{found[1]}.{int(found[2]) + by}{phase[found.end() :]}"


def renumbered(known: Mapping[str, Any], thrown: int) -> dict[str, Any]:
    """What is known by phase, without that of the first micro-batches; the others are numbered."""
    micro_batches = {key: OF_MICRO_BATCH.match(key) for key in known}
    return {
        shifted(key, -thrown): value
        for key, value in known.items()
        if (found := micro_batches[key]) is None or int(found[2]) >= thrown
    }


@dataclass(frozen=True, eq=False)
class File:
    """An update's file: its metadata, and its arrays, mapped into memory."""

    metadata: Mapping[str, str]
    arrays: Mapping[str, Array]


@lru_cache(maxsize=64)
def opened(file: Path) -> File:
    """A file of arrays, which stays open for a while; raises TraceError where it is none."""
    try:
        with safe_open(str(file), "numpy") as stream:
            metadata = stream.metadata() or {}
        return File(metadata, mapped(file))
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise TraceError(
            f"{file}: damaged, or no update of a trace ({said}); record the run again"
        ) from None


def mapped(file: Path) -> dict[str, Array]:
    """The arrays of a file whose header safetensors has found to be right."""
    content = np.asarray(np.memmap(file, np.uint8, "r"))
    begin = 8 + int.from_bytes(content[:8].tobytes(), "little")
    header = json.loads(content[8:begin].tobytes())
    found = {}
    for name, each in header.items():
        if name != "__metadata__":
            start, end = each["data_offsets"]
            flat = content[begin + start : begin + end].view(DTYPES[each["dtype"]])
            found[name] = flat.reshape(each["shape"])
    return found


def read_names(names: Mapping[str, Any] | str | Path) -> Any:
    """Names that somebody gave, or what a JSON file of them holds; raises TraceError of no JSON."""
    if isinstance(names, Mapping):
        return names
    try:
        return json.loads(Path(names).read_text())
    except (OSError, ValueError) as error:
        raise TraceError(f"{names}: no JSON file of names ({error})") from None


def read(folder: str | Path) -> Trace:
    """Read a trace, and check every file.

    Raises TraceError where the folder is none, a file is damaged, or an update is missing.
    """
    opened.cache_clear()  # what was read before may have been replaced
    folder = Path(folder)
    facts = run_facts(folder)
    files = sorted(each for each in folder.iterdir() if NAMED.fullmatch(each.name))
    if not files:
        raise TraceError(f"{folder}: no update was recorded, not one; did the run take any?")
    updates = [read_update(file) for file in files]
    for before, after in pairwise(updates):
        if after.number != before.number + 1:
            missing = UPDATE.format(before.number + 1)
            raise TraceError(f"{folder}: {missing} is missing; copy the trace again, or record it")
    if updates[0].number != 1:
        raise TraceError(f"{folder}: {UPDATE.format(1)} is missing; copy the trace again")
    return Trace(folder, facts, updates)


def run_facts(folder: Path) -> dict[str, Any]:
    """What is known of a run; raises TraceError where this is no trace."""
    file = folder / RUN
    try:
        found = json.loads(file.read_text())
    except (FileNotFoundError, NotADirectoryError):
        if (folder / "rank-0").exists():
            raise TraceError(
                f"{folder}: it has a trace of each rank; name one, as {folder / 'rank-0'}"
            ) from None
        what = "no such folder" if not folder.exists() else f"no trace, it has no {RUN}"
        raise TraceError(
            f"{folder}: {what}; lockstep.record writes one, beside the training loop"
        ) from None
    except (OSError, ValueError) as error:
        said = str(error).splitlines()[0]
        raise TraceError(f"{file}: damaged ({said}); record the run again") from None
    if not isinstance(found, dict) or found.get("written_by") != "lockstep record":
        raise TraceError(f"{file}: not written by lockstep.record; name the folder of a trace")
    if found.get("format") != FORMAT:
        raise TraceError(
            f"{file}: format {found.get('format')!r}, and this lockstep reads {FORMAT}; install the"
            " version that recorded it"
        )
    if not isinstance(found.get("framework"), str) or not isinstance(found.get("parameters"), list):
        raise TraceError(f"{file}: damaged (it has no framework or parameters); record again")
    return found


def read_update(file: Path) -> Update:
    """The update of a file, whose checksum is that of what it holds."""
    found = opened(file)
    metadata, arrays = found.metadata, found.arrays
    if FACTS not in metadata or CHECKSUM not in metadata:
        raise TraceError(f"{file}: not written by lockstep.record; take it out of the folder")
    if checksum(metadata[FACTS], arrays) != metadata[CHECKSUM]:
        raise TraceError(
            f"{file}: damaged (its checksum is another one); copy it again, or record the run again"
        )
    facts = json.loads(metadata[FACTS])
    number = int(NAMED.fullmatch(file.name)[1])  # type: ignore[index]
    if facts.get("update") != number:
        raise TraceError(
            f"{file}: it holds update {facts.get('update')}; give it its own name again"
        )
    phases: dict[str, list[str]] = {}
    for key in arrays:
        phase, name = key.split("|", 1)
        phases.setdefault(phase, []).append(name)
    if SUM not in phases and STEPPED in phases:
        # Of gradients that no backward pass made, the sum is what the optimizer got.
        phases[SUM] = phases[STEPPED]
        for known in (facts.setdefault("sizes", {}), facts.setdefault("dtypes", {})):
            known |= {
                f"{SUM}|{n}": known[k] for n in phases[SUM] if (k := f"{STEPPED}|{n}") in known
            }
        facts |= {"scale": None, UNSEEN: True}
    return Update(file, number, facts, {phase: tuple(names) for phase, names in phases.items()})
