"""What torch.optim's own optimizers cannot be set to."""

from collections.abc import Callable
from typing import Any

import torch
from torch import optim


class NAdam(optim.NAdam):
    """NAdam with the product of its momenta in float64.

    The stock one keeps it, on the host, in the default dtype,
    float32, whatever the parameters are.
    """

    def __init__(self, groups: Any, **settings: Any) -> None:
        """Fill in the state that the first step would."""
        super().__init__(groups, **settings)
        for group in self.param_groups:
            for p in group["params"]:
                self.state[p] = {
                    "step": torch.tensor(0.0),
                    "mu_product": torch.ones(
                        (), dtype=torch.float64
                    ),
                    "exp_avg": torch.zeros_like(p),
                    "exp_avg_sq": torch.zeros_like(p),
                }


class Lion(optim.Optimizer):
    """Lion (Chen et al., 2023), which torch.optim lacks."""

    def __init__(
        self,
        params: Any,
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
    ) -> None:
        """Decay is decoupled, as in AdamW."""
        if not (lr >= 0 and weight_decay >= 0):
            raise ValueError(
                f"{lr=}, {weight_decay=}: below 0"
            )
        if not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"{betas=}: not in [0, 1)")
        defaults = {"lr": lr, "betas": betas}
        defaults["weight_decay"] = weight_decay
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(
        self, closure: Callable[[], Any] | None = None
    ) -> Any:
        """Take one update in place; return closure's loss."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self._update(p, self.state[p], group)
        return loss

    def _update(self, p: Any, state: Any, group: Any) -> None:
        """Step by the sign of an interpolation."""
        rate, (beta1, beta2) = group["lr"], group["betas"]
        m = state.setdefault("exp_avg", torch.zeros_like(p))
        direction = (m * beta1 + p.grad * (1 - beta1)).sign()
        p.mul_(1 - rate * group["weight_decay"])
        p.sub_(rate * direction)
        m.mul_(beta2).add_(p.grad, alpha=1 - beta2)
        state["step"] = state.get("step", 0) + 1
