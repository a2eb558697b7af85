"""What a run reads of a problem: data and settings."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np


class Problem(Protocol):
    """Any object with these attributes."""

    W: np.ndarray  # (features, outputs)
    b: np.ndarray  # (outputs,)
    micro_batches: Sequence[tuple[np.ndarray, np.ndarray]]
    epochs: int
    accumulation_steps: int
    optimizer: Any  # settings: see optimizers.py
    dtype: str
    updates: int  # in all epochs
    learning_rates: Sequence[float] | None
    schedule: Any  # None, or settings: see schedule.py
    max_norm: float | None
    decay_bias: bool
    example_weights: Sequence[np.ndarray] | None
    partial_windows: str
    non_finite: str
    compute_dtype: str | None
    loss_scale: Any  # None, or settings: see progress.py

    def uses_only(self, *settings: str) -> bool:
        """Whether only these, of a recipe's, are in use."""
