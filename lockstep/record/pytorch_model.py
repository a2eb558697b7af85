"""What PyTorch's models and optimizers are: refused, unwrapped, named, and told of in words."""

from __future__ import annotations

import os
import platform
import sys
from typing import Any

import numpy as np
import torch
import torch._dynamo  # every optimizer loads it

from lockstep.record.pytorch_tensors import Held
from lockstep.record.writer import RecordError

# Whose versions tell something about a run, where they are loaded.
PACKAGES = ("torch", "accelerate", "lightning", "pytorch_lightning", "transformers")
# A wrapper's attribute that holds the module, or optimizer, which it wraps.
INNER_MODULE = ("_orig_mod", "module", "_forward_module")
INNER_OPTIMIZER = ("optimizer", "_optimizer")


def check(model: Any, optimizers: tuple[Any, ...], ranks: int | str) -> None:
    """Refuse what cannot be recorded, in one line."""
    if not isinstance(model, torch.nn.Module):
        raise RecordError(f"{type(model).__name__} is no torch.nn.Module: hand over the model")
    if ranks != "all" and not isinstance(ranks, int):
        raise RecordError(f'ranks={ranks!r}: write a number, or "all"')
    if getattr(torch._dynamo.config, "compiled_autograd", False):
        raise RecordError(
            "a compiled backward() cannot be recorded: set compiled_autograd = False in "
            "torch._dynamo.config"
        )
    wrappers = {type(module).__name__ for module in model.modules()}
    for name in ("FullyShardedDataParallel", "DeepSpeedEngine", "DataParallel"):
        if name in wrappers:
            raise RecordError(f"{name} cannot be recorded: run a few updates on one device or DDP")
    if not any(True for _ in model.parameters()):
        raise RecordError("the model has no parameters: hand over the one that is trained")
    known = {id(parameter) for parameter in model.parameters()}
    for optimizer in optimizers:
        optimizer = inner_optimizer(optimizer)
        check_optimizer(optimizer)
        groups = optimizer.param_groups
        if not any(id(parameter) in known for group in groups for parameter in group["params"]):
            raise RecordError(
                f"{type(optimizer).__name__} steps no parameter of the model: "
                "hand over the model that it was made for"
            )


def check_optimizer(optimizer: Any) -> None:
    """Refuse what is no optimizer, or steps in another way."""
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise RecordError(f"{type(optimizer).__name__} is no torch.optim.Optimizer")
    if isinstance(optimizer, torch.optim.LBFGS):
        raise RecordError("LBFGS takes many gradients in one step: record another optimizer's run")


def check_parameter(name: str, parameter: Any) -> None:
    """Refuse parameters that are elsewhere, or not there yet."""
    if type(parameter).__name__.startswith("Uninitialized"):
        raise RecordError(f"{name} has no shape yet: call the model once before recording")
    if parameter.device.type == "meta":
        raise RecordError(f"{name} has no values yet: load the model before recording")
    if hasattr(parameter.data, "to_local"):
        raise RecordError(f"{name} is sharded: run a few updates on one device or DDP")


def place() -> tuple[int, int]:
    """The process' number, and how many there are."""
    distributed = torch.distributed
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    rank = os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0"))
    return int(rank), int(os.environ.get("WORLD_SIZE", "1"))


def unwrapped(module: Any) -> Any:
    """The module inside what wraps it, to compile or distribute it."""
    for name in INNER_MODULE:
        inner = module._modules.get(name)
        if inner is not None and len(module._modules) == 1 and wraps(module):
            return unwrapped(inner)
    return module


def wraps(module: Any) -> bool:
    """Whether a module is a library's wrapper rather than somebody's model."""
    return type(module).__name__ in ("OptimizedModule", "DistributedDataParallel", "_FabricModule")


def compiled(module: Any) -> bool:
    """Whether a module, or what it wraps, is compiled as a whole."""
    if module._compiled_call_impl is not None or type(module).__name__ == "OptimizedModule":
        return True
    inner = [module._modules.get(name) for name in INNER_MODULE]
    return wraps(module) and any(compiled(one) for one in inner if one is not None)


def inner_optimizer(optimizer: Any) -> Any:
    """The optimizer of PyTorch's inside a library's."""
    for name in INNER_OPTIMIZER:
        inner = getattr(optimizer, name, None)
        if isinstance(inner, torch.optim.Optimizer) and inner is not optimizer:
            return inner_optimizer(inner)
    return optimizer


def clean(name: str) -> str:
    """A name without what a compiled part adds to it."""
    return name.replace("_orig_mod.", "")


def number(value: Any) -> Any:
    """A number that may be in a tensor."""
    return value.item() if isinstance(value, torch.Tensor) else value


def scalar(tensors: Any) -> Any:
    """The loss that backward() began at, if it is one number."""
    if isinstance(tensors, (list, tuple)) and len(tensors) == 1:
        tensors = tensors[0]
    if isinstance(tensors, torch.Tensor) and tensors.numel() == 1:
        return tensors.detach().clone()
    return None


def settled(value: Any) -> Any:
    """A setting that is a plain number, text or list of them; else nothing."""
    if isinstance(value, torch.Tensor) and value.numel() == 1:
        return value.item()
    if isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)) and all(settled(entry) is not None for entry in value):
        return [settled(entry) for entry in value]
    return None


def wider(arrays: dict[str, Held]) -> dict[str, str]:
    """The types that NumPy has not, of what is kept in float32."""
    return {
        name: str(taken.dtype).removeprefix("torch.")
        for name, taken in arrays.items()
        if taken.dtype.is_floating_point and taken.dtype != taken.values.dtype
    }


def parameters_of(settings: dict[str, Any]) -> list[Any]:
    """The names in an optimizer's groups."""
    return [group["parameters"] for group in settings["groups"]]


def versions() -> dict[str, str]:
    """The versions of what has a part in the run."""
    found = {"python": platform.python_version(), "numpy": np.__version__}
    for name in PACKAGES:
        version = getattr(sys.modules.get(name), "__version__", None)
        if version is not None:
            found[name] = str(version)
    return found
