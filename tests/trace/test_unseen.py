"""Gradients that no backward pass makes: what the optimizer gets is compared."""

import itertools

import pytest

from lockstep import record
from lockstep.trace import check_trace, compare_traces, read

torch = pytest.importorskip("torch")
functional_call, grad = torch.func.functional_call, torch.func.grad

UPDATES, RATE = 4, 0.1


def run(folder, how, *, times=1.0, max_norm=None, half=False):
    """Train; how: what makes the gradients; half: of half of the examples."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(5, 6), torch.nn.Tanh(), torch.nn.Linear(6, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE, momentum=0.9)
    own = dict(model.named_parameters())

    def loss(outputs):
        return (outputs - y).square().mean()

    with record.torch(folder, model, optimizer, full=UPDATES):
        for _ in range(UPDATES):
            x, y = torch.randn(8, 5), torch.randn(8, 2)
            if half:
                x, y = x[:4], y[:4]
            optimizer.zero_grad()
            if how == "backward":
                loss(model(x)).backward()
            elif how == "autograd.grad":
                for each, made in zip(
                    own.values(), torch.autograd.grad(loss(model(x)), own.values())
                ):
                    each.grad = times * made
            else:
                begun = {name: each.detach() for name, each in own.items()}
                made = grad(lambda p, x: loss(functional_call(model, p, (x,))))(begun, x)
                for name, each in own.items():
                    each.grad = times * made[name]
            if max_norm is not None:
                torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm)
            optimizer.step()
    return folder


@pytest.mark.parametrize("max_norm", [None, 0.5])
def test_they_are_the_same_however_they_are_made(tmp_path, max_norm):
    runs = [
        run(tmp_path / how, how, max_norm=max_norm)
        for how in ("backward", "autograd.grad", "torch.func")
    ]
    for pair in itertools.permutations(runs, 2):
        found = compare_traces(*pair)
        assert (found.verdict, len(found.pairs)) == ("same", UPDATES), found
    for each in runs[1:]:
        assert check_trace(each).verdict == "same"
        assert "No backward() was seen" in read(each).facts["notes"][0]


@pytest.mark.parametrize("first", ["backward", "autograd.grad"])
@pytest.mark.parametrize("how", ["autograd.grad", "torch.func"])
def test_what_is_wrong_with_them_is_told(tmp_path, first, how):
    right = run(tmp_path / "right", first)
    for given, name in (({"times": 2.0}, "another factor"), ({"half": True}, "another gradient")):
        port = run(tmp_path / name, how, **given)
        found = compare_traces(right, port)
        assert (found.names[:1], found.findings[0].update) == ((name,), 1), found
