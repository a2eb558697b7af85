"""How much memory a process has, and had at most, as Linux counts it."""

from __future__ import annotations

import ctypes
import gc
from pathlib import Path


def resident(name: str) -> int:
    """VmRSS or VmHWM of this process, in bytes."""
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith(name)) * 1024


def trim() -> None:
    """Let go of what is nobody's: what was freed, and is kept by malloc."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)


def forget_peak() -> None:
    """Let VmHWM begin anew, at what is in use."""
    trim()
    Path("/proc/self/clear_refs").write_text("5")
