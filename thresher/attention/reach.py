"""Which keys a query reaches: all of its sequence, or those within a window of original positions."""

from __future__ import annotations

import torch
from torch import Tensor

from thresher.packed import PackedBatch


def reach(packed: PackedBatch, window: int | None) -> tuple[Tensor, Tensor]:
    """Which tokens each token's query reaches: a run, as the positions of a sequence rise.

    Parameters
    ----------
    packed : PackedBatch
    window : int or None
        Largest difference of original positions that is attended; None attends to all.

    Returns
    -------
    low, high : int64 tensors [tokens]
        The first token reached, and the one after the last.
    """
    if window is None:
        start, end = packed.cu_seqlens[:-1].long(), packed.cu_seqlens[1:].long()
        return start[packed.sequence], end[packed.sequence]
    # One sorted axis for all sequences: rows lie further apart than any window reaches.
    stride = int(packed.positions.max()) + 2 * window + 2
    axis = packed.sequence * stride + packed.positions
    return torch.searchsorted(axis, axis - window), torch.searchsorted(axis, axis + window, right=True)


def weight_in_reach(packed: PackedBatch, window: int | None, weight: Tensor) -> Tensor:
    """Total weight of the keys that each token's query reaches.

    With weights of one it is the number of keys; with gates it is the expected number. Summed over
    queries it gives the attended pairs, which the FLOPs of attention are proportional to.

    Parameters
    ----------
    packed : PackedBatch
    window : int or None
        Largest difference of original positions that is attended; None attends to all.
    weight : float tensor [tokens]

    Returns
    -------
    float tensor [tokens]
        Differentiable in `weight`.
    """
    before = torch.cat([weight.new_zeros(1), weight.cumsum(0)])
    low, high = reach(packed, window)
    return before[high] - before[low]
