"""Why each port of the gallery differs, in words, by what the record names.

A test holds these against the record: no difference without a reason, no reason without its
difference.
"""

MEAN = "Every micro-batch has the same weight, whatever its size"
CLIP = "By design: PyTorch's `clip_grad_norm_` adds 1e-6 to the norm."
LEFTOVER = "An epoch's last window is applied, and divided by `k` all the same."
CARRIED = "the count of micro-batches goes on from one epoch to the next"
MOMENTUM = (
    "Keras casts its settings with `ops.cast`, and TensorFlow makes a float32 of a Python float"
    " before it makes a float64 of it"
)
NO_DECAY = (
    "By design: the Trainer puts every parameter whose name has `bias` in it in a group of its own,"
    " without decay, whatever the problem says. No mistake of the catalogue does that."
)
KERAS = {
    "mean-of-means": f"By design: `gradient_accumulation_steps` averages gradients. {MEAN}.",
    "leftover-carried": f"By design: the optimizer knows batches and no epochs, so that {CARRIED}.",
    "sched-per-microstep": (
        "Not by design: `optimizer.iterations` counts updates, but a schedule is called with the"
        " count of batches. `gallery/upstream/` shows it."
    ),
    "momentum-lr-placement": (
        "By design: Keras keeps learning rate times gradient in its momentum, where PyTorch keeps"
        " the gradient. At a constant rate both are the same."
    ),
}

WHY: dict[str, dict[str, str]] = {
    "torch_module.py": {
        "mean-of-means": f"{MEAN}, since each loss is a mean and is divided by `k`.",
        "leftover-divided-by-k": LEFTOVER,
        "sched-with-skipped-window": (
            "The loop steps the scheduler after every window, also where the scaler has skipped the"
            " optimizer's step, as PyTorch's own recipe for AMP does."
        ),
        "clip-epsilon": CLIP,
    },
    "accelerate_loop.py": {
        "mean-of-means": (
            f"By design: `backward` divides each loss by K. {MEAN}; Accelerate's guide has another"
            " loop for batches of variable size."
        ),
        "leftover-divided-by-k": (
            "`accumulate` lets the optimizer step at the end of the loader, and `backward` has"
            " divided by K all the same."
        ),
        "clip-epsilon": CLIP,
    },
    "fabric_loop.py": {
        "mean-of-means": f"{MEAN}, since each loss is a mean and is divided by `k`.",
        "leftover-divided-by-k": LEFTOVER,
        "clip-epsilon": f"{CLIP[:-1]}, and Fabric calls it.",
    },
    "fabric_loop.py:as_documented": {
        "no-divide": "The guide's loop divides its loss by nothing.",
        "boundary-off-by-one": (
            "Not by design: `iteration % 8 != 0` is false for the first batch, whose number is 0."
            " `gallery/upstream/` shows it."
        ),
        "clip-epsilon": f"{CLIP[:-1]}, and Fabric calls it.",
    },
    "lightning_trainer.py": {
        "mean-of-means": (
            f"By design: the Trainer divides each loss by `accumulate_grad_batches`. {MEAN}."
        ),
        "leftover-divided-by-k": (
            "The Trainer lets the optimizer step at the end of an epoch, and has divided by"
            " `accumulate_grad_batches` all the same."
        ),
        "clip-epsilon": f"{CLIP[:-1]}, and the Trainer calls it.",
    },
    "hf_trainer.py": {
        "mean-of-means": (
            "By design: a loss that does not know `num_items_in_batch` is divided by the number of"
            f" micro-batches in the window. {MEAN}; a partial window is right."
        ),
        "clip-epsilon": f"{CLIP[:-1]}, and the Trainer calls it.",
        "biases never decay": NO_DECAY,
    },
    "hf_trainer_items.py": {
        "mean-over-outputs": (
            "By design: `num_items_in_batch` is the number of labels, and an example has one for"
            " each output. Ragged and partial windows are right."
        ),
        "clip-epsilon": f"{CLIP[:-1]}, and the Trainer calls it.",
        "biases never decay": NO_DECAY,
    },
    "keras_fit.py": KERAS
    | {
        "float32-settings": (
            f"Not by design: {MOMENTUM}. It is the momentum. `gallery/upstream/` shows it."
        )
    },
    "keras_on_jax.py": KERAS,
    "keras_on_pytorch.py": KERAS
    | {
        "of float32 size": (
            "Not by design: on PyTorch, `ops.matmul` of two float64 tensors is computed in float32,"
            " so that a float64 layer is none (keras-team/keras#23704)."
        )
    },
    "keras_train_step.py": {
        "mean-of-means": f"{MEAN}, since each gradient is a mean and is divided by K.",
        "leftover-carried": f"The model knows batches and no epochs, so that {CARRIED}.",
        "float32-settings": f"{MOMENTUM}: that is the momentum.",
    },
    "tf_function.py": {
        "adam-eps-hat": "By design: Keras's Adam adds eps before it corrects the bias.",
        "momentum-lr-placement": KERAS["momentum-lr-placement"],
        "float32-settings": f"{MOMENTUM}: here the momentum.",
        "of float32 size": "The same, of Adam's betas and decay, beside its other place for eps.",
    },
    "optax_multisteps.py": {
        "mean-of-means": f"By design: `MultiSteps` keeps a running mean of gradients. {MEAN}.",
        "leftover-carried": f"By design: `MultiSteps` knows no epochs, so that {CARRIED}.",
        "low-precision-accumulator": (
            "By design: the default of `accumulator_dtype` is float32, whatever the parameters are."
        ),
    },
    "optax_apply_every.py": {
        "apply-every": (
            "By design: it adds up updates, not gradients. The optimizer takes a step for every"
            " micro-batch, its moments too, and nothing is divided by K."
        ),
        "leftover-carried": f"By design: it counts micro-steps, so that {CARRIED}.",
    },
    "flax_nnx.py": {
        "mean-of-means": f"{MEAN}, since each gradient is a mean and their sum is divided by K.",
    },
    "lax_scan.py": {},
    "optax_microbatching.py": {},
}
OUTSIDE = WHY["optax_multisteps.py:clip_outside"] = dict(WHY["optax_multisteps.py"])
OUTSIDE["of float32 size"] = OUTSIDE.pop("low-precision-accumulator")
OUTSIDE["clip-each-microgradient"] = (
    "By design: what stands before `MultiSteps` in a chain sees every micro-batch's gradient, and"
    " clips it to the whole norm, before the mean is taken."
)

# Of the pages, in their order.
TITLES = {
    "torch_module": "PyTorch: nn.Module and GradScaler",
    "accelerate_loop": "Accelerate",
    "fabric_loop": "Lightning Fabric",
    "lightning_trainer": "Lightning Trainer",
    "hf_trainer": "Hugging Face Trainer",
    "hf_trainer_items": "Hugging Face Trainer, num_items_in_batch",
    "keras_fit": "Keras fit on TensorFlow",
    "keras_on_pytorch": "Keras fit on PyTorch",
    "keras_on_jax": "Keras fit on JAX",
    "keras_train_step": "Keras train_step",
    "tf_function": "tf.function",
    "optax_multisteps": "optax.MultiSteps",
    "optax_apply_every": "optax.apply_every",
    "optax_microbatching": "optax.microbatch",
    "flax_nnx": "Flax NNX",
    "lax_scan": "jax.lax.scan",
}
