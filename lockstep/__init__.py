"""Lockstep: the same training step in PyTorch, TensorFlow and JAX, compared bit for bit."""

FRAMEWORKS = ("pytorch", "tensorflow", "jax")
