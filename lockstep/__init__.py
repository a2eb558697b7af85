"""Lockstep: the same training step in PyTorch, TensorFlow and JAX, compared bit for bit."""

# What each framework's implementation imports, in the order in which it does.
PACKAGES = {
    "pytorch": ("torch",),
    "tensorflow": ("tensorflow", "keras"),
    "jax": ("jax", "optax"),
}
FRAMEWORKS = tuple(PACKAGES)
