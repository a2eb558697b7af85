"""The frameworks: what they are called, and what their implementations import."""

# What each framework's implementation imports, in the order in which it does.
PACKAGES = {
    "pytorch": ("torch",),
    "tensorflow": ("tensorflow", "keras"),
    "jax": ("jax", "optax"),
}
FRAMEWORKS = tuple(PACKAGES)
NAMES = {"pytorch": "PyTorch", "tensorflow": "TensorFlow", "jax": "JAX"}
