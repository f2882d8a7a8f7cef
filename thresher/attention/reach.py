"""Which keys a query reaches: all of its sequence, or those within a window of original positions."""

from __future__ import annotations

import torch
from torch import Tensor

from thresher.packed import PackedBatch


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
    start, end = packed.cu_seqlens[:-1].long(), packed.cu_seqlens[1:].long()
    if window is None:
        return (before[end] - before[start])[packed.sequence]
    # One sorted axis for all sequences: rows lie further apart than any window reaches.
    stride = int(packed.positions.max()) + 2 * window + 2
    axis = packed.sequence * stride + packed.positions
    low = torch.searchsorted(axis, axis - window)
    high = torch.searchsorted(axis, axis + window, right=True)
    return before[high] - before[low]
