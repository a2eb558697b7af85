"""How far each library's own optimizers are from torch.optim's rules: measured, kept, looked up.

What was measured is kept with the versions that it holds for. The package brings a file along,
`data/optimizers.json`, written by `lockstep optimizers --measure --json FILE`, and what people
measure themselves lies in their cache folder, which is for their kind of CPU: the package may not
be theirs to write in.
"""

from __future__ import annotations

import importlib.metadata
import json
import math
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from importlib import resources
from pathlib import Path
from typing import Any

from packaging.version import Version

from lockstep.frameworks import FRAMEWORKS, PACKAGES
from lockstep.optimizers import stock
from lockstep.optimizers.stock import (
    REQUIRED,
    NaiveCall,
    Signature,
    default,
    naive_call,
    own_names,
    stock_name,
)
from lockstep.optimizers.variants import UPDATES, VARIANTS, on_iris
from lockstep.problem import Array, Problem
from lockstep.problem.settings import OPTIMIZERS, Optimizer, require
from lockstep.workers.folders import TemporaryFolder
from lockstep.workers.installed import installed
from lockstep.workers.pool import Worker, cache_folder, importing

DTYPE = "float64"
FILE = "optimizers.json"


@dataclass(frozen=True)
class Distance:
    """One variant in one framework: its distance to the oracle, the largest over all updates.

    naive: of the naive port whose call this is; None where the library has no such optimizer.
    here: of `{framework}_impl.recipe`. Both are relative to the largest parameter; inf where the
    parameters are not finite. left_out: the settings that the naive port cannot give.
    """

    call: str | None
    left_out: tuple[str, ...]
    naive: float | None
    here: float


@dataclass(frozen=True)
class Measurement:
    """One framework: its packages' versions, the kind of CPU, and what was found, by variant.

    day: when, as 2026-11-23.
    """

    versions: dict[str, str]
    cpu: str
    day: str
    signatures: dict[str, Signature]
    distances: dict[str, Distance]


def measure(
    workers: Mapping[str, Worker],
    tell: Callable[[str], None] = lambda words: None,
    variants: Sequence[str] = tuple(VARIANTS),
) -> dict[str, Measurement]:
    """Train with each variant in each framework, as a naive port and as set here.

    `tell` is told what is being waited for. Raises WorkerError as the workers do.
    """
    from lockstep.oracle import loop

    with TemporaryFolder() as name:
        folder = Path(name)
        with importing(folder, workers):
            tell("reading the libraries' defaults")
            signatures = read_signatures(folder, workers)
            calls = {
                (framework, variant): naive_call(
                    framework, VARIANTS[variant], signatures[framework]
                )
                for framework in workers
                for variant in variants
            }
            # All tasks at once: no worker waits for another, nor for the oracle.
            problems = {variant: on_iris(VARIANTS[variant], DTYPE) for variant in variants}
            for variant, problem in problems.items():
                submit(folder, workers, variant, problem, calls)
            found: dict[str, dict[str, Distance]] = {framework: {} for framework in workers}
            for number, (variant, problem) in enumerate(problems.items(), 1):
                tell(f"measuring {variant}, {number} of {len(variants)}")
                expected = loop.trajectory(problem, "decimal", updates=UPDATES)
                for framework, worker in workers.items():
                    call = calls[framework, variant]
                    found[framework][variant] = collect(worker, call, expected)
    return {
        framework: Measurement(
            worker.ready() | {"numpy": importlib.metadata.version("numpy")},
            cpu(),
            datetime.now(timezone.utc).date().isoformat(),
            signatures[framework],
            found[framework],
        )
        for framework, worker in workers.items()
    }


def module_name(folder: Path, *words: str) -> str:
    """A module's name that no other folder uses: a worker keeps what it has imported."""
    return "_".join([*words, folder.name]).replace("-", "_")


def read_signatures(folder: Path, workers: Mapping[str, Worker]) -> dict[str, dict[str, Signature]]:
    """What each library's stock optimizers take, as its own worker finds it."""
    names = {framework: module_name(folder, "signatures", framework) for framework in workers}
    problem = folder / "any.safetensors"
    on_iris(VARIANTS["sgd"], DTYPE).save(problem)
    for framework, worker in workers.items():
        (folder / f"{names[framework]}.py").write_text(stock.SIGNATURES.format(framework=framework))
        worker.submit(names[framework], problem)
    for worker in workers.values():
        worker.result()
    return {
        framework: json.loads((folder / f"{names[framework]}.json").read_text())
        for framework in workers
    }


def submit(
    folder: Path,
    workers: Mapping[str, Worker],
    variant: str,
    problem: Problem,
    calls: Mapping[tuple[str, str], NaiveCall | None],
) -> None:
    """Ask for a variant's two trajectories, or for the one there is."""
    file = folder / f"{variant}.safetensors"
    problem.save(file)
    for framework, worker in workers.items():
        if call := calls[framework, variant]:
            name = module_name(folder, variant, framework)
            text = stock.PORT.format(
                framework=framework, module=stock.MODULES[framework], call=call.text
            )
            (folder / f"{name}.py").write_text(text)
            worker.submit(name, file, UPDATES)
        worker.submit(f"{framework}_impl.recipe", file, UPDATES)


def collect(worker: Worker, call: NaiveCall | None, expected: Sequence[Array]) -> Distance:
    """Wait for what `submit` asked for."""
    if call is None:
        return Distance(None, (), None, distance(expected, worker.result()))
    naive = distance(expected, worker.result())
    return Distance(call.text, call.left_out, naive, distance(expected, worker.result()))


def distance(expected: Sequence[Array], actual: Sequence[Array]) -> float:
    """The largest norm-wise distance over all updates. Raises ValueError for another number."""
    from lockstep.oracle.compare import relative

    return max(relative(e, a) for e, a in zip(expected, actual, strict=True))


def cpu() -> str:
    """The kind of CPU, in words: its name, architecture, and how wide its vectors are."""
    model, flags = platform.processor(), ""
    if (file := Path("/proc/cpuinfo")).exists():
        fields = dict(line.split(":", 1) for line in file.read_text().splitlines() if ":" in line)
        info = {name.strip(): value.strip() for name, value in fields.items()}
        model, flags = info.get("model name", model), info.get("flags", "")
    widest = [name for name in ("avx512f", "avx2", "avx") if name in flags.split()]
    return ", ".join(dict.fromkeys(filter(None, [model, platform.machine(), *widest[:1]])))


def described() -> dict[str, dict[str, Any]]:
    """What is measured: each variant's settings, and how often it is updated."""
    return {
        name: {"name": settings.name}
        | {setting: getattr(settings, setting) for setting in OPTIMIZERS[settings.name]}
        for name, settings in VARIANTS.items()
    }


def as_json(measured: Mapping[str, Measurement]) -> dict[str, Any]:
    """Everything that was measured; a distance that is not finite is null."""
    report: dict[str, Any] = {
        "updates": UPDATES,
        "dtype": DTYPE,
        "variants": described(),
        "frameworks": {framework: asdict(each) for framework, each in measured.items()},
    }
    for each in report["frameworks"].values():
        for found in each["distances"].values():
            for name in ("naive", "here"):
                if found[name] is not None and not math.isfinite(found[name]):
                    found[name] = None
    return report


def from_json(report: Mapping[str, Any]) -> dict[str, Measurement]:
    """What `as_json` wrote; nothing, where that was something else than what is measured today.

    Raises KeyError, TypeError or AttributeError where it did not write it.
    """
    today = json.loads(json.dumps(described()))
    if (report["updates"], report["dtype"], report["variants"]) != (UPDATES, DTYPE, today):
        return {}
    return {
        framework: Measurement(
            each["versions"],
            each["cpu"],
            each["day"],
            each["signatures"],
            {
                variant: Distance(
                    found["call"],
                    tuple(found["left_out"]),
                    number(found["naive"]) if found["call"] else None,
                    number(found["here"]),
                )
                for variant, found in each["distances"].items()
            },
        )
        for framework, each in report["frameworks"].items()
    }


def number(found: float | None) -> float:
    """A distance as `as_json` has it."""
    return math.inf if found is None else found


def shipped() -> dict[str, Measurement]:
    """What the package brings along."""
    return read(Path(str(resources.files("lockstep.optimizers") / "data" / FILE)))


def own_file() -> Path:
    """Where a person's own measurements are kept."""
    return cache_folder() / FILE


def own() -> dict[str, Measurement]:
    """A person's own measurements."""
    return read(own_file())


def read(file: Path) -> dict[str, Measurement]:
    """What a file holds. One that is not there, or of another version, is to be measured anew."""
    try:
        return from_json(json.loads(file.read_text()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def known() -> dict[str, Measurement]:
    """For each framework the measurement to show, in the frameworks' order.

    That is the one that holds for the installed versions; of two that do, or do not, the newer. A
    person's own was made on their CPU, and is preferred on the same day.
    """
    brought, measured = shipped(), own()
    found = {}
    for framework in FRAMEWORKS:
        choice = [each[framework] for each in (measured, brought) if framework in each]
        if choice:
            found[framework] = max(choice, key=lambda each: (not outdated(each), each.day))
    return found


def outdated(measured: Measurement) -> dict[str, str]:
    """The packages that are installed in another version than was measured, and that version."""
    versions = {package: installed(package) for package in measured.versions}
    return {
        package: version
        for package, version in versions.items()
        if version and Version(version).public != Version(measured.versions[package]).public
    }


def framework_of(name: str) -> str | None:
    """The framework of this name, or the one whose package this is."""
    names = {package: framework for framework in FRAMEWORKS for package in PACKAGES[framework]}
    return names.get(name, name if name in FRAMEWORKS else None)


def variant(name: str) -> Optimizer:
    """The settings of a variant. Raises ProblemError for an unknown name."""
    require(name in VARIANTS, f"{name}: unknown optimizer, it must be one of {', '.join(VARIANTS)}")
    return VARIANTS[name]


@dataclass(frozen=True)
class Default:
    """A stock optimizer's default for one of torch.optim's settings, or for one that is its own.

    names: the library's, two for a pair that it takes apart. value, torch: a pair is a tuple;
    torch is None where torch.optim has no such setting.
    """

    names: tuple[str, ...]
    value: Any
    torch: Any

    @property
    def differs(self) -> bool:
        """Whether it is not torch.optim's. What is required is no default."""
        return self.torch is not None and bool(self.value not in (self.torch, REQUIRED))

    @property
    def named(self) -> str:
        """The value, with the name that the library has for it."""
        values = self.value if len(self.names) > 1 else [self.value]
        return ", ".join(f"{name} {plain(each)}" for name, each in zip(self.names, values))

    def __str__(self) -> str:
        return f"{self.named}, not {plain(self.torch)}" if self.differs else self.named


def plain(value: Any) -> str:
    """A setting's value in words: a pair without brackets; 0 for 0.0, since libraries have both."""
    if isinstance(value, tuple):
        return ", ".join(map(plain, value))
    return "0" if isinstance(value, float) and value == 0 else str(value)


def defaults(framework: str, settings: Optimizer, measured: Measurement) -> dict[str, Default]:
    """A stock optimizer's defaults, by torch.optim's names; nothing where there is no optimizer.

    Then, by its own name, what the library does by default and torch.optim has no setting for:
    eps_in_sqrt. torch.optim's own are those of lockstep.problem.settings, which a test holds
    against torch.
    """
    signature = measured.signatures.get(stock_name(framework, settings) or "", {})
    found = {
        setting: Default(names, default(framework, signature, setting), ours)
        for setting, ours in OPTIMIZERS[settings.name].items()
        if set(names := own_names(framework, setting)) <= set(signature)
    }
    known = {name for each in found.values() for name in each.names}
    return found | {
        name: Default((name,), value, None)
        for name, value in signature.items()
        if name not in known and value
    }


def differing(framework: str, settings: Optimizer, measured: Measurement) -> list[Default]:
    """The stock optimizer's defaults that are not torch.optim's, and those torch.optim lacks."""
    found = defaults(framework, settings, measured).values()
    return [each for each in found if each.differs or each.torch is None]
