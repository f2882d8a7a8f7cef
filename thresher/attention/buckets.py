"""Sequences of near lengths, padded to the longest of them: how routes that want a batch get one."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from thresher.attention.bias import Bias
from thresher.packed import PackedBatch

# Sequences share a bucket while the longest is at most SLACK times the shortest plus SPARE tokens,
# and the bucket's matrix holds at most CELLS numbers per head: padding costs less than another
# round of small kernels, and a bucket's matrices stay near the cache.
SLACK, SPARE, CELLS = 1.125, 4, 1 << 18


def buckets(packed: PackedBatch) -> list[Bucket]:
    """All sequences of a packed batch, each in one bucket."""
    return [Bucket(packed, rows, longest) for rows, longest in _plan(packed)]


def _plan(packed: PackedBatch) -> Iterator[tuple[Tensor | slice, int]]:
    """Yield the rows and the longest length of each bucket."""
    lengths = packed.lengths.tolist()
    if len(lengths) == 1:
        yield slice(None), lengths[0]
        return
    order = sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True)
    device, start = packed.positions.device, 0
    for i in range(1, len(order) + 1):
        longest = lengths[order[start]]
        full = (i - start) * longest**2 >= CELLS
        if i == len(order) or full or longest > SLACK * lengths[order[i]] + SPARE:
            yield torch.tensor(order[start:i], device=device), longest
            start = i


def scatter(size: int, places: list[Tensor], parts: list[Tensor]) -> Tensor:
    """Put rows back in packed order."""
    rows = torch.cat(parts)
    return rows.new_empty(size, *rows.shape[1:]).index_copy(0, torch.cat(places), rows)


class Bucket:
    """Sequences of near lengths, padded to the longest of them: ``index [b, n]`` into the tokens."""

    def __init__(self, packed: PackedBatch, rows: Tensor | slice, longest: int):
        starts, lengths = packed.cu_seqlens[:-1].long()[rows, None], packed.lengths[rows, None]
        places = torch.arange(longest, device=lengths.device)
        self.valid = places < lengths  # [b, n]
        # Padding repeats the last token: finite numbers that are not read.
        self.index = starts + torch.minimum(places, lengths - 1)
        self.ragged = not bool(self.valid.all())
        self.tokens = self.index[self.valid]
        self.packed = packed
        self.rows: Tensor | None = None  # index of every (token, head)

    def heads(self, values: Tensor) -> Tensor:
        """``[tokens, heads, head_dim]`` to ``[b, heads, n, head_dim]``."""
        # One index_select of (token, head) rows: products want contiguous matrices, and the backward
        # pass of plain indexing runs on one core.
        (b, n), (_, heads, dim) = self.index.shape, values.shape
        if self.rows is None:
            self.rows = (heads * self.index[:, None] + self.index.new_tensor(range(heads))[:, None]).flatten()
        return values.reshape(-1, dim).index_select(0, self.rows).view(b, heads, n, dim)

    def reachable(self, window: int | None) -> Tensor | None:
        """Bool mask that broadcasts to ``[b, 1, n, n]``, or None where every key is reached."""
        mask = self.valid[:, None, None, :] if self.ragged else None
        if window is None:
            return mask
        at = self.packed.positions[self.index]
        near = ((at[:, :, None] - at[:, None, :]).abs() <= window)[:, None]
        return near if mask is None else near & mask

    def mask(self, window: int | None, dtype: torch.dtype) -> Tensor | None:
        """`reachable` to be added to scores, many times faster than filling them by a mask."""
        if (mask := self.reachable(window)) is None:
            return None
        return torch.zeros_like(mask, dtype=dtype).masked_fill_(~mask, -torch.inf)

    def biased(self, bias: Bias) -> Tensor:
        """What relative positions add to the scores: ``[b, heads, n, n]``."""
        return bias.matrix(self.index, self.packed.positions[self.index])
