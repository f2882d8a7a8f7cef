"""A path of thresholds from mild to hard, along which a bound is sought."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor


def between(path: Sequence[Tensor] | Tensor, place: float) -> Tensor:
    """Thresholds at a place from 0 to ``len(path) - 1`` on a path, in a straight line between its points."""
    low = min(int(place), len(path) - 1)
    high = min(low + 1, len(path) - 1)
    return path[low] + (place - low) * (path[high] - path[low])
