"""The frameworks: what they are called, and what their implementations import."""

# What each framework's implementation imports, in the order in which it does.
PACKAGES = {
    "pytorch": ("torch",),
    "tensorflow": ("tensorflow", "keras"),
    "jax": ("jax", "optax"),
}
# The oldest version of each that the implementations run with; `lockstep check` needs none.
NEEDED = {
    "torch": "2.6",
    "tensorflow": "2.16.1",
    "keras": "3.3",
    "jax": "0.6",
    "optax": "0.2.8",
}
FRAMEWORKS = tuple(PACKAGES)
NAMES = {"pytorch": "PyTorch", "tensorflow": "TensorFlow", "jax": "JAX"}
# What a port can be written in besides.
KERAS_ON = {
    f"keras-{framework}": f"Keras on {NAMES[framework]}" for framework in ("pytorch", "jax")
}
