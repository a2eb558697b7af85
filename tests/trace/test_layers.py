"""What a layer computes is found from its inputs, and told from what is like it."""

from itertools import chain, pairwise, product

import numpy as np
import pytest

from lockstep.record.writer import Writer
from lockstep.trace.forward import Module, Parting, apart, arranged, distance
from lockstep.trace.layers import ACTIVATIONS, IN_SINGLE, SCALES, Case, explained
from lockstep.trace.losses import ALL, counted, log_probabilities, loss_reason, moved, readings
from lockstep.trace.reading import read

FLOOR = {"float64": 1e-13, "float32": 3e-5}
SHIFT = np.array([0.1, -0.2, 0.3, 0.0, 0.7, 1.0])
SCALE = np.array([1.0, 0.5, 2.0, 1.5, 0.9, 1.1])


@pytest.fixture(params=["float64", "float32"])
def dtype(request):
    return request.param


@pytest.fixture
def numbers():
    return np.random.default_rng(0)


def case(kind, module, got, before=(), missing=(), own=None, dtype="float64"):
    """A case whose numbers were computed in a type."""
    rounded = tuple(array.astype(dtype).astype(float) for array in got)
    parting = Parting(kind, module, tuple(before), tuple(missing), tuple(before), rounded)
    name = (missing or (module,))[0].name
    return Case(parting, {name: own or {}}, FLOOR[dtype])


def test_every_two_activations_are_told_apart(numbers, dtype):
    x = 2 * numbers.standard_normal((40, 6))
    source = Module("dense", (x,), (x,))
    target = Module("next", (), ())
    told = 0
    for right, f in ACTIVATIONS.items():
        for wrong, g in ACTIVATIONS.items():
            reason = explained(case("between", target, (f(x), g(x)), [source], dtype=dtype))
            if right == wrong:
                assert reason is None or reason.name == "scaled"
                continue
            gelus = right.startswith("GELU") and wrong.startswith("GELU")
            assert reason.name == ("gelu" if gelus else "activation")
            assert f"it has {wrong}, and {right} is right" in reason.said
            told += 1
    assert told == len(ACTIVATIONS) * (len(ACTIVATIONS) - 1)


def test_an_activation_with_constants_in_float32_is_known(numbers):
    """TensorFlow's are, in float64 too."""
    x = 2 * numbers.standard_normal((40, 6))
    source, target = Module("dense", (x,), (x,)), Module("next", (), ())
    for right, f in ACTIVATIONS.items():
        for wrong, g in IN_SINGLE.items():
            assert distance(ACTIVATIONS[wrong](x), g(x)) > FLOOR["float64"]
            reason = explained(case("between", target, (f(x), g(x)), [source]))
            assert (reason is None) == (right == wrong)
            assert reason is None or f"it has {wrong}, and {right} is right" in reason.said


def test_a_mask_is_not_held_against_the_values_that_another_side_passes_twice(numbers):
    x, other = numbers.standard_normal((2, 3, 8, 8))
    mask = np.tri(8)[None, None].repeat(3, 0)
    assert apart((x, mask), (x, x), 1e-12) is None
    assert apart((x, x), (x, mask), 1e-12) is None
    assert apart((x, mask), (x, 0 * mask), 1e-12) is not None
    assert apart((x, mask), (other, other), 1e-12) is not None


@pytest.mark.parametrize("residual", [False, True])
def test_dropout_is_known_by_what_it_leaves(numbers, dtype, residual):
    x, y = numbers.standard_normal((2, 30, 6))
    dropped = np.where(numbers.random(y.shape) < 0.25, 0, y / 0.75)
    source = Module("block", (), (x,))
    added = x if residual else 0 * x
    got = (added + y, added + dropped)
    reason = explained(case("between", Module("next", (), ()), got, [source], dtype=dtype))
    assert reason == ("dropout-on", "dropout of 0.25 acts in it alone")


def norm(x, over, epsilon, axis=-1, centred=True):
    shape = [6 if each == axis % x.ndim else 1 for each in range(x.ndim)]
    centre = x.mean(over, keepdims=True) if centred else 0
    made = (x - centre) / np.sqrt(((x - centre) ** 2).mean(over, keepdims=True) + epsilon)
    return made * SCALE.reshape(shape) + SHIFT.reshape(shape)


NORMS = {"weight": SCALE, "bias": SHIFT}


@pytest.mark.parametrize(
    ("kind", "shape", "over", "axis", "centred"),
    [
        ("layernorm", (5, 4, 6), (2,), 2, True),
        ("rmsnorm", (5, 4, 6), (2,), 2, False),
        ("batchnorm", (5, 6, 3, 3), (0, 2, 3), 1, True),
        ("batchnorm", (5, 3, 3, 6), (0, 1, 2), 3, True),
    ],
)
@pytest.mark.parametrize("epsilons", [(1e-5, 1e-3), (1e-3, 1e-5), (1e-6, 1e-5)])
def test_an_epsilon_is_read_off(numbers, dtype, kind, shape, over, axis, centred, epsilons):
    if dtype == "float32" and epsilons[0] == 1e-6:
        pytest.skip("1e-5 beside a variance of 1 is what float32 sums round")
    x = numbers.standard_normal(shape)
    got = [norm(x, over, epsilon, axis, centred) for epsilon in epsilons]
    reason = explained(case("inside", Module("norm", (x,), ()), got, own=NORMS, dtype=dtype))
    assert reason.name == f"{kind}-epsilon"
    assert f"{epsilons[1]:.2g}, and {epsilons[0]:.2g} is right" in reason.said


def test_running_statistics_are_told_from_the_batchs(numbers, dtype):
    x = numbers.standard_normal((5, 6, 3, 3))
    right = norm(x, (0, 2, 3), 1e-5, 1)
    shape = (1, 6, 1, 1)
    running = (x - 0.1) / np.sqrt(1.3 + 1e-5) * SCALE.reshape(shape) + SHIFT.reshape(shape)
    module = Module("norm", (x,), ())
    reason = explained(case("inside", module, (right, running), own=NORMS, dtype=dtype))
    assert reason.name == "batchnorm-eval"
    other = norm(x, (1,), 1e-5, 1)
    reason = explained(case("inside", module, (right, other), own=NORMS, dtype=dtype))
    assert reason == ("another norm", "it is a layernorm, and batchnorm is right")


@pytest.mark.parametrize("layout", ["in, out", "out, in", "in, heads, width"])
def test_a_turned_kernel_and_a_missing_bias_are_told(numbers, dtype, layout):
    kernel, x = numbers.standard_normal((6, 6)), numbers.standard_normal((4, 3, 6))
    right, wrong, without = x @ kernel + SHIFT, x @ kernel.T + SHIFT, x @ kernel
    stored = {"in, out": kernel, "out, in": kernel.T, "in, heads, width": kernel.reshape(6, 2, 3)}
    bias = SHIFT.reshape(2, 3) if layout == "in, heads, width" else SHIFT
    own = {"kernel": stored[layout], "bias": bias}
    module = Module("dense", (x,), (right,))
    reason = explained(case("inside", module, (right, wrong), own=own, dtype=dtype))
    assert reason == ("transposed-kernel", "the kernel of dense is transposed")
    reason = explained(case("inside", module, (right, without), own=own, dtype=dtype))
    assert reason == ("missing-bias", "it leaves the bias of dense out")
    # The other run calls no such module; what follows has an activation before it.
    after = [ACTIVATIONS["GELU"](array) for array in (right, wrong)]
    target = Module("next", (), ())
    reason = explained(case("between", target, after, missing=[module], own=own, dtype=dtype))
    assert reason == ("transposed-kernel", "the kernel of dense is transposed")


def test_arrays_whose_axes_are_of_one_length_are_arranged_as_well(numbers):
    """Channels stand last in JAX and Keras, and there may be as many of them as of rows."""
    here = numbers.standard_normal((3, 5, 5, 5))
    assert np.array_equal(arranged(here, np.moveaxis(here, 1, -1)), here)
    assert np.array_equal(arranged(here, here), here)


@pytest.mark.parametrize(
    ("groups", "epsilon", "name"),
    [(4, 1e-3, "groupnorm-epsilon"), (2, 1e-5, "another norm"), (8, 1e-5, "another norm")],
)
@pytest.mark.parametrize("last", [False, True], ids=["channels first", "channels last"])
def test_groups_of_channels_are_normalised_again(numbers, dtype, groups, epsilon, name, last):
    x = 0.3 * numbers.standard_normal((3, 8, 5, 4))
    scale, shift = numbers.standard_normal((2, 8, 1, 1))

    def norm(groups, epsilon):
        parts = x.reshape(3, groups, -1)
        centred = parts - parts.mean(2, keepdims=True)
        normal = centred / np.sqrt((centred**2).mean(2, keepdims=True) + epsilon)
        return normal.reshape(x.shape) * scale + shift

    arrays = [x, norm(4, 1e-5), norm(groups, epsilon)]
    x, *got = (np.moveaxis(each, 1, -1) if last else each for each in arrays)
    own = {"weight": scale.ravel(), "bias": shift.ravel()}
    module = Module("norm", (x,), (got[0],))
    for each in (got, got[::-1]):
        assert explained(case("inside", module, each, own=own, dtype=dtype)).name == name


def test_a_convolution_is_no_product(numbers):
    """Also where the sizes of its arrays are those of one."""
    x, here, there = numbers.standard_normal((3, 2, 18, 7))
    module = Module("conv", (x,), (here,))
    own = {"kernel": numbers.standard_normal((3, 3, 7))}
    assert explained(case("inside", module, (here, there), own=own)) is None


def attention(q, k, v, heads, scale, causal, keys=True):
    time, width = q.shape[-2:]
    split = [each.reshape(-1, time, heads, width // heads).swapaxes(1, 2) for each in (q, k, v)]
    scores = split[0] @ split[1].swapaxes(2, 3) * SCALES[scale](width // heads, heads)
    if causal:
        scores = np.where(np.tri(time, dtype=bool), scores, -np.inf)
    scores = np.where(keys, scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return (weights / weights.sum(-1, keepdims=True) @ split[2]).swapaxes(1, 2).reshape(q.shape)


HEAD = "1 / sqrt(width of a head)"


@pytest.mark.parametrize(
    "wrong",
    [
        ("attention-scale", (2, "1", True)),
        ("attention-scale", (2, "1 / sqrt(width of all heads)", True)),
        ("attention-mask", (2, HEAD, False)),
        ("attention-heads", (4, HEAD, True)),
    ],
)
@pytest.mark.parametrize("padded", [0, 2], ids=["whole", "padded"])
@pytest.mark.parametrize("fused", [False, True], ids=["apart", "fused"])
def test_attention_is_done_again(numbers, dtype, wrong, fused, padded):
    """Of three layers, or one; where examples end with padding that nothing attends to, too."""
    q, k, v, other = numbers.standard_normal((4, 3, 7, 8))
    keys = np.arange(7) < 7 - padded
    got = [attention(q, k, v, *form, keys) for form in ((2, HEAD, True), wrong[1])]
    made = {"qkv": np.concatenate([q, k, v], axis=-1)} if fused else {"q": q, "k": k, "v": v}
    modules = [Module(name, (), (array,)) for name, array in {"other": other, **made}.items()]
    for each in (got, got[::-1]):
        reason = explained(case("between", Module("out", (), ()), each, modules, dtype=dtype))
        assert reason.name == wrong[0]


def test_what_is_of_no_known_form_has_no_name(numbers, dtype):
    x, here, there = numbers.standard_normal((3, 7, 6))
    source = Module("dense", (x,), (x,))
    for kind in ("between", "inside"):
        own = {"kernel": numbers.standard_normal((6, 6)), "bias": SHIFT}
        found = case(kind, source, (here, there), [source], own=own, dtype=dtype)
        assert explained(found) is None
    reason = explained(case("inside", source, (here, 1.5 * here), own={}, dtype=dtype))
    assert reason == ("scaled", "it has 1.5 times what is right")


@pytest.mark.parametrize("places", [1, -1, 2])
@pytest.mark.parametrize("flat", [False, True])
def test_targets_that_were_moved(numbers, places, flat):
    here = numbers.integers(1, 9, (6, 12))
    there = np.roll(here, -places, 1)
    there[:, slice(-places, None) if places > 0 else slice(-places)] = 0
    if flat:
        here, there = here.ravel(), there.ravel()
    assert moved(here, there) == places
    assert moved(here, numbers.integers(1, 9, here.shape)) is None


def cross_entropies(logits, target):
    """The cross entropy of each row of logits with its target."""
    return np.log(np.exp(logits).sum(1)) - logits[np.arange(len(target)), target]


def best(logits, target, *loss):
    """What a loss is likely to be of."""
    sums = readings(log_probabilities(logits), target)
    return next((found for _, found in counted(sums, *loss)), None)


def test_what_counts_is_read_off_a_loss(numbers):
    logits = numbers.standard_normal((6, 5, 9))
    target = numbers.integers(1, 9, (6, 5))
    target[:, 3:] = 0
    losses = cross_entropies(logits.reshape(30, 9), target.ravel())
    kept = target.ravel() != 0
    mean, all_mean = float(losses[kept].mean()), float(losses.mean())
    assert best(logits, target, all_mean, 1) == (0, ALL)
    assert best(logits, target, mean, 1) == (0, 0)
    assert best(logits, target, float(losses[kept].sum() / 71), 1) == (0, 0)
    # What follows divides by four micro-batches.
    assert best(logits, target, float(losses[kept].sum() / 71 * 4), 4) == (0, 0)
    assert best(logits, target, float(losses[kept].sum() / 71 * 4), 1) is None
    assert best(logits, target, mean * 1.00123, 4) is None
    assert best(logits, np.where(target == 0, -100, target), mean, 1) == (0, -100)


@pytest.mark.parametrize("ahead", [2, 1, -1])
def test_a_loss_tells_by_how_many_places_tokens_are_its_targets(ahead, numbers):
    """In a model of language the data are the targets, and no array of their own shows a shift."""
    logits, tokens = numbers.standard_normal((4, 12, 20)), numbers.integers(1, 20, (4, 12))
    tokens[:, 9:] = 0
    here, there = (
        slice(max(-ahead, 0), min(12 - ahead, 12)),
        slice(max(ahead, 0), 12 + min(ahead, 0)),
    )
    rows, targets = logits[:, here].reshape(-1, 20), tokens[:, there].ravel()
    losses = cross_entropies(rows, targets)
    assert best(logits, tokens, float(losses.mean()), 1) == (ahead, ALL)
    assert best(logits, tokens, float(losses[targets != 0].sum() / 57), 1) == (ahead, 0)
    if ahead == 1:
        assert best(logits, tokens[:, 1:], float(losses.mean()), 1) == (1, ALL)
        same = cross_entropies(logits[:, 1:].reshape(-1, 20), tokens[:, 1:].ravel())
        assert best(logits, tokens[:, 1:], float(same.mean()), 1) == (0, ALL)


@pytest.mark.parametrize("outputs", [np.float64(2.0), np.ones(3), np.ones((0, 4)), np.ones((2, 0))])
def test_outputs_that_are_no_logits_say_nothing_of_a_loss(outputs, tmp_path):
    """As where a model returns its loss first."""
    writer = Writer(tmp_path / "run", "jax")
    writer.run({"parameters": [{"name": "w", "shape": [2]}]})
    arrays = {"before|w": np.ones(2), "data.0|0": np.arange(3), "data.0|1": np.zeros(0, int)}
    writer.update(1, arrays, {"micro_batches": [{"loss": 2.0}]})
    update = read(tmp_path / "run").updates[0]
    assert loss_reason(update, update, np.asarray(outputs)) is None


@pytest.mark.parametrize("places", [(9,), (8, 7), (4, 5, 6)], ids=len)
@pytest.mark.parametrize(("groups", "last"), [(1, False), (2, True)])
def test_the_windows_of_a_convolution_are_found(numbers, dtype, places, groups, last):
    torch = pytest.importorskip("torch")
    layer = [torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.Conv3d][len(places) - 1](
        4, 6, 3, stride=2, groups=groups, dtype=torch.float64
    )
    x = torch.tensor(numbers.standard_normal((2, 4, *places)))
    own = {"weight": layer.weight.detach().numpy(), "bias": layer.bias.detach().numpy()}
    forms = {}
    for begin, end in product(range(3), repeat=2):
        for mode in ("constant", "reflect", "replicate"):
            padded = torch.nn.functional.pad(x, (begin, end) * len(places), mode)
            if begin + end:
                made = layer(padded).detach().numpy()
                forms.setdefault(made.shape, []).append((begin, mode, made))
    x, kernel = x.numpy(), own["weight"]
    if last:  # as in Keras and JAX
        x = np.moveaxis(x, 1, -1)
        own["weight"] = np.moveaxis(kernel, (0, 1), (-1, -2))
    told = 0
    for (begin, mode, here), (other, wrong, there) in chain.from_iterable(
        map(pairwise, forms.values())
    ):
        got = tuple(np.moveaxis(each, 1, -1) if last else each for each in (here, there))
        reason = explained(case("inside", Module("conv", (x,), ()), got, own=own, dtype=dtype))
        if distance(here, there) < FLOOR[dtype]:
            assert reason is None or reason.name == "scaled"
            continue
        told += 1
        assert reason.name == "convolution-padding"
        places_of = [(each,) * len(places) for each in (other, begin)]
        if mode == wrong:
            assert "begins {} ahead of its input instead of {}".format(*places_of) in reason.said
        elif begin == other:
            assert "it pads its input with" in reason.said
    assert told > 10


def test_layers_of_an_ensemble_in_one_tensor_are_no_convolution(numbers):
    """(ensemble, in, out), with a bias of each."""
    kernel, bias = numbers.standard_normal((3, 6, 4)), numbers.standard_normal((3, 1, 4))
    x = numbers.standard_normal((3, 7, 6))
    made = x @ kernel + bias
    own = {"weight": kernel, "bias": bias}
    assert (
        explained(case("inside", Module("critics", (x,), ()), (made, np.tanh(made)), own=own))
        is None
    )
