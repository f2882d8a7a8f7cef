"""Linear layers that may be joined, or replaced by faster ones."""

from __future__ import annotations

from typing import TypeGuard

from torch import Tensor, nn
from torch.nn import functional as F
from transformers.activations import GELUActivation


def is_plain(module: nn.Module) -> TypeGuard[nn.Linear]:
    """True for a plain linear layer without hooks."""
    return type(module) is nn.Linear and not is_heard(module)


def is_gelu(module: nn.Module) -> bool:
    """True for the exact GELU without hooks."""
    exact = isinstance(module, nn.GELU) and module.approximate == "none"
    return (exact or type(module) is GELUActivation) and not is_heard(module)


def is_heard(module: nn.Module) -> bool:
    """True for a module with hooks, which must be called to be heard."""
    return bool(module._forward_hooks or module._forward_pre_hooks)


class GeluLinear(nn.Linear):
    """A linear layer with GELU after it, which engines compute in one go: what `Family.fuse` makes of two
    modules."""

    @classmethod
    def of(cls, linear: nn.Linear) -> GeluLinear:
        """The same weights, not a copy."""
        made = cls(linear.in_features, linear.out_features, device="meta")
        made.weight, made.bias = linear.weight, linear.bias
        return made

    def forward(self, values: Tensor) -> Tensor:
        return F.gelu(super().forward(values))
