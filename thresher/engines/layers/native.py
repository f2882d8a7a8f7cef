"""Linear layers by our own code, on CPUs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from thresher import native
from thresher.engines.layers.int8 import float_bias, weights_in_int8
from thresher.families import GeluLinear
from thresher.native.records import GELU, IDENTITY, PRECISIONS, Linear, LinearWork

PADDED, GROUP = 64, 4  # bytes that the inputs of an output are filled up to, and of a group of inputs
PANEL, PAIR = 16, 32  # outputs of a panel, and what outputs are filled up to
OPERATION = "thresher::linear"  # and in the profile its rows, inputs and outputs
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


class NativeLinear(nn.Module):
    """A linear layer, with its weights in the panels that native code multiplies.

    In int8, weights have one size (what a step of 1 stands for) for each output, inputs one for each token:
    what a token gives does not depend on the tokens that happen to be in its batch. Where the layer is moved
    to another device or dtype, or to a machine without the instructions, or gradients are wanted, it goes on
    as a plain linear layer.

    Parameters
    ----------
    linear : nn.Linear or GeluLinear
    precision : {"fp32", "bf16", "int8"}
        What weights and inputs are rounded to.
    """

    # No buffers: none of these follows the model to another dtype.
    panels: Tensor  # [outputs / 16, groups of inputs, 16, inputs in a group]
    sizes: Tensor | None  # float32 [outputs], with zeros after them to fill the last panels; in int8
    start: Tensor | None  # int32, as sizes: -128 times the sum of an output's weights
    bias: Tensor  # as sizes
    moved: Tensor | None = None  # the weight, where it is no longer in panels
    weight = None  # T5's feed-forward looks whether there is one

    def __init__(self, linear: nn.Linear, precision: str):
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.precision, self.gelu = precision, isinstance(linear, GeluLinear)
        after = (0, -self.out_features % PAIR)
        self.sizes = self.start = None
        dtype = native.panel_dtype(precision)
        if precision == "int8":
            weight, sizes = weights_in_int8(linear)
            self.sizes = F.pad(sizes, after)
            self.start = F.pad(-128 * weight.sum(1, dtype=torch.int32), after)
        else:
            weight = linear.weight.detach()
        self.panels = in_panels(weight.to(dtype))
        self.bias = F.pad(float_bias(linear), after)

    def forward(self, values: Tensor) -> Tensor:
        if not self.here or values.device.type != "cpu" or native.wants_gradients(values):
            return self._plainly(values)
        values = values.to(self._dtype(values.dtype))  # under autocast
        rows = values if values.dim() == 2 else values.reshape(-1, self.in_features)
        if rows.stride(1) != 1:
            rows = rows.contiguous()
        count = rows.shape[0]
        out = rows.new_empty(count, self.out_features)
        work = LinearWork(
            linear=self.record(),
            source=rows,
            target=out,
            rows=count,
            stride=rows.stride(0),
            activation=GELU if self.gelu else IDENTITY,
            precision=PRECISIONS[self.precision],
            bf16=rows.dtype == torch.bfloat16,
        )
        label = f"{OPERATION} {count} {self.in_features} {self.out_features}"
        native.call("linear", work, count * self.panels.numel(), least=1 << 21, label=label)
        return out if rows is values else out.view(*values.shape[:-1], self.out_features)

    @property
    def here(self) -> bool:
        """Whether the weights are in panels, on a machine that multiplies them."""
        laid_out = self.moved is None and self.panels.dtype == native.panel_dtype(self.precision)
        return laid_out and native.has_linears(self.precision)

    def record(self) -> Linear:
        """For the native code, which does not look at it longer than this layer lives."""
        return Linear(
            weights=self.panels,
            sizes=self.sizes,
            start=self.start,
            bias=self.bias,
            inputs=self.in_features,
            outputs=self.out_features,
        )

    def _dtype(self, given: torch.dtype) -> torch.dtype:
        """What rows are computed in."""
        if self.precision != "int8":
            return DTYPES[self.precision]
        return given if given == torch.float32 else torch.bfloat16

    def _weight(self) -> Tensor:
        """The weight ``[outputs, inputs]`` that the panels stand for."""
        parts = self.panels.permute(0, 2, 1, 3)
        weight = parts.reshape(len(parts) * PANEL, -1)[: self.out_features, : self.in_features]
        return weight if self.sizes is None else weight * self.sizes[: self.out_features, None]

    def _plainly(self, values: Tensor) -> Tensor:
        weight = self._weight().to(values.dtype) if self.moved is None else self.moved
        out = F.linear(values.to(weight.dtype), weight, self.bias[: self.out_features].to(weight))
        return F.gelu(out) if self.gelu else out

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        super()._apply(fn, recurse)
        after = fn(self._weight() if self.moved is None else self.moved)
        stays = (torch.float32, torch.bfloat16) if self.precision == "int8" else (DTYPES[self.precision],)
        if self.moved is not None or after.device.type != "cpu" or after.dtype not in stays:
            self.moved, self.panels = after, after.new_empty(0)
        return self


def in_panels(weight: Tensor) -> Tensor:
    """``[outputs, inputs]`` to panels, one after the other (csrc/panels.h). Zeros fill the last ones."""
    size = weight.element_size()
    weight = F.pad(weight, (0, -weight.shape[1] % (PADDED // size), 0, -weight.shape[0] % PAIR))
    parts = weight.view(len(weight) // PANEL, PANEL, weight.shape[1] * size // GROUP, GROUP // size)
    return parts.transpose(1, 2).contiguous()
