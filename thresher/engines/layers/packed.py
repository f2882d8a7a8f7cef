"""Linear layers for inference, with their weights laid out ahead for the CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from thresher.families import GeluLinear, is_plain
from thresher.native import wants_gradients


class PackedLinear(nn.Module):
    """A linear layer with its weights in oneDNN's own layout, which nn.Linear makes anew in every call.

    Up to twice as fast at few tokens, and no slower at many. The same numbers, but for rounding. Where it is
    moved to a device or a dtype that has no such layout, it goes on as a plain linear layer.

    Parameters
    ----------
    linear : nn.Linear or GeluLinear
    """

    weight: Tensor  # neither a parameter nor a buffer: a packed tensor has no memory that others could read

    def __init__(self, linear: nn.Linear):
        super().__init__()
        self.in_features, self.out_features, self.bias = linear.in_features, linear.out_features, linear.bias
        self.gelu = isinstance(linear, GeluLinear)
        self.weight = _packed(linear.weight.detach())

    def forward(self, values: Tensor) -> Tensor:
        if not self.weight.is_mkldnn or wants_gradients(values):
            values = F.linear(values, _plain(self.weight), self.bias)
            return F.gelu(values) if self.gelu else values
        values = values.to(self.weight.dtype)  # under autocast
        after: tuple[Any, ...] = ("gelu", [], "none") if self.gelu else ("none", [], "")
        return torch.ops.mkldnn._linear_pointwise(values, self.weight, self.bias, *after)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        super()._apply(fn, recurse)
        self.weight = _packed(fn(_plain(self.weight)))
        return self

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"weight": _plain(self.weight)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.weight = _packed(self.weight)


def _packed(weight: Tensor) -> Tensor:
    """In oneDNN's layout, where there is one for such a tensor on this machine."""
    operations = torch.ops.mkldnn
    if weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return weight
    if not hasattr(operations, "_linear_pointwise"):
        return weight
    if weight.dtype != torch.float32 and not (
        weight.dtype == torch.bfloat16 and operations._is_mkldnn_bf16_supported()
    ):
        return weight
    return operations._reorder_linear_weight(weight, None)


def _plain(weight: Tensor) -> Tensor:
    return weight.to_dense() if weight.is_mkldnn else weight


def replace(module: nn.Module, kind: Callable[[nn.Linear], nn.Module]) -> None:
    """Put another kind of layer in the place of every linear layer inside `module`, plain or with GELU.

    Adapters are left as they are, for they reach into the layers that they adapt.
    """
    for name, child in module.named_children():
        if is_plain(child) or isinstance(child, GeluLinear):
            setattr(module, name, kind(child))
        elif not hasattr(child, "base_layer"):
            replace(child, kind)
