"""A loop of JAX that clips its sum by hand, before what records it sees the sum."""

import numpy as np
import pytest

import lockstep.record
from lockstep.trace import compare_traces
from lockstep.trace.alone import check_trace

jax = pytest.importorskip("jax")
optax = pytest.importorskip("optax")
torch = pytest.importorskip("torch")

UPDATES, K, LIMIT, RATE = 4, 4, 0.8, 1e-2
NUMBERS = np.random.default_rng(0)
W, B = NUMBERS.normal(size=(5, 3)).astype("float32"), np.zeros(3, "float32")
SIZES = NUMBERS.uniform(0.2, 2.0, size=(UPDATES, K, 1, 1))
X = (NUMBERS.normal(size=(UPDATES, K, 6, 5)) * SIZES).astype("float32")
CLIP = optax.clip_by_global_norm(LIMIT)


def in_pytorch(folder, mistake="", times=1):
    model = torch.nn.Linear(5, 3)
    with torch.no_grad():
        model.weight.copy_(torch.tensor(W.T))
        model.bias.copy_(torch.tensor(B))
    optimizer = torch.optim.Adam(model.parameters(), RATE)
    with lockstep.record.torch(folder, model, optimizer):
        for window in torch.tensor(X):
            optimizer.zero_grad()
            for x in window:
                (times * (model(x) ** 2).mean() / K).backward()
                if mistake == "after each":
                    torch.nn.utils.clip_grad_norm_(model.parameters(), LIMIT)
            torch.nn.utils.clip_grad_norm_(model.parameters(), LIMIT)
            optimizer.step()
    return folder


def clipped(gradient):
    return CLIP.update(gradient, CLIP.init(gradient))[0]


def in_jax(folder, mistake="", divisor=K):
    parameters = {"W": jax.numpy.asarray(W), "b": jax.numpy.asarray(B)}
    recorder = lockstep.record.jax(folder)
    optimizer = recorder.wrap(optax.adam(RATE))
    gradient = jax.jit(
        recorder.gradient(jax.grad(lambda p, x: ((x @ p["W"] + p["b"]) ** 2).mean() / K))
    )
    state = optimizer.init(parameters)
    for window in X:
        total = jax.tree.map(jax.numpy.zeros_like, parameters)
        for index, x in enumerate(window):
            found = gradient(parameters, x)
            if mistake == "each":
                found = clipped(found)
            if mistake == "last alone" or not (mistake == "dropped" and index == K - 1):
                before = 0.0 if mistake == "last alone" else 1.0
                total = jax.tree.map(lambda a, b, c=before: c * a + b, total, found)
            if mistake == "after each":
                total = clipped(total)
        total = jax.tree.map(lambda each: each * (K / divisor), total)
        changes, state = optimizer.update(clipped(total), state, parameters)
        parameters = optax.apply_updates(parameters, changes)
    recorder.close()
    return folder


@pytest.fixture(scope="module")
def right(tmp_path_factory):
    folder = tmp_path_factory.mktemp("right")
    return in_pytorch(folder / "seen"), in_jax(folder / "hidden")


MISTAKES = {
    "dropped": "micro-batches left out",
    "last alone": "zero-per-microbatch",
    "each": "clip-each-microgradient",
    "after each": "clip-per-microbatch",
}


@pytest.mark.parametrize(("mistake", "name"), MISTAKES.items())
def test_what_goes_wrong_before_the_clip_of_a_sum_is_named(right, tmp_path, mistake, name):
    wrong = in_jax(tmp_path / "wrong", mistake)
    for first in right:
        assert compare_traces(first, wrong).names == (name,)
        assert compare_traces(wrong, first).names == (f"without {name}",)


@pytest.mark.parametrize(
    ("record", "mistake"),
    [(in_jax, "each"), (in_jax, "after each"), (in_pytorch, "after each")],
)
def test_a_clip_in_mid_window_shows_in_the_run_alone(tmp_path, record, mistake):
    found = check_trace(record(tmp_path / "wrong", mistake))
    assert found.names == (MISTAKES[mistake],)
    assert "as a clip to 0.8 gives them" in found.findings[0].said


def test_a_right_sum_is_the_same_and_a_factor_shows_where_the_clip_did_not_act(right, tmp_path):
    for runs in (right, right[::-1]):
        assert compare_traces(*runs).verdict == "same"
        assert check_trace(runs[0]).verdict == "same"
    # A clip that always acts leaves nothing of a factor, and one of a small sum does not act.
    found = compare_traces(right[0], in_jax(tmp_path / "larger", divisor=1))
    assert found.verdict == "same"
    assert any("what all its gradients are multiplied with" in each for each in found.notes)
    found = compare_traces(right[0], in_jax(tmp_path / "smaller", divisor=K * K))
    assert found.names == ("divide-twice",)


def test_a_factor_that_clips_leave_nothing_of_is_said(right, tmp_path):
    found = compare_traces(right[0], in_pytorch(tmp_path / "larger", times=6))
    assert found.verdict == "same"
    assert any("6 times those of the first run, and clipped to the same" in n for n in found.notes)


def test_gradients_that_are_smaller_than_the_limit_say_nothing_of_a_clip(right, tmp_path):
    found = compare_traces(in_pytorch(tmp_path / "smaller", times=1 / 64), right[0])
    assert found.names == ("another factor",)
    assert (
        "the first run's clipping never acted in these 4 updates: its threshold is not known"
        in found.notes
    )
