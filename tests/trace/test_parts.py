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
CLIP, NONE = optax.clip_by_global_norm(LIMIT), optax.identity()
# Some gradients are clipped, and others are not.
SIZES = np.array([0.5, 2.0, 0.5, 0.4, 2.0, 0.5])
X = (NUMBERS.normal(size=(UPDATES, 8, 6)) * SIZES[:, None, None]).astype("float32")


def loss_of(parameters, x, much=1.0):
    value, policy = (
        x @ parameters[f"{net}.weight"] + parameters[f"{net}.bias"] for net in ("critic", "policy")
    )
    value = much * value**3 + value if much != 1.0 else value
    return ((value - 1) ** 2).mean() / 9 + (policy**2).mean() / 9


def in_pytorch(folder, limit=LIMIT):
    model = torch.nn.ParameterDict(
        {name.replace(".", "/"): torch.nn.Parameter(torch.tensor(a)) for name, a in START.items()}
    )
    optimizer = torch.optim.Adam(model.parameters(), RATE)
    with lockstep.record.torch(folder, model, optimizer):
        for x in torch.tensor(X):
            optimizer.zero_grad()
            loss_of({n.replace("/", "."): p for n, p in model.items()}, x).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), limit)
            optimizer.step()
    return folder


def in_jax(folder, clip, by_hand=False, much=1.0, behind=NONE):
    """Train; by_hand: clip in the loop, of which what is left is seen; behind: a second clip."""
    parameters = {name: jax.numpy.asarray(array) for name, array in START.items()}
    recorder = lockstep.record.jax(folder)
    adam = optax.adam(RATE)
    optimizer = recorder.wrap(optax.chain(behind if by_hand else clip, adam))
    gradient = jax.jit(jax.grad(partial(loss_of, much=much)))
    gradient = gradient if by_hand else recorder.gradient(gradient)
    state = optimizer.init(parameters)
    for x in X:
        found = gradient(parameters, x)
        if by_hand:
            found, _ = clip.update(found, clip.init(parameters))
        changes, state = optimizer.update(found, state, parameters)
        parameters = optax.apply_updates(parameters, changes)
    recorder.close()
    return folder


@pytest.fixture
def runs(tmp_path):
    clip = CLIP
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


def test_a_clip_by_hand_is_held_against_one_that_is_seen_and_against_none(tmp_path):
    by_hand = in_jax(tmp_path / "by hand", CLIP, by_hand=True)
    hidden = in_jax(tmp_path / "hidden", CLIP)
    seen, none = in_pytorch(tmp_path / "seen"), in_pytorch(tmp_path / "none", np.inf)
    for other, named, back in (
        (seen, (), ()),
        (hidden, (), ()),
        (none, ("clip-ignored",), ("clips",)),
        (in_jax(tmp_path / "less", optax.clip_by_global_norm(0.3)), ("clips to 0.3",),
         (f"clips to {LIMIT}",)),
    ):  # fmt: skip
        assert compare_traces(by_hand, other).names == named
        assert compare_traces(other, by_hand).names == back


def test_a_clip_by_hand_of_another_model_is_no_other_clip(tmp_path):
    by_hand = in_jax(tmp_path / "by hand", CLIP, by_hand=True, much=0.3)
    for other in (in_pytorch(tmp_path / "seen"), in_jax(tmp_path / "hidden", CLIP)):
        for runs in ((by_hand, other), (other, by_hand)):
            assert compare_traces(*runs).names == ("another gradient",)


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


def test_a_second_clip_behind_one_by_hand_is_told(tmp_path):
    runs = [
        in_jax(tmp_path / "once", CLIP, by_hand=True),
        in_jax(tmp_path / "twice", CLIP, by_hand=True, behind=optax.clip(0.05)),
    ]
    assert compare_traces(*runs).verdict == "differs"
    assert compare_traces(*runs[::-1]).verdict == "differs"


def test_a_clip_of_another_kind_beside_one_by_hand_has_its_name(tmp_path):
    by_hand = in_jax(tmp_path / "by hand", CLIP, by_hand=True)
    value = in_jax(tmp_path / "value", optax.clip(0.2))
    assert compare_traces(by_hand, value).names == ("clip-by-value",)
    assert compare_traces(value, by_hand).names == ("without clip-by-value",)
