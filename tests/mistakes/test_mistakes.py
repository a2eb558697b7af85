"""The catalogue: every mistake is told in full, and its diff makes just what its stages say."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import pytest
from conftest import lockstep

from docs import record_mistakes
from lockstep import mistakes
from lockstep.diagnosis import verdict
from lockstep.diagnosis.naming import observable
from lockstep.diagnosis.probes import Probe, probes
from lockstep.diagnosis.replay import Replays, replays
from lockstep.frameworks import FRAMEWORKS
from lockstep.mistakes import FAMILIES, Mistake
from lockstep.problem.settings import OPTIMIZERS
from lockstep.workers.pool import Observed, Refused, Worker, WorkerError

PROBES = probes()
PLAIN = [probe for probe in PROBES if probe.problem.uses_only()]
KNOWN = mistakes.names()
MEASURED = record_mistakes.load()["mistakes"]
PLANTED = [
    pytest.param(
        name, framework, id=f"{name}-{framework}",
        marks=[] if framework == "pytorch" else [pytest.mark.slow],
    )
    for name in KNOWN
    for framework in FRAMEWORKS
    if framework not in mistakes.load(name).impossible
]  # fmt: skip


@pytest.mark.parametrize("name", KNOWN)
def test_a_mistake_is_told_in_full(name) -> None:
    mistake = mistakes.load(name)
    assert mistake.family in FAMILIES
    assert mistake.frequency in range(1, 6)
    assert mistake.severity in range(1, 6)
    assert mistake.stages.replaced
    assert all(form.replaced for form in mistake.forms)
    for text in (mistake.title, mistake.explanation, mistake.signature):
        assert text == " ".join(text.split()), "one paragraph, no stray spaces"
    assert len(mistake.title) <= 80
    assert not mistake.title.endswith(".")
    assert mistake.evidence, "at least one public thread"
    assert all(url.startswith("https://") and phrase for url, phrase in mistake.evidence)
    assert set(mistake.look_alikes) <= set(KNOWN) - {name}
    for framework in FRAMEWORKS:
        assert bool(mistakes.diff(name, framework)) != (framework in mistake.impossible)


def dangling(package: Path) -> list[str]:
    """What modules of a package import from each other, and is not there."""
    trees = {file.stem: ast.parse(file.read_text()) for file in package.glob("*.py")}
    bound = {name: set(bindings(tree)) for name, tree in trees.items()}
    imported = [
        (node.module, each.name)
        for tree in trees.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.level
        for each in node.names
    ]
    assert len(imported) > 50
    return [
        f"{package.name}.{module}.{name}"
        for module, name in imported
        if name not in (bound[module] if module else bound)
    ]


def bindings(tree: ast.Module) -> Iterator[str]:
    """The names that a module's top level binds."""
    for node in tree.body:
        match node:
            case ast.FunctionDef(name) | ast.ClassDef(name):
                yield name
            case ast.Import(names) | ast.ImportFrom(names=names):
                yield from (each.asname or each.name for each in names)
            case ast.Assign(targets):
                yield from map(ast.unparse, targets)


def test_a_planted_copy_names_nothing_that_is_not_there(tmp_path) -> None:
    """No name is undefined, unused, imported twice, or redefined, in any planted copy."""
    planted = [
        mistakes.plant(name, framework, tmp_path)
        for name in KNOWN
        for framework in FRAMEWORKS
        if mistakes.diff(name, framework)
    ]
    assert len(set(planted)) == len(PLANTED)
    assert not [each for package in planted for each in dangling(tmp_path / package)]
    done = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "-q", "--no-cache", "--isolated",
         "--select", "F", "--output-format", "concise", str(tmp_path)],
        capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "")


def forms(mistake: Mistake) -> list:
    return [mistake.stages, *mistake.forms]


@pytest.mark.parametrize("name", KNOWN)
def test_a_mistake_shows_on_some_probe(name) -> None:
    for stages in forms(mistakes.load(name)):
        assert showing(stages), "no probe sees the mistake"


@cache
def showing(stages) -> list[Probe]:
    """The probes on which a mistake has other parameters; else, those where it shows at all."""
    far = [probe for probe in PROBES if not replays(probe, stages).resembles(replays(probe).quick)]
    return far or [probe for probe in PROBES if shows(stages, probe)]


def shows(stages, probe: Probe) -> bool:
    """Whether a mistake has other parameters by more than rounding, or reports something else."""
    right, wrong = replays(probe), replays(probe, stages)
    return not wrong.reproduces(right.quick) or bool(list(observable(right.careful, wrong.careful)))


@pytest.mark.parametrize(("name", "framework"), PLANTED)
def test_a_diff_makes_what_the_stages_say(all_workers, tmp_path, name, framework) -> None:
    """Within the rounding bound, in one of the mistake's forms, the same one on all probes.

    On some that show the mistake, and some that do not: `benchmarks.diagnosis` drives all
    frameworks with all probes. On the one of its page, it goes as far off as the page says.
    """
    package = mistakes.plant(name, framework, tmp_path)
    worker = all_workers[framework]
    worker.path.append(str(tmp_path))
    page, quantity = record_mistakes.shown(name)
    chosen = dict.fromkeys([*telling(mistakes.load(name).stages), page])
    runs = {probe: outcome(worker, f"{package}.recipe", probe, tmp_path) for probe in chosen}
    worker.path.remove(str(tmp_path))
    wrong = [
        [probe.name for probe, run in runs.items() if not same(replays(probe, stages), run)]
        for stages in forms(mistakes.load(name))
    ]
    assert [] in wrong, "no form of the mistake gives these numbers"
    run = runs[page]
    assert run is not None
    seen = run.more["loss"] if quantity == "loss" else run.trajectory
    distances = record_mistakes.distances(replays(page), quantity, seen)
    assert len(distances) > 1
    assert record_mistakes.same(distances, MEASURED[name]["distances"][framework])


IN_THE_LOOP = [
    pytest.param(*each.values, id=each.id, marks=each.marks)
    for each in PLANTED
    if f"{each.values[1]}_impl/training.py" in mistakes.diff(*each.values)
]


@pytest.mark.parametrize(("name", "framework"), IN_THE_LOOP)
def test_a_diff_makes_the_same_in_the_plain_loop(all_workers, tmp_path, name, framework) -> None:
    """On probes that the plain loop trains, in one form; what is reported, it does not show."""
    worker = all_workers[framework]
    package = mistakes.plant(name, framework, tmp_path)
    worker.path.append(str(tmp_path))
    plain = telling(mistakes.load(name).stages, PLAIN)
    assert len(plain) >= 3
    runs = {probe: observe(worker, f"{package}.training", probe, tmp_path) for probe in plain}
    worker.path.remove(str(tmp_path))
    assert any(
        all(replays(probe, stages).reproduces(run.trajectory) for probe, run in runs.items())
        for stages in forms(mistakes.load(name))
    )


def test_so_many_diffs_are_of_the_plain_loop_too() -> None:
    assert len(IN_THE_LOOP) == 42


def telling(stages, among: Sequence[Probe] = PROBES) -> list[Probe]:
    """Six probes that show a mistake, and three that do not."""
    shown = [probe for probe in among if probe in showing(stages)]
    return [*shown[:6], *[probe for probe in among if probe not in shown][:3]]


def outcome(worker: Worker, port: str, probe: Probe, folder: Path) -> Observed | None:
    """What a port does, or None where it fails."""
    try:
        return observe(worker, port, probe, folder)
    except (WorkerError, Refused):
        return None


def same(expected: Replays, run: Observed | None) -> bool:
    """Whether a run is the replay, or failed where the replay does."""
    if run is None:
        return expected.quick is None
    # Where what is reported is the mistake, it must be that, too.
    reported = {"loss": run.more["loss"]} if "report" in expected.stages.replaced else {}
    return expected.reproduces(run.trajectory) and not expected.differing(reported)


def observe(worker: Worker, port: str, probe: Probe, folder: Path) -> Observed:
    file = folder / f"{probe.name}.{probe.problem.dtype}.safetensors"
    probe.problem.save(file)
    worker.submit(port, file)
    return worker.observe()


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_without_a_mistake_every_probe_is_the_correct_loop(
    all_workers, tmp_path, framework
) -> None:
    for dtype in ("float64", "float32"):
        for probe in PROBES:
            if dtype == "float32" and "overflow" in probe.name:
                continue
            probe = probe.in_dtype(dtype)
            worker = all_workers[framework]
            trajectory = observe(worker, f"{framework}_impl.recipe", probe, tmp_path).trajectory
            assert len(trajectory) == probe.problem.updates
            assert replays(probe).reproduces(trajectory), probe.name


def test_every_probe_has_a_bound_that_says_something() -> None:
    for seed in range(3):
        for probe in probes(seed):
            correct = replays(probe)
            careful, quick = correct.careful, correct.quick
            assert careful is not None
            assert quick is not None
            assert len(quick) == probe.problem.updates
            size = max(abs(theta).max() for theta in quick)
            assert max(bound.max() for bound in careful.bounds) < 1e-9 * size, probe.name
            unworded = probe.ingredients - set(verdict.INGREDIENTS) - set(OPTIMIZERS)
            assert unworded <= {"momentum", "nesterov", "dampening", "momentum-decay"}


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return lockstep(*arguments, COLUMNS="120")


def test_the_catalogue_is_listed_and_shown() -> None:
    done = command("mistakes")
    assert done.returncode == 0, done.stderr
    assert all(f"  {name} " in done.stdout for name in KNOWN)
    assert f"{len(KNOWN)} mistakes" in done.stdout
    done = command("mistakes", "no-divide")
    assert done.returncode == 0, done.stderr
    for framework in FRAMEWORKS:
        assert mistakes.diff("no-divide", framework).splitlines()[-1].rstrip() in done.stdout
    assert "Confused with" in done.stdout
    assert mistakes.load("no-divide").evidence[0][0] in done.stdout
    done = command("mistakes", "apply-every", "-f", "pytorch")
    assert "It cannot be made here: " in done.stdout


def test_a_mistake_runs_in_every_framework(tmp_path) -> None:
    file = tmp_path / "found.json"
    done = command("run", "--mistake", "no-divide", "--json", str(file))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 outside" in done.stdout
    assert "within rounding: PyTorch, TensorFlow, JAX" in done.stdout
    found = json.loads(file.read_text())
    assert set(found["distances"]) == set(FRAMEWORKS)
    assert all(each[0] > 0.01 for each in found["distances"].values())
    assert all(each["same"] for each in found["with"].values())
    assert all(each["same"] for each in found["without"].values())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["apply-every", "-f", "pytorch"], "cannot be made in pytorch"),
        (["logged-loss-last"], "its update is right"),
    ],
)
def test_a_mistake_that_cannot_run_says_so(arguments, said) -> None:
    done = command("run", "--mistake", *arguments)
    assert done.returncode == 2
    assert said in done.stderr


def test_the_top_thirty_are_there() -> None:
    """Ranked by how often people make them; those that need several processes are left."""
    assert set(RANKED) <= set(KNOWN)
    assert len(KNOWN) >= 45


RANKED = [
    "missing-zero-grad",
    "no-divide",
    "mean-of-means",
    "zero-per-microbatch",
    "divide-twice",
    "leftover-leaks",
    "leftover-dropped",
    "leftover-divided-by-k",
    "sched-per-microstep",
    "keras-schedule-counts-microsteps",
    "clip-per-microbatch",
    "clip-each-microgradient",
    "clip-scaled-grads",
    "boundary-off-by-one",
    "l2-vs-decoupled",
    "adam-eps-hat",
    "eps-default",
    "wd-per-microstep",
    "zero-before-update",
    "none-vs-zero-grad",
    "momentum-lr-placement",
    "apply-every",
    "zero-gradients-applied",
    "bias-step-off-by-one",
    "frozen-step-counter",
    "bias-correction-per-microstep",
    "opt-state-dropped",
    "never-updates",
    "clip-per-tensor",
    "zero-wrong-object",
    "params-not-in-optimizer",
    "frozen-with-stale-grad",
    "unscale-per-microbatch",
    "zero-only-if-updated",
    "optax-nan-poison",
    "rmsprop-variant",
    "adagrad-variant",
    "amsgrad-variant",
    "summed-loss-backward",
    "vector-loss-summed",
]
