"""Linear layers in int8, for CPUs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from thresher import native
from thresher.errors import UserError
from thresher.families import GeluLinear
from thresher.native.records import RowWork


class Int8Linear(nn.Module):
    """A linear layer whose weights and inputs are rounded to int8.

    Weights have one size (what a step of 1 stands for) for each output, inputs one for each token: what
    a token gives does not depend on the tokens that happen to be in its batch.

    Parameters
    ----------
    linear : nn.Linear or GeluLinear
    """

    weight: Tensor  # int8 [in, out]; where oneDNN has its own layout of it, neither a parameter nor a buffer
    sizes: Tensor  # float32 [out]

    def __init__(self, linear: nn.Linear):
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.gelu = isinstance(linear, GeluLinear)
        weight, self.sizes = weights_in_int8(linear)
        self.bias, self.zeros = float_bias(linear), torch.zeros_like(self.sizes, dtype=torch.int32)
        self.weight = _packed(weight.t())

    def forward(self, values: Tensor) -> Tensor:
        rows, sizes = quantise(values.reshape(-1, self.in_features))
        dtype = values.dtype if values.dtype == torch.bfloat16 else torch.float32
        if self.weight.is_mkldnn:
            # As bytes from 0, where 128 stands for 0: without AMX, oneDNN has no fast product of two signed.
            scales = (1.0, 128, self.weight, self.sizes, self.zeros)
            rest: tuple[Any, ...] = (None, 1.0, 0, dtype, "none", [], "")
            rows = rows.view(torch.uint8).bitwise_xor_(128)
            product = torch.ops.onednn.qlinear_pointwise(rows, *scales, *rest)
        else:
            product = torch._int_mm(rows, self.weight).float().mul_(self.sizes).to(dtype)
        out = finish_(product, sizes, self.bias, self.gelu).to(values.dtype)
        return out.view(*values.shape[:-1], self.out_features)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        super()._apply(fn, recurse)
        if fn(self.sizes).device.type != "cpu":
            raise UserError("int8 runs on CPUs alone; load the model again, in bf16.")
        return self

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"weight": self.weight.to_dense() if self.weight.is_mkldnn else self.weight}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.weight = _packed(self.weight)


def weights_in_int8(linear: nn.Linear) -> tuple[Tensor, Tensor]:
    """int8 ``[outputs, inputs]``, and the float32 sizes ``[outputs]`` that they are times of."""
    weight = linear.weight.detach().float()
    sizes = weight.abs().amax(1).clamp(min=1e-12) / 127
    return (weight / sizes[:, None]).round().to(torch.int8), sizes


def float_bias(linear: nn.Linear) -> Tensor:
    """float32 [outputs]: zeros where there is none."""
    if linear.bias is None:
        return linear.weight.new_zeros(linear.out_features, dtype=torch.float32)
    return linear.bias.detach().float().contiguous()


def _packed(weight: Tensor) -> Tensor:
    """In oneDNN's layout, where it has fast products of int8 on this machine."""
    if torch.cpu._is_vnni_supported() and hasattr(torch.ops.onednn, "qlinear_prepack"):
        return torch.ops.onednn.qlinear_prepack(weight.t().contiguous(), None)
    return weight


def quantise(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Round every row to int8 times its own size, which is the largest number of the row over 127.

    Parameters
    ----------
    rows : tensor [rows, width]

    Returns
    -------
    tuple
        int8 ``[rows, width]``, and float32 sizes ``[rows]``.
    """
    whole, sizes = (
        rows.new_empty(rows.shape, dtype=torch.int8),
        rows.new_empty(len(rows), dtype=torch.float32),
    )
    if native.serves(rows):
        work = RowWork(
            source=rows.contiguous(),
            target=whole,
            sizes=sizes,
            bias=None,
            rows=rows.shape[0],
            width=rows.shape[1],
            bf16=rows.dtype == torch.bfloat16,
            gelu=False,
        )
        native.call("quantise", work, rows.numel())
        return whole, sizes
    rows = rows.float()
    sizes = rows.abs().amax(1) / 127
    steps = rows / torch.where(sizes == 0, 1.0, sizes)[:, None]
    return steps.round().to(torch.int8), sizes


def finish_(product: Tensor, sizes: Tensor, bias: Tensor, gelu: bool) -> Tensor:
    """``product * sizes + bias``, through GELU if wanted, in the place of `product`.

    Parameters
    ----------
    product : tensor [rows, width]
    sizes : float32 tensor [rows]
    bias : float32 tensor [width]
    gelu : bool
    """
    if native.serves(product):
        work = RowWork(
            source=None,
            target=product,
            sizes=sizes,
            bias=bias,
            rows=product.shape[0],
            width=product.shape[1],
            bf16=product.dtype == torch.bfloat16,
            gelu=gelu,
        )
        native.call("finish", work, product.numel())
        return product
    out = torch.addcmul(bias, product.float(), sizes[:, None])
    return product.copy_(F.gelu(out) if gelu else out)
