"""`lockstep trace init`: the first run's initial parameters as another framework holds them."""

import json
import re
import shlex

import numpy as np
import pytest
from conftest import lockstep
from safetensors.numpy import load_file
from written import write_trace

from benchmarks.real import common
from benchmarks.real.record import record
from lockstep.trace import TraceError, compare_traces, initial_values, read
from lockstep.trace.recurrent import cells, fitted, given, taken

DIRECTIONS = [
    ("pytorch", "jax"), ("pytorch", "keras"), ("jax", "pytorch"), ("keras", "pytorch"),
    ("jax", "keras"), ("keras", "jax"),
]  # fmt: skip
NEEDED = {"pytorch": ["torch"], "jax": ["flax", "optax"], "keras": ["keras", "tensorflow"]}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Each model in each framework, from the same values: the folder of each."""
    folder = tmp_path_factory.mktemp("runs")
    each = {(f, model): folder / f"{f}-{model}" for f in NEEDED for model in common.MODELS}
    job = {"dtype": "float32", "accumulation_steps": 1, "updates": 1}
    for framework, packages in NEEDED.items():
        for package in packages:
            pytest.importorskip(package)
        record(
            framework,
            [job | {"model": m, "folder": str(each[framework, m])} for m in common.MODELS],
        )
    return each


@pytest.mark.parametrize("model", common.MODELS)
@pytest.mark.parametrize(("source", "target"), DIRECTIONS)
def test_what_is_written_is_what_the_other_side_began_with(runs, source, target, model):
    found = initial_values(runs[source, model], target, runs[target, model])
    right = read(runs[target, model]).begins
    assert found.complete
    # What PyTorch ties has two names in its state dict.
    assert set(right) <= set(found.arrays)
    compared = 0
    for name, array in right.items():
        assert found.arrays[name].dtype == array.dtype
        assert np.array_equal(found.arrays[name], array), name
        compared += array.size
    assert compared == sum(each.size for each in common.initial(model, "float32").values())


def drawn_like(values):
    numbers = np.random.default_rng(7)
    return {n: numbers.standard_normal(a.shape).astype("float32") for n, a in values.items()}


@pytest.mark.parametrize("model", common.MODELS)
@pytest.mark.parametrize("target", ["jax", "keras"])
def test_no_two_tensors_are_taken_for_each_other(tmp_path, monkeypatch, model, target):
    """Biases and norms, which begin alike, are drawn here; the port begins at other values."""
    for package in NEEDED[target]:
        pytest.importorskip(package)
    values = drawn_like(common.initial(model, "float32"))
    if target == "jax":
        from flax.traverse_util import flatten_dict

        from benchmarks.real.jax import native

        tree = flatten_dict(native(model, values, ()), sep="/")
        right = {name: np.asarray(array) for name, array in tree.items()}
    else:
        from benchmarks.real.keras import converted

        right = {f"net/{name}": array for name, array in converted(model, values, ()).items()}
    mine = write_trace(tmp_path / "mine", values)
    zeros = {name: np.zeros_like(array) for name, array in right.items()}
    theirs = write_trace(tmp_path / "theirs", zeros, target)
    found = initial_values(mine, target, theirs)
    assert found.complete, (found.left, found.other_left)
    assert found.arrays.keys() == right.keys()
    assert sum(array.size for array in right.values()) == sum(a.size for a in values.values())
    for name, array in right.items():
        assert np.array_equal(found.arrays[name], array), name
    square = {each.name for each in found.placed if each.by_convention}
    assert any("kernel" in name for name in square)
    again = initial_values(write_trace(tmp_path / "port", right, target), "pytorch", mine)
    for name, array in values.items():
        assert np.array_equal(again.arrays[name], array), name


def written(tmp_path, mine, theirs, source="pytorch", target="jax"):
    numbers = np.random.default_rng(3)
    return [
        write_trace(tmp_path / side, {n: numbers.standard_normal(s) for n, s in each.items()}, f)
        for side, each, f in (("mine", mine, source), ("theirs", theirs, target))
    ]


def sources(found):
    return {each.name: each.sources for each in found.placed}


def test_numbers_of_modules_count_by_their_rank(tmp_path):
    mine = {f"{i}.weight": (4, 4) for i in (0, 2, 10)}
    theirs = {f"Dense_{i}/kernel": (4, 4) for i in (0, 1, 2)}
    one, other = written(tmp_path, mine, theirs)
    found = initial_values(one, "jax", other)
    assert sources(found) == {
        f"Dense_{rank}/kernel": (f"{i}.weight",) for rank, i in enumerate((0, 2, 10))
    }
    assert all(each.by_convention and each.how == "transposed" for each in found.placed)


def test_a_decoder_of_many_layers_is_matched_whatever_its_people_call_them(tmp_path):
    mine, theirs, right = {}, {}, {}
    for index in range(11):  # so that 10 stands behind 9, and not behind 1
        here, there = f"encoder.layers.{index}.", f"EncoderBlock_{index}/"
        attention = there + "MultiHeadDotProductAttention_0/"
        for layer in ("query", "key", "value"):
            theirs[f"{attention}{layer}/kernel"] = (4, 2, 2)
            right[f"{attention}{layer}/kernel"] = here + "self_attn.in_proj_weight"
        mine |= {here + "self_attn.in_proj_weight": (12, 4)}
        for name, shape, other, turned in (
            ("self_attn.out_proj.weight", (4, 4), attention + "out/kernel", (2, 2, 4)),
            ("linear1.weight", (4, 4), there + "Dense_0/kernel", (4, 4)),
            ("linear2.weight", (4, 4), there + "Dense_1/kernel", (4, 4)),
            ("norm1.weight", (4,), there + "LayerNorm_0/scale", (4,)),
            ("norm2.weight", (4,), there + "LayerNorm_1/scale", (4,)),
        ):
            mine[here + name], theirs[other], right[other] = shape, turned, here + name
    one, other = written(tmp_path, mine, theirs)
    found = initial_values(one, "jax", other)
    assert found.complete, (found.left, found.other_left)
    assert sources(found) == {name: (source,) for name, source in right.items()}
    assert not any(each.by_shape for each in found.placed)


def test_the_first_of_keras_own_names_has_no_number(tmp_path):
    mine = {f"fc{i}.weight": (4, 4) for i in (1, 2)}
    theirs = {f"net/dense{i}/kernel": (4, 4) for i in ("", "_1")}
    one, other = written(tmp_path, mine, theirs, target="keras")
    assert sources(initial_values(one, "keras", other)) == {
        "net/dense/kernel": ("fc1.weight",),
        "net/dense_1/kernel": ("fc2.weight",),
    }


def test_names_that_say_nothing_are_no_guess_and_a_map_settles_them(tmp_path):
    mine = {"left.weight": (4, 3), "right.weight": (4, 3), "head.weight": (2, 4)}
    theirs = {"one/kernel": (3, 4), "two/kernel": (3, 4), "last/kernel": (4, 2)}
    one, other = written(tmp_path, mine, theirs)
    found = initial_values(one, "jax", other)
    assert set(found.left) == {"left.weight", "right.weight"}
    assert set(found.other_left) == {"one/kernel", "two/kernel"}
    assert all(why.startswith("nearest: ") for why in found.left.values())
    assert [each.name for each in found.placed if each.by_shape] == ["last/kernel"]
    settled = initial_values(one, "jax", other, {"left.weight": "two/kernel"})
    assert settled.complete
    assert sources(settled)["one/kernel"] == ("right.weight",)
    values = read(one).begins
    assert np.array_equal(settled.arrays["two/kernel"], values["left.weight"].T)
    without = initial_values(one, "jax", other, {"left.weight": None})
    assert "left.weight" not in without.left


def test_what_stands_beside_a_named_tensor_follows_it(tmp_path):
    mine = {
        f"{side}.{kind}": s for side in "ab" for kind, s in (("weight", (4, 3)), ("bias", (4,)))
    }
    theirs = {f"{n}/{kind}": s for n in "xy" for kind, s in (("kernel", (3, 4)), ("bias", (4,)))}
    one, other = written(tmp_path, mine, theirs)
    found = initial_values(one, "jax", other, {"a.weight": "y/kernel"})
    assert found.complete
    assert sources(found) == {
        "y/kernel": ("a.weight",), "y/bias": ("a.bias",),
        "x/kernel": ("b.weight",), "x/bias": ("b.bias",),
    }  # fmt: skip
    without = initial_values(one, "jax", other, {"a.weight": "y/kernel", "a.bias": None})
    assert set(without.other_left) == {"y/bias"}


def test_a_name_of_a_cell_is_the_whole_cell(tmp_path):
    mine = lstm("pytorch", "one") | lstm("pytorch", "two")
    theirs = lstm("keras", "net/a") | lstm("keras", "net/b")
    one, other = written(tmp_path, mine, theirs, target="keras")
    assert not initial_values(one, "keras", other).placed
    found = initial_values(one, "keras", other, {"one.bias_hh_l0": "net/b/lstm_cell/bias"})
    assert found.complete
    assert sources(found)["net/b/lstm_cell/kernel"] == ("one.weight_ih_l0",)


def test_fused_attention_is_split_and_split_attention_fused(tmp_path):
    mine = {
        "attn.in_proj_weight": (24, 8), "attn.in_proj_bias": (24,),
        "attn.out_proj.weight": (8, 8), "attn.out_proj.bias": (8,),
    }  # fmt: skip
    theirs = {f"attn/{n}/kernel": (8, 2, 4) for n in ("query", "key", "value")}
    theirs |= {f"attn/{n}/bias": (2, 4) for n in ("query", "key", "value")}
    theirs |= {"attn/out/kernel": (2, 4, 8), "attn/out/bias": (8,)}
    one, other = written(tmp_path, mine, theirs)
    found = initial_values(one, "jax", other)
    assert found.complete, (found.left, found.other_left)
    values = read(one).begins
    right = values["attn.in_proj_weight"][8:16].T.reshape(8, 2, 4)
    assert np.array_equal(found.arrays["attn/key/kernel"], right)
    assert sources(found)["attn/value/bias"] == ("attn.in_proj_bias",)
    port = write_trace(tmp_path / "port", found.arrays, "jax")
    back = initial_values(port, "pytorch", one)
    assert back.complete
    assert all(np.array_equal(back.arrays[name], array) for name, array in values.items())
    assert "attn/query/kernel" in initial_values(one, "jax").arrays


def test_embeddings_stay_and_kernels_turn_though_they_are_square(tmp_path):
    mine = {"tokens.weight": (4, 4), "dense.weight": (4, 4), "conv.weight": (3, 3, 3, 3)}
    theirs = {
        "tokens/embedding": (4, 4), "dense/kernel": (4, 4), "conv/kernel": (3, 3, 3, 3),
    }  # fmt: skip
    one, other = written(tmp_path, mine, theirs)
    arrays, values = initial_values(one, "jax", other).arrays, read(one).begins
    assert np.array_equal(arrays["tokens/embedding"], values["tokens.weight"])
    assert np.array_equal(arrays["dense/kernel"], values["dense.weight"].T)
    assert np.array_equal(arrays["conv/kernel"], values["conv.weight"].transpose(2, 3, 1, 0))


def test_a_layout_that_is_no_convention_is_found_by_its_shape(tmp_path):
    # As Hugging Face's Conv1D: (in, out) in PyTorch.
    one, other = written(tmp_path, {"c_fc.weight": (3, 5)}, {"c_fc/kernel": (3, 5)})
    (placed,) = initial_values(one, "jax", other).placed
    assert (placed.how, placed.by_convention, placed.by_shape) == ("", False, True)
    assert np.array_equal(placed.array, read(one).begins["c_fc.weight"])


def test_another_name_of_a_tied_weight_is_a_copy(tmp_path):
    one, other = written(
        tmp_path, {"tokens.weight": (5, 4)}, {"tokens/embedding": (5, 4), "head/kernel": (4, 5)}
    )
    facts = json.loads((one / "trace.json").read_text())
    facts["parameters"][0]["tied"] = ["head.weight"]
    (one / "trace.json").write_text(json.dumps(facts))
    found = initial_values(one, "jax", other)
    assert found.complete
    assert np.array_equal(found.arrays["head/kernel"], read(one).begins["tokens.weight"].T)
    back = initial_values(other, "pytorch", one, {"head/kernel": None})
    assert back.arrays.keys() == {"tokens.weight", "head.weight"}


def lstm(framework, prefix, biases=True):
    """The shapes of an LSTM of 3 inputs and 4 units."""
    if framework == "pytorch":
        sides = {"weight_ih": (16, 3), "weight_hh": (16, 4)}
        sides |= {"bias_ih": (16,), "bias_hh": (16,)} if biases else {}
        return {f"{prefix}.{side}_l0": shape for side, shape in sides.items()}
    if framework == "keras":
        return {
            f"{prefix}/lstm_cell/kernel": (3, 16),
            f"{prefix}/lstm_cell/recurrent_kernel": (4, 16),
            f"{prefix}/lstm_cell/bias": (16,),
        }
    shapes = {f"{prefix}/{s}{g}/kernel": (n, 4) for s, n in (("i", 3), ("h", 4)) for g in "ifgo"}
    return shapes | {f"{prefix}/h{g}/bias": (4,) for g in "ifgo"}


@pytest.mark.parametrize("target", ["keras", "jax"])
def test_the_two_biases_of_an_lstm_become_one_and_one_becomes_two(tmp_path, target):
    one, other = written(tmp_path, lstm("pytorch", "rnn"), lstm(target, "net/rnn"), target=target)
    found = initial_values(one, target, other)
    assert found.complete
    values = read(one).begins
    both = values["rnn.bias_ih_l0"] + values["rnn.bias_hh_l0"]
    name = "net/rnn/lstm_cell/bias" if target == "keras" else "net/rnn/hg/bias"
    right = both if target == "keras" else both[8:12]
    assert np.array_equal(found.arrays[name], right)
    (placed,) = [each for each in found.placed if each.name == name]
    assert "two biases added" in placed.how
    assert set(placed.sources) == {"rnn.bias_ih_l0", "rnn.bias_hh_l0"}
    back = initial_values(other, "pytorch", one).arrays
    assert not np.any(back["rnn.bias_hh_l0"] if target == "keras" else back["rnn.bias_ih_l0"])


def test_a_gru_that_resets_elsewhere_is_another_cell(tmp_path):
    torch_gru = {
        "gru.weight_ih_l0": (12, 3), "gru.weight_hh_l0": (12, 4),
        "gru.bias_ih_l0": (12,), "gru.bias_hh_l0": (12,),
    }  # fmt: skip
    keras_gru = {
        "net/gru/gru_cell/kernel": (3, 12), "net/gru/gru_cell/recurrent_kernel": (4, 12),
        "net/gru/gru_cell/bias": (12,),
    }  # fmt: skip
    found = initial_values(*[written(tmp_path, torch_gru, keras_gru, target="keras")[0], "keras",
                             tmp_path / "theirs"])  # fmt: skip
    assert set(found.left) == set(torch_gru)
    assert all("biases of its gate n cannot be one" in why for why in found.left.values())


@pytest.mark.parametrize("framework", ["pytorch", "keras", "jax"])
def test_a_cell_is_taken_apart_and_put_together(framework):
    numbers = np.random.default_rng(0)
    arrays = {n: numbers.standard_normal(s) for n, s in lstm(framework, "a").items()}
    (cell,) = cells(framework, {name: array.shape for name, array in arrays.items()})
    gates, added = fitted(taken(cell, arrays), cell)
    assert not added
    again = given(cell, gates)
    assert again.keys() == arrays.keys()
    assert all(np.array_equal(again[name], array) for name, array in arrays.items())


def test_without_a_run_of_the_other_side_its_own_layers_are_meant(tmp_path):
    mine = {
        "embed.weight": (7, 4), "blocks.0.norm.weight": (4,), "blocks.0.norm.bias": (4,),
        "blocks.0.conv.weight": (5, 4, 3, 2), "head.weight": (3, 4), "head.bias": (3,),
    }  # fmt: skip
    (one, _) = written(tmp_path, mine, {"x": (1,)})
    shapes = {
        to: {n: a.shape for n, a in initial_values(one, to).arrays.items()}
        for to in ("jax", "keras", "pytorch")
    }
    assert shapes["pytorch"] == mine
    assert shapes["jax"] == {
        "embed/embedding": (7, 4), "blocks_0/norm/scale": (4,), "blocks_0/norm/bias": (4,),
        "blocks_0/conv/kernel": (3, 2, 4, 5), "head/kernel": (4, 3), "head/bias": (3,),
    }  # fmt: skip
    assert shapes["keras"] == {
        "embed/embeddings": (7, 4), "blocks_0/norm/gamma": (4,), "blocks_0/norm/beta": (4,),
        "blocks_0/conv/kernel": (3, 2, 4, 5), "head/kernel": (4, 3), "head/bias": (3,),
    }  # fmt: skip
    named = initial_values(one, "jax", names={"head.weight": "top/kernel", "head.bias": None})
    assert named.arrays["top/kernel"].shape == (4, 3)
    assert "head/bias" not in named.arrays


@pytest.mark.parametrize(
    ("names", "to", "said"),
    [
        ({"no": "a/kernel"}, "jax", "'no': no parameter of"),
        ({"a.weight": "no"}, "jax", "'no': no parameter of"),
        ({"a.weight": 3}, "jax", "must be a JSON object"),
        ({"a.weight": "a/kernel", "b.weight": "a/kernel"}, "jax", "is named for two parameters"),
        ({"b.weight": "a/kernel"}, "jax", "cannot become a/kernel"),
        (None, "keras", "was recorded in jax, and --to says keras"),
        (None, "tf", "choose from pytorch, jax, keras"),
    ],
)
def test_what_is_wrong_is_told_in_a_line(tmp_path, names, to, said):
    one, other = written(tmp_path, {"a.weight": (2, 3), "b.weight": (2, 4)}, {"a/kernel": (3, 2)})
    with pytest.raises(TraceError, match=re.escape(said)) as told:
        initial_values(one, to, other, names)
    assert "\n" not in str(told.value)


def test_the_refusal_names_the_command_that_mends_it(tmp_path):
    written(tmp_path, {"a.weight": (2, 3), "a.bias": (2,)}, {"a/kernel": (3, 2), "a/bias": (2,)})
    (tmp_path / "mine").rename(tmp_path / "my run")
    refused = lockstep("trace", "my run", "theirs", cwd=tmp_path)
    assert refused.returncode == 2
    command = re.search(r"lockstep (trace init .*\.safetensors)", refused.stderr)[1]
    for _ in range(2):  # what it wrote before, it replaces
        done = lockstep(*shlex.split(command), cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    values = read(tmp_path / "my run").begins
    arrays = load_file(tmp_path / "initial.safetensors")
    assert np.array_equal(arrays["a/kernel"], values["a.weight"].T)
    assert "unflatten_dict(load_file('initial.safetensors')" in done.stdout
    write_trace(tmp_path / "again", arrays, "jax")
    with pytest.raises(TraceError, match="begin at different parameters"):
        compare_traces(tmp_path / "my run", tmp_path / "theirs")
    matching = compare_traces(tmp_path / "my run", tmp_path / "again").matching
    assert not matching.left


def test_the_command_lists_what_has_no_place_and_writes_nothing(tmp_path):
    written(tmp_path, {"a.weight": (2, 3), "b.weight": (2, 3)}, {"c/kernel": (3, 2)})
    call = ["trace", "init", "mine", "--to", "jax", "--like", "theirs", "--out", "o.safetensors"]
    done = lockstep(*call, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "--map" in done.stderr
    assert "a.weight: nearest: c/kernel" in done.stdout
    assert not (tmp_path / "o.safetensors").exists()
    (tmp_path / "map.json").write_text('{"a.weight": "c/kernel", "b.weight": null}')
    assert lockstep(*call, "--map", "map.json", cwd=tmp_path).returncode == 0
    assert load_file(tmp_path / "o.safetensors")["c/kernel"].shape == (3, 2)


def test_a_run_is_never_written_over_and_a_folder_may_be_called_init(tmp_path):
    mine, _ = written(tmp_path, {"a.weight": (2, 3)}, {"x": (1,)})
    for file in sorted(mine.iterdir()):
        before = file.read_bytes()
        done = lockstep("trace", "init", "mine", "--to", "jax", "--out", file, cwd=tmp_path)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
        assert file.read_bytes() == before
    mine.rename(tmp_path / "init")
    done = lockstep("trace", "./init", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("init does what its settings say")
