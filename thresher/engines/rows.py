"""A round number of rows: libraries for CPUs compile products for their number of rows, which takes time."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from thresher.packed import PackedBatch


@dataclass(frozen=True)
class Rows:
    """How many rows so many tokens are computed in.

    Attributes
    ----------
    tokens, count : int
        Rows that are read, and rows that are computed: as many or more.
    """

    tokens: int
    count: int

    @classmethod
    def of(cls, packed: PackedBatch, rounded: bool) -> Rows:
        """Rows for a packed batch.

        Where they are `rounded`, on a CPU, they are rounded up by 3 % at most from 512 on, so that few
        numbers occur: oneDNN compiles for each of them, for milliseconds.
        """
        tokens = packed.tokens
        if not rounded or packed.positions.device.type != "cpu":
            return cls(tokens, tokens)
        step = max(16, 1 << max(0, tokens.bit_length() - 6))
        return cls(tokens, -(-tokens // step) * step)

    def filled(self, values: Tensor) -> Tensor:
        """``[tokens, ...]`` to ``[count, ...]``: the last row repeated, which is not read. Values that have
        so many rows already are returned as they are."""
        if (spare := self.count - len(values)) == 0:
            return values
        return torch.cat([values, values[-1:].expand(spare, *values.shape[1:])])
