"""Linear layers by our own code, in bfloat16 or int8, on processors with AMX."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from thresher import native
from thresher.engines.layers.int8 import float_bias, weights_in_int8
from thresher.families import GeluLinear
from thresher.native.records import LinearWork

ROW, PANEL = 64, 32  # bytes in a row of a tile, and outputs that are computed together
OPERATION = "thresher::linear"  # and in the profile its rows, inputs and outputs


def here() -> bool:
    """True on a machine that can, with the native code built and not told otherwise."""
    return native.library is not None and native.instructions == "amx"


class TileLinear(nn.Module):
    """A linear layer, with its weights in the tiles that AMX multiplies.

    In int8, weights have one size (what a step of 1 stands for) for each output, inputs one for each token:
    what a token gives does not depend on the tokens that happen to be in its batch. Where the layer is moved
    to another device or dtype, or to a machine without AMX, or gradients are wanted, it goes on as a plain
    linear layer.

    Parameters
    ----------
    linear : nn.Linear or GeluLinear
    int8 : bool
        Round weights and inputs to int8; else they are bfloat16.
    """

    # No buffers: none of these follows the model to another dtype.
    tiles: Tensor  # [outputs / 16, chunks of inputs, 16, 16, inputs in a group]
    sizes: Tensor  # float32 [outputs], with zeros after them to fill the last panel
    bias: Tensor  # as sizes
    moved: Tensor | None = None  # the weight, where it is no longer in tiles

    def __init__(self, linear: nn.Linear, int8: bool):
        super().__init__()
        self.in_features, self.out_features, self.int8 = linear.in_features, linear.out_features, int8
        self.gelu = isinstance(linear, GeluLinear)
        if int8:
            weight, sizes = weights_in_int8(linear)
        else:
            weight = linear.weight.detach().to(torch.bfloat16)
            sizes = linear.weight.new_ones(self.out_features, dtype=torch.float32)
        after = (0, -self.out_features % PANEL)
        self.tiles = in_tiles(weight)
        self.sizes, self.bias = F.pad(sizes, after), F.pad(float_bias(linear), after)

    def forward(self, values: Tensor) -> Tensor:
        off = self.moved is not None or values.device.type != "cpu" or not here()
        if off or native.wants_gradients(values):
            return self._plainly(values)
        if not self.int8 or values.dtype != torch.float32:
            values = values.to(torch.bfloat16)  # under autocast
        rows = values if values.dim() == 2 else values.reshape(-1, self.in_features)
        if rows.stride(1) != 1:
            rows = rows.contiguous()
        count = rows.shape[0]
        out = rows.new_empty(count, self.out_features)
        work = LinearWork(
            source=rows,
            target=out,
            weights=self.tiles,
            weight_sizes=self.sizes if self.int8 else None,
            bias=self.bias,
            rows=count,
            inputs=self.in_features,
            outputs=self.out_features,
            stride=rows.stride(0),
            bf16=rows.dtype == torch.bfloat16,
            gelu=self.gelu,
        )
        label = f"{OPERATION} {count} {self.in_features} {self.out_features}"
        native.call("linear", work, count * self.tiles.numel(), least=1 << 21, label=label)
        return out if rows is values else out.view(*values.shape[:-1], self.out_features)

    def _weight(self) -> Tensor:
        """The weight ``[outputs, inputs]`` that the tiles stand for."""
        parts = self.tiles.permute(0, 3, 1, 2, 4)
        weight = parts.reshape(len(parts) * 16, -1)[: self.out_features, : self.in_features]
        return weight * self.sizes[: self.out_features, None] if self.int8 else weight

    def _plainly(self, values: Tensor) -> Tensor:
        weight = self._weight().to(values.dtype) if self.moved is None else self.moved
        out = F.linear(values.to(weight.dtype), weight, self.bias[: self.out_features].to(weight))
        return F.gelu(out) if self.gelu else out

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        super()._apply(fn, recurse)
        after = fn(self._weight() if self.moved is None else self.moved)
        stays = (torch.float32, torch.bfloat16) if self.int8 else (torch.bfloat16,)
        if self.moved is not None or after.device.type != "cpu" or after.dtype not in stays:
            self.moved, self.tiles = after, after.new_empty(0)
        return self


def in_tiles(weight: Tensor) -> Tensor:
    """``[outputs, inputs]`` to tiles, one after the other (csrc/linear_amx.h). Zeros fill the last ones."""
    side, group = ROW // weight.element_size(), 4 // weight.element_size()
    weight = F.pad(weight, (0, -weight.shape[1] % side, 0, -weight.shape[0] % PANEL))
    parts = weight.view(len(weight) // 16, 16, -1, 16, group)  # 16 outputs; chunks of inputs; rows of a tile
    return parts.permute(0, 2, 3, 1, 4).contiguous()
