"""Real models in PyTorch, recorded and compared: clean pairs, planted mistakes, damaged traces."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT
from threadpoolctl import threadpool_info, threadpool_limits

from benchmarks.real import common
from benchmarks.real.record import record
from lockstep.trace import TraceError, check_trace, compare_traces, read
from lockstep.trace.matching import changed_by

PLANTED = {
    ("mlp", 4, ("mean-of-means",)): {"mean-of-means"},
    ("mlp", 4, ("skipped-micro-batch",)): {"micro-batches left out"},
    ("mlp", 1, ("missing-zero-grad",)): {"missing-zero-grad"},
    ("mlp", 4, ("momentum-ema", "wd-ignored", "no-divide")): {
        "momentum-ema",
        "wd-ignored",
        "no-divide",
    },
    ("conv", 4, ("missing-bias-correction", "clip-ignored", "sched-off-by-one")): {
        "missing-bias-correction",
        "clip-ignored",
        "sched-off-by-one",
    },
    ("gru", 1, ("wd-on-bias", "eps-default")): {"wd-on-bias", "eps-default"},
    ("transformer", 4, ("l2-vs-decoupled", "sched-per-microstep")): {
        "l2-vs-decoupled",
        "sched-per-microstep",
    },
    ("transformer", 4, ("other-betas", "clip-per-tensor", "rate-times-10")): {
        "another beta2",
        "clip-per-tensor",
        "another learning rate",
    },
    ("transformer", 1, ("untied",)): {"untied"},
}
# Differences in the model, and the modules at which the forward passes part.
PARTED = {
    ("mlp", "gelu"): ("hidden", "middle"),
    ("mlp", "dropout-on"): ("hidden", "middle"),
    ("mlp", "transposed-kernel"): ("hidden", "output"),
    ("conv", "batchnorm-eval"): ("norm",),
    ("transformer", "gelu"): ("inner", "outer"),
    ("transformer", "dropout-on"): ("inner", "outer"),
    ("transformer", "layernorm-epsilon"): ("norm1",),
    ("transformer", "attention-scale"): ("attention.value", "attention.output"),
    ("transformer", "transposed-kernel"): ("attention",),
    ("transformer", "label-shift"): ("",),
    ("transformer", "padding-counted"): ("",),
}
PLANTED |= {(model, 4, (name,)): {name} for model, name in PARTED}
PLANTED |= {
    ("mlp", 4, ("cleared-in-window",)): {"micro-batches left out"},
    ("conv", 4, ("resumed-in-window",)): {"micro-batches left out"},
    ("mlp", 4, ("state-dropped",)): {"opt-state-dropped"},
    ("transformer", 4, ("state-dropped", "wd-on-bias")): {"opt-state-dropped", "wd-on-bias"},
    ("gru", 4, ("data-restarts",)): {"other data"},
    ("transformer", 4, ("step-left-out",)): {"windows left out"},
    ("conv", 4, ("cleared-in-window", "clip-ignored")): {"micro-batches left out", "clip-ignored"},
}
CLEAN = [
    (model, steps, dtype)
    for model in common.MODELS
    for steps, dtype in ((1, "float32"), (4, "float64"))
]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """All runs of this module, recorded in one process: the folder of each, by what it is."""
    pytest.importorskip("torch")
    folder = tmp_path_factory.mktemp("runs")
    dtypes = {(model, steps): dtype for model, steps, dtype in CLEAN}
    jobs = {(model, steps, ()): dtype for (model, steps), dtype in dtypes.items()}
    jobs |= {key: dtypes[key[:2]] for key in PLANTED}
    each = {key: str(folder / str(index)) for index, key in enumerate(jobs)}
    record(
        "pytorch",
        [
            {
                "folder": each[key],
                "model": key[0],
                "accumulation_steps": key[1],
                "mistakes": key[2],
                "dtype": dtype,
                "activations": True,
            }
            for key, dtype in jobs.items()
        ],
    )
    return each


@pytest.mark.parametrize(("model", "steps", "dtype"), CLEAN)
def test_a_run_takes_the_updates_of_another_like_it(runs, model, steps, dtype):
    found = compare_traces(runs[model, steps, ()], runs[model, steps, ()])
    assert found.verdict == "same", found.findings
    assert not found.findings
    size = sum(each.size for each in common.initial(model, dtype).values())
    assert found.compared == common.UPDATES * size
    assert len(found.pairs) == common.UPDATES * steps
    assert found.status == 0


@pytest.mark.parametrize("key", PLANTED, ids=lambda key: "-".join([key[0], *key[2]]))
def test_planted_mistakes_are_named_all_and_no_other(runs, key):
    found = compare_traces(runs[key[0], key[1], ()], runs[key])
    assert set(found.names) == PLANTED[key], found.findings
    assert not found.left
    assert found.status == 1
    with pytest.raises(AssertionError, match=found.names[0]):
        found.assert_same_updates()


def test_a_copy_that_the_second_run_ties_is_named_as_well(runs):
    untied, tied = runs["transformer", 1, ("untied",)], runs["transformer", 1, ()]
    found = compare_traces(untied, tied)
    assert found.names == ("without untied",), found.findings
    assert not found.left
    assert found.matching.own_copies == {"head.weight": "embedding.weight"}


@pytest.mark.parametrize("key", PARTED, ids="-".join)
def test_forward_passes_part_in_the_right_module(runs, key):
    model, mistake = key
    found = compare_traces(runs[model, 4, ()], runs[model, 4, (mistake,)])
    assert [each.modules for each in found.findings] == [PARTED[key]]


def test_the_coefficients_of_a_mean_of_means_are_those_of_its_sizes(runs):
    found = compare_traces(runs["mlp", 4, ()], runs["mlp", 4, ("mean-of-means",)])
    sizes = [len(y) for _, y in common.windows("mlp", "float64", 4)[0]]
    weights = [pair.coefficient.value for pair in found.pairs if pair.update == 1]
    right = [sum(sizes) / (4 * size) for size in sizes]
    assert weights == pytest.approx(right, rel=1e-12)


@pytest.fixture
def copied(runs, tmp_path):
    shutil.copytree(runs["mlp", 4, ()], tmp_path / "run")
    return tmp_path / "run"


def test_any_flipped_bit_is_noticed(copied):
    numbers = np.random.default_rng(0)
    file = copied / "update-00000002.safetensors"
    whole = file.read_bytes()
    places = numbers.integers(0, len(whole), 60).tolist()
    for place in [0, 7, 8, 9, 200, *places]:
        broken = bytearray(whole)
        broken[place] ^= 1 << int(numbers.integers(8))
        file.write_bytes(broken)
        with pytest.raises(TraceError, match=r"update-00000002\.safetensors") as told:
            read(copied)
        assert "\n" not in str(told.value)
    file.write_bytes(whole)
    assert len(read(copied).updates) == common.UPDATES


@pytest.mark.parametrize("share", np.linspace(0, 0.99, 12).tolist())
def test_a_cut_file_is_noticed(copied, share):
    file = copied / "update-00000003.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(TraceError, match="damaged") as told:
        read(copied)
    assert "\n" not in str(told.value)


def test_what_is_no_trace_is_told_in_a_line(copied, tmp_path):
    cases = {
        "no such folder": tmp_path / "none",
        "no trace": tmp_path,
    }
    for said, folder in cases.items():
        with pytest.raises(TraceError, match=said):
            read(folder)
    (copied / "update-00000004.safetensors").rename(tmp_path / "away")
    with pytest.raises(TraceError, match=r"update-00000004\.safetensors is missing"):
        read(copied)
    shutil.copy(copied / "update-00000003.safetensors", copied / "update-00000004.safetensors")
    with pytest.raises(TraceError, match="it holds update 3"):
        read(copied)
    known = json.loads((copied / "trace.json").read_text())
    for change, said in (({"format": 99}, "format 99"), ({"written_by": "x"}, "not written by")):
        (copied / "trace.json").write_text(json.dumps(known | change))
        with pytest.raises(TraceError, match=said):
            read(copied)
    (copied / "trace.json").write_text("{")
    with pytest.raises(TraceError, match="damaged"):
        read(copied)


def test_other_initial_values_are_refused(runs, tmp_path):
    with pytest.raises(TraceError, match="begin at different parameters"):
        compare_traces(runs["mlp", 4, ()], runs["gru", 4, ()])


def test_initial_values_that_were_changed_a_little_are_refused_with_what_may_have_done_it():
    mine = {"a": np.random.default_rng(0).standard_normal((4, 3)), "b": np.zeros(3)}
    theirs = {"k": 1.02 * mine["a"].T, "c": np.zeros(3)}
    assert changed_by(mine, theirs) == pytest.approx(0.02)
    assert changed_by(mine, theirs | {"k": -theirs["k"]}) is None
    assert changed_by(mine, {name: array[..., :2] for name, array in mine.items()}) is None


def test_no_threads_wait_for_those_of_a_training_run(runs, monkeypatch):
    def blas(*_):
        return {each["num_threads"] for each in threadpool_info() if each["user_api"] == "blas"}

    monkeypatch.setattr("lockstep.trace.comparison.compared", blas)
    monkeypatch.setattr("lockstep.trace.alone.checked", blas)
    one = runs["mlp", 4, ()]
    with threadpool_limits(2, "blas"):
        assert (blas(), compare_traces(one, one), check_trace(one)) == ({2}, {1}, {1})


def test_names_that_somebody_gives_are_taken_and_checked(runs, tmp_path):
    one = runs["mlp", 4, ()]
    with pytest.raises(TraceError, match="'no': no parameter of"):
        compare_traces(one, one, {"no": "hidden.weight"})
    file = tmp_path / "names.json"
    for text, said in (("[1]", "must be a JSON object"), ("{", "no JSON file of names")):
        file.write_text(text)
        with pytest.raises(TraceError, match=said):
            compare_traces(one, one, file)
    file.write_text('{"hidden.bias": "middle.bias", "middle.bias": "hidden.bias"}')
    swapped = compare_traces(one, one, file)
    assert swapped.matching.matches["hidden.bias"].others == ("middle.bias",)
    assert swapped.verdict == "differs"


@pytest.mark.parametrize(("model", "steps", "dtype"), CLEAN)
def test_a_run_does_what_its_own_settings_say(runs, model, steps, dtype):
    found = check_trace(runs[model, steps, ()])
    assert found.verdict == "same", found.findings
    assert found.compared > 0


@pytest.mark.parametrize(
    ("key", "names"),
    [
        (("mlp", 1, ("missing-zero-grad",)), {"missing-zero-grad"}),
        (
            ("conv", 4, ("missing-bias-correction", "clip-ignored", "sched-off-by-one")),
            {"missing-bias-correction"},
        ),
    ],
    ids=["missing-zero-grad", "missing-bias-correction"],
)
def test_some_mistakes_need_no_second_run(runs, key, names):
    assert set(check_trace(runs[key]).names) == names


def test_the_command_says_it_in_its_status_and_as_json(runs, tmp_path):
    clean, wrong = runs["mlp", 4, ()], runs["mlp", 4, ("mean-of-means",)]
    file = tmp_path / "found.json"
    command = [sys.executable, "-m", "lockstep.cli", "trace", clean]
    done = subprocess.run([*command, wrong, "--json", file], capture_output=True, text=True)
    assert done.returncode == 1
    assert "differs from" in done.stdout
    assert "mean-of-means" in done.stdout
    found = json.loads(file.read_text())
    assert [each["name"] for each in found["findings"]] == ["mean-of-means"]
    assert len(found["coefficients"]) >= 4
    assert found["rounding"]["said"].startswith("float64, ")
    assert found["rounding"]["relative"] == found["coefficients"][0]["floor"] < 1e-12
    assert 0 < found["rounding"]["seen"] < found["rounding"]["relative"] / 10
    seen = "of which less than a tenth is seen\n"
    assert f"of a gradient's norm ({found['rounding']['said']}), {seen}" in done.stdout
    assert subprocess.run([*command, clean], capture_output=True).returncode == 0
    again = ["--again", clean]
    for more in ([tmp_path / "no"], again, [wrong, "--again", tmp_path], [wrong, *again]):
        bad = subprocess.run([*command, *more], capture_output=True, text=True)
        assert bad.returncode == 2
        assert bad.stderr.count("\n") == 1


def test_the_recorder_needs_numpy_and_safetensors_alone():
    code = (
        "import sys; import lockstep; import lockstep.record.writer; "
        "print(*{name.split('.')[0] for name in sys.modules} & set(sys.argv[1:]))"
    )
    others = ["allpairspy", "jinja2", "ml_dtypes", "mpmath", "packaging", "rich", "typer", "torch"]
    done = subprocess.run([sys.executable, "-c", code, *others], capture_output=True, text=True)
    assert done.stdout.split() == [], done.stdout + done.stderr
    assert not done.stderr


def test_the_page_says_what_the_benchmark_measured():
    measured = json.loads((ROOT / "benchmarks/tracing.json").read_text())
    page = (ROOT / "docs/trace.md").read_text()
    assert len(measured) == 5
    placed = measured["a model's difference"]
    assert f"{placed['located']} of {placed['trials']} were found in the right module" in page
    for name, found in measured.items():
        assert f"| {name} | {found['right']} of {found['trials']} |" in page
        assert found["right"] + len(found["wrong"]) == found["trials"]
    assert not measured["clean"]["wrong"]


def test_the_page_says_what_recording_cost():
    measured = json.loads((ROOT / "benchmarks/recording.json").read_text())
    page = (ROOT / "docs/trace.md").read_text()
    assert len(measured) == 8
    for each in measured:
        plain, _, ratio = each["seconds"]
        assert f"| {plain:.2f} s | {ratio:.2f} | {each['extra']:.1f} |" in page, each


def test_the_page_says_what_comparing_took():
    page = " ".join((ROOT / "docs/trace.md").read_text().split())
    measured = json.loads((ROOT / "benchmarks/comparing.json").read_text())
    said = (
        "{gigabytes} GB in six updates, were read in {read} s and compared in {compare} s from the"
        " disk, in {again} s from memory"
    )
    assert said.format(**measured) in page


def test_a_run_that_was_begun_before_it_was_recorded_is_held_against_one_like_it(tmp_path):
    """The optimizer has moments and a count then, of updates that nobody saw."""
    begun = {"dtype": "float32", "accumulation_steps": 4, "updates": 6, "begin": common.THIRD + 1}
    kinds = [
        (model, mistakes)
        for model in ("conv", "transformer")
        for mistakes in ((), ("state-dropped",))
    ]
    jobs = {kind: str(tmp_path / f"{index}") for index, kind in enumerate(kinds)}
    record(
        "pytorch",
        [
            begun | {"model": model, "mistakes": mistakes, "folder": folder}
            for (model, mistakes), folder in jobs.items()
        ],
    )
    for model in ("conv", "transformer"):
        right, wrong = jobs[model, ()], jobs[model, ("state-dropped",)]
        assert check_trace(right).verdict == "same"
        assert compare_traces(right, right).verdict == "same"
        found = compare_traces(right, wrong)
        assert found.names == ("opt-state-dropped",)
        assert found.findings[0].said.endswith("the first run's has 3 updates in it")
