"""Lockstep: the same training step in PyTorch, TensorFlow and JAX, compared bit for bit."""

from typing import TYPE_CHECKING, Any

# What each framework's implementation imports, in the order in which it does.
PACKAGES = {
    "pytorch": ("torch",),
    "tensorflow": ("tensorflow", "keras"),
    "jax": ("jax", "optax"),
}
FRAMEWORKS = tuple(PACKAGES)

if TYPE_CHECKING:
    from lockstep.verdict import check as check


def __getattr__(name: str) -> Any:
    """`lockstep.check`, imported when it is first needed: NumPy takes its time."""
    if name == "check":
        from lockstep.verdict import check

        return check
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
