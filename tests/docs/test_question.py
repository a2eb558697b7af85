"""The seeds of the question: what the well-known answers say, run on today's frameworks."""

import warnings
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorflow as tf
import torch

import jax_impl
import pytorch_impl
import tensorflow_impl
from jax_impl.precision import float64
from lockstep.oracle import loop
from lockstep.oracle.compare import compare_bits
from lockstep.problem import hadamard


@pytest.fixture(autouse=True)
def in_float64() -> Iterator[None]:
    """JAX has no float64 until it is told."""
    with float64():
        yield


X = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
Y = np.array([[1.0], [0.0], [1.0]])


def leaf(value: object) -> object:
    return torch.tensor(value, requires_grad=True)


def test_a_vector_loss_raises_in_pytorch() -> None:
    W, b = leaf([[1.0], [1.0]]), leaf([0.0])
    loss = (pytorch_impl.linear_model(torch.tensor(X).float(), W, b) - torch.tensor(Y)) ** 2
    with pytest.raises(RuntimeError, match="grad can be implicitly created only for scalar"):
        loss.backward()


def test_a_vector_loss_raises_in_jax() -> None:
    def loss(W: object) -> object:
        return (jax_impl.linear_model(X, W, jnp.zeros(1)) - Y) ** 2

    with pytest.raises(TypeError, match="scalar-output functions"):
        jax.grad(loss)(jnp.ones((2, 1)))


def test_a_vector_loss_is_silently_summed_by_the_tape() -> None:
    W = tf.Variable(np.ones((2, 1)))
    gradients = []
    for reduce in (lambda loss: loss, tf.reduce_sum, tf.reduce_mean):
        with tf.GradientTape() as tape:
            loss = reduce(tf.square(tensorflow_impl.linear_model(X, W, np.zeros(1)) - Y))
        gradients.append(tape.gradient(loss, W).numpy())
    vector, summed, mean = gradients
    assert (vector == summed).all()
    assert vector == pytest.approx(mean * len(X))
    assert abs(vector - mean).min() > 1


def test_grad_is_none_before_the_first_backward_and_after_zero_grad() -> None:
    W = leaf([1.0, 2.0])
    assert W.grad is None
    with pytest.raises(AttributeError):
        W.grad.data.zero_()  # the well-known loop's first line
    W.sum().backward()
    assert W.grad.tolist() == [1, 1]
    torch.optim.SGD([W], 0.1).zero_grad()
    assert W.grad is None
    W.sum().backward()
    torch.optim.SGD([W], 0.1).zero_grad(set_to_none=False)
    assert W.grad.tolist() == [0, 0]


def test_backward_adds_into_one_buffer() -> None:
    W = leaf([1.0, 2.0])
    W.sum().backward()
    kept, copied = W.grad, W.grad.clone()
    W.sum().backward()
    assert W.grad is kept
    assert kept.tolist() == [2, 2]
    assert copied.tolist() == [1, 1]


def test_a_leaf_cannot_be_changed_in_place_outside_no_grad() -> None:
    W = leaf([1.0, 2.0])
    W.sum().backward()
    with pytest.raises(RuntimeError, match="leaf Variable that requires grad"):
        W -= 0.1 * W.grad
    with torch.no_grad():
        W -= 0.1 * W.grad
    assert W.is_leaf
    assert W.tolist() == pytest.approx([0.9, 1.9])


def test_a_rebound_leaf_has_no_gradient_any_more() -> None:
    W = leaf([1.0, 2.0])
    W.sum().backward()
    W = W - 0.1 * W.grad
    assert not W.is_leaf
    W.sum().backward()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert W.grad is None


@pytest.mark.parametrize(("set_to_none", "moves"), [(True, False), (False, True)])
def test_none_is_skipped_and_zero_still_moves_under_momentum(set_to_none, moves) -> None:
    W = leaf([1.0, 2.0])
    optimizer = torch.optim.SGD([W], 0.1, momentum=0.9)
    W.sum().backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=set_to_none)
    before = W.detach().clone()
    optimizer.step()
    assert (before != W).all().item() is moves


def test_a_shared_weight_is_summed_by_a_single_backward() -> None:
    """One backward through time adds up by itself: nothing needs to be zeroed between steps."""
    w = leaf(2.0)
    state = torch.tensor(1.0)
    for _ in range(4):
        state = state * w
    state.backward()
    assert w.grad.item() == 4 * 2.0**3


def test_a_tape_never_accumulates() -> None:
    W = tf.Variable([1.0, 2.0])
    gradients = []
    for _ in range(2):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(W)
        gradients.append(tape.gradient(loss, W).numpy().tolist())
    assert gradients == [[1, 1], [1, 1]]


def as_tensors(name: str, *arrays: np.ndarray) -> list[object]:
    make = {
        "pytorch": torch.tensor,
        "tensorflow": tf.constant,
        "jax": jnp.asarray,
    }[name]
    return [make(array) for array in arrays]


def parameters(name: str, W: np.ndarray, b: np.ndarray) -> tuple[object, object]:
    make = {"pytorch": leaf, "tensorflow": tf.Variable, "jax": jnp.asarray}[name]
    return make(W), make(b)


def to_numpy(parameter: object) -> np.ndarray:
    return (parameter.detach() if isinstance(parameter, torch.Tensor) else parameter).numpy().copy()


IMPLEMENTATIONS = {"pytorch": pytorch_impl, "tensorflow": tensorflow_impl, "jax": jax_impl}


def test_gradient_descent_is_the_exact_update(framework) -> None:
    problem = hadamard(accumulation_steps=1, updates=10)
    (x, y), *_ = problem.micro_batches
    current = parameters(framework, problem.W, problem.b)
    actual = []
    for _ in range(10):
        result = IMPLEMENTATIONS[framework].gradient_descent(
            current, as_tensors(framework, x, y), 0.25
        )
        current = current if result is None else result
        W, b = (np.asarray(p) if framework == "jax" else to_numpy(p) for p in current)
        actual.append(np.vstack([W, b]))
    comparison = compare_bits(loop.trajectory(problem, "fraction"), actual)
    assert comparison.same, comparison.first
    assert comparison.compared == 150
    assert {theta.dtype for theta in actual} == {np.dtype("float64")}


class Watched(list):
    """A window that looks at the parameters between its micro-steps."""

    def __init__(self, window, look) -> None:
        super().__init__(window)
        self.look = look

    def __iter__(self):
        for item in super().__iter__():
            yield item
            self.look()


@pytest.mark.parametrize("name", ["pytorch", "tensorflow"])
def test_nothing_moves_before_the_boundary(name) -> None:
    module = {"pytorch": pytorch_impl, "tensorflow": tensorflow_impl}[name]
    optimizers = __import__(f"{name}_impl.optimizers", fromlist=["make_optimizer"])
    problem = hadamard(accumulation_steps=4, updates=1)
    current = parameters(name, problem.W, problem.b)
    optimizer = optimizers.make_optimizer(current, problem)
    window = [as_tensors(name, x, y) for x, y in problem.micro_batches]
    seen = []

    def look() -> None:
        seen.append(to_numpy(current[0]))

    module.train_window(current, optimizer, Watched(window, look))
    # Once for the examples' count and once for the micro-steps, four times each.
    assert len(seen) == 8
    assert all((W == problem.W).all() for W in seen)
    look()
    assert (seen[-1] != problem.W).any()


def test_nothing_moves_before_the_boundary_in_jax() -> None:
    from jax_impl.accumulation import accumulating
    from jax_impl.optimizers import make_optimizer

    problem = hadamard(accumulation_steps=4, updates=1)
    current = parameters("jax", problem.W, problem.b)
    optimizer = accumulating(make_optimizer(current, problem), problem)
    window = [tuple(as_tensors("jax", x, y)) for x, y in problem.micro_batches]
    state = optimizer.init(current)
    for micro_batch in window[:3]:
        current, state, _ = jax_impl.train_window(current, state, optimizer, [micro_batch])
        assert (np.asarray(current[0]) == problem.W).all()
    current, state, _ = jax_impl.train_window(current, state, optimizer, window[3:])
    assert (np.asarray(current[0]) != problem.W).any()
    assert all((np.asarray(each) == 0).all() for each in state.acc_grads)


def test_train_window_returns_the_windows_loss(framework) -> None:
    optimizers = __import__(f"{framework}_impl.optimizers", fromlist=["make_optimizer"])
    problem = hadamard(accumulation_steps=4, updates=1)
    current = parameters(framework, problem.W, problem.b)
    optimizer = optimizers.make_optimizer(current, problem)
    window = [tuple(as_tensors(framework, x, y)) for x, y in problem.micro_batches]
    if framework == "jax":
        from jax_impl.accumulation import accumulating

        optimizer = accumulating(optimizer, problem)
        state = optimizer.init(current)
        _, _, loss = jax_impl.train_window(current, state, optimizer, window)
    else:
        loss = IMPLEMENTATIONS[framework].train_window(current, optimizer, window)
    assert float(loss) == loop.loss(np.vstack([problem.W, problem.b]), problem) == 19.0
