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


def in_pytorch(folder, make, max_norm=None) -> None:
    model = torch.nn.ParameterDict({n: torch.nn.Parameter(torch.tensor(START[n])) for n in START})
    optimizer = make(model.parameters())
    recorder = record.torch(folder, model, optimizer)
    for number, x in enumerate(DATA):
        hidden = torch.tanh(torch.tensor(x) @ model["inner"].T)
        ((hidden @ model["outer"].T - 1).square().mean() / K).backward()
        if number % K == K - 1:
            if max_norm is not None:
                torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm)
            optimizer.step()
            optimizer.zero_grad()
    recorder.close()


def in_jax(folder, optimizer) -> None:
    parameters = {name: jax.numpy.array(value) for name, value in START.items()}

    def loss(parameters, x):
        hidden = jax.numpy.tanh(x @ parameters["inner"].T)
        return jax.numpy.square(hidden @ parameters["outer"].T - 1).mean()

    recorder = record.jax(folder)
    optimizer = recorder.wrap(optax.MultiSteps(optimizer, K))
    gradient = recorder.gradient(jax.jit(jax.grad(loss)))
    state = optimizer.init(parameters)
    for x in DATA:
        changes, state = optimizer.update(gradient(parameters, x), state, parameters)
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


def test_a_maximum_that_never_acts_is_no_difference(tmp_path) -> None:
    in_pytorch(tmp_path / "a", torch_rule("Adam", RATE, betas=(0.9, 1 - 1e-9), amsgrad=True))
    in_pytorch(tmp_path / "b", torch_rule("Adam", RATE, betas=(0.9, 1 - 1e-9)))
    found = compare_traces(tmp_path / "a", tmp_path / "b")
    assert (found.verdict, found.names) == ("same", ())
    assert any("AMSGrad, which one run has, never acted" in note for note in found.notes)


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


def test_a_run_that_goes_up_as_it_was_told_is_right(tmp_path) -> None:
    in_pytorch(tmp_path / "a", OTHERS["maximize"][0])
    assert check_trace(tmp_path / "a").verdict == "same"
