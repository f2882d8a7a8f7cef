"""Linear layers for inference: laid out ahead for the CPU, or in int8."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


class PackedLinear(nn.Module):
    """A linear layer with its weights in oneDNN's own layout, which nn.Linear makes anew in every call.

    Up to twice as fast at few tokens, and no slower at many. The same numbers, but for rounding.

    Parameters
    ----------
    linear : nn.Linear
        On a CPU, in float32 or bfloat16.
    """

    def __init__(self, linear: nn.Linear):
        super().__init__()
        # Opaque, so neither a parameter nor a buffer: there is no moving or casting it.
        self.packed = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), None)
        self.bias = linear.bias
        self.in_features, self.out_features = linear.in_features, linear.out_features

    def forward(self, values: Tensor) -> Tensor:
        return torch.ops.mkldnn._linear_pointwise(values, self.packed, self.bias, "none", [], "")


class Int8Linear(nn.Module):
    """A linear layer whose weights and inputs are rounded to int8.

    Weights have one scale for each output, inputs one for each token: what a token gives does not
    depend on the tokens that happen to be in its batch.

    Parameters
    ----------
    linear : nn.Linear
    """

    weight: Tensor
    scale: Tensor

    def __init__(self, linear: nn.Linear):
        super().__init__()
        weight = linear.weight.detach().float()
        scale = weight.abs().amax(1).clamp(min=1e-12) / 127
        self.register_buffer("weight", (weight / scale[:, None]).round().to(torch.int8).t())
        self.register_buffer("scale", scale)
        self.bias = linear.bias
        self.in_features, self.out_features = linear.in_features, linear.out_features

    def forward(self, values: Tensor) -> Tensor:
        rows = values.reshape(-1, self.in_features).float()
        size = rows.abs().amax(1, keepdim=True).clamp(min=1e-12) / 127
        product = torch._int_mm((rows / size).round().to(torch.int8), self.weight)
        out = product.float().mul_(size).mul_(self.scale)
        if self.bias is not None:
            out += self.bias
        return out.to(values.dtype).view(*values.shape[:-1], self.out_features)


def packs(module: nn.Module) -> bool:
    """True where `PackedLinear` can take the place of the linear layers in `module`."""
    weights = [child.weight for child in module.modules() if type(child) is nn.Linear]
    return (
        torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        and all(w.device.type == "cpu" and w.dtype in (torch.float32, torch.bfloat16) for w in weights)
    )


def replace(module: nn.Module, kind: Callable[[nn.Linear], nn.Module]) -> None:
    """Put another kind of layer in the place of every plain linear layer inside `module`.

    Adapters are left as they are, for they reach into the layers that they adapt.
    """
    for name, child in module.named_children():
        if type(child) is nn.Linear:
            setattr(module, name, kind(child))
        elif not hasattr(child, "base_layer"):
            replace(child, kind)
