"""A loop of PyTorch against one with a mistake: a mistake of the first run is a difference, too."""

import numpy as np
import pytest

from lockstep import record
from lockstep.trace import compare_traces

torch = pytest.importorskip("torch")

K, MICRO_BATCHES = 3, 11
NUMBERS = np.random.default_rng(5)
SIZES = [4, 4, 4, 4, 2, 4, 4, 4, 4, 4, 4]
X = [NUMBERS.normal(size=(size, 5)).astype("float32") for size in SIZES]
START = [NUMBERS.normal(size=shape).astype("float32") / 3 for shape in ((9, 5), (9,), (3, 9), (3,))]


def trained(folder, mistake="") -> None:
    model = torch.nn.Sequential(torch.nn.Linear(5, 9), torch.nn.Tanh(), torch.nn.Linear(9, 3))
    for parameter, value in zip(model.parameters(), START, strict=True):
        parameter.data = torch.tensor(value)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2, weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
    with record.torch(folder, model, optimizer):
        if mistake == "stale":
            model(torch.tensor(X[0])).square().mean().backward()
        windows = [list(range(MICRO_BATCHES))[start : start + K] for start in range(0, 11, K)]
        for window in windows:
            so_far = 0
            for number in window:
                if mistake == "one skipped" and number == 4:
                    continue
                taken = window[0] if mistake == "one for all" else number
                loss = model(torch.tensor(X[taken])).square().mean()
                share = 1 / (K if mistake == "partial window by K" else len(window))
                if mistake == "by examples":
                    share = SIZES[number] / sum(SIZES[each] for each in window)
                weighed = loss * (1 if mistake == "sum" else share)
                so_far = so_far + weighed if mistake == "running" else weighed
                so_far.backward(retain_graph=mistake == "running")
                if mistake == "schedule":
                    schedule.step()
                if mistake == "emptied" and number != window[-1]:
                    optimizer.zero_grad()
            if mistake == "no step" and number == 5:
                schedule.step()
                optimizer.zero_grad()
                continue
            if mistake == "count":
                for state in optimizer.state.values():
                    state["step"].zero_()
            optimizer.step()
            every_other = mistake == "every other" and windows.index(window) % 2 == 0
            if mistake not in ("schedule", "never") and not every_other:
                schedule.step()
            optimizer.zero_grad()
            if mistake == "changed":
                model[0].weight.data *= 0.9
            if mistake == "state" and window == windows[1]:
                optimizer.state.clear()


# What the second run does otherwise, and the first beside it.
MISTAKES = {
    "sum": ("no-divide", "divide-twice"),
    "emptied": ("zero-per-microbatch", "without zero-per-microbatch"),
    "by examples": ("without mean-of-means", "mean-of-means"),
    "partial window by K": ("leftover-divided-by-k", "without leftover-divided-by-k"),
    "schedule": ("sched-per-microstep", "sched-too-slow"),
    "never": ("schedule-ignored", "without schedule-ignored"),
    "every other": ("sched-per-epoch", "without sched-per-epoch"),
    "count": ("frozen-step-counter", "without frozen-step-counter"),
    "running": ("summed-loss-backward", "without summed-loss-backward"),
    "one for all": ("reuse-one-microbatch", "other data"),
    "stale": ("stale-first-window", "micro-batches left out"),
    "one skipped": ("micro-batches left out", "without micro-batches left out"),
    "no step": ("windows left out", "windows left out"),
    "changed": ("changed between updates", "without changed between updates"),
    "state": ("opt-state-dropped", "without opt-state-dropped"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_of_either_run_is_found(tmp_path, mistake) -> None:
    trained(tmp_path / "a")
    trained(tmp_path / "b", mistake)
    for runs, name in zip(("ab", "ba"), MISTAKES[mistake], strict=True):
        found = compare_traces(*(tmp_path / run for run in runs))
        assert (found.verdict, found.names, found.left) == ("differs", (name,), [])
    both = compare_traces(tmp_path / "b", tmp_path / "b")
    assert (both.verdict, both.names, both.left) == ("same", (), [])
