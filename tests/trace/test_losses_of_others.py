"""A critic, which gets gradients of its generator's loss as well, and throws them away."""

import pytest
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits as loss_of

import lockstep.record
from lockstep.trace import compare_traces

UPDATES = 6


def train(folder, *, frozen=False, forgets=False, leaves_out=None, every=1):
    """Train both; frozen: whether the critic gets no gradient of the generator's loss.

    leaves_out: an update of the critic whose gradients are thrown away, too; every: after how many
    of its updates the generator takes one.
    """
    torch.manual_seed(0)
    generator, critic = (
        nn.Sequential(nn.Linear(a, 8), nn.Tanh(), nn.Linear(8, b)).double()
        for a, b in ((3, 5), (5, 1))
    )
    own, critics = torch.optim.Adam(generator.parameters()), torch.optim.Adam(critic.parameters())
    ones, draws = torch.ones(6, 1).double(), torch.randn(UPDATES, 6, 11, dtype=torch.float64)
    with lockstep.record.torch(folder, critic, critics):
        for number, (x, first, second) in enumerate(each.split((5, 3, 3), 1) for each in draws):
            if not forgets:
                critics.zero_grad()
            loss = loss_of(critic(x), ones) + loss_of(critic(generator(first).detach()), 0 * ones)
            loss.backward()
            if number == leaves_out:
                critics.zero_grad()
            else:
                critics.step()
            if (number + 1) % every:
                continue
            critic.requires_grad_(not frozen)
            own.zero_grad()
            loss_of(critic(generator(second)), ones).backward()
            own.step()
            critic.requires_grad_(True)
    return folder


@pytest.fixture
def right(tmp_path):
    return train(tmp_path / "right")


@pytest.mark.parametrize("every", [1, 2])
def test_gradients_of_a_loss_that_the_other_run_never_takes_are_no_window(tmp_path, every):
    right = train(tmp_path / "right", every=every)
    other = train(tmp_path / "other", frozen=True, every=every)
    for runs in ((right, other), (other, right)):
        assert compare_traces(*runs).verdict == "same"


def test_a_critic_that_keeps_them_is_told(right, tmp_path):
    found = compare_traces(right, train(tmp_path / "wrong", forgets=True))
    assert "missing-zero-grad" in found.names


def test_a_window_that_is_left_out_is_told_beside_them(right, tmp_path):
    found = compare_traces(right, train(tmp_path / "wrong", leaves_out=2))
    assert found.names[0] == "windows left out"
