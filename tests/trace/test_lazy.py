"""Tensors that stand still without a gradient, and rules of some tensors, or of both runs."""

import math

import pytest
import torch
from torch import nn

import lockstep.record
from lockstep.diagnosis.forms import forms_of
from lockstep.problem import Optimizer
from lockstep.trace import check_trace, compare_traces
from lockstep.trace.lazy import NAME
from lockstep.trace.matching import Matching
from lockstep.trace.rules import Rule
from lockstep.trace.updates import rule_findings
from lockstep.trace.words import text

UPDATES = 6


class EpsInside(torch.optim.Optimizer):
    """Adam, with eps added before the bias is corrected, as Keras does."""

    def __init__(self, params, lr):
        super().__init__(params, {"lr": lr, "betas": (0.9, 0.999), "eps": 1e-8})

    @torch.no_grad()
    def step(self):
        for p in (p for group in self.param_groups for p in group["params"]):
            kept = self.state[p]
            if not kept:
                zeros = torch.zeros_like(p), torch.zeros_like(p)
                kept |= {"step": torch.tensor(0.0), "exp_avg": zeros[0], "exp_avg_sq": zeros[1]}
            kept["step"] += 1
            t = kept["step"].item()
            kept["exp_avg"].lerp_(p.grad, 0.1)
            kept["exp_avg_sq"].mul_(0.999).addcmul_(p.grad, p.grad, value=0.001)
            rate = self.defaults["lr"] * math.sqrt(1 - 0.999**t) / (1 - 0.9**t)
            p.sub_(rate * kept["exp_avg"] / (kept["exp_avg_sq"].sqrt() + 1e-8))


def lazily(model):
    """SparseAdam for the embedding, and Adam for the rest."""
    (embedding, *rest) = model.parameters()
    return torch.optim.SparseAdam([embedding], lr=1e-2), torch.optim.Adam(rest, lr=1e-2)


def densely(model):
    return (torch.optim.Adam(model.parameters(), lr=1e-2),)


def run(folder, optimizers, sparse=False, dtype=torch.float64):
    """Train a model whose embedding has rows that most windows do not look up."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(20, 6, sparse=sparse), nn.Flatten(), nn.Linear(24, 5))
    own = optimizers(model.to(dtype))
    draw = torch.Generator().manual_seed(1)
    with lockstep.record.torch(folder, model, *own):
        for _ in range(UPDATES):
            for each in own:
                each.zero_grad()
            for _ in range(2):
                tokens, labels = (
                    torch.randint(0, top, shape, generator=draw)
                    for top, shape in ((20, (3, 4)), (5, (3,)))
                )
                nn.functional.cross_entropy(model(tokens), labels).div(2).backward()
            for each in own:
                each.step()
    return folder


@pytest.fixture(scope="module", params=[torch.float64, torch.float32])
def dtype(request):
    return request.param


@pytest.fixture(scope="module")
def runs(dtype, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return {
        "dense": run(folder / "dense", densely, dtype=dtype),
        "lazy": run(folder / "lazy", lazily, True, dtype),
        "again": run(folder / "again", lazily, True, dtype),
    }


def seen(name, dtype):
    """SparseAdam's own place for eps, which float32 rounds away."""
    return {name: ("0.weight",)} if dtype == torch.float64 else {}


def told(found):
    assert found.compared > 1000
    assert not found.left
    assert all(f"\n{each.name}" in text(found) for each in found.findings)
    return {each.name: each.tensors for each in found.findings}


def test_a_lazy_embedding_is_named_and_its_rule(runs, dtype) -> None:
    found = compare_traces(runs["dense"], runs["lazy"])
    assert told(found) == seen("adam-eps-hat", dtype) | {NAME: ("0.weight",)}
    (lazy,) = (each for each in found.findings if each.name == NAME)
    assert lazy.update == 2, "in the first, no state could have faded"
    assert "stands still" in lazy.said.split(", where")[0]


def test_a_dense_port_of_a_lazy_run_is_named(runs, dtype) -> None:
    found = compare_traces(runs["lazy"], runs["dense"])
    assert told(found) == seen("without adam-eps-hat", dtype) | {NAME: ("0.weight",)}
    assert not any(each.known for each in found.findings)
    (lazy,) = (each for each in found.findings if each.name == NAME)
    assert "moves on" in lazy.said.split(", where")[0]


def test_two_lazy_runs_are_the_same(runs) -> None:
    assert told(compare_traces(runs["lazy"], runs["again"])) == {}


def test_a_lazy_run_alone_goes_on_as_it_should(runs, dtype) -> None:
    """By its library's own rule, which is said."""
    found = check_trace(runs["lazy"])
    assert told(found) == seen("adam-eps-hat", dtype)
    assert found.verdict == "same"
    assert all(each.policy for each in found.findings)


def test_what_both_rules_do_is_no_difference(tmp_path) -> None:
    """And what the first alone does is one, but no mistake of the second's."""

    def inside(model):
        return (EpsInside(model.parameters(), lr=1e-2),)

    one, other, adam = (
        run(tmp_path / name, make)
        for name, make in (("one", inside), ("other", inside), ("adam", densely))
    )
    same = compare_traces(one, other)
    assert told(same) == {}
    assert str(same) == f"{other} takes the same updates"
    assert told(compare_traces(adam, other)) == {"adam-eps-hat": ()}
    assert told(compare_traces(one, adam)) == {"without adam-eps-hat": ()}


def test_a_rule_of_a_tensor_without_a_counterpart_is_told() -> None:
    (form, *_) = forms_of("adam-eps-hat")
    right, rule = Rule(form, Optimizer("adam"), {}, ("gone",)), Rule(None, Optimizer("adam"), {})
    (found,) = rule_findings(rule, {}, 1, right, Matching({}))
    assert (found.name, found.tensors) == ("without adam-eps-hat", ())
