"""The command line as a person uses it: what it prints, its status, and bad input."""

import json
import re

import numpy as np
import pytest
from conftest import call, lockstep, random_problem

from lockstep import mistakes
from lockstep.experiments.checks import Check
from lockstep.problem import Optimizer, Problem, split
from lockstep.workers import installed


@pytest.fixture(scope="module")
def main_run(tmp_path_factory):
    """The main job, as `make run` runs it."""
    file = tmp_path_factory.mktemp("run") / "run.json"
    return lockstep("run", "--json", str(file)), json.loads(file.read_text())


def test_the_main_job_passes_and_counts(main_run) -> None:
    done, _ = main_run
    assert (done.returncode, done.stderr) == (0, "")
    # 48 + 20 exact and 2 x 100 bitwise updates, 30 bounded ones, of 15 numbers in 3 frameworks.
    assert done.stdout.splitlines()[-1] == (
        "12 060 numbers compared in bits, 0 differ;"
        " 1 350 compared with their rounding bound, 0 outside"
    )


def test_the_main_job_shows_a_table_a_person_can_read(main_run) -> None:
    done, _ = main_run
    rows = re.findall(r"^ +(\d+) +([\d.e+-]+)((?: +same bits){3}) *$", done.stdout, re.M)
    assert [int(update) for update, _, _ in rows[:2]] == [1, 2]
    assert len(rows) >= 25
    assert re.search(r"^ +30 .*( +\d\.\de-\d\d ≤ \d\.\de-\d\d){3} *$", done.stdout, re.M)
    assert "PyTorch" in done.stdout
    for version in ("torch 2.13.0", "tensorflow 2.21.0", "keras 3.15.1", "jax 0.10.2"):
        assert version in done.stdout


def test_json_holds_everything(main_run) -> None:
    _, report = main_run
    assert report["passed"] is True
    assert [(c["problem"], c["dtype"], c["updates"]) for c in report["checks"]] == [
        ("exact", "float64", 48),
        ("exact", "float32", 20),
        ("iris-sgd", "float64", 30),
        ("iris-adamw", "float64", 100),
        ("iris-adamw", "float32", 100),
    ]
    compared = 0
    for check in report["checks"]:
        assert len(check["losses"]) == check["updates"]
        assert set(check["frameworks"]) == {"pytorch", "tensorflow", "jax"}
        for comparison in check["frameworks"].values():
            compared += comparison["compared"]
            assert comparison["outside"] == [0] * check["updates"]
            if comparison["bounds"]:
                pairs = zip(comparison["distances"], comparison["bounds"], strict=True)
                assert all(distance <= bound for distance, bound in pairs)
    assert compared == 12_060 + 1_350


def test_options_choose_what_is_run(tmp_path) -> None:
    done = lockstep("run", "exact", "iris-adamw", "-f", "jax", "--dtype", "float32", "-k", "3",
                    "-u", "7", "--json", str(tmp_path / "r.json"))  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "r.json").read_text())
    found = [
        (c["problem"], c["dtype"], c["accumulation_steps"], c["updates"], list(c["frameworks"]))
        for c in report["checks"]
    ]
    assert found == [
        ("exact", "float32", 3, 7, ["jax"]),
        ("iris-adamw", "float32", 3, 7, ["jax"]),
    ]


def test_an_exact_problem_is_compared_as_long_as_it_is_exact() -> None:
    done = lockstep("run", "exact", "-f", "jax", "--dtype", "float32", "-u", "40")
    assert done.returncode == 0
    assert "the problem is exact for 22 updates: the other 18" in " ".join(done.stdout.split())
    assert "330 numbers compared in bits, 0 differ" in done.stdout


def test_the_fast_form_is_run() -> None:
    done = lockstep("run", "exact", "iris-adamw", "--fast", "-f", "jax", "-u", "6")
    assert done.returncode == 0, done.stdout + done.stderr
    said = " ".join(done.stdout.split())
    # Two dtypes, six updates of W and b.
    assert "180 numbers compared in bits, 0 differ; 180 compared with their rounding bound" in said
    assert said.count("in the fast form, float") == said.count("(compiled in JAX)") == 4


def test_a_problem_file_is_run(tmp_path) -> None:
    file = tmp_path / "mine.safetensors"
    random_problem(7, accumulation_steps=3, optimizer=Optimizer(learning_rate=0.01)).save(file)
    done = lockstep("run", str(file), "-f", "jax")
    assert done.returncode == 0, done.stderr
    assert "30 compared with their rounding bound, 0 outside" in done.stdout
    done = lockstep("run", str(file), "-f", "jax", "-k", "2")
    assert done.returncode == 2
    assert "the file holds its own dtype and K" in done.stderr


def test_a_narrow_terminal_loses_no_digits() -> None:
    done = lockstep("run", "iris-sgd", "-u", "2", "-f", "jax", COLUMNS="30")
    assert re.search(r"\d\.\de-\d\d ≤ \d\.\de-\d\d", done.stdout)
    assert "…" not in done.stdout


BAD = {
    ("run", "-f", "jax,nunpy"): "--frameworks: nunpy is not a framework here",
    ("run", "-f", ","): "--frameworks: nothing is not a framework here",
    ("run", "-f", "jax", "-k", "0"): "accumulation_steps: 0 must be a whole number",
    ("run", "-f", "jax", "-u", "0"): "updates: 0 must be at least 1",
    ("run", "-f", "jax", "-k", "many"): "Invalid value for '--accumulation-steps' / '-k'",
    ("run", "exact", "-f", "jax", "-k", "9"): "K must be 1 to 8, not 9",
    ("run", "-f", "jax", "--dtype", "float16"): "dtype: 'float16' must be one of",
    ("run", "extract", "-f", "jax"): "extract: unknown problem",
    ("run", "gone.safetensors", "-f", "jax"): "gone.safetensors: not a readable",
    (
        "run",
        "-f",
        "jax",
        "--json",
        "no/such/x.json",
    ): "--json: no/such/x.json must be a file in a folder",
    ("run", "--without-zeroing", "exact", "-f", "jax"): "--without-zeroing takes no problem",
    ("run", "--mistake", "no-divide", "-u", "0"): "--mistake takes no problem",
    ("run", "--mistake", "", "-f", "jax"): "no such mistake",
    ("run", "-f", "jax", "--dtype", ""): "dtype: '' must be one of",
    ("mistakes", "-f", ""): "--frameworks: nothing is not a framework here",
    ("run", "--without"): "No such option: --without",
    ("run", "--device", "tpu"): "--device must be cpu or gpu, not 'tpu'",
    ("run", "iris-adamw", "--device", "gpu"): "--device gpu runs the readable loops on exact",
    ("run", "--fast", "--device", "gpu"): "--device gpu runs the readable loops on exact",
    ("run", "--fast", "--eager"): "--fast runs compiled programs, and --eager none: choose one",
}


@pytest.mark.parametrize("arguments", BAD, ids=" ".join)
def test_bad_input_gets_one_line(arguments) -> None:
    done = lockstep(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("lockstep: ")
    assert done.stderr.count("\n") == 1
    assert BAD[arguments] in done.stderr


def test_a_diverging_problem_gets_one_line(tmp_path) -> None:
    problem = random_problem(9, epochs=400, optimizer=Optimizer(learning_rate=3.0))
    problem.save(tmp_path / "p.safetensors")
    done = lockstep("run", str(tmp_path / "p.safetensors"), "-f", "jax")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "the run diverges: update" in done.stderr


@pytest.mark.parametrize("sizes", [[1] * 7, [2, 1, 3, 1]], ids=["bitwise", "bound"])
def test_a_diverging_problem_says_so_in_either_form(tmp_path, sizes) -> None:
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(7, 4)), rng.normal(size=(7, 3))
    Problem(
        np.ones((4, 3)), np.ones(3), split(x, y, sizes), epochs=300,
        optimizer=Optimizer(learning_rate=3.0), dtype="float32",
    ).save(tmp_path / "p.safetensors")  # fmt: skip
    done = lockstep("run", str(tmp_path / "p.safetensors"), "-f", "jax")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert "the run diverges: update" in done.stderr


def test_json_goes_into_a_pipe_too(tmp_path) -> None:
    done = lockstep("run", "exact", "-f", "jax", "-u", "2", "--json", "/dev/stdout")
    assert done.returncode == 0, done.stderr
    assert '"passed": true' in done.stdout


def test_a_problem_file_with_wrong_numbers_says_where(tmp_path) -> None:
    from safetensors.numpy import load_file, save_file

    problem, file = random_problem(8), tmp_path / "p.safetensors"
    problem.save(file)
    arrays = load_file(file)
    settings = {"problem": json.dumps({"optimizer": {"name": "adam", "betas": [0.9, 0.99]}})}
    for change, message in (
        ({"x.2": np.full((3, 4), np.nan)}, "micro_batches[2].x[0, 0]: nan"),
        ({"y.1": np.zeros((2, 3))}, "micro_batches[1]: shapes (1, 4) and (2, 3)"),
        ({"b": np.zeros(4)}, "W, b: shapes (4, 3) and (4,)"),
    ):
        save_file(arrays | change, file, metadata=settings)
        done = lockstep("run", str(file), "-f", "jax")
        assert done.returncode == 2
        assert done.stderr.count("\n") == 1
        assert message in done.stderr


def test_a_framework_that_is_not_installed_is_named(monkeypatch, capsys) -> None:
    find = installed.importlib.util.find_spec
    monkeypatch.setattr(
        installed.importlib.util, "find_spec", lambda name: None if name == "optax" else find(name)
    )
    status, out, err = call(monkeypatch, capsys, "run")
    assert (status, out) == (2, "")
    assert err.startswith("lockstep: jax is not installed. Install it: ")
    assert "-m pip install 'jax>=0.6' 'optax>=0.2.8'" in err
    assert "or leave it out: --frameworks pytorch,tensorflow" in err


@pytest.mark.parametrize(
    "option", [["--without-zeroing"], ["--mistake", "no-divide"]], ids=" ".join
)
def test_the_extra_that_is_not_installed_is_named(monkeypatch, capsys, option) -> None:
    find = mistakes.importlib.util.find_spec
    without = lambda name: None if name == "whatthepatch" else find(name)  # noqa: E731
    monkeypatch.setattr(mistakes.importlib.util, "find_spec", without)
    assert call(monkeypatch, capsys, "run", "-f", "tensorflow", *option) == (
        *(2, ""),
        "lockstep: the catalogue's diffs are applied with whatthepatch, of the extra mistakes:"
        " pip install 'lockstep[mistakes]'\n",
    )


def test_a_difference_is_shown_and_fails(monkeypatch, capsys, mutant, tmp_path) -> None:
    package = mutant("jax", "model.py", "/ window_examples", "/ (window_examples + 1)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(Check, "port", lambda self, framework, eager=False: f"{package}.training")
    status, out, _ = call(monkeypatch, capsys, "run", "exact", "iris-sgd", "-f", "jax")
    assert status == 1
    text = " ".join(out.split())
    assert re.search(r"\d+ differ, \d\.\de-\d\d", text)
    assert re.search(r"JAX: first apart at update 1, W\[0, 0\]: .* or [\d.e+]+ ULP", text)
    assert re.search(r"1 020 numbers compared in bits, \d+ differ; 450 compared", text)
    assert "beyond" in text
    assert "bound, 0 outside" not in text


def test_a_refusal_fails(monkeypatch, capsys) -> None:
    monkeypatch.setattr(Check, "port", lambda self, framework, eager=False: "jax_impl.bitwise")
    status, out, _ = call(monkeypatch, capsys, "run", "exact", "-f", "jax", "--dtype", "float64")
    assert status == 1
    assert "JAX: does not support it: one by one, [" in out
    assert out.splitlines()[-1] == "1 not compared"


def test_too_few_updates_fail(monkeypatch, capsys, mutant, tmp_path) -> None:
    whole = "whole = count // 4 * 4\n    for start in range(0, whole, accumulation_steps)"
    package = mutant("jax", "data.py", "for start in range(0, count, accumulation_steps)", whole)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(Check, "port", lambda self, framework, eager=False: f"{package}.training")
    status, out, _ = call(monkeypatch, capsys, "run", "iris-sgd", "-f", "jax")
    assert status == 1
    assert "JAX: cannot be compared: 20 updates instead of 30" in out


def test_without_zeroing_in_all_three(tmp_path) -> None:
    done = lockstep("run", "--without-zeroing", "--json", str(tmp_path / "z.json"))
    assert (done.returncode, done.stderr) == (0, "")
    assert "Learning rate 0.01: without zeroing the loss rises" in done.stdout
    assert "Learning rate 0.0005: without zeroing the loss falls all the same" in done.stdout
    assert "-    optimizer.zero_grad()" in done.stdout
    for name in ("PyTorch", "TensorFlow", "JAX"):
        line = f"{name}: 720 numbers without zeroing against 720 with momentum 1, 0 differ"
        assert line in done.stdout
    report = json.loads((tmp_path / "z.json").read_text())
    rising, falling = report["trials"]
    for name in ("pytorch", "tensorflow", "jax"):
        assert rising["losses_without"][name][-1] > rising["losses_without"][name][0]
        assert rising["losses_with"][name][-1] < rising["losses_with"][name][0]
        assert falling["losses_without"][name][-1] < falling["losses_with"][name][-1]
    # 4 trajectories of 40 updates against bounds, 2 of 48 in bits, 15 numbers, 3 frameworks
    assert done.stdout.splitlines()[-1] == (
        "4 320 numbers compared in bits, 0 differ;"
        " 7 200 compared with their rounding bound, 0 outside"
    )
