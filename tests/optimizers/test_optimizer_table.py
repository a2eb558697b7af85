"""`lockstep optimizers`: what it measures, what it keeps, and the lines that it prints."""

import ast
import dataclasses
import json
import math
import os
import re
import subprocess
import sys

import pytest
from conftest import ROOT, call, lockstep, pinned
from packaging.version import Version

from lockstep.frameworks import FRAMEWORKS, PACKAGES
from lockstep.optimizers import advice, specialise, translation
from lockstep.optimizers import measurement as table
from lockstep.optimizers.stock import naive_call, own_names, stock_name
from lockstep.optimizers.variants import VARIANTS, on_iris
from lockstep.oracle.compare import compare_bits
from lockstep.problem.settings import OPTIMIZERS, Optimizer, ProblemError

ROUNDING = 1e-13
PACKAGE_NAMES = {name for names in PACKAGES.values() for name in names}


# What the package brings along


def test_the_shipped_numbers_are_complete() -> None:
    shipped, numbers = table.shipped(), 0
    assert tuple(shipped) == FRAMEWORKS
    for framework, measured in shipped.items():
        assert list(measured.distances) == list(VARIANTS)
        for variant, found in measured.distances.items():
            assert 0 < found.here < ROUNDING, (framework, variant)
            assert (found.naive is None) == (found.call is None)
            assert found.naive is None or 0 < found.naive < 10
            numbers += 2 - (found.naive is None)
    assert [n for n, d in shipped["pytorch"].distances.items() if d.call is None] == ["lion"]
    assert numbers == 2 * 3 * len(VARIANTS) - 1


def test_the_shipped_numbers_are_of_the_tested_versions() -> None:
    tested = pinned()
    for framework, measured in table.shipped().items():
        assert set(measured.versions) == {*PACKAGES[framework], "numpy"}
        for package, version in measured.versions.items():
            assert Version(version).public == tested[package]
        assert re.fullmatch(r"\d{4}-\d\d-\d\d", measured.day)
        assert measured.cpu


def test_naive_ports_are_off_where_the_libraries_differ() -> None:
    """The well-known differences are seen, and what is the same in two libraries is seen too."""
    distances = {name: each.distances for name, each in table.shipped().items()}
    for variant, found in distances["pytorch"].items():
        if variant not in ("nadam", "lion"):  # float32 inside, and none
            assert found.naive == found.here
    for variant in ("momentum", "sgd-decay", "adam-decay", "adamw", "rmsprop", "adagrad"):
        assert distances["tensorflow"][variant].naive > 1e-4
    for variant in ("sgd", "momentum", "nesterov", "adam", "adamax", "adadelta", "lion"):
        assert distances["jax"][variant].naive < ROUNDING
    assert distances["jax"]["sgd-decay"].left_out == ("weight_decay",)
    assert distances["jax"]["dampening"].left_out == ("dampening",)


def test_the_defaults_of_torch_are_the_neutral_ones() -> None:
    measured, compared = table.shipped()["pytorch"], 0
    for name, ours in OPTIMIZERS.items():
        settings = Optimizer(name)
        found = table.defaults("pytorch", settings, measured)
        if name == "lion":
            assert found == {}
            continue
        assert not [each for each in found.values() if each.differs]
        assert set(ours) <= set(found)
        compared += len(ours)
    assert compared == 39


def test_the_defaults_that_differ_are_named() -> None:
    found = {
        framework: [str(each) for each in table.differing(framework, VARIANTS["adamw"], measured)]
        for framework, measured in table.shipped().items()
    }
    assert found == {
        "pytorch": [],
        "tensorflow": ["epsilon 1e-07, not 1e-08", "weight_decay 0.004, not 0.01"],
        "jax": ["weight_decay 0.0001, not 0.01"],
    }
    rmsprop = table.differing("jax", VARIANTS["rmsprop"], table.shipped()["jax"])
    assert [str(each) for each in rmsprop] == ["decay 0.9, not 0.99", "eps_in_sqrt True"]


LIVE = ("momentum", "amsgrad")


@pytest.fixture(scope="module")
def live(all_workers):
    """Two variants, measured here and now, by workers that are left as they were."""
    before = [list(worker.path) for worker in all_workers.values()]
    measured = table.measure(all_workers, variants=LIVE)
    assert [worker.path for worker in all_workers.values()] == before
    return measured


def test_measuring_again_finds_what_is_shipped(live) -> None:
    shipped, compared = table.shipped(), 0
    for framework, measured in live.items():
        assert list(measured.distances) == list(LIVE)
        assert measured.versions == shipped[framework].versions
        assert measured.signatures == shipped[framework].signatures
        for variant, found in measured.distances.items():
            expected = shipped[framework].distances[variant]
            assert (found.call, found.left_out) == (expected.call, expected.left_out)
            for now, then in ((found.naive, expected.naive), (found.here, expected.here)):
                # What rounding adds up to depends on the CPU; what a setting does, does not.
                factor = 1.01 if then > 1e-7 else 10
                assert then / factor <= now <= then * factor, (framework, variant)
                compared += 1
    assert compared == 2 * 2 * 3


def test_what_is_written_is_what_is_read(live) -> None:
    report = json.loads(json.dumps(table.as_json(live), allow_nan=False))
    assert table.from_json(report) == live
    report["variants"]["adamw"]["eps"] = 1e-7
    assert table.from_json(report) == {}


def test_a_distance_that_is_not_finite_is_written_too(live) -> None:
    found = dataclasses.replace(live["jax"].distances["momentum"], naive=math.inf)
    jax = dataclasses.replace(live["jax"], distances={"momentum": found})
    report = json.loads(json.dumps(table.as_json({"jax": jax}), allow_nan=False))
    assert table.from_json(report) == {"jax": jax}


def test_a_naive_port_gives_what_was_given_under_the_librarys_names() -> None:
    signatures = {name: each.signatures for name, each in table.shipped().items()}
    settings = Optimizer("rmsprop", 0.1, alpha=0.9, momentum=0.5, weight_decay=0.1, centered=True)
    calls = {name: naive_call(name, settings, each) for name, each in signatures.items()}
    assert {name: (each.text, each.left_out) for name, each in calls.items()} == {
        "pytorch": (
            "torch.optim.RMSprop(parameters, learning_rate, alpha=0.9, weight_decay=0.1,"
            " momentum=0.5, centered=True)",
            (),
        ),
        "tensorflow": (
            "keras.optimizers.RMSprop(learning_rate, rho=0.9, weight_decay=0.1, momentum=0.5,"
            " centered=True)",
            (),
        ),
        "jax": (
            "optax.rmsprop(learning_rate, decay=0.9, momentum=0.5, centered=True)",
            ("weight_decay",),
        ),
    }
    pair = naive_call("jax", Optimizer("adam", betas=(0.8, 0.9)), signatures["jax"])
    assert pair.text == "optax.adam(learning_rate, b1=0.8, b2=0.9)"
    assert own_names("tensorflow", "betas") == ("beta_1", "beta_2")
    assert stock_name("jax", VARIANTS["amsgrad"]) == "amsgrad"


# A person's own measurements


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty cache folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    table.own_file().parent.mkdir(parents=True)
    return table.own_file()


def keep(file, **changes) -> None:
    """Write a person's own measurement of JAX: the shipped one with changes."""
    jax = dataclasses.replace(table.shipped()["jax"], **changes)
    file.write_text(json.dumps(table.as_json({"jax": jax})))


def test_the_newer_measurement_is_shown_and_the_rest_stays(home) -> None:
    keep(home, cpu="mine")
    assert table.known()["jax"].cpu == "mine"
    assert {name: table.known()[name] for name in FRAMEWORKS[:2]} == {
        name: table.shipped()[name] for name in FRAMEWORKS[:2]
    }
    keep(home, cpu="mine", day="2001-01-01")
    assert table.known() == table.shipped()


def test_the_measurement_of_the_installed_versions_is_shown(home, monkeypatch) -> None:
    newer = table.shipped()["jax"].versions | {"jax": "99.1"}
    keep(home, cpu="mine", day="2999-01-01", versions=newer)
    assert table.known() == table.shipped()
    monkeypatch.setattr(table, "installed", lambda package: newer.get(package))
    assert table.known()["jax"].cpu == "mine"
    assert table.outdated(table.shipped()["jax"]) == {"jax": "99.1"}


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"updates": 200}', "null"])
def test_a_file_that_cannot_be_read_is_none(home, text) -> None:
    home.write_text(text)
    assert table.own() == {}
    assert table.known() == table.shipped()


def test_installed_versions_that_differ_are_named(home, monkeypatch, capsys) -> None:
    status, out, _ = call(monkeypatch, capsys, "optimizers")
    assert status == 0
    assert "installed is" not in out
    monkeypatch.setattr(table, "installed", lambda package: "99.1" if package == "optax" else None)
    _, out, _ = call(monkeypatch, capsys, "optimizers", "adam")
    assert "installed is optax 99.1, of which the numbers may differ." in out
    assert "lockstep optimizers --measure" in out


def test_measuring_keeps_and_shows_and_writes(home, monkeypatch, capsys, tmp_path) -> None:
    shipped = table.shipped()
    measured = dataclasses.replace(shipped["jax"], cpu="this one", day="2999-01-01")

    def measure(workers, tell):
        assert list(workers) == ["jax"]
        return {"jax": measured}

    monkeypatch.setattr(table, "measure", measure)
    file = tmp_path / "all.json"
    status, out, err = call(
        monkeypatch, capsys, "optimizers", "--measure", "-f", "jax", "--json", str(file)
    )
    assert status == 0
    assert f"kept in {home}" in "".join(err.split("\n"))
    assert "measured on this one (2999-01-01): jax 0.10.2, optax 0.2.8; numpy 2.4.6" in out
    assert table.own() == {"jax": measured}
    assert table.from_json(json.loads(file.read_text())) == shipped | {"jax": measured}


# What the command shows


ROW = re.compile(r"^ (\S+) +(.*?) *$", re.M)


@pytest.mark.parametrize("columns", ["30", "80", "100", "120"])
def test_the_table_is_whole_at_any_width(columns, home, monkeypatch, capsys) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    status, out, err = call(monkeypatch, capsys, "optimizers")
    assert (status, err) == (0, "")
    assert "…" not in out
    numbers, _ = out.split("Which defaults")
    rows = {name: rest.split() for name, rest in ROW.findall(numbers) if name in VARIANTS}
    assert list(rows) == list(VARIANTS)
    names = 3 * (int(columns) >= 96)
    shipped, compared = table.known(), 0
    for variant, cells in rows.items():
        numbers = [cell for cell in cells if re.fullmatch(r"\d+e[+-]\d+\*?", cell)]
        found = [each.distances[variant] for each in shipped.values()]
        expected = [n for d in found for n in (d.naive, d.here) if n is not None]
        assert [each.rstrip("*") for each in numbers] == [f"{n:.0e}" for n in expected]
        assert sum(each.endswith("*") for each in numbers) == sum(bool(d.left_out) for d in found)
        assert len(cells) == len(numbers) + names
        compared += len(numbers)
    assert compared == 101
    for version in ("torch 2.13.0", "keras 3.15.1", "jax 0.10.2", "optax 0.2.8", "numpy 2.4.6"):
        assert version in out


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_variant_is_shown_with_its_defaults(variant, home, monkeypatch, capsys) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    status, out, err = call(monkeypatch, capsys, "optimizers", variant)
    assert (status, err) == (0, "")
    assert "…" not in out
    for setting in OPTIMIZERS[VARIANTS[variant].name]:
        assert re.search(rf"^ {setting} ", out, re.M)
    # One mark for each default that differs, and one for what it means.
    known = table.known()
    differ = [d for f in known for d in table.differing(f, VARIANTS[variant], known[f])]
    assert out.count("≠") == 1 + sum(each.differs for each in differ)


def test_nothing_is_imported_and_nobody_is_started() -> None:
    code = (
        "import sys\n"
        "from lockstep import cli\n"
        "from lockstep.workers import pool\n"
        "pool.Worker = None\n"
        "sys.argv = ['lockstep', 'optimizers', *sys.argv[1:]]\n"
        "try: cli.main()\n"
        f"finally: print(sorted({PACKAGE_NAMES!r} & set(sys.modules)), file=sys.stderr)"
    )
    for arguments in ([], ["adamw"], ["adamw", "--to", "jax"]):
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments], capture_output=True, text=True, cwd=ROOT
        )
        assert (done.returncode, done.stderr) == (0, "[]\n")
        assert "adamw" in done.stdout.lower()


BAD = {
    ("adamv",): "adamv: unknown optimizer, it must be one of sgd, momentum,",
    ("--to", "jax"): "--to needs a NAME, and neither --measure nor --json",
    ("adam", "--to", "numpy"): "--to: numpy is not a framework here, choose from pytorch,",
    ("adam", "--from", "np", "--to", "jax"): "--from: np is not a framework here",
    ("adam", "--from", "jax"): "--from, --set, --dtype and --no-decay-bias need --to",
    ("adam", "--set", "eps=1"): "--from, --set, --dtype and --no-decay-bias need --to",
    ("adam", "--to", "jax", "--set", "eps"): "--set: 'eps' must be NAME=VALUE",
    ("adam", "--to", "jax", "--set", "rho=.9"): "--set: 'rho' is not a setting of adam, which has",
    ("adam", "--to", "jax", "--set", "eps=x"): "--set: eps: 'x' must be a number",
    ("adam", "--to", "jax", "--set", "eps=-1"): "optimizer.eps: -1.0 must be a finite number",
    ("adam", "--to", "jax", "--set", "betas=.9"): "optimizer.betas: (0.9,) must be two numbers",
    ("adam", "--to", "jax", "--set", "amsgrad=1"): "amsgrad: '1' must be True or False",
    ("adam", "--to", "jax", "--dtype", "float16"): "--dtype: 'float16' must be one of float64,",
    ("--measure", "-f", "numpy"): "--frameworks: numpy is not a framework here",
    ("adam", "-f", "jax"): "--frameworks says what to measure: it needs --measure",
    ("--json", "no/such/x.json"): "--json: no/such/x.json must be a file in a folder",
}


@pytest.mark.parametrize("arguments", BAD, ids=" ".join)
def test_bad_input_gets_one_line(arguments, monkeypatch, capsys) -> None:
    status, out, err = call(monkeypatch, capsys, "optimizers", *arguments)
    assert (status, out) == (2, "")
    assert err.startswith("lockstep: ")
    assert err.count("\n") == 1
    assert BAD[arguments] in err


# The lines


PORT = """
from .schedule import learning_rates

LINES = {lines!r}


def make_optimizer(parameters, problem):
    names = dict(parameters=parameters, learning_rates=learning_rates(problem), __name__=__name__)
    exec(LINES, names)
    return names["optimizer"]
"""


@pytest.fixture
def run_lines(all_workers, mutant, tmp_path):
    """Train for 20 updates with printed lines as `make_optimizer`; thetas and state."""

    def run(framework: str, lines: str, problem):
        source = (ROOT / f"{framework}_impl" / "optimizers.py").read_text()
        package = mutant(framework, "optimizers.py", source, PORT.format(lines=lines))
        worker = all_workers[framework]
        worker.path.append(str(tmp_path))
        try:
            return worker.train_with_state(f"{package}.recipe", problem, 20)
        finally:
            worker.path.remove(str(tmp_path))

    return run


def same_bits(left, right) -> tuple[bool, int]:
    """Whether two runs hold the same bits in parameters and state, and how many were compared."""
    (thetas, state), (other_thetas, other_state) = left, right
    assert state.keys() == other_state.keys()
    comparisons = [compare_bits(thetas, other_thetas)]
    comparisons += [compare_bits(state[name], other_state[name]) for name in state]
    return all(each.same for each in comparisons), sum(each.compared for each in comparisons)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_lines_hold_the_bits(variant, framework, worker, run_lines) -> None:
    """What is printed, comments and all, run as it is, against {framework}_impl.recipe.

    Every other variant in float32 and without decay of b.
    """
    plain = list(VARIANTS).index(variant) % 2 == 0
    dtype = "float64" if plain else "float32"
    settings = VARIANTS[variant]
    problem = dataclasses.replace(on_iris(settings, dtype), decay_bias=plain)
    text = advice.program(variant, settings, "jax", framework, table.shipped(), dtype, plain)
    expected = worker.train_with_state(f"{framework}_impl.recipe", problem, 20)
    same, compared = same_bits(expected, run_lines(framework, text, problem))
    assert same
    # W, b and what the optimizer keeps: 15 numbers each.
    assert compared == 20 * 15 * (1 + len(expected[1]))


MISPRINTS = {
    "pytorch": ("weight_decay=0.01", "weight_decay=0.011"),
    "tensorflow": ("beta2**t)) + settings.eps", "beta2**t)) + 2 * settings.eps"),
    "jax": ("scale_by_adam(0.9", "scale_by_adam(0.91"),
}


def test_lines_with_a_misprint_do_not_hold_the_bits(framework, worker, run_lines) -> None:
    problem = on_iris(VARIANTS["adamw"])
    text = str(translation.lines(framework, VARIANTS["adamw"], problem.dtype))
    old, new = MISPRINTS[framework]
    assert text.count(old) == 1
    expected = worker.train_with_state(f"{framework}_impl.recipe", problem, 20)
    same, compared = same_bits(expected, run_lines(framework, text.replace(old, new), problem))
    assert not same
    # theta, two moments, three counts, loss and norm
    assert compared == 20 * 15 * 8


@pytest.fixture(scope="module")
def every_program():
    """The lines of every variant in every framework, with decay of b and without."""
    shipped, found = table.shipped(), []
    for variant, settings in VARIANTS.items():
        for target in FRAMEWORKS:
            for bias in (True, False):
                lines = advice.program(
                    variant, settings, "pytorch", target, shipped, "float64", bias
                )
                found.append((variant, target, bias, lines))
    return found


def test_the_lines_can_be_pasted_and_read(every_program) -> None:
    count = 0
    for variant, target, decay_bias, text in every_program:
        tree = ast.parse(text)
        assert all(len(row) <= 79 for row in text.splitlines()), (variant, target)
        assert text.endswith("\n")
        assert not re.search(r"[ \t]$", text, re.M)
        # A neutral part, and what holds for two parameters alone, is left out.
        code = ast.unparse(tree)
        assert "identity" not in code
        assert "True, True" not in code
        assert ("parameters[" in code or "mask" in code) <= (not decay_bias)
        assert "learning_rates" in text or target == "pytorch"
        assert ('group["lr"] = rate' in text) == (target == "pytorch")
        assert ("jax_enable_x64" in text) == (target == "jax")
        count += 1
    assert count == len(VARIANTS) * 3 * 2


def test_the_lines_bring_what_they_name(every_program) -> None:
    """Every name in them is given there, is a builtin, or is the reader's own."""
    import builtins

    for variant, target, _, text in every_program:
        given = {"parameters", "learning_rates", *dir(builtins)}
        used = set()
        for node in ast.walk(ast.parse(text)):
            match node:
                case ast.Name(name, ctx):
                    (used if isinstance(ctx, ast.Load) else given).add(name)
                case ast.arg(name) | ast.FunctionDef(name) | ast.ClassDef(name):
                    given.add(name)
                case ast.alias(name, other):
                    given.add(other or name)
        assert len(used) >= 2
        assert used <= given, (variant, target)


def test_the_stock_call_is_all_there_is_in_pytorch() -> None:
    lines = translation.lines("pytorch", VARIANTS["adamw"])
    assert str(lines) == (
        "from torch import optim\n\n"
        "optimizer = optim.AdamW(\n"
        "    parameters,\n"
        "    lr=0.01,\n"
        "    weight_decay=0.01,\n"
        "    betas=(0.9, 0.999),\n"
        "    eps=1e-08,\n"
        "    amsgrad=False,\n"
        ")"
    )


def test_the_command_prints_lines_alone_into_a_pipe() -> None:
    done = lockstep("optimizers", "amsgrad", "--from", "torch", "--to", "optax",
                    "--set", "betas=0.8,0.9", "--set", "lr=.5", "--no-decay-bias",
                    "--set", "weight_decay=.1", "--dtype", "float64", COLUMNS="40")  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    settings = Optimizer("adam", 0.5, betas=(0.8, 0.9), weight_decay=0.1, amsgrad=True)
    known = table.known()
    assert done.stdout == advice.program(
        "amsgrad", settings, "pytorch", "jax", known, "float64", False
    )
    assert "scale_by_amsgrad(0.8, 0.9, 1e-08)" in done.stdout
    assert "mask=(True, False)" in done.stdout
    assert "off in 200 updates" not in done.stdout  # that was measured with other settings
    assert "optax.amsgrad has no weight_decay." in done.stdout


def test_the_comments_say_what_was_measured() -> None:
    shipped = table.shipped()
    text = advice.program("adamw", VARIANTS["adamw"], "pytorch", "jax", shipped)
    comments = " ".join(re.findall(r"^#\s*(.*)", text, re.M))
    found = shipped["jax"].distances["adamw"]
    assert f"optax.adamw(learning_rate) alone is up to {found.naive:.0e} off" in comments
    assert "Defaults of optax.adamw: weight_decay 0.0001, not 0.01." in comments
    text = advice.program("momentum", VARIANTS["momentum"], "jax", "pytorch", shipped)
    assert "torch.optim.SGD(parameters, learning_rate, momentum=0.9) does as well" in text
    text = advice.program("momentum", VARIANTS["momentum"], "jax", "tensorflow", shipped)
    assert "# SGD: The stock one has the rate inside its buffer." in text


# Partial evaluation


SOURCE = """
def direct(s):
    "Never shown."
    scale = lib.plain
    if s.fast and s.size > 1:
        scale = lib.fast
    first, second = map(lib.f, s.pair)
    return scale(*s.pair, first, second, size=2 * s.size)


TABLE = {"direct": direct, "other": module.direct}


def make(parameters, problem):
    s = problem.optimizer
    rate = lib.table(rates(problem))
    flags = [True, problem.flag]
    groups = [{"p": [p], "d": d * s.size} for p, d in zip(parameters, flags)]
    thing = TABLE[s.name](s)
    thing.weight = s.size
    if not problem.flag:
        thing.leave(parameters[1])
    return lib.chain(*[thing, groups][:: -1 if s.fast else 1], rate.get)
"""


def specialised(flag: bool, fast: bool, name: str = "direct", source: str = SOURCE) -> str:
    from types import SimpleNamespace

    s = SimpleNamespace(name=name, fast=fast, size=3, pair=(0.5, 0.25))
    problem = SimpleNamespace(flag=flag)
    objects = {"problem": problem, "s": s}
    free = {"rates(problem)": "rates", "problem.optimizer": "s"}
    found = specialise.specialise(source, "make", objects, free, "made")
    return "\n".join(ast.unparse(ast.fix_missing_locations(each)) for each in found.statements)


def test_a_function_is_evaluated_for_its_settings() -> None:
    assert specialised(flag=True, fast=True) == (
        "rate = lib.table(rates)\n"
        "thing = lib.fast(0.5, 0.25, lib.f(0.5), lib.f(0.25), size=6)\n"
        "thing.weight = 3\n"
        "made = lib.chain([{'p': [p], 'd': 3} for p in parameters], thing, rate.get)"
    )
    assert specialised(flag=False, fast=False, name="other") == (
        "rate = lib.table(rates)\n"
        "thing = lib.plain(0.5, 0.25, lib.f(0.5), lib.f(0.25), size=6)\n"
        "thing.weight = 3\n"
        "thing.leave(parameters[1])\n"
        "made = lib.chain(thing, [{'p': [parameters[0]], 'd': 3},"
        " {'p': [parameters[1]], 'd': 0.0}], rate.get)"
    )


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("if s.fast and", "if lib.fast and"),
        ("    flags =", "    while flags: pass\n    flags ="),
        ("    return scale(", "    scale.x = 1\n    return scale("),
        ("    return lib.chain", "    lib.chain"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(old, new) -> None:
    assert SOURCE.count(old) == 1
    with pytest.raises(specialise.NotConstantError):
        specialised(flag=True, fast=True, source=SOURCE.replace(old, new))


def test_an_unknown_variant_is_refused() -> None:
    with pytest.raises(ProblemError, match="adamv: unknown optimizer"):
        table.variant("adamv")


def test_the_rows_have_every_optimizer() -> None:
    assert {VARIANTS[name].name for name in advice.ROWS} == set(OPTIMIZERS)


def test_the_table_tells_defaults_and_what_matches() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "lockstep.cli", "optimizers"],
        capture_output=True, text=True, env=os.environ | {"COLUMNS": "200"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = [re.split(r" {2,}", line.strip()) for line in done.stdout.splitlines()]
    assert ["adamw", "JAX", "weight_decay 0.0001", "scale_by_adam, add_decayed_weights"] in rows
    told = [row for row in rows if row[:1] == ["rmsprop"] and "TensorFlow" in row]
    assert told == [
        ["rmsprop", "TensorFlow", "learning_rate 0.001, rho 0.9, epsilon 1e-07",
         "RMSprop has eps in the root, rate in momentum"]
    ]  # fmt: skip
    assert (
        sum(
            len(row) >= 3 and row[1] in ("TensorFlow", "JAX") and row[0] in VARIANTS for row in rows
        )
        == 24
    )
