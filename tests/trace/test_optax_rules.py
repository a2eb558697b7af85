"""Rules of PyTorch against those of optax, by their names: what is one rule, and what is not."""

from functools import partial
from itertools import product

import numpy as np
import pytest

from lockstep import record
from lockstep.trace import check_trace, compare_traces

torch = pytest.importorskip("torch")
jax = pytest.importorskip("jax")
optax = pytest.importorskip("optax")

K, UPDATES, SHAPES = 2, 5, {"inner": (7, 5), "outer": (3, 7)}
NUMBERS = np.random.default_rng(3)
START = {name: NUMBERS.normal(size=shape).astype("float32") / 3 for name, shape in SHAPES.items()}
DATA = NUMBERS.normal(size=(K * UPDATES, 4, 5)).astype("float32")


def in_pytorch(folder, make, max_norm=None, clip=None, windows=1, frozen=(), each=False) -> None:
    model = torch.nn.ParameterDict({n: torch.nn.Parameter(torch.tensor(START[n])) for n in START})
    for name in frozen:
        model[name].requires_grad = False
    optimizer = make(model.parameters())
    recorder = record.torch(folder, model, optimizer)
    for number, x in enumerate(DATA):
        hidden = torch.tanh(torch.tensor(x) @ model["inner"].T)
        ((hidden @ model["outer"].T - 1).square().mean() / K).backward()
        if number % K == K - 1 or each:
            if max_norm is not None:
                torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm)
            if clip is not None:
                clip(model)
        if number % K == K - 1:
            optimizer.step()
        if number % (K * windows) == K * windows - 1:
            optimizer.zero_grad()
    recorder.close()


@partial(jax.jit, static_argnames="stopped")
def gradient_of(parameters, x, stopped):
    def loss(parameters):
        inner = parameters["inner"]
        hidden = jax.numpy.tanh(x @ (jax.lax.stop_gradient(inner) if stopped else inner).T)
        return jax.numpy.square(hidden @ parameters["outer"].T - 1).mean()

    return jax.grad(loss)(parameters)


def in_jax(folder, optimizer, each=None, stopped=False) -> None:
    """Each: what each gradient goes through; stopped: whether the inner layer gets none."""
    parameters = {name: jax.numpy.array(value) for name, value in START.items()}
    recorder = record.jax(folder)
    if not hasattr(optimizer, "init"):
        optimizer = optimizer(recorder)
    optimizer = recorder.wrap(optax.MultiSteps(optimizer, K))
    gradient = recorder.gradient(partial(gradient_of, stopped=stopped))
    state = optimizer.init(parameters)
    # MultiSteps holds a condition, which is compiled anew at each eager call.
    update = jax.jit(optimizer.update)
    for x in DATA:
        found = gradient(parameters, x)
        if each is not None:
            found, _ = each.update(found, each.init(parameters))
        changes, state = update(found, state, parameters)
        parameters = optax.apply_updates(parameters, changes)
    recorder.close()


def torch_rule(name: str, rate: float, **settings: object):
    return partial(getattr(torch.optim, name), lr=rate, **settings)


RATE, SLOW = 1e-2, 1e-3
BY_TENSOR = {
    "inner": optax.sgd(RATE),
    "outer": optax.sgd(SLOW),
}
SAME = {
    "sgd": (torch_rule("SGD", RATE), optax.sgd(RATE)),
    "nesterov": (
        torch_rule("SGD", RATE, momentum=0.9, nesterov=True),
        optax.sgd(RATE, 0.9, nesterov=True),
    ),
    "rmsprop": (
        torch_rule("RMSprop", RATE, alpha=0.9, eps=1e-8),
        optax.rmsprop(RATE, 0.9, eps_in_sqrt=False),
    ),
    "adagrad": (
        torch_rule("Adagrad", RATE, initial_accumulator_value=0.1, eps=1e-7),
        optax.adagrad(RATE),
    ),
    "adadelta": (torch_rule("Adadelta", 1.0), optax.adadelta(1.0, 0.9, 1e-6)),
    "adam": (torch_rule("Adam", RATE), optax.adam(RATE)),
    "adamax": (torch_rule("Adamax", RATE), optax.adamax(RATE)),
    "rmsprop's momentum": (
        torch_rule("RMSprop", RATE, alpha=0.9, eps=1e-8, momentum=0.9),
        optax.rmsprop(RATE, 0.9, eps_in_sqrt=False, momentum=0.9),
    ),
    "centred": (
        torch_rule("RMSprop", RATE, alpha=0.9, eps=1e-8, centered=True),
        optax.rmsprop(RATE, 0.9, eps_in_sqrt=False, centered=True),
    ),
}
OTHERS = {
    "maximize": (torch_rule("SGD", RATE, maximize=True), optax.sgd(RATE), "sign-flipped"),
    "no nesterov": (SAME["nesterov"][0], optax.sgd(RATE, 0.9), "nesterov-ignored"),
    "nesterov": (torch_rule("SGD", RATE, momentum=0.9), SAME["nesterov"][1], "another nesterov"),
    "dampening": (
        torch_rule("SGD", RATE, momentum=0.9, dampening=0.5),
        optax.sgd(RATE, 0.9),
        "another gain of momentum_buffer",
    ),
    "eps": (
        torch_rule("RMSprop", RATE, alpha=0.9, eps=1e-8),
        optax.rmsprop(RATE, 0.9),
        "rmsprop-variant",
    ),
    "start": (torch_rule("Adagrad", RATE, eps=1e-7), optax.adagrad(RATE), "another initial state"),
    "amsgrad": (
        torch_rule("Adam", RATE, amsgrad=True),
        optax.amsgrad(RATE),
        "amsgrad-variant",
    ),
    "layers": (
        torch_rule("AdamW", RATE, weight_decay=0.0),
        optax.lamb(RATE),
        "other rates by tensor",
    ),
    "lars": (
        torch_rule("SGD", RATE, momentum=0.9),
        optax.lars(RATE, momentum=0.9),
        "other rates by tensor",
    ),
    "no momentum": (torch_rule("SGD", RATE, momentum=0.9), optax.sgd(RATE), "another momentum"),
    "momentum": (torch_rule("SGD", RATE), optax.sgd(RATE, 0.9), "another momentum"),
    "rmsprop's momentum": (
        torch_rule("RMSprop", RATE, alpha=0.9, eps=1e-8, momentum=0.9),
        SAME["rmsprop"][1],
        "another momentum",
    ),
    "centred": (SAME["centred"][0], SAME["rmsprop"][1], "another centered"),
    "a moment": (torch_rule("Adam", RATE), optax.adamax(RATE), "another rule"),
    "no state": (torch_rule("Adam", RATE), optax.sgd(RATE), "another rule"),
    "no average": (torch_rule("RMSprop", RATE), optax.adagrad(RATE), "another rule"),
    "decay": (
        torch_rule("Adam", RATE, weight_decay=0.1),
        optax.adamw(RATE, weight_decay=0.1),
        "l2-vs-decoupled",
    ),
    "rates": (
        torch_rule("SGD", RATE),
        optax.multi_transform(BY_TENSOR, dict(zip(BY_TENSOR, BY_TENSOR, strict=True))),
        "other rates by tensor",
    ),
}


@pytest.mark.parametrize("name", SAME)
def test_what_is_one_rule_is_the_same(tmp_path, name) -> None:
    first, second = SAME[name]
    in_pytorch(tmp_path / "a", first)
    in_jax(tmp_path / "b", second)
    found = compare_traces(tmp_path / "a", tmp_path / "b")
    assert (found.verdict, found.names, found.left) == ("same", (), [])
    assert found.compared == UPDATES * (7 * 5 + 3 * 7)


@pytest.mark.slow
def test_no_rule_is_another_one(tmp_path) -> None:
    for name, (first, second) in SAME.items():
        in_pytorch(tmp_path / "pytorch" / name, first)
        in_jax(tmp_path / "jax" / name, second)
    for name, other in product(SAME, SAME):
        runs = tmp_path / "pytorch" / name, tmp_path / "jax" / other
        for pair in (runs, runs[::-1]):
            found = compare_traces(*pair)
            assert (found.verdict == "same") == (name == other), pair
            assert found.names or name == other, pair


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_another_rule_differs(tmp_path, name) -> None:
    first, second, said = OTHERS[name]
    in_pytorch(tmp_path / "a", first)
    in_jax(tmp_path / "b", second)
    found = compare_traces(tmp_path / "a", tmp_path / "b")
    assert found.verdict == "differs"
    assert found.names == (said,)


CLIPPED = {
    **{name: SAME[name] for name in ("sgd", "nesterov", "rmsprop", "adagrad", "adadelta")},
    "adamw": (torch_rule("AdamW", RATE, weight_decay=0.1), optax.adamw(RATE, weight_decay=0.1)),
}


@pytest.mark.parametrize("norm", [0.2, 0.1, None])
@pytest.mark.parametrize("name", CLIPPED)
def test_a_clip_that_is_not_shown_is_read_off_the_updates(tmp_path, name, norm) -> None:
    first, second = CLIPPED[name]
    in_pytorch(tmp_path / "a", first, max_norm=0.2)
    clip = optax.identity() if norm is None else optax.clip_by_global_norm(norm)
    in_jax(tmp_path / "b", optax.chain(clip, second))
    found = compare_traces(tmp_path / "a", tmp_path / "b")
    assert found.names == {0.2: (), 0.1: ("clips to 0.1",), None: ("clip-ignored",)}[norm]
    assert found.verdict == ("same" if norm == 0.2 else "differs")
    turned = compare_traces(tmp_path / "b", tmp_path / "a")
    assert turned.names == {0.2: (), 0.1: ("clips to 0.2",), None: ("clips",)}[norm]


@pytest.mark.parametrize(
    ("name", "value"), [*((name, 0.02) for name in CLIPPED), ("sgd", 0.03), ("adamw", 0.03)]
)
def test_a_clip_by_value_that_is_not_shown_is_read_off_the_first_update(
    tmp_path, name, value
) -> None:
    first, second = CLIPPED[name]
    in_pytorch(tmp_path / "a", first, clip=by_value)
    in_jax(tmp_path / "b", optax.chain(optax.clip(value), second))
    found = compare_traces(tmp_path / "a", tmp_path / "b")
    assert (found.names, found.left) == (() if value == 0.02 else ("clips to 0.03",), [])
    turned = compare_traces(tmp_path / "b", tmp_path / "a")
    assert (turned.names, turned.left) == (() if value == 0.02 else ("clips to 0.02",), [])
    itself = compare_traces(tmp_path / "b", tmp_path / "b")
    assert (itself.verdict, itself.left) == ("same", [])


@pytest.mark.parametrize("name", ["sgd", "adagrad", "adamw"])
def test_a_clip_by_value_of_nearly_all_numbers_is_what_the_other_run_shows(tmp_path, name) -> None:
    first, second = CLIPPED[name]
    in_pytorch(tmp_path / "a", first, clip=partial(by_value, limit=0.001))
    in_jax(tmp_path / "b", optax.chain(optax.clip(0.001), second))
    for runs in ("ab", "ba"):
        found = compare_traces(*(tmp_path / run for run in runs))
        assert (found.verdict, found.left) == ("same", [])


@pytest.mark.parametrize("name", ["adam", "sgd"])
def test_updates_that_are_added_outside_of_what_is_compiled_change_nothing_else(name, tmp_path):
    """What the recorder adds up inside may be rounded once less than the loop's own sum."""
    for_torch, for_optax = SAME[name]
    in_pytorch(tmp_path / "a", for_torch)
    in_jax(tmp_path / "b", for_optax)
    for port in ("a", "b"):
        assert compare_traces(tmp_path / "b", tmp_path / port).verdict == "same"
        assert compare_traces(tmp_path / port, tmp_path / "b").verdict == "same"
    assert check_trace(tmp_path / "b").verdict == "same"


def test_a_maximum_that_never_acts_is_no_difference(tmp_path) -> None:
    in_pytorch(tmp_path / "a", torch_rule("Adam", RATE, betas=(0.9, 1 - 1e-9), amsgrad=True))
    in_pytorch(tmp_path / "b", torch_rule("Adam", RATE, betas=(0.9, 1 - 1e-9)))
    found = compare_traces(tmp_path / "a", tmp_path / "b")
    assert (found.verdict, found.names) == ("same", ())
    assert any("AMSGrad, which one run has, never acted" in note for note in found.notes)


def by_value(model, limit=0.02) -> None:
    torch.nn.utils.clip_grad_value_(model.parameters(), limit)


def each_alone(model) -> None:
    for parameter in model.parameters():
        torch.nn.utils.clip_grad_norm_(parameter, 0.02)


def clipping(clip):
    return lambda recorder: optax.chain(recorder.clipped(clip), optax.sgd(RATE))


def decaying(rule, *before):
    return optax.chain(*before, optax.add_decayed_weights(0.1), rule)


def warming_up(parameters):
    optimizer = torch.optim.SGD(parameters, RATE)

    def warmer(optimizer, *_) -> None:
        optimizer.param_groups[0]["lr"] += RATE

    optimizer.register_step_post_hook(warmer)
    return optimizer


def in_groups(parameters):
    inner, outer = parameters
    return torch.optim.Adam([{"params": [inner], "betas": (0.8, 0.99)}, {"params": [outer]}], RATE)


GROUPS = {"inner": optax.adam(RATE, 0.8, 0.99), "outer": optax.adam(RATE)}
TRAINED = {"train": optax.adam(RATE), "keep": optax.set_to_zero()}
L2 = {"alpha": 0.9, "weight_decay": 0.1}
FROM = {"initial_accumulator_value": 0.1, "eps": 1e-7, "weight_decay": 0.1}
NESTEROV = {"momentum": 0.9, "nesterov": True}
ADAMW, ADAM = torch_rule("AdamW", RATE, weight_decay=0.1), torch_rule("Adam", RATE)
SGD, RMSPROP = torch_rule("SGD", RATE), optax.rmsprop(RATE, 0.9, eps_in_sqrt=False)
NORM, VALUE = optax.clip_by_global_norm(0.02), optax.clip(0.02)
LATE_CLIP = optax.chain(optax.add_decayed_weights(0.1), optax.clip_by_global_norm(0.2))
# A run in PyTorch, one in JAX, and what the second does otherwise, and the first beside it.
PORTS = {
    "by value": ({"make": SGD, "clip": by_value}, clipping(VALUE), (), ()),
    "value, not norm": (
        {"make": SGD, "max_norm": 0.02},
        clipping(VALUE),
        ("clip-by-value",),
        ("without clip-by-value",),
    ),
    "norm of all, not each": (
        {"make": SGD, "clip": each_alone},
        clipping(NORM),
        ("without clip-per-tensor",),
        ("clip-per-tensor",),
    ),
    "two windows": (
        {"make": SGD, "windows": 2},
        optax.sgd(RATE),
        ("without missing-zero-grad",),
        ("missing-zero-grad",),
    ),
    "rmsprop decays": ({"make": torch_rule("RMSprop", RATE, **L2)}, decaying(RMSPROP), (), ()),
    "rmsprop clips and decays": (
        {"make": torch_rule("RMSprop", RATE, **L2), "max_norm": 0.2},
        decaying(RMSPROP, optax.clip_by_global_norm(0.2)),
        (),
        (),
    ),
    "nesterov clips and decays": (
        {"make": torch_rule("SGD", RATE, **NESTEROV, weight_decay=0.1), "max_norm": 0.2},
        decaying(optax.sgd(RATE, **NESTEROV), optax.clip_by_global_norm(0.2)),
        (),
        (),
    ),
    "adam clips and decays": (
        {"make": torch_rule("Adam", RATE, weight_decay=0.1), "max_norm": 0.2},
        decaying(optax.adam(RATE), optax.clip_by_global_norm(0.2)),
        (),
        (),
    ),
    "decay before the clip": (
        {"make": torch_rule("SGD", RATE, momentum=0.9, weight_decay=0.1), "max_norm": 0.2},
        optax.chain(LATE_CLIP, optax.sgd(RATE, 0.9)),
        ("decay-before-clip",),
        ("without decay-before-clip",),
    ),
    "decay before the clip, squared": (
        {"make": torch_rule("Adam", RATE, weight_decay=0.1), "max_norm": 0.2},
        optax.chain(LATE_CLIP, optax.adam(RATE)),
        ("decay-before-clip",),
        ("without decay-before-clip",),
    ),
    "the update is clipped": (
        {"make": ADAMW, "max_norm": 0.2},
        optax.chain(optax.adamw(RATE, weight_decay=0.1), NORM),
        ("clip-ignored", "update-clipped"),
        ("clips", "without update-clipped"),
    ),
    "from no rate at all": (
        {"make": warming_up},
        optax.sgd(lambda count: RATE * count),
        ("sched-off-by-one",),
        ("sched-off-by-one",),
    ),
    "adagrad decays": (
        {"make": torch_rule("Adagrad", RATE, **FROM)},
        decaying(optax.adagrad(RATE)),
        (),
        (),
    ),
    "betas by group": (
        {"make": in_groups},
        optax.multi_transform(GROUPS, dict(zip(GROUPS, GROUPS, strict=True))),
        (),
        (),
    ),
    "betas of one group": (
        {"make": in_groups},
        optax.adam(RATE),
        ("another beta1", "another beta2"),
        ("another beta1", "another beta2"),
    ),
    "coarse moment": (
        {"make": ADAM},
        optax.adam(RATE, mu_dtype="bfloat16"),
        ("another dtype",),
        ("another dtype",),
    ),
    "frozen in one": (
        {"make": ADAM},
        optax.multi_transform(TRAINED, {"inner": "keep", "outer": "train"}),
        ("params-not-in-optimizer",),
        ("without params-not-in-optimizer",),
    ),
    "frozen in both": (
        {"make": ADAM, "frozen": ["inner"]},
        optax.multi_transform(TRAINED, {"inner": "keep", "outer": "train"}),
        (),
        (),
    ),
    "clipped without what is frozen": (
        {"make": ADAM, "frozen": ["inner"], "max_norm": 0.2},
        optax.multi_transform(
            TRAINED | {"train": optax.chain(optax.clip_by_global_norm(0.2), TRAINED["train"])},
            {"inner": "keep", "outer": "train"},
        ),
        (),
        (),
    ),
    "clipped with what is frozen": (
        {"make": ADAM, "frozen": ["inner"], "max_norm": 0.2},
        optax.chain(
            optax.clip_by_global_norm(0.2),
            optax.multi_transform(TRAINED, {"inner": "keep", "outer": "train"}),
        ),
        ("clip-counts-frozen",),
        ("without clip-counts-frozen",),
    ),
    "decay without rate": (
        {"make": ADAMW},
        optax.chain(optax.adam(RATE), optax.add_decayed_weights(-0.1)),
        ("wd-not-times-lr",),
        ("without wd-not-times-lr",),
    ),
}


@pytest.mark.parametrize("name", PORTS)
def test_a_port_is_told_from_its_model_in_both_directions(tmp_path, name) -> None:
    first, second, there, back = PORTS[name]
    in_pytorch(tmp_path / "a", **first)
    in_jax(tmp_path / "b", second)
    for runs, named in (("ab", there), ("ba", back)):
        found = compare_traces(*(tmp_path / run for run in runs))
        assert (found.names, found.left) == (named, [])
        assert found.verdict == ("differs" if named else "same")
        assert found.compared == UPDATES * (7 * 5 + 3 * 7)


def test_the_decay_of_a_tensor_without_a_gradient_is_no_other_one(tmp_path) -> None:
    """It goes into a gradient of zeros, as it goes into another one."""
    in_pytorch(tmp_path / "a", torch_rule("SGD", RATE, **NESTEROV, weight_decay=0.1))
    in_jax(tmp_path / "b", decaying(optax.sgd(RATE, **NESTEROV)), stopped=True)
    for runs in ("ab", "ba"):
        found = compare_traces(*(tmp_path / run for run in runs))
        assert found.names == ("another gradient",)
        assert not found.left


def test_no_clip_is_told_where_a_tensor_has_no_gradient(tmp_path) -> None:
    """And is read off its decay."""
    in_pytorch(tmp_path / "a", torch_rule("AdamW", RATE, weight_decay=0.1), max_norm=0.2)
    in_jax(tmp_path / "b", optax.adamw(RATE, weight_decay=0.1), stopped=True)
    found = compare_traces(tmp_path / "a", tmp_path / "b")
    assert (found.names, found.left) == (("another gradient", "clip-ignored"), [])


@pytest.mark.parametrize("name", ["NAdam", "RAdam"])
def test_a_rule_that_is_not_known_is_no_mistake_and_not_the_same(tmp_path, name) -> None:
    in_pytorch(tmp_path / "a", torch_rule(name, RATE))
    alone = check_trace(tmp_path / "a")
    assert alone.verdict == "same"
    assert f"its rule, {name}, is not known here: its updates were not looked at" in alone.notes
    in_jax(tmp_path / "b", optax.adam(RATE))
    found = compare_traces(tmp_path / "a", tmp_path / "b")
    assert found.verdict == "differs"
    assert any("cannot be said" in each for each in found.left)


UNKNOWN = {
    "noise": optax.noisy_sgd(RATE),
    "belief": optax.adabelief(RATE),
    "decays first": lambda recorder: optax.chain(
        optax.add_decayed_weights(0.1),
        recorder.clipped(optax.clip_by_global_norm(0.2)),
        optax.sgd(RATE),
    ),
    "clips the update": lambda recorder: optax.chain(
        optax.scale_by_adam(), recorder.clipped(optax.clip_by_global_norm(0.2))
    ),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_no_rule_explains_is_still_itself_and_no_other(tmp_path, name) -> None:
    in_jax(tmp_path / "a", UNKNOWN[name])
    in_jax(tmp_path / "b", UNKNOWN[name])
    in_jax(tmp_path / "c", optax.adam(RATE))
    same = compare_traces(tmp_path / "a", tmp_path / "b")
    assert (same.verdict, same.names, same.left) == ("same", (), [])
    assert compare_traces(tmp_path / "a", tmp_path / "c").verdict == "differs"


ALONE = {
    "sgd decays": torch_rule("SGD", RATE, weight_decay=0.1),
    "eps by group": lambda parameters: torch.optim.Adam(
        [
            {"params": [each], "eps": eps}
            for each, eps in zip(parameters, (1e-3, 1e-8), strict=True)
        ],
        RATE,
    ),
    "betas by group": in_groups,
}


@pytest.mark.parametrize("name", ALONE)
def test_a_run_that_does_as_its_settings_say_is_right(tmp_path, name) -> None:
    in_pytorch(tmp_path / "a", ALONE[name])
    found = check_trace(tmp_path / "a")
    assert (found.verdict, found.names, found.left) == ("same", (), [])


def test_a_run_that_goes_up_as_it_was_told_is_right(tmp_path) -> None:
    in_pytorch(tmp_path / "a", OTHERS["maximize"][0])
    assert check_trace(tmp_path / "a").verdict == "same"


def counting(count):
    """Adam that corrects its bias for another count."""
    adam = optax.scale_by_adam()

    def update(gradients, state, parameters=None):
        _, state = adam.update(gradients, state, parameters)
        unbias = [1 - beta ** count(state.count) for beta in (0.9, 0.999)]

        def change(first, second):
            return -0.01 * (first / unbias[0]) / (jax.numpy.sqrt(second / unbias[1]) + 1e-8)

        return jax.tree.map(change, state.mu, state.nu), state

    return optax.GradientTransformation(adam.init, update)


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("bias-step-off-by-one", lambda count: count + 1),
        ("frozen-step-counter", lambda count: 1 + 0 * count),
        ("bias-correction-per-microstep", lambda count: K * count),
    ],
)
def test_a_bias_that_is_corrected_for_another_count_is_no_schedule(name, count, tmp_path) -> None:
    in_jax(tmp_path / "right", counting(lambda count: count))
    in_jax(tmp_path / "other", counting(count))
    for runs, said in ((("right", "other"), name), (("other", "right"), f"without {name}")):
        found = compare_traces(*(tmp_path / run for run in runs))
        assert (found.names, found.left) == ((said,), [])


def test_clipping_in_mid_window_is_told_in_either_run(tmp_path) -> None:
    adam = partial(torch.optim.Adam, lr=0.01)
    in_pytorch(tmp_path / "right", adam, 0.2)
    in_pytorch(tmp_path / "all so far", adam, 0.2, each=True)
    in_jax(tmp_path / "each", optax.adam(0.01), optax.clip_by_global_norm(0.2))
    for first, second, name in (
        ("right", "all so far", "clip-per-microbatch"),
        ("all so far", "right", "without clip-per-microbatch"),
        ("right", "each", "clip-each-microgradient"),
    ):
        found = compare_traces(tmp_path / first, tmp_path / second)
        assert found.names[0] == name


def test_other_weights_of_decay_are_one_difference(tmp_path) -> None:
    """As where the decay of some tensors is not scaled with their rates."""
    in_pytorch(tmp_path / "a", torch_rule("AdamW", RATE, weight_decay=0.1))
    rules = {name: optax.adamw(RATE, weight_decay=decay) for name, decay in WEIGHTS.items()}
    in_jax(tmp_path / "b", optax.multi_transform(rules, {name: name for name in WEIGHTS}))
    (found,) = compare_traces(tmp_path / "a", tmp_path / "b").findings
    said = "of 2 of 2 tensors is 0.2 instead of 0.1: inner, 0.3 instead of 0.1: outer"
    assert found.name == "another weight decay"
    assert said in found.said


WEIGHTS = {"inner": 0.2, "outer": 0.3}
