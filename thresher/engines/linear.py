"""Linear layers in int8, on any machine."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from thresher.errors import UserError


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


def quantize(module: nn.Module) -> None:
    """Put int8 in the place of every plain linear layer inside `module`.

    Raises
    ------
    UserError
        For adapters, which reach into the layers they adapt.
    """
    if any(hasattr(child, "base_layer") for child in module.modules()):
        raise UserError("An adapter cannot run in int8: merge it first (model.merge_and_unload()).")
    for name, child in module.named_children():
        if type(child) is nn.Linear:
            setattr(module, name, Int8Linear(child))
        else:
            quantize(child)
