"""Lockstep: the same training step in PyTorch, TensorFlow and JAX, compared bit for bit."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lockstep import record as record
    from lockstep.diagnosis import check as check
    from lockstep.trace import compare_traces as compare_traces


def __getattr__(name: str) -> Any:
    """What is public, imported when it is first needed: NumPy takes its time."""
    if name == "check":
        from lockstep.diagnosis import check

        return check
    if name == "compare_traces":
        from lockstep.trace import compare_traces

        return compare_traces
    if name == "record":
        return importlib.import_module("lockstep.record")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
