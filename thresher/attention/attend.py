"""Attention of a packed batch, by the best route that can take it."""

from __future__ import annotations

from torch import Tensor

from thresher.attention.base import Asked, Attended
from thresher.attention.bias import Bias
from thresher.attention.flex import Flex
from thresher.attention.logsumexp import LogSumExp
from thresher.attention.matrix import Matrix
from thresher.attention.native import Native
from thresher.packed import PackedBatch

ROUTES: tuple[type[Attended], ...] = (Native, Flex, LogSumExp, Matrix)
"""From the fastest to the one that takes everything."""


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    packed: PackedBatch,
    *,
    scale: float,
    window: int | None = None,
    log_weight: Tensor | None = None,
    dropout: float = 0.0,
    bias: Bias | None = None,
) -> Attended:
    """Attention of a packed batch: importance first, and then context rows for the survivors alone.

    Parameters
    ----------
    query, key, value, packed, scale, window, log_weight, dropout, bias
        As of `Asked`.

    Returns
    -------
    Attended

    Examples
    --------
    >>> import torch
    >>> packed, hidden = PackedBatch.from_padded(torch.ones(1, 5), torch.randn(1, 5, 2, 16))
    >>> attended = attend(hidden, hidden, hidden, packed, scale=0.25)
    >>> survivors = (attended.importance() >= 1).nonzero().squeeze(1)
    >>> attended.context(survivors).shape == (len(survivors), 32)
    True
    """
    asked = Asked(query, key, value, packed, scale, window, log_weight, dropout, bias)
    return next(route for route in ROUTES if route.serves(asked))(asked)
