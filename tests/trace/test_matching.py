"""Which parameter is which: transposed, reshaped, fused, split, tied by one value, or not there."""

import re

import numpy as np
import pytest

from lockstep.record.writer import sketch
from lockstep.trace.matching import matched

SHARED = [np.random.default_rng(0)]


@pytest.fixture(autouse=True)
def reseed():
    """The numbers of a test are its own, in whatever order and process it runs."""
    SHARED[0] = np.random.default_rng(0)


def drawn(*shape):
    return SHARED[0].standard_normal(shape)


def test_transposed_and_reshaped_tensors_are_found():
    dense, conv, heads = drawn(4, 6), drawn(5, 3, 2, 2), drawn(8, 8)
    mine = {"dense.weight": dense, "conv.weight": conv, "query.weight": heads}
    theirs = {
        "a/kernel": dense.T,
        "b/kernel": conv.transpose(2, 3, 1, 0),
        "c/kernel": heads.T.reshape(8, 2, 4),
    }
    found = matched(mine, theirs).matches
    assert [found[name].others for name in mine] == [("a/kernel",), ("b/kernel",), ("c/kernel",)]
    for name, array in mine.items():
        assert np.array_equal(found[name].arranged([theirs[found[name].others[0]]]), array)
    assert [found[name].how for name in mine] == [
        "transposed",
        "transposed",
        "transposed, of shape (8, 2, 4)",
    ]


def test_the_sketch_of_a_transposed_tensor_is_arranged_too():
    dense = drawn(40, 70)
    found = matched({"w": dense}, {"k": dense.T}).matches["w"]
    assert np.array_equal(found.arranged([sketch(dense.T)], sketched=True), sketch(dense))


def test_fused_and_split_tensors_are_found_number_by_number():
    q, k, v = drawn(6, 6), drawn(6, 6), drawn(6, 6)
    gates = drawn(9, 4)
    mine = {"qkv.weight": np.concatenate([q, k, v]), "gates": gates}
    r, z, n = np.split(gates, 3)
    theirs = {"q": q.T, "k": k.T, "v": v.T, "kernel": np.concatenate([z, r, n]).T}
    found = matched(mine, theirs).matches
    assert set(found["qkv.weight"].others) == {"q", "k", "v"}
    assert found["qkv.weight"].how == "fused"
    assert found["gates"].others == ("kernel",)
    for name, array in mine.items():
        arrays = [theirs[other] for other in found[name].others]
        assert np.array_equal(found[name].arranged(arrays), array)
    split = matched(theirs, mine).matches
    assert split["q"].others == ("qkv.weight",)
    assert np.array_equal(split["q"].arranged([mine["qkv.weight"]]), q.T)


WIDTH, HEADS = 48, 4
HEAD = WIDTH // HEADS
# How libraries hold query, key and value, each of which is (width, heads, width of a head).
FUSED = {
    "GPT-2": lambda three: np.concatenate([each.reshape(len(each), -1) for each in three], axis=1),
    "PyTorch": lambda three: np.concatenate([each.reshape(len(each), -1).T for each in three]),
    "GPT-NeoX": lambda three: np.stack([each.T.swapaxes(0, 1) for each in three], axis=1).reshape(
        -1, len(three[0])
    ),
    "by gates": lambda three: np.concatenate(
        [each.reshape(len(each), -1).T for each in three[::-1]]
    ),
}


@pytest.mark.parametrize("bias", ["drawn", "equal by chance", "one value"])
@pytest.mark.parametrize("layout", FUSED)
@pytest.mark.parametrize("names", ["by module", "flat"])
def test_fused_tensors_are_found_where_numbers_are_equal_by_chance(layout, bias, names):
    """As of a million drawn numbers many are, and as a bias of zeros is."""
    numbers = [np.round(drawn(WIDTH, HEADS, HEAD) * 2**11) / 2**11 for _ in range(6)]
    assert len(np.unique(numbers)) < 0.9 * np.size(numbers)
    kinds = {"drawn": drawn(6, HEADS, HEAD), "one value": np.zeros((6, HEADS, HEAD))}
    # One bias has a number twice, and each a number of a weight.
    kinds["equal by chance"] = kinds["drawn"].copy()
    kinds["equal by chance"][:, 0, :2] = numbers[0][0, 0, :2]
    biases = list(kinds[bias])
    mine, theirs = {}, {}
    for block in (0, 1):
        own = slice(3 * block, 3 * block + 3)
        mine[f"h.{block}.c_attn.weight"] = FUSED[layout](numbers[own])
        mine[f"h.{block}.c_attn.bias"] = FUSED[layout]([each[None] for each in biases[own]]).ravel()
        for name, kernel, beside in zip("qkv", numbers[own], biases[own], strict=True):
            theirs |= {f"h_{block}/{name}/kernel": kernel, f"h_{block}/{name}/bias": beside}
    if names == "flat":
        mine, theirs = (
            {re.sub("[./]", "_", name): array for name, array in side.items()}
            for side in (mine, theirs)
        )
    for sides in ((mine, theirs), (theirs, mine)):
        found = matched(*sides)
        assert not found.left
        assert not found.other_left
        for name, match in found.matches.items():
            assert {other[2] for other in match.others} == {name[2]}, name
            # What tells numbers of one value apart is where they are.
            values = {other: drawn(*sides[1][other].shape) for other in match.others}
            counted = match.arranged([values[other] for other in match.others])
            assert counted.shape == sides[0][name].shape
            assert len(np.unique(counted)) == counted.size
            arrays = [sides[1][other] for other in match.others]
            assert np.array_equal(match.arranged(arrays), sides[0][name])
    # A bias goes where its weight does: a marked one comes out as a library would fuse it.
    marks = {name: drawn(*theirs[name].shape) for name in theirs}
    for name, match in matched(mine, theirs).matches.items():
        if name.endswith("bias"):
            block = name[2]
            line = "_" if names == "flat" else "/"
            three = [marks[f"h_{block}{line}{each}{line}bias"][None] for each in "qkv"]
            marked = match.arranged([marks[other] for other in match.others])
            assert np.array_equal(marked, FUSED[layout](three).ravel())


@pytest.mark.parametrize("seed", range(40))
def test_tensors_of_one_value_go_by_their_company_and_by_a_hint(seed):
    SHARED[0] = np.random.default_rng(seed)
    first, second = drawn(3, 4), drawn(3, 4)
    zeros = np.zeros(3)
    mine = {"a.weight": first, "a.bias": zeros, "b.weight": second, "b.bias": zeros}
    theirs = {"y/kernel": second.T, "y/bias": zeros, "x/kernel": first.T, "x/bias": zeros}
    found = matched(mine, theirs).matches
    assert found["a.bias"].others == ("x/bias",)
    assert found["b.bias"].others == ("y/bias",)
    # Norms count from 1 on one side, and from 0 on the other: only their gradients tell them apart.
    ones = {f"norm{index}.weight": np.ones(4) for index in (1, 2)}
    others = {f"LayerNorm_{index}/scale": np.ones(4) for index in (0, 1)}
    gradients = {"norm1.weight": drawn(4), "norm2.weight": drawn(4)}
    hints = {"LayerNorm_0/scale": gradients["norm1.weight"] * 2}
    hints["LayerNorm_1/scale"] = gradients["norm2.weight"] * 2
    by_hint = matched(ones, others, hints=(gradients, hints)).matches
    assert by_hint["norm1.weight"].others == ("LayerNorm_0/scale",)
    assert by_hint["norm2.weight"].others == ("LayerNorm_1/scale",)


def test_what_has_no_counterpart_is_said_with_its_nearest():
    dense = drawn(3, 4)
    found = matched(
        {"dense.weight": dense, "head.weight": drawn(5, 4)}, {"dense": dense.T, "head": drawn(4, 5)}
    )
    assert found.left == ("head.weight",)
    assert found.other_left == ("head",)
    assert found.nearest == {"head.weight": "head"}
    given = matched({"head.weight": drawn(5, 4)}, {"head": drawn(4, 5)}, {"head.weight": "head"})
    assert given.matches["head.weight"].axes == (1, 0)


def test_a_copy_is_told_from_a_tensor_of_its_own():
    embedding = drawn(5, 4)
    theirs = {"embedding": embedding, "head/kernel": embedding.T}
    assert matched({"embedding.weight": embedding}, theirs).copies == {
        "head/kernel": "embedding.weight"
    }


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_values_are_matched_as_the_coarser_of_both_holds_them(dtype):
    dense = drawn(3, 4)
    found = matched({"w": dense.astype("float32").astype("float64")}, {"k": dense.astype(dtype)})
    assert found.matches["w"].others == ("k",)


@pytest.mark.parametrize("layers", [3, 6])
def test_layers_that_are_stacked_are_found_where_they_begin_at_one_value(layers):
    """Two norms in each of them, and one behind, whose scales are ones and whose biases zeros."""
    width = 6
    drawn = np.random.default_rng(8).normal(size=(layers, width, 4))
    ones, zeros = np.ones((layers, width)), np.zeros((layers, width))
    stacked = {
        "blocks/mlp_norm/scale": ones, "blocks/mlp_norm/bias": zeros, "blocks/mlp/kernel": drawn,
        "blocks/attention_norm/scale": ones, "blocks/attention_norm/bias": zeros,
        "final_norm/scale": ones[0], "final_norm/bias": zeros[0],
    }  # fmt: skip
    apart = {"final_norm.weight": ones[0], "final_norm.bias": zeros[0]}
    for i in range(layers):
        for norm in ("attention_norm", "mlp_norm"):
            apart |= {f"blocks.{i}.{norm}.weight": ones[i], f"blocks.{i}.{norm}.bias": zeros[i]}
        apart[f"blocks.{i}.mlp.weight"] = drawn[i].T
    one, other = matched(stacked, apart), matched(apart, stacked)
    assert not {*one.left, *one.other_left, *other.left, *other.other_left}
    marks = {name: np.full(array.shape, i) for i, (name, array) in enumerate(apart.items())}
    for norm in ("mlp_norm", "attention_norm"):
        for kind, own in (("scale", "weight"), ("bias", "bias")):
            match = one.matches[f"blocks/{norm}/{kind}"]
            names = [f"blocks.{i}.{norm}.{own}" for i in range(layers)]
            assert match.others == tuple(names)
            assert np.array_equal(
                match.arranged([marks[name] for name in names]), [marks[name] for name in names]
            )
    many = {name: np.arange(array.size).reshape(array.shape) for name, array in stacked.items()}
    for i in range(layers):
        match = other.matches[f"blocks.{i}.mlp_norm.bias"]
        assert match.others == ("blocks/mlp_norm/bias",)
        assert np.array_equal(match.arranged([many[match.others[0]]]), many[match.others[0]][i])
    assert other.matches["final_norm.weight"].others == ("final_norm/scale",)


def test_biases_that_stand_in_one_tensor_are_found_where_one_of_them_begins_at_0():
    """As Keras has those of a GRU, its gates in another order."""
    units = 5
    gates = drawn(3 * units, 4)
    drawn_bias, zeros = drawn(3 * units), np.zeros(3 * units)
    turn = np.arange(3 * units).reshape(3, units)[[1, 0, 2]].ravel()
    apart = {"gru.weight": gates, "gru.bias_ih": drawn_bias, "gru.bias_hh": zeros}
    apart |= {"other.bias": zeros}
    one = {"gru/kernel": gates[turn].T, "gru/bias": np.stack([drawn_bias[turn], zeros])}
    one |= {"other/bias": zeros}
    found, back = matched(apart, one), matched(one, apart)
    assert not {*found.left, *found.other_left, *found.free}
    assert not {*back.left, *back.other_left, *back.free}
    assert found.matches["other.bias"].others == ("other/bias",)
    numbers = np.arange(6.0 * units).reshape(2, -1)
    bias = found.matches["gru.bias_hh"].arranged([numbers])
    assert np.array_equal(bias[turn], numbers[1])
    assert back.matches["gru/bias"].others == ("gru.bias_ih", "gru.bias_hh")
    halves = numbers[0][np.argsort(turn)], numbers[1][np.argsort(turn)]
    assert np.array_equal(back.matches["gru/bias"].arranged(halves), numbers)


def test_numbers_of_a_tensor_that_is_found_in_part_are_counted():
    gates = drawn(9, 4)
    found = matched({"weight": gates}, {"kernel": np.concatenate([gates, drawn(3, 4)]).T})
    assert {name: len(places) for name, places in found.free.items()} == {"kernel": 12}


@pytest.mark.parametrize("begin", ["drawn", "zeros"])
def test_two_biases_that_are_added_are_the_one_of_the_other_side(begin):
    """As PyTorch and Keras have those of an LSTM; which is seen in gradients where both are 0."""
    kernel, gradient = drawn(12, 4), drawn(12)
    one, two = np.zeros((2, 12)) if begin == "zeros" else drawn(2, 12).astype("float32")
    mine = {"lstm.weight": kernel, "lstm.bias_ih": one, "lstm.bias_hh": two, "bias": np.zeros(12)}
    theirs = {"lstm/kernel": kernel.T, "lstm/bias": one + two, "bias": np.zeros(12)}
    hints = ({"lstm.bias_ih": gradient, "lstm.bias_hh": gradient, "bias": drawn(12)}, {})
    hints[1].update({"lstm/bias": gradient, "bias": hints[0]["bias"]})
    found, back = matched(mine, theirs, hints=hints), matched(theirs, mine, hints=hints[::-1])
    both = {frozenset(names): others for names, others in found.added.items()}
    assert both == {frozenset({"lstm.bias_ih", "lstm.bias_hh"}): ("lstm/bias",)}
    assert {frozenset(names): others for names, others in back.other_added.items()} == both
    assert not {*found.other_added, *back.added}
    assert found.in_sums == back.in_sums == {"lstm.bias_ih", "lstm.bias_hh", "lstm/bias"}
    other = matched(mine, theirs | {"lstm/bias": drawn(12)}, hints=hints)
    assert not other.added
