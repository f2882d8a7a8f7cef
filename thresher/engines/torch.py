"""Stages by PyTorch: the family's live modules, called eagerly. Needs nothing, and the one to train with."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from thresher.engines.base import Engine, Heads
from thresher.engines.layers import Int8Linear, PackedLinear, replace
from thresher.errors import UserError
from thresher.families import Family


def to_bfloat16(model: nn.Module) -> None:
    """Convert the weights. Buffers stay: bfloat16 rotary frequencies turn far tokens by a wrong angle."""
    for parameter in model.parameters():
        parameter.data = parameter.data.to(torch.bfloat16)


class TorchEngine(Engine, name="torch"):
    """Calls the modules of the transformers model.

    Parameters
    ----------
    family : Family
    precision : {"fp32", "bf16", "int8"}, optional
        For inference: weights are converted, and layers replaced, in place. None leaves the model as it is.
    """

    def __init__(self, family: Family, precision: str | None = None):
        self.family = family
        if precision is None:
            return
        layers = [family.layer(index) for index in range(family.layers)]
        device = family.model.device
        if precision == "int8":
            if device.type != "cpu":
                raise UserError("int8 runs on CPUs alone; use bf16 here.")
            if any(hasattr(module, "base_layer") for layer in layers for module in layer.modules()):
                raise UserError("An adapter cannot run in int8: merge it first (model.merge_and_unload()).")
        bf16 = self.dtype_of(precision) == torch.bfloat16
        convert = to_bfloat16 if bf16 else nn.Module.float
        family.fuse()
        if precision != "int8":  # which is made of the weights as they came, not rounded once more
            convert(family.model)
        for layer in layers:
            replace(layer, self._linear(precision, device))
        if precision == "int8":
            convert(family.model)
        if bf16:
            replace(family.model, self._linear("bf16", device))  # the head
        compiled = (nn.Linear, PackedLinear, Int8Linear)
        self.rounds_rows = any(isinstance(x, compiled) for layer in layers for x in layer.modules())

    @classmethod
    def dtype_of(cls, precision: str) -> torch.dtype:
        """What weights are held in, and what int8 leaves over is computed in: bfloat16 where that is fast."""
        bf16 = precision == "bf16" or (precision == "int8" and cls._fast_in_bf16())
        return torch.bfloat16 if bf16 else torch.float32

    @staticmethod
    def _fast_in_bf16() -> bool:
        return torch.cpu._is_amx_tile_supported()

    def _linear(self, precision: str, device: torch.device) -> Callable[[nn.Linear], nn.Module]:
        """The linear layer to use."""
        return Int8Linear if precision == "int8" else PackedLinear

    def _embed(self, inputs: dict[str, Tensor], positions: Tensor) -> tuple[Tensor, Heads]:
        hidden = self.family.embed(inputs, positions)
        return hidden, self.family.qkv(0, hidden, positions)

    def _stage(
        self, index: int, hidden: Tensor, context: Tensor, positions: Tensor, gate: Tensor | None
    ) -> tuple[Tensor, Heads | None]:
        hidden = self.family.transform(index, hidden, context)
        if gate is not None:
            hidden = hidden * gate.to(hidden.dtype)[:, None]
        last = index + 1 == self.family.layers
        return hidden, None if last else self.family.qkv(index + 1, hidden, positions)
