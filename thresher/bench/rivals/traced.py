"""A transformers model for converters that trace it."""

from __future__ import annotations

from torch import Tensor, nn

from thresher.bench.rivals import logits_of


class Logits(nn.Module):
    """The model with tensors in and one tensor out. Arguments go by `names`."""

    def __init__(self, model: nn.Module, names: list[str]):
        super().__init__()
        self.model, self.names = model, names

    def forward(self, *values: Tensor) -> Tensor:
        logits: Tensor = logits_of(self.model(**dict(zip(self.names, values, strict=True))))
        return logits
