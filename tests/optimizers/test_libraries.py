"""What the libraries' own accumulation does, on the versions that are pinned.

Each finding is told in the catalogue. These tests fail on the day on which a library changes it.
"""

import jax
import jax.numpy as jnp
import keras
import numpy as np
import optax
import pytest
import tensorflow as tf


def keras_runs(gradients, optimizer) -> list[float]:
    """A variable that starts at 0, after each micro-step with these gradients, None among them.

    A second variable always has a gradient, since Keras refuses when none has.
    """
    v, other = tf.Variable(0.0), tf.Variable(0.0)
    seen = []
    for gradient in gradients:
        g = None if gradient is None else tf.constant(gradient)
        optimizer.apply_gradients([(g, v), (tf.constant(1.0), other)])
        seen.append(float(v))
    return seen


@pytest.mark.parametrize(
    ("gradients", "moved"),
    [
        ([1.0, 1.0, 1.0], -1.0),
        ([None, 1.0, 1.0], -2 / 3),  # counts as 0
        ([1.0, 1.0, 0.0], -2 / 3),
        ([1.0, 1.0, None], 0.0),  # tape-none-dropped: the window is lost
    ],
)
@pytest.mark.filterwarnings("ignore:Gradients do not exist")
def test_keras_drops_a_window_whose_last_gradient_is_none(gradients, moved) -> None:
    optimizer = keras.optimizers.SGD(1.0, gradient_accumulation_steps=3)
    seen = keras_runs([*gradients, 0.0, 0.0, 0.0], optimizer)
    assert seen[2] == pytest.approx(moved)
    assert seen[-1] == pytest.approx(moved), "nothing of the window is left in the accumulator"


@pytest.mark.parametrize(("k", "counts"), [(1, [0, 1, 2]), (2, [1, 3, 5]), (3, [2, 5, 8])])
def test_keras_looks_its_schedule_up_at_micro_steps(k, counts) -> None:
    class Inverse(keras.optimizers.schedules.LearningRateSchedule):
        def __call__(self, step):
            return 1 / (1 + tf.cast(step, tf.float32))

    accumulation = {"gradient_accumulation_steps": k} if k > 1 else {}
    optimizer = keras.optimizers.SGD(Inverse(), **accumulation)
    seen = [0.0, *keras_runs([1.0] * 3 * k, optimizer)[k - 1 :: k]]
    assert -np.diff(seen) == pytest.approx([1 / (1 + count) for count in counts])


def test_keras_counts_updates_in_adams_bias_correction() -> None:
    """Of a constant gradient, each update is the learning rate."""
    optimizer = keras.optimizers.Adam(0.5, gradient_accumulation_steps=3)
    seen = [0.0, *keras_runs([1.0] * 9, optimizer)[2::3]]
    assert -np.diff(seen) == pytest.approx([0.5] * 3, rel=1e-4)


def multi_steps(inner, gradients, k=3, **settings) -> list[list[float]]:
    """Parameters that start at 0, after each micro-step with these gradients."""
    optimizer = optax.MultiSteps(inner, k, **settings)
    parameters = jnp.zeros(len(gradients[0]))
    state = optimizer.init(parameters)
    seen = []
    for gradient in gradients:
        updates, state = optimizer.update(jnp.array(gradient), state, parameters)
        parameters = optax.apply_updates(parameters, updates)
        seen.append(parameters.tolist())
    return seen


NAN_ONCE = [[1.0, 1.0], [np.nan, 1.0], *([[1.0, 1.0]] * 19)]


def test_multi_steps_keeps_nan_for_ever() -> None:
    """optax-nan-poison: it resets by multiplying with 0."""
    plain = multi_steps(optax.sgd(1.0), NAN_ONCE)
    assert np.isnan(plain[1][0]), "before the boundary, of an update multiplied by 0"
    frozen = multi_steps(optax.chain(optax.zero_nans(), optax.sgd(1.0)), NAN_ONCE)
    assert [theta[0] for theta in frozen] == [0.0] * 21, "frozen for good, without a word"
    assert [theta[1] for theta in frozen[2::3]] == [-1, -2, -3, -4, -5, -6, -7]
    whole = multi_steps(optax.apply_if_finite(optax.sgd(1.0), 5), NAN_ONCE)
    assert whole[:15] == [[0.0, 0.0]] * 15, "five windows, and then the NaN is let through"
    assert np.isnan(whole[-1][0])
    infinite = [[1.0, 1.0], [np.inf, 1.0]]
    inside = multi_steps(optax.chain(optax.zero_nans(), optax.sgd(1.0)), infinite)
    assert np.isnan(inside[1][0])


def test_ema_corrects_its_bias_unless_told_not_to() -> None:
    """momentum-ema."""
    for settings, moved in (({}, [-1, -2, -3]), ({"debias": False}, [-0.1, -0.29, -0.561])):
        optimizer = optax.chain(optax.ema(0.9, **settings), optax.scale(-1.0))
        parameters, seen = jnp.zeros(1), []
        state = optimizer.init(parameters)
        for _ in range(3):
            updates, state = optimizer.update(jnp.ones(1), state)
            parameters = optax.apply_updates(parameters, updates)
            seen.append(float(parameters[0]))
        assert seen == pytest.approx(moved)


def test_multi_steps_that_skips_a_micro_batch_extends_its_window() -> None:
    """skipped-microbatch-replaced."""
    gradients = [[1.0], [np.inf], [2.0], [3.0], [4.0], [5.0], [6.0]]
    skip = optax.skip_not_finite
    seen = multi_steps(optax.sgd(1.0), gradients, should_skip_update_fn=skip)
    assert [theta[0] for theta in seen] == [0, 0, 0, -2, -2, -2, -7]


def test_multi_steps_carries_and_apply_every_sums() -> None:
    """leftover-carried and apply-every."""
    gradients = [[1.0], [3.0], [2.0], [5.0]]
    assert [theta[0] for theta in multi_steps(optax.sgd(0.5), gradients)] == [0, 0, -1, -1]
    optimizer = optax.chain(optax.sgd(0.5), optax.apply_every(3))
    parameters = jnp.zeros(1)
    state = optimizer.init(parameters)
    for gradient in gradients[:3]:
        updates, state = optimizer.update(jnp.array(gradient), state, parameters)
        parameters = optax.apply_updates(parameters, updates)
    assert parameters.tolist() == [-3]


def test_a_python_counter_is_frozen_when_it_is_traced() -> None:
    """never-updates."""
    v, total = tf.Variable(1.0), tf.Variable(0.0)
    steps = 0

    @tf.function
    def micro_step(gradient):
        nonlocal steps
        steps += 1
        total.assign_add(gradient)
        if steps % 3 == 0:
            v.assign_sub(total)
            total.assign(0.0)

    for _ in range(6):
        micro_step(tf.constant(1.0))
    assert (float(v), float(total)) == (1.0, 6.0)
    counted = 0

    @jax.jit
    def jitted(parameter, summed, gradient):
        nonlocal counted
        counted += 1
        summed = summed + gradient
        if counted % 3 == 0:
            return parameter - summed, jnp.zeros(())
        return parameter, summed

    parameter, summed = jnp.ones(()), jnp.zeros(())
    for _ in range(6):
        parameter, summed = jitted(parameter, summed, 1.0)
    assert (float(parameter), float(summed)) == (1.0, 6.0)
