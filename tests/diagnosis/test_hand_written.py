"""Ports by other hands, in styles of their own: the clean ones pass, and each mistake is named."""

from collections.abc import Callable
from pathlib import Path

import pytest

from lockstep.diagnosis import check, verdict

FOLDER = Path(__file__).parent / "hand_written"
# How many probes each supports.
PORTS = {
    "torch_module": 35,
    "torch_functional": 29,
    "plain_numpy": 34,
    "optax_by_hand": 40,
    "optax_multisteps": 33,
    "flax_style": 25,
    "lax_scan": 31,
    "keras_train_step": 17,
    "keras_accumulation": 12,
    "tf_function": 28,
}
# These take more than a few seconds.
SLOW = ("optax_multisteps", "flax_style", "lax_scan", "keras_train_step", "keras_accumulation",
        "tf_function")  # fmt: skip
# port: the mistakes, and the text that makes them
MISTAKES: dict[str, list[tuple[str, list[tuple[str, str]]]]] = {
    "torch_module": [
        ("missing-zero-grad", [("            optimizer.zero_grad()\n", "")]),
        (
            "boundary-off-by-one",
            [("if i % problem.accumulation_steps != 0", "if (i - 1) % problem.accumulation_steps")],
        ),
        (
            "mean-of-means + mean-over-outputs",
            [('"sum"', '"mean"'), ("seen += len(x)", "seen += 1")],
        ),
        (
            "clip-epsilon",
            [("clip_(list(", "torch.nn.utils.clip_grad_norm_(list(")],
        ),
        ("sched-off-by-one", [("learning_rates[global_step]", "learning_rates[global_step + 1]")]),
        (
            "l2-vs-decoupled",
            [('"adam": torch.optim.Adam,', '"adam": torch.optim.AdamW,')],
        ),
    ],
    "torch_functional": [
        (
            "dampening-first-update",
            [
                (
                    "            buf = g\n",
                    "            buf = {n: (1 - cfg.dampening) * g[n] for n in g}\n",
                )
            ],
        ),
        ("nesterov-ignored", [("if cfg.nesterov:", "if False:")]),
        ("rmsprop-variant", [("(v[name].sqrt() + cfg.eps)", "(v[name] + cfg.eps).sqrt()")]),
        (
            "clip-per-tensor",
            [
                (
                    "    norm = torch.sqrt(sum(torch.sum(g * g) for g in grads.values()))\n"
                    "    factor = torch.clamp(max_norm / norm, max=1.0)\n"
                    "    return {name: g * factor for name, g in grads.items()}\n",
                    "    return {\n"
                    "        name: g * torch.clamp(max_norm / g.norm(), max=1.0)\n"
                    "        for name, g in grads.items()\n"
                    "    }\n",
                )
            ],
        ),
        ("vector-loss-summed", [("{name: g / n for name, g in total.items()}", "total")]),
    ],
    "plain_numpy": [
        (
            "leftover-dropped",
            [("while pending:", "while len(pending) >= problem.accumulation_steps:")],
        ),
        (
            "sign-flipped",
            [
                ("            p -= lr * g\n", "            p += lr * g\n"),
                ("p -= lr * m_hat", "p += lr * m_hat"),
            ],
        ),
        ("bias-step-off-by-one", [("self.cfg, self.t = cfg, 0", "self.cfg, self.t = cfg, 1")]),
        (
            "missing-bias-correction",
            [("m / (1 - beta1**self.t)", "m"), ("v / (1 - beta2**self.t)", "v")],
        ),
        (
            "zero-per-microbatch",
            [
                ("dW += 2 * x.T @ error", "dW = 2 * x.T @ error"),
                ("db += 2 * error.sum(axis=0)", "db = 2 * error.sum(axis=0)"),
            ],
        ),
        ("adam-eps-inside", [("(np.sqrt(v_hat) + c.eps)", "np.sqrt(v_hat + c.eps)")]),
    ],
    "optax_by_hand": [
        ("opt-state-dropped", [("params, opt_state = apply(", "params, _ = apply(")]),
        ("divide-by-wrong-count", [("count += len(inputs)", "count = len(inputs)")]),
        ("no-divide", [("targets).sum()", "targets).sum(axis=1).mean()"), ("1 / count", "1.0")]),
        ("clip-ignored", [("grads = clip_by_norm(grads, problem.max_norm)", "pass")]),
        (
            "missing-zero-grad",
            [
                (
                    "    for _ in range(problem.epochs):\n",
                    "    acc = jax.tree.map(jnp.zeros_like, params)\n"
                    "    for _ in range(problem.epochs):\n",
                ),
                (
                    "            acc, count = jax.tree.map(jnp.zeros_like, params), 0\n",
                    "            count = 0\n",
                ),
            ],
        ),
    ],
    "optax_multisteps": [
        ("mean-of-means", [("share = len(window) * x.shape[0] / n", "share = 1.0")]),
        ("low-precision-accumulator", [("        accumulator_dtype=problem.dtype,\n", "")]),
    ],
    "flax_style": [
        ("missing-zero-grad", [("            acc=jax.tree.map(jnp.zeros_like, self.acc),\n", "")]),
        (
            "leftover-carried",
            [
                (
                    "for i, batch in enumerate(problem.micro_batches, 1):",
                    "for batch in problem.micro_batches:\n            i += 1",
                ),
                (" or i == len(problem.micro_batches)", ""),
                (
                    "    for _ in range(problem.epochs):\n",
                    "    i = 0\n    for _ in range(problem.epochs):\n",
                ),
            ],
        ),
    ],
    "lax_scan": [
        (
            "reuse-one-microbatch",
            [
                (
                    "lax.scan(body, zeros, (xs, ys, mask))",
                    "lax.scan(lambda t, m: body(t, (xs[0], ys[0], mask[0] * m.max())),"
                    " zeros, mask)",
                )
            ],
        ),
        ("wd-not-times-lr", [("p * (1 - lr * cfg.weight_decay)", "p * (1 - cfg.weight_decay)")]),
        ("frozen-step-counter", [("    t = t + 1\n", "    t = t * 0 + 1\n")]),
    ],
    "keras_train_step": [
        (
            "missing-zero-grad",
            [("            total.assign(tf.zeros_like(total))\n", "            pass\n")],
        ),
        ("zero-per-microbatch", [("total.assign_add(gradient)", "total.assign(gradient)")]),
    ],
    "keras_accumulation": [
        (
            "mean-of-means",
            [("tf.constant(k / n, problem.dtype)", "tf.constant(1 / len(x), problem.dtype)")],
        ),
        (
            "divide-twice",
            [("tf.constant(k / n, problem.dtype)", "tf.constant(1 / n, problem.dtype)")],
        ),
    ],
    "tf_function": [
        ("adagrad-variant", [("(tf.sqrt(slot) + self.cfg.eps)", "tf.sqrt(slot + self.cfg.eps)")]),
        (
            "params-not-in-optimizer",
            [
                (
                    "zip(self.weights, gradients, self.slots)",
                    "zip(self.weights[:1], gradients, self.slots)",
                )
            ],
        ),
    ],
}


pytestmark = pytest.mark.usefixtures("in_one_process")


def marks(port: str) -> list:
    return [pytest.mark.slow] if port in SLOW else []


@pytest.mark.parametrize("port", [pytest.param(port, marks=marks(port)) for port in PORTS])
def test_a_clean_port_takes_the_same_update(port) -> None:
    found = check(str(FOLDER / f"{port}.py"))
    assert found.verdict == "same", verdict.text(found)
    assert len(found.diagnosis.runs) == PORTS[port]


@pytest.fixture
def broken(tmp_path: Path) -> Callable[..., str]:
    def make(port: str, changes: list[tuple[str, str]]) -> str:
        source = (FOLDER / f"{port}.py").read_text()
        for old, new in changes:
            assert source.count(old) == 1, f"{old!r} stands {source.count(old)} times in {port}"
            source = source.replace(old, new)
        file = tmp_path / f"{port}.py"
        file.write_text(source)
        return str(file)

    return make


@pytest.mark.parametrize(
    ("port", "name", "changes"),
    [
        pytest.param(port, name, changes, id=f"{port}-{name}", marks=marks(port))
        for port, cases in MISTAKES.items()
        for name, changes in cases
    ],
)
def test_a_mistake_in_a_port_is_named(broken, port, name, changes) -> None:
    found = check(broken(port, changes))
    assert found.verdict == "differs"
    names = [" + ".join(sorted(each.names)) for each in found.diagnosis.explanations]
    assert names[:1] == [name], verdict.text(found)
