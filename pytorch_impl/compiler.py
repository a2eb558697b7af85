"""The fastest form that PyTorch has on this machine."""

from collections.abc import Callable
from inspect import signature
from typing import Any

import torch
from torch import optim
from torch._inductor import cpp_builder, exc
from torch.optim import Optimizer

FUSED = optim.SGD, optim.Adam, optim.AdamW, optim.Adagrad


def can_compile() -> bool:
    """Whether there is a C++ compiler, and a torch for it."""
    try:
        cpp_builder.get_cpp_compiler()
    except exc.InvalidCxxCompiler:
        return False
    # Of torch's own, where a library has wrapped it.
    known = signature(torch.compile).parameters
    return "isolate_recompiles" in known


def fuse(optimizer: Optimizer) -> bool:
    """Take updates in one kernel, where PyTorch has one."""
    fused = isinstance(optimizer, FUSED)
    if fused:
        for group in optimizer.param_groups:
            group["fused"] = True
    return fused


def in_cpp(program: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a whole program, and what calls its kernels.

    One shape at a time, and each program by itself: else
    the ninth of a process would find its limit reached.
    """
    return torch.compile(
        program,
        fullgraph=True,
        dynamic=False,
        isolate_recompiles=True,
        options={"cpp_wrapper": True},
    )
