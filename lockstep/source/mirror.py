"""Where the three folders do not have the same files, functions and parameters, and why."""

from __future__ import annotations

# Every allowed difference between the folders, with its reason. Where it is a file, a function, a
# class or a constant, a column that lacks it shows the reason to a reader who may know the column's
# framework alone.
THREADS_STATE = "JAX threads state: that is the lesson"
FORWARD = (
    "Only JAX needs it: jax.grad takes a function, so the forward has to be one. Here the forward"
    " stands in the loop."
)
GRADIENT = (
    "Only JAX needs it: it makes the function that returns the loss and its gradient. Here"
    " backward() or the tape finds the gradient, in the loop."
)
EXTENDED = "Only JAX needs it: what optax lacks is added as functions, and elsewhere as classes."
ADAPTED = (
    "Only TensorFlow needs it: Keras's own optimizer cannot be set so that it takes this update."
)
PROGRAM = (
    "In PyTorch, the optimizer stays outside of the program: a compiled one counts its updates in"
    " float32. So update_or_skip calls it, and the program returns the gradient."
)
NAMES = "Only the other two need it: they store this under names of their own."
EXCEPTIONS: dict[tuple[str, ...], str] = {
    ("jax", "training", "micro_loss"): FORWARD,
    ("jax", "training", "micro_gradient"): GRADIENT,
    ("jax", "bitwise", "micro_loss"): FORWARD,
    ("jax", "training", "train_window", "state"): THREADS_STATE,
    ("jax", "window", "micro_loss"): FORWARD,
    ("jax", "window", "micro_gradient"): GRADIENT,
    ("jax", "precision"): (
        "Only JAX needs this file: it computes in float32 until it is told to use float64."
    ),
    ("jax", "recipe", "update_or_skip", "state"): THREADS_STATE,
    **{
        (framework, "recipe", "apply_gradients"): (
            "It stands in accumulation.py here, beside optax's accumulator."
        )
        for framework in ("pytorch", "tensorflow")
    },
    ("pytorch", "library", "Groups"): (
        "Only PyTorch needs it: its optimizers take parameters in groups, each with its own decay."
    ),
    ("pytorch", "state", "optimizer_state", "optimizer"): "JAX has it in the state",
    ("tensorflow", "state", "optimizer_state", "optimizer"): "JAX has it in the state",
    ("jax", "state", "optimizer_state", "state"): THREADS_STATE,
    ("jax", "state", "optimizer_state", "name"): "an optax state does not know its rule",
    ("jax", "state", "ADAM"): NAMES,
    ("jax", "state", "FIELDS"): "Only JAX needs it: these are optax's names for the state.",
    ("tensorflow", "state", "SLOTS"): "Only TensorFlow needs it: these are Keras's names.",
    ("tensorflow", "constants", "as_tensors"): (
        "Only TensorFlow needs it: tf.function would compile anew for every new Python number."
    ),
    ("jax", "accumulation"): (
        "Only JAX needs this file: optax sums a window's gradients in an optimizer around the"
        " optimizer. Here the loop does."
    ),
    ("tensorflow", "table"): (
        "Only TensorFlow needs this file: Keras's own schedules compute in float32."
    ),
    ("tensorflow", "neutral"): (
        "Only TensorFlow needs this file: Keras's optimizers do not take all of PyTorch's settings."
    ),
    ("tensorflow", "adapted_adam"): (
        "Only TensorFlow needs this file: more of Keras's optimizers have to be adapted than one"
        " file holds."
    ),
    ("jax", "fast", "train_window"): PROGRAM,
    ("tensorflow", "fast", "train_window"): PROGRAM,
    ("pytorch", "fast", "clipped_gradient"): (
        "Only PyTorch needs it: its optimizer stays outside of the program. Here train_window takes"
        " the update too."
    ),
    **{
        (framework, "fast", "compiled"): (
            "It is not needed here: jax.jit keeps what it has compiled, for all runs."
        )
        for framework in ("pytorch", "tensorflow")
    },
    ("jax", "fast", "update_or_skip", "state"): THREADS_STATE,
    ("jax", "fast", "update_or_skip", "optimizer"): "a tf.function holds it",
    ("jax", "fast", "update_or_skip", "parameters"): "a tf.function holds them",
    ("pytorch", "fast", "update_or_skip", "optimizer"): "a tf.function holds it",
    ("pytorch", "fast", "update_or_skip", "parameters"): "a tf.function holds them",
    **{
        (framework, "fast", "update_or_skip", "program"): "in JAX it is train_window itself"
        for framework in ("pytorch", "tensorflow")
    },
    ("tensorflow", "fast", "Program"): "It is not needed here: the program is train_window.",
    **{
        (framework, "loop", name): "It stands in window.py here."
        for framework in ("pytorch", "tensorflow")
        for name in ("micro_loss", "micro_gradient")
    },
    **{
        ("pytorch", "compiler", name): (
            "Only PyTorch needs it: it compiles where there is a C++ compiler, and its kernels that"
            " take an update at once are asked for."
        )
        for name in ("can_compile", "fuse", "in_cpp")
    },
    ("tensorflow", "compiler", "in_xla"): (
        "Only TensorFlow needs it: a tf.function looks for the types of what it is called with,"
        " unless it is told."
    ),
    **{
        (framework, "compiler"): (
            "It is not needed here: jax.jit alone makes a program that is called fast."
        )
        for framework in ("pytorch", "tensorflow")
    },
    ("jax", "state", "spread"): (
        "Only JAX needs it: optax keeps one count for all parameters, and not one for each."
    ),
    **{
        ("jax", "adapted", name): EXTENDED
        for name in (
            *("scaled", "scale_by_amsgrad", "NadamState", "nadam_momentum", "scale_by_nadam"),
            "scale_by_rss",
        )
    },
    **{
        ("tensorflow", "adapted", name): ADAPTED
        for name in ("SGD", "RMSprop", "Adagrad", "Adadelta")
    },
    ("pytorch", "adapted", "NAdam"): (
        "Only PyTorch needs it: torch.optim.NAdam keeps a product in float32, whatever the"
        " parameters are."
    ),
    ("pytorch", "adapted", "Lion"): "It is not needed here: optax has Lion, and torch.optim not.",
}


def reason(framework: str, file: str, name: str) -> str:
    """Why a framework's folder lacks what another one's file has; "" if nothing is listed."""
    for (other, *place), why in EXCEPTIONS.items():
        if other != framework and place in ([file], [file, name]):
            return why
    return ""
