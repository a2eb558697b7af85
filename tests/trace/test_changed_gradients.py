"""What a loop does to its gradients by hand, after the last backward pass and before the step."""

import pytest
import torch
from torch import nn

import lockstep.record
from lockstep.trace import check_trace, compare_traces

UPDATES, LIMIT, DECAY = 4, 0.1, 0.1


def centred(p):
    p.grad.sub_(p.grad.mean(-1, keepdim=True) if p.ndim > 1 else 0.0)


CHANGES = {
    "nothing": lambda ps: None,
    "decay": lambda ps: [p.grad.add_(DECAY * p.detach()) for p in ps],
    "clip": lambda ps: nn.utils.clip_grad_norm_(ps, LIMIT),
    "noise": lambda ps: [p.grad.add_(1e-3 * torch.randn_like(p)) for p in ps],
    "centred": lambda ps: [centred(p) for p in ps],
    "twice": lambda ps: [p.grad.mul_(2.0) for p in ps],
    "norm": lambda ps: nn.utils.clip_grad_norm_(ps, 1e-9) and [p.grad.mul_(1e9) for p in ps],
    "emptied": lambda ps: [p.grad.zero_() for p in ps[:2]],
    "alone": lambda ps: [nn.utils.clip_grad_norm_([p], 0.1 * float(p.detach().norm())) for p in ps],
}


def run(folder, *changes, decay=0.0, rule=torch.optim.SGD):
    """Train a network, and change its gradients before each step."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    with torch.no_grad():
        for each in model.parameters():
            each.add_(0.1)
    optimizer = rule(model.parameters(), lr=0.01, weight_decay=decay)
    with lockstep.record.torch(folder, model, optimizer, full=UPDATES):
        data = torch.randn(UPDATES, 8, 4, dtype=torch.float64)
        for x in data:
            optimizer.zero_grad()
            model(x).square().mean().backward()
            for each in changes:
                CHANGES[each]([*model.parameters()])
            optimizer.step()
    return folder


@pytest.mark.parametrize(
    ("change", "name", "said"),
    [
        ("noise", "gradient changed", "no multiple of what was accumulated, in 4 of 4 tensors"),
        ("centred", "gradient changed", "no multiple of what was accumulated, in 2 of 4 tensors"),
        ("twice", "gradient scaled", "2 times what was accumulated"),
        ("norm", "gradient scaled", "scaled to a norm of 1, whatever it was"),
        ("emptied", "masked-gradient", "gradients of 0.bias, 0.weight are emptied before the rule"),
        ("alone", "clips", "it clips a gradient of norm"),
    ],
)
def test_what_no_clip_does_is_not_called_a_clip(tmp_path, change, name, said):
    plain, changed = run(tmp_path / "a"), run(tmp_path / "b", change)
    found, back = compare_traces(plain, changed), compare_traces(changed, plain)
    assert (found.names, found.left) == ((name,), [])
    assert said in found.findings[0].said
    turned = "clips in another way" if name == "clips" else f"without {name}"
    assert (back.names, back.left) == ((turned,), [])


def test_a_decay_by_hand_is_that_of_the_optimizer(tmp_path):
    by_hand, own = run(tmp_path / "a", "decay"), run(tmp_path / "b", decay=DECAY)
    for runs in ((by_hand, own), (own, by_hand)):
        assert compare_traces(*runs).verdict == "same"
    both = run(tmp_path / "c", "decay", decay=DECAY)
    found = compare_traces(own, both)
    assert found.names == ("another weight decay",)
    assert "of 4 of 4 tensors is 0.2 instead of 0.1" in found.findings[0].said
    assert compare_traces(run(tmp_path / "d"), both).names == ("another weight decay",)


def test_a_decay_by_hand_stands_before_the_clip_or_behind_it(tmp_path):
    own = run(tmp_path / "a", "clip", decay=DECAY)
    behind, before = run(tmp_path / "b", "clip", "decay"), run(tmp_path / "c", "decay", "clip")
    for runs in ((own, behind), (behind, own)):
        assert compare_traces(*runs).verdict == "same"
    assert compare_traces(own, before).names == ("decay-before-clip",)
    assert compare_traces(before, behind).names == ("without decay-before-clip",)
    assert compare_traces(before, run(tmp_path / "d", "decay", "clip")).verdict == "same"


def test_a_decay_beside_that_of_adamw_is_a_second_one(tmp_path):
    own = run(tmp_path / "a", decay=DECAY, rule=torch.optim.AdamW)
    both = run(tmp_path / "b", "decay", decay=DECAY, rule=torch.optim.AdamW)
    assert compare_traces(own, both).names == ("decays twice",)
    assert compare_traces(both, own).names == ("without decays twice",)
    assert (
        compare_traces(
            both, run(tmp_path / "c", "decay", decay=DECAY, rule=torch.optim.AdamW)
        ).verdict
        == "same"
    )
    assert check_trace(own).verdict == "same"
