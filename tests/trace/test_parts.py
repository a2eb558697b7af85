"""Two networks under one optimizer, as a policy and its critic, whose bias is a single number."""

from functools import partial

import numpy as np
import pytest

import lockstep.record
from lockstep.trace import compare_traces
from lockstep.trace.clipping import PARTS
from lockstep.trace.numbers import Number
from lockstep.trace.rules import rate_name

jax = pytest.importorskip("jax")
optax = pytest.importorskip("optax")
torch = pytest.importorskip("torch")

UPDATES, LIMIT, RATE = 6, 0.5, 1e-2
NUMBERS = np.random.default_rng(0)
START = {
    "critic.weight": NUMBERS.normal(size=(6, 1)), "critic.bias": np.zeros(1),
    "policy.weight": NUMBERS.normal(size=(6, 3)), "policy.bias": NUMBERS.normal(size=3),
}  # fmt: skip
START = {name: array.astype("float32") for name, array in START.items()}
# Some gradients are clipped, and others are not.
SIZES = np.array([0.5, 2.0, 0.5, 0.4, 2.0, 0.5])
X = (NUMBERS.normal(size=(UPDATES, 8, 6)) * SIZES[:, None, None]).astype("float32")


def loss_of(parameters, x):
    value, policy = (
        x @ parameters[f"{net}.weight"] + parameters[f"{net}.bias"] for net in ("critic", "policy")
    )
    return ((value - 1) ** 2).mean() / 9 + (policy**2).mean() / 9


def in_pytorch(folder):
    model = torch.nn.ParameterDict(
        {name.replace(".", "/"): torch.nn.Parameter(torch.tensor(a)) for name, a in START.items()}
    )
    optimizer = torch.optim.Adam(model.parameters(), RATE)
    with lockstep.record.torch(folder, model, optimizer):
        for x in torch.tensor(X):
            optimizer.zero_grad()
            loss_of({n.replace("/", "."): p for n, p in model.items()}, x).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), LIMIT)
            optimizer.step()
    return folder


def in_jax(folder, clip):
    parameters = {name: jax.numpy.asarray(array) for name, array in START.items()}
    recorder = lockstep.record.jax(folder)
    optimizer = recorder.wrap(optax.chain(clip, optax.adam(RATE)))
    gradient = recorder.gradient(jax.jit(jax.grad(loss_of)))
    state = optimizer.init(parameters)
    for x in X:
        changes, state = optimizer.update(gradient(parameters, x), state, parameters)
        parameters = optax.apply_updates(parameters, changes)
    recorder.close()
    return folder


@pytest.fixture
def runs(tmp_path):
    clip = optax.clip_by_global_norm(LIMIT)
    nets = {name: name.split(".")[0] for name in START}
    return {
        "first": in_pytorch(tmp_path / "first"),
        "same": in_jax(tmp_path / "same", clip),
        "parts": in_jax(
            tmp_path / "parts", optax.multi_transform({"critic": clip, "policy": clip}, nets)
        ),
    }


def test_a_single_number_is_clipped_as_the_others_of_its_update_are(runs):
    for names in (("first", "same"), ("same", "first")):
        assert compare_traces(*(runs[name] for name in names)).verdict == "same"


def test_a_clip_by_several_norms_is_told_with_its_parts(runs):
    found = compare_traces(runs["first"], runs["parts"])
    assert (found.names, found.left) == ((PARTS,), [])
    assert "0.5 in 2 parts, not all together: critic.bias, critic.weight; policy.bias" in (
        found.findings[0].said
    )
    for name in ("first", "same"):
        back = compare_traces(runs["parts"], runs[name])
        assert (back.names, back.left) == ((f"without {PARTS}",), [])
    assert compare_traces(runs["parts"], runs["parts"]).verdict == "same"


@pytest.mark.parametrize(
    ("own", "right", "name"),
    [
        ([2, 2, 2, 2, 2, 2], [2, 2, 2, 1, 1, 1], "schedule-ignored"),
        ([2, 2, 2, 1, 1, 1], [2, 2, 2, 2, 2, 2], "without schedule-ignored"),
        ([3, 3, 2, 2, 1, 1], [3, 2, 1, 1, 1, 1], "sched-per-epoch"),
    ],
)
def test_a_rate_that_never_changes_is_no_schedule_of_epochs(own, right, name):
    own, right = ({u: Number(each, 1e-9) for u, each in enumerate(r, 1)} for r in (own, right))
    assert partial(rate_name, accumulation_steps=1)(own, right)[0] == name
