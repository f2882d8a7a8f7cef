"""Importance without the attention matrix: two calls of torch's fused attention, through the log-sum-exp.

The first call gives context rows and the log of every row's sum, L. The second has queries and keys change
places, with -L added to every column: its own log of a row's sum is then that of a column of probabilities.
Memory grows with the length of a text and not with its square, but for a window's mask. Forward only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from thresher.attention.buckets import Bucket, buckets, scatter
from thresher.native import wants_gradients
from thresher.packed import PackedBatch

if TYPE_CHECKING:
    from thresher.pruners import Decision

LONG = 384  # tokens of a text, from which this is faster than the matrix: benchmarks/attention.py


def serves(packed: PackedBatch, *inputs: Tensor) -> bool:
    """True where this route works and pays: long texts on a CPU, with no gradients wanted."""
    if any(x.device.type != "cpu" for x in inputs) or int(packed.lengths.max()) < LONG:
        return False
    return not wants_gradients(*inputs)


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    packed: PackedBatch,
    *,
    scale: float,
    window: int | None = None,
    decide: Callable[[Tensor], Decision] | Decision | None = None,
) -> tuple[Tensor, Decision | None]:
    """As `thresher.attention.attend`."""
    some = buckets(packed)
    query, key, value = query.contiguous(), key.contiguous(), value.contiguous()  # once, not in every bucket
    places = [b.tokens for b in some]
    found = [_context_and_received(b, query, key, value, scale, window, callable(decide)) for b in some]
    context = scatter(packed.tokens, places, [context for context, _ in found]).flatten(1)
    decision = decide(scatter(packed.tokens, places, [r for _, r in found])) if callable(decide) else decide
    if decision is not None and decision.keep is not None:
        context = context.index_select(0, decision.survivors)
    return context, decision


def _context_and_received(
    bucket: Bucket,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scale: float,
    window: int | None,
    importance: bool,
) -> tuple[Tensor, Tensor]:
    """``[tokens of the bucket, heads, head_dim]`` and, if wanted, importance ``[tokens of the bucket]``."""
    exact = torch.promote_types(query.dtype, torch.float32)
    q, k, v = (bucket.heads(x).to(exact) for x in (query, key, value))
    bias = bucket.bias(window, exact)  # the same seen from either side, but for padding
    context, rows = _fused(q, k, v, scale, bias)
    context = context.to(value.dtype).transpose(1, 2)[bucket.valid]
    if not importance:
        return context, rows
    # -L goes in as one more dim: as a bias it would be a matrix for each head where there is a window.
    k = torch.cat([k, torch.ones_like(k[..., :1])], -1)
    q = torch.cat([q, rows[..., None] / -scale], -1)
    _, columns = _fused(k, q, q, scale, bias)
    return context, columns.exp().mean(1)[bucket.valid]


def _fused(q: Tensor, k: Tensor, v: Tensor, scale: float, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    """Context ``[b, heads, n, dim]`` and the log-sum-exp of the scores ``[b, heads, n]``."""
    return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        q, k, v, 0.0, False, attn_mask=bias, scale=scale
    )
