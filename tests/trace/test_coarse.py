"""Runs whose parameters are in half precision: what they hide, and what they must not be told."""

from types import SimpleNamespace as Namespace

import numpy as np
import pytest

import lockstep.record
from lockstep.trace import TraceError, check_trace, compare_traces
from lockstep.trace.moments import unexplained_averages
from lockstep.trace.numbers import Fit, Number
from lockstep.trace.weights import one_or_none
from lockstep.trace.words import headline

jax = pytest.importorskip("jax")
optax = pytest.importorskip("optax")
torch = pytest.importorskip("torch")

UPDATES, K, LIMIT = 5, 3, 0.4
SETTINGS = {"weight_decay": 0.1, "eps": 1e-8}
NUMBERS = np.random.default_rng(0)
START = {
    "inner": NUMBERS.normal(size=(32, 16)).astype("float32") / 4,
    "outer": NUMBERS.normal(size=(8, 32)).astype("float32") / 4,
}
X = NUMBERS.normal(size=(UPDATES * K, 6, 16)).astype("float32")


def in_pytorch(folder, dtype=torch.bfloat16):
    model = torch.nn.ParameterDict(
        {name: torch.nn.Parameter(torch.tensor(START[name]).to(dtype)) for name in START}
    )
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2, **SETTINGS)
    with lockstep.record.torch(folder, model, optimizer):
        for index, x in enumerate(torch.tensor(X)):
            hidden = torch.tanh(x.to(dtype) @ model["inner"].T)
            ((hidden @ model["outer"].T - 1).float().square().mean() / K).backward()
            if index % K == K - 1:
                torch.nn.utils.clip_grad_norm_(model.parameters(), LIMIT)
                optimizer.step()
                optimizer.zero_grad()
    return folder


def in_jax(folder, compiled):
    params = {name: jax.numpy.asarray(value, "bfloat16") for name, value in START.items()}

    def loss(params, x):
        hidden = jax.numpy.tanh(x @ params["inner"].T)
        return jax.numpy.square((hidden @ params["outer"].T - 1).astype("float32")).mean()

    recorder = lockstep.record.jax(folder)
    clipped = optax.chain(optax.clip_by_global_norm(LIMIT), optax.adamw(1e-2, **SETTINGS))
    optimizer = recorder.wrap(optax.MultiSteps(clipped, K))
    gradient = recorder.gradient(jax.grad(loss))
    state = optimizer.init(params)

    def step(params, state, x):
        changes, state = optimizer.update(gradient(params, x), state, params)
        return optax.apply_updates(params, changes), state

    step = jax.jit(step) if compiled else step
    for x in jax.numpy.asarray(X, "bfloat16"):
        params, state = step(params, state, x)
    recorder.close()
    return folder


@pytest.mark.parametrize("compiled", [True, False], ids=["compiled", "eager"])
def test_right_runs_are_the_same_as_far_as_their_dtype_shows(tmp_path, compiled):
    first, second = in_pytorch(tmp_path / "a"), in_jax(tmp_path / "b", compiled)
    for runs in ((first, second), (second, first)):
        found = compare_traces(*runs)
        assert (found.names, found.left, found.coarse) == ((), [], "bfloat16")
        assert headline(found).endswith(", as far as bfloat16 shows")
        assert any("behind the optimizer's state would not show" in note for note in found.notes)


def test_a_run_alone_does_what_its_dtype_shows(tmp_path):
    found = check_trace(in_pytorch(tmp_path / "half"))
    assert headline(found) == "does what its settings say, as far as bfloat16 shows"
    whole = check_trace(in_pytorch(tmp_path / "whole", torch.float32))
    assert headline(whole) == "does what its settings say"


def test_parameters_in_two_dtypes_are_no_others_that_somebody_should_write(tmp_path):
    whole, half = in_pytorch(tmp_path / "a", torch.float32), in_pytorch(tmp_path / "b")
    with pytest.raises(TraceError, match=r"are in float32, and those of .* in bfloat16"):
        compare_traces(whole, half)


@pytest.mark.parametrize(
    ("number", "weight"),
    [
        (Number(0.3333, 0.4), 0.3333),  # it may be 0 in the worst case
        (Number(1 + 1e-5, 0.3), 1.0),
        (Number(0.9, 19.0), 1.0),
        (Number(-1e-5, 0.3), 0.0),
        (Number(1 + 1e-5, 1e-6), 1 + 1e-5),
    ],
)
def test_a_weight_is_1_or_0_where_it_is_near(number, weight):
    assert one_or_none(number) == weight


@pytest.mark.parametrize(("relative", "told"), [(3e-3, False), (0.1, True)])
def test_a_moment_of_which_one_number_is_far_off_goes_on_as_it_should(relative, told):
    """As far as all of them together are off by no more than a rounding."""
    fit = Fit((Number(0.9, 0.01), Number(0.1, 0.01)), left=32.0, relative=relative)
    average = Namespace(fit=fit, step=Namespace(dtype_of=lambda slot: "bfloat16"))
    run = Namespace(steps=Namespace(family="adam"), averages=[], squares=[average])
    assert bool(unexplained_averages(run)) == told
