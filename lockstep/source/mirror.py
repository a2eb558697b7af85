"""Where the three folders do not have the same files, functions and parameters, and why."""

from __future__ import annotations

# Every allowed difference between the folders, with its reason.
EXCEPTIONS: dict[tuple[str, ...], str] = {
    ("jax", "training", "micro_loss"): "jax.grad differentiates a function: the forward",
    ("jax", "training", "micro_gradient"): "loss.backward() and tape.gradient stand in the loop",
    ("jax", "bitwise", "micro_loss"): "jax.grad differentiates a function: the forward",
    ("jax", "training", "train_window", "state"): "JAX threads state: that is the lesson",
    ("jax", "window", "micro_loss"): "jax.grad differentiates a function: the forward",
    ("jax", "precision"): "JAX has no float64 unless it is told",
    ("jax", "recipe", "update_or_skip", "state"): "JAX threads state: that is the lesson",
    ("pytorch", "recipe", "apply_gradients"): "JAX has it beside optax's accumulator",
    ("tensorflow", "recipe", "apply_gradients"): "JAX has it beside optax's accumulator",
    ("pytorch", "state", "optimizer_state", "optimizer"): "JAX has it in the state",
    ("tensorflow", "state", "optimizer_state", "optimizer"): "JAX has it in the state",
    ("jax", "state", "optimizer_state", "state"): "JAX threads state: that is the lesson",
    ("jax", "state", "optimizer_state", "name"): "an optax state does not know its rule",
    ("tensorflow", "constants", "as_tensors"): "tf.function traces anew for a number",
    ("jax", "accumulation"): "optax's accumulator is an optimizer around the optimizer",
    ("tensorflow", "table"): "Keras's schedules are float32, and a model saves them",
    ("tensorflow", "neutral"): "what a Keras optimizer needs to take PyTorch's settings",
    (
        "tensorflow",
        "adapted_adam",
    ): "Keras has more to adapt than a file of 100 lines holds",
    ("jax", "state", "spread"): "optax keeps a scalar for all parameters together",
    **{
        ("jax", "adapted", name): "optax is extended by functions, not by classes"
        for name in (
            *("scaled", "scale_by_amsgrad", "nadam_momentum", "scale_by_nadam", "scale_by_rss"),
        )
    },
}


def reason(framework: str, file: str, name: str) -> str:
    """Why a framework's folder lacks what another one's file has; "" if nothing is listed."""
    for (other, *place), why in EXCEPTIONS.items():
        if other != framework and place in ([file], [file, name]):
            return why
    return ""
