"""Real runs compared: traces, which parameter is which, where two runs part, what that is called.

It knows NumPy, the oracle's rules and the catalogue, no framework, and must not know how anything
looks.
"""

from lockstep.trace.alone import check_trace
from lockstep.trace.comparison import Comparison, compare_traces
from lockstep.trace.findings import Finding
from lockstep.trace.initial import Initial, initial_values
from lockstep.trace.reading import Trace, TraceError, read

__all__ = [
    "Comparison",
    "Finding",
    "Initial",
    "Trace",
    "TraceError",
    "check_trace",
    "compare_traces",
    "initial_values",
    "read",
]
