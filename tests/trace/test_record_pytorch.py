"""A recorder in PyTorch: what it writes is what the run did, and the run does not notice."""

import copy
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import nn
from torch.utils.checkpoint import checkpoint

import lockstep.record
from benchmarks.real import common
from benchmarks.real import pytorch as real
from lockstep.record import pytorch_watch
from lockstep.record.pytorch_tensors import PIECE, held, in_one_copy, sketch_of
from lockstep.record.writer import STATISTICS, RecordError, fingerprint, norm, sketch
from lockstep.trace import TraceError, check_trace, compare_traces

ROOT = Path(__file__).parents[2]


def read(folder, update):
    """The arrays and the facts of an update."""
    with safe_open(Path(folder) / f"update-{update:08}.safetensors", "np") as file:
        facts = json.loads(file.metadata()["lockstep"])
        return {key: file.get_tensor(key) for key in file.keys()}, facts  # noqa: SIM118


def known(folder):
    return json.loads((Path(folder) / "trace.json").read_text())


def updates(folder):
    return len(list(Path(folder).glob("*.safetensors")))


def phases(arrays, name):
    return {key.split("|")[0] for key in arrays if key.endswith(f"|{name}")}


def net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))


def data(seed=0):
    return torch.randn(5, 3, generator=torch.Generator().manual_seed(seed))


def values(model):
    return [value.detach().clone() for value in model.parameters()]


def same(some, others):
    return all(torch.equal(one, other) for one, other in zip(some, others, strict=True))


def twice(train, folder):
    """What a training comes to alone, and recorded."""
    plain = train(lambda *_, **__: None)
    recorded = train(lambda *given, **options: lockstep.record.torch(folder, *given, **options))
    assert not pytorch_watch.RECORDERS or [one.close() for one in [*pytorch_watch.RECORDERS]]
    return plain, recorded


# The four models.


@pytest.mark.parametrize("model", common.MODELS)
@pytest.mark.parametrize("full", [2, 0])
def test_a_recorded_run_ends_in_the_same_bits(model, full, tmp_path):
    alone = real.run(tmp_path / "a", model, "float32", 3, record=False)
    recorded = real.run(tmp_path / "b", model, "float32", 3, full=full)
    assert updates(tmp_path / "b") == common.UPDATES
    assert all(np.array_equal(alone[name], recorded[name]) for name in alone)


@pytest.mark.parametrize("model", ["mlp", "transformer"])
def test_a_compiled_run_ends_in_the_same_bits(model, tmp_path):
    options = {"updates": 3, "backend": "aot_eager"}
    alone = real.run(tmp_path / "a", model, "float32", 2, record=False, **options)
    recorded = real.run(tmp_path / "b", model, "float32", 2, full=1, **options)
    assert all(np.array_equal(alone[name], recorded[name]) for name in alone)
    assert known(tmp_path / "b")["compiled"]
    assert read(tmp_path / "b", 3)[1]["micro_batches"][1]["data"]


@pytest.mark.slow
def test_a_run_compiled_by_inductor_ends_in_the_same_bits(tmp_path):
    options = {"updates": 3, "backend": "inductor"}
    alone = real.run(tmp_path / "a", "transformer", "float32", 2, record=False, **options)
    recorded = real.run(tmp_path / "b", "transformer", "float32", 2, full=1, **options)
    assert all(np.array_equal(alone[name], recorded[name]) for name in alone)


def test_what_is_written_is_what_the_run_did(tmp_path):
    after = real.run(tmp_path, "conv", "float64", 2, updates=4)
    first, _ = read(tmp_path, 1)
    for name, value in common.initial("conv", "float64").items():
        assert np.array_equal(first[f"before|{name}"], value)
    last, facts = read(tmp_path, 4)
    before_last, _ = read(tmp_path, 3)
    norm = 0.0
    for name, value in after.items():
        assert np.array_equal(last[f"after|{name}"], value)
        assert np.array_equal(last[f"before|{name}"], before_last[f"after|{name}"])
        parts = last[f"gradient.0|{name}"] + last[f"gradient.1|{name}"]
        np.testing.assert_array_equal(last[f"accumulated|{name}"], parts)
        norm += float((parts**2).sum())
    assert norm > 0.3**2  # clipping acts
    for name in after:
        expected = last[f"accumulated|{name}"] * 0.3 / norm**0.5
        np.testing.assert_allclose(last[f"clipped|{name}"], expected, rtol=1e-5)
    recipe = common.RECIPES["conv"]
    assert set(facts["rates"].values()) == {recipe.rates[3]}
    assert set(facts["decays"].values()) == {recipe.weight_decay}
    window = common.windows("conv", "float64", 2, 4)[3]
    seen = [micro_batch["data"] for micro_batch in facts["micro_batches"]]
    assert seen == [[fingerprint(x.transpose(0, 3, 1, 2))] for x, _ in window]
    assert phases(last, "conv.weight") >= {"state.step", "state.exp_avg", "state.exp_avg_sq"}
    assert last["state.step|conv.weight"] == 4
    facts = known(tmp_path)
    assert facts["optimizers"][0]["name"] == "Adam"
    assert facts["optimizers"][0]["groups"][0]["betas"] == [0.9, 0.95]
    assert facts["framework"] == "pytorch"
    assert facts["notes"] == [STATISTICS]


def test_sketches_are_those_of_the_whole_tensors(tmp_path):
    real.run(tmp_path / "whole", "transformer", "float32", 2, updates=3)
    real.run(tmp_path / "small", "transformer", "float32", 2, updates=3, full=0)
    for update in (1, 3):
        whole, _ = read(tmp_path / "whole", update)
        small, facts = read(tmp_path / "small", update)
        assert set(whole) == set(small) == set(facts["sizes"])
        for name, array in whole.items():
            assert np.array_equal(sketch(array), small[name]), name
            known = facts["sizes"][name]
            assert (known is not None) or not name.startswith("accumulated|")
            if known is not None:
                assert known == pytest.approx(norm(array), rel=1e-5, abs=1e-6), name


def test_a_sketch_of_a_large_or_permuted_tensor_is_the_writers():
    for shape in ((1000,), (70, 300), (9, 8, 7, 6, 5)):
        for tensor in (
            torch.randn(shape),
            torch.randn(shape[::-1]).permute(*range(len(shape))[::-1]),
        ):
            assert np.array_equal(sketch_of(tensor).numpy(), sketch(tensor.numpy()))


def test_a_large_tensor_is_measured_by_pieces():
    tensor = torch.randn(3 * PIECE + 5, dtype=torch.float64)
    for one in (tensor, tensor.float().view(-1, 1).T):
        taken = held(one, whole=False, measured=True)
        assert float(taken.norm) == pytest.approx(norm(one.numpy()), rel=1e-5)


def test_what_lies_on_a_device_comes_in_one_copy():
    tensors = [torch.randn(2, 3), torch.tensor(1.5), torch.randn(0, 2), torch.randn(4)]
    for array, tensor in zip(in_one_copy(tensors), tensors, strict=True):
        assert array.shape == tuple(tensor.shape)
        assert np.array_equal(array, tensor.numpy())


def test_state_before_is_written_where_the_last_record_has_it_not(tmp_path):
    model = net()
    optimizer = torch.optim.Adam(model.parameters())

    def step():
        model(data()).sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    step()
    recorder = lockstep.record.torch(tmp_path, model, optimizer, full=2, at=[4])
    for _ in range(4):
        step()
    recorder.close()
    step()
    assert updates(tmp_path) == 4
    had = [
        any(key.startswith("state-before.") for key in read(tmp_path, n)[0]) for n in (1, 2, 3, 4)
    ]
    assert had == [True, False, False, True]
    before = read(tmp_path, 1)[0]
    assert before["state-before.step|0.bias"] == 1
    assert before["state.step|0.bias"] == 2


# Loops as they are.


def test_an_update_is_there_as_soon_as_the_step_is_done(tmp_path):
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    lockstep.record.torch(tmp_path, model, optimizer).close  # noqa: B018
    model(data()).sum().backward()
    assert updates(tmp_path) == 0
    optimizer.step()
    assert updates(tmp_path) == 1
    pytorch_watch.RECORDERS[0].close()


def test_close_takes_everything_away(tmp_path):
    model, backward = net(), torch.autograd.backward
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with lockstep.record.torch(tmp_path, model, optimizer):
        assert torch.autograd.backward is not backward
    assert torch.autograd.backward is backward
    model(data()).sum().backward()
    optimizer.step()
    assert updates(tmp_path) == 0
    assert not model._forward_pre_hooks
    assert not next(model.parameters())._backward_hooks


def scaled_training(record, fused=False, unscale=True):
    """Half-precision training, in which the second window of three overflows."""
    model = net()
    optimizer = torch.optim.AdamW(model.parameters(), 0.1, fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    record(model, optimizer)
    for update in range(3):
        for _ in range(2):
            loss = model(data(update)).square().mean()
            scaler.scale(loss * (np.inf if update == 1 else 1)).backward()
        if unscale:
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
    return values(model)


@pytest.mark.parametrize(("fused", "unscale"), [(False, True), (True, True), (True, False)])
def test_a_step_that_the_scaler_leaves_out_is_counted(fused, unscale, tmp_path):
    plain, recorded = twice(lambda record: scaled_training(record, fused, unscale), tmp_path)
    assert same(plain, recorded)
    assert updates(tmp_path) == 2
    _, facts = read(tmp_path, 2)
    assert facts["skipped"] == 1
    assert facts["scale"] == 512
    assert len(facts["micro_batches"]) == 2
    first, facts = read(tmp_path, 1)
    assert facts["scale"] == 1024
    loss = net()(data()).square().mean().item()
    assert facts["micro_batches"][0]["loss"] == pytest.approx(loss)
    ratio = first["accumulated|0.weight"] / first["clipped|0.weight"]
    if unscale:
        norm = np.sqrt(sum((first[key] ** 2).sum() for key in first if key.startswith("clipped")))
        assert norm == pytest.approx(0.1, rel=1e-4)
    else:
        assert np.all(ratio == 1024)


@pytest.mark.parametrize("full", [3, 1])
def test_a_loss_scale_is_no_difference(full, tmp_path):
    for name, scale in (("plain", 1.0), ("scaled", 1024.0)):
        model = net()
        optimizer = torch.optim.AdamW(model.parameters(), 0.1)
        scaler = torch.amp.GradScaler("cpu", init_scale=scale, enabled=scale > 1)
        with lockstep.record.torch(tmp_path / name, model, optimizer, full=full):
            for update in range(3):
                for micro_batch in range(2):
                    loss = model(data(2 * update + micro_batch)).square().mean() / 2
                    scaler.scale(loss).backward()
                scaler.unscale_(optimizer)
                nn.utils.clip_grad_norm_(model.parameters(), 0.1)
                scaler.step(optimizer)
                scaler.update()
                optimizer.zero_grad()
    for runs in (("plain", "scaled"), ("scaled", "plain")):
        found = compare_traces(*(tmp_path / run for run in runs))
        assert (found.verdict, found.names, found.left) == ("same", (), [])
        assert all(pair.coefficient.equals(1.0) for pair in found.pairs)
        assert len(found.pairs) == 6
    assert check_trace(tmp_path / "scaled").names == ()


def test_a_left_out_step_of_one_of_two_is_counted_with_the_next_window(tmp_path):
    model = net()
    one = torch.optim.SGD(model[0].parameters(), 0.1)
    two = torch.optim.SGD(model[2].parameters(), 0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    with lockstep.record.torch(tmp_path, model, one, two):
        for factor in (np.inf, 1):
            scaler.scale(model(data()).mean() * factor).backward()
            scaler.step(one)
            scaler.update()
            one.zero_grad(), two.zero_grad()
    assert updates(tmp_path) == 1
    _, facts = read(tmp_path, 1)
    assert facts["skipped"] == 1
    assert len(facts["micro_batches"]) == 1


class Odd(nn.Module):
    """Tied, frozen, unused, and with an embedding whose gradient is sparse."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(6, 4, sparse=True)
        self.first = nn.Linear(4, 4)
        self.second = nn.Linear(4, 4)
        self.second.weight = self.first.weight
        self.frozen = nn.Linear(4, 4).requires_grad_(False)
        self.unused = nn.Linear(4, 4)

    def forward(self, tokens):
        return self.frozen(self.second(self.first(self.embedding(tokens))))


@pytest.mark.parametrize("full", [3, 0])
def test_tied_frozen_unused_and_sparse_parameters(full, tmp_path):
    def train(record):
        torch.manual_seed(0)
        model = Odd()
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        record(model, optimizer, full=full)
        for _ in range(2):
            for tokens in ([0, 2, 2], [5, 0, 1]):
                model(torch.tensor(tokens)).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()
        return values(model)

    plain, recorded = twice(train, tmp_path)
    assert same(plain, recorded)
    assert updates(tmp_path) == 2
    arrays, _ = read(tmp_path, 2)
    parameters = {entry["name"]: entry for entry in known(tmp_path)["parameters"]}
    assert parameters["first.weight"]["tied"] == ["second.weight"]
    assert "second.weight" not in parameters
    assert not parameters["frozen.weight"]["trainable"]
    moved = {"gradient.0", "gradient.1", "accumulated", "clipped", "before", "after"}
    assert phases(arrays, "first.weight") == phases(arrays, "embedding.weight") == moved
    assert phases(arrays, "unused.weight") == {"before", "after"}
    assert phases(arrays, "frozen.weight") == {"before", "after"}
    both = arrays["gradient.0|embedding.weight"] + arrays["gradient.1|embedding.weight"]
    np.testing.assert_allclose(arrays["accumulated|embedding.weight"], both, rtol=1e-6)
    assert arrays["accumulated|embedding.weight"].shape == (6, 4)


def test_several_optimizers_of_one_window_are_one_update(tmp_path):
    model = net()
    one = torch.optim.SGD(model[0].parameters(), 0.1, momentum=0.9)
    two = torch.optim.AdamW(model[2].parameters(), 0.2)
    with lockstep.record.torch(tmp_path, model, one, two):
        for update in range(2):
            model(data()).sum().backward()
            one.step()
            assert updates(tmp_path) == update
            two.step()
            one.zero_grad(), two.zero_grad()
    assert updates(tmp_path) == 2
    arrays, facts = read(tmp_path, 2)
    assert {"state.momentum_buffer", "after"} <= phases(arrays, "0.weight")
    assert {"state.exp_avg", "after"} <= phases(arrays, "2.weight")
    assert facts["rates"]["0.weight"] == 0.1
    assert facts["rates"]["2.weight"] == 0.2
    assert [entry["name"] for entry in known(tmp_path)["optimizers"]] == ["SGD", "AdamW"]


def test_two_that_take_turns_write_an_update_each(tmp_path):
    model = nn.ModuleDict({"maker": nn.Linear(3, 3), "judge": nn.Linear(3, 1)})
    make = torch.optim.SGD(model["maker"].parameters(), 0.1)
    judge = torch.optim.SGD(model["judge"].parameters(), 0.1)
    with lockstep.record.torch(tmp_path, model, make, judge):
        for _ in range(2):
            model["judge"](model["maker"](data()).detach()).mean().backward()
            judge.step()
            judge.zero_grad()
            model["judge"](model["maker"](data())).mean().neg().backward()
            make.step()
            make.zero_grad(), judge.zero_grad()
    assert updates(tmp_path) == 4
    stepped = [
        sorted(key for key in read(tmp_path, n)[0] if key.startswith("after")) for n in (1, 2, 3)
    ]
    assert stepped[0] == stepped[2] == ["after|judge.bias", "after|judge.weight"]
    assert stepped[1] == ["after|maker.bias", "after|maker.weight"]


def test_running_statistics_are_said_to_be_left_out(tmp_path):
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with lockstep.record.torch(tmp_path, model, optimizer):
        model(data()).mean().backward()
        optimizer.step()
    assert known(tmp_path)["notes"] == [STATISTICS]


def test_validation_in_mid_window_shows(tmp_path):
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with lockstep.record.torch(tmp_path, model, optimizer):
        model(data(1)).sum().backward()
        model.eval()
        optimizer.zero_grad()  # what is planted
        model(data(7))
        with torch.no_grad():
            model(data(8))
        model.train()
        model(data(2)).sum().backward()
        optimizer.step()
    arrays, facts = read(tmp_path, 1)
    assert np.array_equal(arrays["accumulated|0.weight"], arrays["gradient.1|0.weight"])
    assert not np.array_equal(arrays["gradient.0|0.weight"], arrays["gradient.1|0.weight"])
    seen = [entry["data"] for entry in facts["micro_batches"]]
    assert seen == [[fingerprint(data(n).numpy())] for n in (1, 2)]


def test_a_gradient_that_is_never_emptied_is_not_a_micro_batchs(tmp_path):
    real.run(tmp_path, "mlp", "float64", 1, ["missing-zero-grad"], updates=2)
    (first, _), (second, _) = read(tmp_path, 1), read(tmp_path, 2)
    name = "hidden.weight"
    expected = first[f"accumulated|{name}"] + second[f"gradient.0|{name}"]
    np.testing.assert_array_equal(second[f"accumulated|{name}"], expected)


def test_checkpoints_and_penalties_are_no_micro_batches(tmp_path):
    def train(record):
        model = net()
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        record(model, optimizer)
        output = model[2](checkpoint(model[:2], data(), use_reentrant=False))
        (slope,) = torch.autograd.grad(output.sum(), model[2].weight, create_graph=True)
        (output.square().mean() + slope.square().sum()).backward()
        optimizer.step()
        return values(model)

    assert same(*twice(train, tmp_path))
    arrays, facts = read(tmp_path, 1)
    assert len(facts["micro_batches"]) == 1
    assert np.array_equal(arrays["accumulated|2.weight"], arrays["gradient.0|2.weight"])


def test_reentrant_checkpoints_are_one_micro_batch(tmp_path):
    def train(record):
        model = net()
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        record(model, optimizer)
        checkpoint(model[1:], model[0](data()), use_reentrant=True).square().mean().backward()
        optimizer.step()
        return values(model)

    assert same(*twice(train, tmp_path))
    arrays, facts = read(tmp_path, 1)
    assert len(facts["micro_batches"]) == 1
    assert np.array_equal(arrays["accumulated|0.weight"], arrays["gradient.0|0.weight"])
    assert "accumulated|2.weight" in arrays


def test_a_copied_model_is_not_recorded_and_a_pickled_one_takes_nothing_along(tmp_path):
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with lockstep.record.torch(tmp_path, model, optimizer, activations=True):
        average = copy.deepcopy(model)
        average(data(3))
        loaded = pickle.loads(pickle.dumps(model))
        loaded(data(3)).sum().backward()
        average(data(3)).sum().backward()
        model(data()).sum().backward()
        optimizer.step()
    arrays, facts = read(tmp_path, 1)
    assert facts["micro_batches"][0]["data"] == [fingerprint(data().numpy())]
    assert len(facts["micro_batches"]) == 1
    assert np.array_equal(arrays["input.0|0"], data().numpy())


def test_activations_are_of_the_first_micro_batch_of_whole_updates(tmp_path):
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with lockstep.record.torch(tmp_path, model, optimizer, full=1, activations=["0", "2"]):
        expected = model[0](data(0)).detach().numpy()
        for _ in range(2):
            for micro_batch in range(2):
                model(data(micro_batch)).sum().backward()
            optimizer.step()
    arrays, _ = read(tmp_path, 1)
    assert np.array_equal(arrays["input.0|0"], data(0).numpy())
    assert np.array_equal(arrays["output.0|0"], expected)
    assert {key for key in arrays if "put.0" in key} == {
        "input.0|0", "output.0|0", "input.0|2", "output.0|2",
    }  # fmt: skip
    assert not any("put.0" in key for key in read(tmp_path, 2)[0])


def test_modules_come_in_the_order_in_which_they_return_and_once(tmp_path):
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.block = nn.Sequential(nn.Linear(4, 4), nn.Tanh())

        def forward(self, x):
            return self.block(self.block(x))

    model = Twice()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    target = torch.tensor([1, 3])
    with lockstep.record.torch(tmp_path, model, optimizer, activations=True):
        x = torch.randn(2, 4)
        output = model(x)
        nn.functional.cross_entropy(output, target).mul(0.5).backward()
        optimizer.step()
    arrays, facts = read(tmp_path, 1)
    assert facts["modules"] == ["block.0", "block.1", "block", ""]
    assert np.array_equal(arrays["input.0|block"], x.numpy())
    assert np.array_equal(arrays["output.0|"], output.detach().numpy())
    assert np.array_equal(arrays["data.0|0"], x.numpy())
    assert np.array_equal(arrays["targets.0|0"], target.numpy())


def test_a_closure_is_looked_into(tmp_path):
    def train(record):
        model = net()
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        record(model, optimizer)

        def closure():
            optimizer.zero_grad()
            loss = model(data()).square().mean()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 0.01)
            return loss

        for _ in range(2):
            assert optimizer.step(closure) is not None
        return values(model)

    assert same(*twice(train, tmp_path))
    arrays, facts = read(tmp_path, 2)
    assert len(facts["micro_batches"]) == 1
    clipped = [array for key, array in arrays.items() if key.startswith("clipped")]
    assert np.sqrt(sum((array**2).sum() for array in clipped)) == pytest.approx(0.01, rel=1e-3)


def test_gradients_made_by_other_means_are_said_not_to_be_seen(tmp_path):
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with lockstep.record.torch(tmp_path, model, optimizer):
        parameters = list(model.parameters())
        for parameter, gradient in zip(
            parameters, torch.autograd.grad(model(data()).sum(), parameters), strict=True
        ):
            parameter.grad = gradient
        optimizer.step()
    arrays, facts = read(tmp_path, 1)
    assert facts["micro_batches"] == []
    assert phases(arrays, "0.weight") == {"before", "clipped", "after"}
    assert known(tmp_path)["notes"] == [
        "No backward() was seen: gradients were made by other means."
    ]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_kept_in_float32_and_called_what_it_is(dtype, tmp_path):
    model = net().to(getattr(torch, dtype))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with lockstep.record.torch(tmp_path, model, optimizer, full=1):
        for _ in range(2):
            model(data().to(getattr(torch, dtype))).sum().backward()
            optimizer.step()
    for update in (1, 2):
        arrays, facts = read(tmp_path, update)
        assert arrays["after|0.weight"].dtype == np.float32
        assert facts["dtypes"]["after|0.weight"] == dtype
    assert np.array_equal(arrays["after|0.weight"], model[0].weight.detach().float().numpy())


def test_what_a_schedule_changes_beside_the_rate_is_written(tmp_path):
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1.0, total_steps=4)
    with lockstep.record.torch(tmp_path, model, optimizer):
        for _ in range(2):
            model(data()).sum().backward()
            optimizer.step()
            schedule.step()
    assert "settings" not in read(tmp_path, 1)[1]
    assert read(tmp_path, 2)[1]["settings"]["0.bias"].keys() == {"momentum"}


def test_parameters_that_thaw_are_hooked(tmp_path):
    model = net()
    model[0].requires_grad_(False)
    optimizer = torch.optim.SGD(model[2].parameters(), 0.1)
    with lockstep.record.torch(tmp_path, model, optimizer, full=0):
        for update in range(2):
            model(data()).sum().backward()
            optimizer.step()
            if not update:
                model[0].requires_grad_(True)
                optimizer.add_param_group({"params": list(model[0].parameters())})
    assert phases(read(tmp_path, 1)[0], "0.weight") == set()
    expected = {"gradient.0", "accumulated", "clipped", "before", "after"}
    assert phases(read(tmp_path, 2)[0], "0.weight") == expected
    assert known(tmp_path)["optimizers"][0]["groups"][1]["parameters"] == ["0.weight", "0.bias"]
    assert known(tmp_path)["parameters"][0]["trainable"]


def test_a_killed_run_leaves_whole_updates(tmp_path):
    program = (
        "import os, sys, lockstep.record\n"
        "from benchmarks.real import pytorch\n"
        "from lockstep.record import writer\n"
        "save_file = writer.save_file\n"
        "def dies(arrays, file, metadata):\n"
        "    save_file(arrays, file, metadata)\n"
        "    if 'update-00000003' in file.name:\n"
        "        os.truncate(file, 100)\n"
        "        os._exit(1)\n"
        "writer.save_file = dies\n"
        "pytorch.run(sys.argv[1], 'mlp', 'float32', 1)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", program, tmp_path / "run"], env=environment)
    assert updates(tmp_path / "run") == 2
    assert read(tmp_path / "run", 2)[1]["update"] == 2


# Compiled in other ways.


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x):
        return self.second(torch.tanh(self.first(x)))


def compiled_training(record, way):
    torch._dynamo.reset()
    torch.manual_seed(0)
    model = Small()
    optimizer = torch.optim.AdamW(model.parameters(), 0.1)
    called, step = model, optimizer.step
    if way == "recorded before":
        record(model, optimizer)
        called = torch.compile(model, backend="aot_eager", fullgraph=True)
    elif way == "in place":
        model.compile(backend="aot_eager", fullgraph=True)
        record(model, optimizer)
    elif way == "a part":
        model.first = torch.compile(model.first, backend="aot_eager")
        record(model, optimizer)
    elif way == "the step":
        record(model, optimizer)
        step = torch.compile(optimizer.step, backend="aot_eager")
    for _ in range(2):
        called(data()).square().sum().backward()
        step()
        optimizer.zero_grad()
    return values(model)


@pytest.mark.parametrize("way", ["recorded before", "in place", "a part", "the step"])
def test_other_ways_to_compile(way, tmp_path):
    assert same(*twice(lambda record: compiled_training(record, way), tmp_path))
    assert updates(tmp_path) == 2
    arrays, facts = read(tmp_path, 2)
    assert phases(arrays, "first.weight") >= {"gradient.0", "accumulated", "clipped", "after"}
    assert facts["micro_batches"][0]["data"] == [fingerprint(data().numpy())]


# Libraries, as their users write.


class Examples(torch.utils.data.Dataset):
    def __len__(self):
        return 16

    def __getitem__(self, index):
        x = data(index)[0]
        return {"x": x, "labels": x[:2] * 2}


class Returning(nn.Module):
    """A model as the Trainer wants it: it returns its loss."""

    def __init__(self):
        super().__init__()
        self.inner = net()

    def forward(self, x, labels=None):
        output = self.inner(x)
        return {"loss": (output - labels).square().mean(), "logits": output}


def accelerate_training(record):
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
    model = Returning()
    optimizer = torch.optim.AdamW(model.parameters(), 0.1)
    loader = torch.utils.data.DataLoader(Examples(), batch_size=4)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer)
    model, optimizer, loader, schedule = accelerator.prepare(model, optimizer, loader, schedule)
    record(model, optimizer)
    for batch in loader:
        with accelerator.accumulate(model):
            loss = model(**batch)["loss"]
            accelerator.backward(loss)
            if accelerator.sync_gradients:
                accelerator.clip_grad_norm_(model.parameters(), 0.1)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
    return values(model)


def trainer_training(record, **settings):
    from transformers import Trainer, TrainingArguments

    model = Returning()
    record(model)
    arguments = TrainingArguments(
        os.environ["TRAINER_FOLDER"],
        num_train_epochs=1,
        per_device_train_batch_size=4,
        gradient_accumulation_steps=2,
        learning_rate=0.1,
        weight_decay=0.01,
        max_grad_norm=0.1,
        use_cpu=True,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        **settings,
    )
    Trainer(model, arguments, train_dataset=Examples()).train()
    return values(model)


def lightning_training(record):
    import lightning

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.model = Returning()

        def training_step(self, batch, index):
            return self.model(**batch)["loss"]

        def validation_step(self, batch, index):
            self.log("loss", self.model(**batch)["loss"])

        def configure_optimizers(self):
            return torch.optim.AdamW(self.parameters(), 0.1)

    module = Module()
    record(module)
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_epochs=1,
        accumulate_grad_batches=2,
        gradient_clip_val=0.1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        val_check_interval=1,
    )
    loader = torch.utils.data.DataLoader(Examples(), batch_size=4)
    trainer.fit(module, loader, loader)
    return values(module)


def fabric_training(record):
    from lightning.fabric import Fabric

    fabric = Fabric(accelerator="cpu", devices=1)
    model = Returning()
    optimizer = torch.optim.AdamW(model.parameters(), 0.1)
    model, optimizer = fabric.setup(model, optimizer)
    loader = fabric.setup_dataloaders(torch.utils.data.DataLoader(Examples(), batch_size=4))
    record(model, optimizer)
    for index, batch in enumerate(loader):
        with fabric.no_backward_sync(model, enabled=index % 2 == 0):
            fabric.backward(model(**batch)["loss"] / 2)
        if index % 2:
            fabric.clip_gradients(model, optimizer, max_norm=0.1)
            optimizer.step()
            optimizer.zero_grad()
    return values(model)


@pytest.mark.parametrize(
    ("package", "train"),
    [
        ("accelerate", accelerate_training),
        ("transformers", trainer_training),
        ("lightning", lightning_training),
        ("lightning", fabric_training),
    ],
)
@pytest.mark.parametrize("full", [3, 0])
def test_libraries(package, train, full, tmp_path, monkeypatch):
    pytest.importorskip(package)
    monkeypatch.setenv("TRAINER_FOLDER", str(tmp_path / "trainer"))
    folder = tmp_path / "run"
    plain, recorded = twice(lambda record: train(lambda *given: record(*given, full=full)), folder)
    assert same(plain, recorded)
    assert updates(folder) == 2
    arrays, facts = read(folder, 2)
    name = next(key.split("|")[1] for key in arrays if key.endswith("0.weight"))
    assert name.endswith("inner.0.weight")
    assert not name.startswith(("module.", "_orig"))
    assert phases(arrays, name) == {
        "gradient.0", "gradient.1", "accumulated", "clipped", "before", "after",
        "state.step", "state.exp_avg", "state.exp_avg_sq",
    }  # fmt: skip
    clipped = [array for key, array in arrays.items() if key.startswith("clipped")]
    assert np.sqrt(sum((array**2).sum() for array in clipped)) == pytest.approx(0.1, rel=1e-3)
    assert len(facts["micro_batches"]) == 2
    assert all(len(entry["data"]) == 2 for entry in facts["micro_batches"])
    assert all("loss" in entry for entry in facts["micro_batches"])
    assert known(folder)["optimizers"][0]["name"] == "AdamW"
    assert not known(folder)["notes"]


# Several processes.

DISTRIBUTED = """
import atexit, os, sys

status = 1

def leave():
    # gloo's threads now and then abort a process that ends as others do, recorded or not.
    sys.stdout.flush()
    os._exit(status)

atexit.register(leave)  # what is registered first comes last
import torch
import lockstep.record

folder, ranks, wrapped = sys.argv[1:]
torch.distributed.init_process_group(
    "gloo", f"file://{folder}.meeting", rank=int(os.environ["RANK"]), world_size=2
)
rank = torch.distributed.get_rank()
torch.manual_seed(0)
model = torch.nn.Linear(3, 2)
if wrapped == "yes":
    model = torch.nn.parallel.DistributedDataParallel(model)
optimizer = torch.optim.SGD(model.parameters(), 0.1)
if ranks != "none":
    recorder = lockstep.record.torch(folder, model, optimizer, ranks="all" if ranks == "all" else 0)
for update in range(2):
    for micro_batch in range(1 - update, 2):
        seed = 8 * update + 2 * rank + micro_batch
        x = torch.randn(4, 3, generator=torch.Generator().manual_seed(seed))
        if micro_batch or wrapped == "no":
            model(x).square().mean().backward()
        else:
            with model.no_sync():
                model(x).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()
print(rank, [value.tolist() for value in model.parameters()])
torch.distributed.destroy_process_group()
status = 0
"""


def distributed(folder, ranks, wrapped="yes"):
    """What two processes print, which meet in a file: a port that is free may be taken by then."""
    environment = {"WORLD_SIZE": "2", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", DISTRIBUTED, str(folder), ranks, wrapped],
            env=os.environ | environment | {"RANK": str(rank)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    found = [process.communicate(timeout=120)[0] for process in started]
    assert not any(process.returncode for process in started)
    return found


def test_distributed_processes(tmp_path):
    alone = distributed(tmp_path / "none", "none")
    assert distributed(tmp_path / "first", "first") == alone
    assert distributed(tmp_path / "all", "all") == alone
    assert not (tmp_path / "none").exists()
    assert not check_trace(tmp_path / "all").findings
    assert updates(tmp_path / "first") == 2
    assert known(tmp_path / "first")["ranks"] == 2
    first = [read(tmp_path / "all" / f"rank-{rank}", 1)[0] for rank in range(2)]
    half = (first[0]["gradient.0|weight"] + first[1]["gradient.0|weight"]) / 2
    np.testing.assert_allclose(first[0]["accumulated|weight"], half, rtol=1e-5)
    (zero, _), (one, facts) = (read(tmp_path / "all" / f"rank-{rank}", 2) for rank in range(2))
    assert known(tmp_path / "all" / "rank-1")["rank"] == 1
    assert len(facts["micro_batches"]) == 2
    for name in ("weight", "bias"):
        parts = [each[f"gradient.{k}|{name}"] for each in (zero, one) for k in range(2)]
        np.testing.assert_allclose(zero[f"accumulated|{name}"], sum(parts) / 2, rtol=1e-5)
        for phase in ("accumulated", "clipped", "after"):
            assert np.array_equal(zero[f"{phase}|{name}"], one[f"{phase}|{name}"])
        first = read(tmp_path / "first", 2)[0]
        assert np.array_equal(first[f"gradient.1|{name}"], zero[f"gradient.1|{name}"])


def test_ranks_that_are_never_synchronised_are_told(tmp_path):
    distributed(tmp_path / "apart", "all", wrapped="no")
    found = check_trace(tmp_path / "apart")
    assert found.names == ("ranks not synchronised",)
    assert "2 of 2 parameters of rank-1" in found.findings[0].said
    with pytest.raises(TraceError, match="it has a trace of each rank; name one"):
        compare_traces(tmp_path / "apart", tmp_path / "apart")


# What is refused.


def test_bad_use_gets_one_line(tmp_path, monkeypatch):
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    lazy = nn.Sequential(nn.LazyLinear(3))
    meta = nn.Linear(2, 2, device="meta")
    compiled = torch.compile(model)
    for match, given, options in [
        ("hand over the model", (optimizer, model), {}),
        ("no torch.optim.Optimizer", (model, model), {}),
        ("LBFGS", (model, torch.optim.LBFGS(model.parameters())), {}),
        ("steps no parameter of the model", (net(), optimizer), {}),
        ("no shape yet", (lazy,), {}),
        ("no values yet", (meta,), {}),
        ("no parameters", (nn.Tanh(),), {}),
        ("DataParallel", (nn.DataParallel(model), optimizer), {}),
        ("without torch.compile", (compiled, optimizer), {"activations": True}),
        ("no module 'third'", (model, optimizer), {"activations": ["third"]}),
        ('write a number, or "all"', (model, optimizer), {"ranks": "both"}),
    ]:
        with pytest.raises(RecordError, match=match) as refused:
            lockstep.record.torch(tmp_path / "new", *given, **options)
        assert "\n" not in str(refused.value)
        assert not (tmp_path / "new").exists(), match
    assert not pytorch_watch.RECORDERS
    with monkeypatch.context() as patch:
        patch.setattr(torch._dynamo.config, "compiled_autograd", True)
        with pytest.raises(RecordError, match="compiled_autograd = False"):
            lockstep.record.torch(tmp_path / "new", model, optimizer)
    (tmp_path / "something").write_text("")
    with pytest.raises(RecordError, match="name a new folder"):
        lockstep.record.torch(tmp_path, model, optimizer)


def test_a_step_inside_backward_is_refused(tmp_path):
    model = net()
    optimizers = {one: torch.optim.SGD([one], 0.1) for one in model.parameters()}
    for one in model.parameters():
        one.register_post_accumulate_grad_hook(lambda one: optimizers[one].step())
    with (
        lockstep.record.torch(tmp_path, model),
        pytest.raises(RecordError, match="steps inside backward"),
    ):
        model(data()).sum().backward()


def test_only_the_framework_at_hand_is_imported(tmp_path):
    program = (
        "import sys, lockstep.record, torch\n"
        "model = torch.nn.Linear(2, 2)\n"
        "lockstep.record.torch(sys.argv[1], model, torch.optim.SGD(model.parameters(), 0.1))\n"
        "others = ('jax', 'tensorflow', 'keras', 'allpairspy', 'ml_dtypes', 'rich', 'typer')\n"
        "print([name for name in others if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "run"],
        env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == "[]"
