"""Attention of a packed batch, by the best route that can take the input."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from torch import Tensor

from thresher.attention import flex, logsumexp, matrix, native
from thresher.packed import PackedBatch

if TYPE_CHECKING:
    from thresher.pruners import Decision


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
    decide: Callable[[Tensor], Decision] | Decision | None = None,
) -> tuple[Tensor, Decision | None]:
    """Attention of a packed batch, with the drop between scores and context.

    Parameters
    ----------
    query, key, value : tensors [tokens or more, heads, head_dim]
        Rows behind the tokens are not read.
    packed : PackedBatch
    scale : float
        Factor on the scores, usually ``head_dim ** -0.5``. Above 0.
    window : int, optional
        Attend only within this difference of original positions.
    log_weight : float tensor [tokens], optional
        Log of how alive each token is (soft stage, exact gate): added to the scores of that token
        as a key, and its exponential weighs the token's vote in the importance.
    dropout : float
        On the probabilities, after importance is taken.
    decide : callable, or Decision, optional
        Gets the importance, a float32 tensor [tokens] (float64 for float64 input) in fair shares,
        mean 1 over every sequence, and answers with a `Decision`. A `Decision` that stands already
        spares the importance. None: nothing is dropped.

    Returns
    -------
    context : tensor [survivors, heads * head_dim]
    decision : Decision or None
        What `decide` answered.
    """
    if not dropout and native.serves(query, key, value):
        return native.attend(
            query, key, value, packed, scale=scale, window=window, log_weight=log_weight, decide=decide
        )
    if log_weight is None and not dropout:
        if flex.serves(packed, query, key, value):
            return flex.attend(query, key, value, packed, scale=scale, window=window, decide=decide)
        if decide is not None and logsumexp.serves(packed, query, key, value):
            return logsumexp.attend(query, key, value, packed, scale=scale, window=window, decide=decide)
    return matrix.attend(
        query,
        key,
        value,
        packed,
        scale=scale,
        window=window,
        log_weight=log_weight,
        dropout=dropout,
        decide=decide,
    )
