"""Stages by PyTorch: the family's live modules, called eagerly. Needs nothing, and the one to train with."""

from __future__ import annotations

import torch
from torch import Tensor

from thresher.engines.base import Engine, Heads
from thresher.engines.linear import quantize
from thresher.families import Family


class TorchEngine(Engine):
    """Calls the modules of the transformers model.

    Parameters
    ----------
    family : Family
    precision : {"fp32", "bf16", "int8"}, optional
        For inference: the weights are converted in place. None leaves the model as it is.
    """

    def __init__(self, family: Family, precision: str | None = None):
        self.family = family
        if precision == "bf16":
            family.model.to(torch.bfloat16)
        elif precision == "int8":
            for index in range(family.layers):
                quantize(family.layer(index))

    def embed(self, input_ids: Tensor, token_types: Tensor, positions: Tensor) -> tuple[Tensor, Heads]:
        hidden = self.family.embed(input_ids, token_types, positions)
        return hidden, self.family.qkv(0, hidden, positions)

    def stage(
        self, index: int, hidden: Tensor, context: Tensor, positions: Tensor, gate: Tensor | None = None
    ) -> tuple[Tensor, Heads | None]:
        hidden = self.family.transform(index, hidden, context)
        if gate is not None:
            hidden = hidden * gate.to(hidden.dtype)[:, None]
        last = index + 1 == self.family.layers
        return hidden, None if last else self.family.qkv(index + 1, hidden, positions)
