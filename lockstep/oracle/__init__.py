"""What is right: the reference loop of named stages, the rules, bounds, and comparison.

It knows problems, and must know no framework: it shares no code with what it judges.
"""

from lockstep.oracle.compare import Comparison, Divergence, compare_bits, compare_bounds
from lockstep.oracle.loop import STAGES, Place, Snapshot, Stages, loss, snapshots, trajectory
from lockstep.oracle.rounding import exact_updates, rounding_bounds

__all__ = [
    "STAGES",
    "Comparison",
    "Divergence",
    "Place",
    "Snapshot",
    "Stages",
    "compare_bits",
    "compare_bounds",
    "exact_updates",
    "loss",
    "rounding_bounds",
    "snapshots",
    "trajectory",
]
