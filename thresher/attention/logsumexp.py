"""Importance without the attention matrix: two calls of torch's fused attention, through the log-sum-exp.

The first call gives context rows and the log of every row's sum, L. The second has queries and keys change
places, with -L added to every column: its own log of a row's sum is then that of a column of probabilities.
Memory grows with the length of a text and not with its square, but for a window's mask. Forward only.
"""

from __future__ import annotations

import torch
from torch import Tensor

from thresher.attention.base import Asked, Attended
from thresher.attention.buckets import Bucket, buckets, scatter
from thresher.attention.matrix import fused_rows
from thresher.native import wants_gradients

LONG = 384  # tokens of a text, from which this is faster than the matrix: benchmarks/attention.py


class LogSumExp(Attended):
    """For long texts on a CPU, where no gradients are wanted."""

    @classmethod
    def serves(cls, asked: Asked) -> bool:
        inputs = asked.query, asked.key, asked.value
        if (
            asked.bias is not None
            or asked.log_weight is not None
            or asked.dropout
            or wants_gradients(*inputs)
        ):
            return False
        return all(x.device.type == "cpu" for x in inputs) and int(asked.packed.lengths.max()) >= LONG

    def _receive(self) -> Tensor:
        asked, some = self.asked, buckets(self.asked.packed)
        # Contiguous once, not in every bucket.
        query, key, value = (x.contiguous() for x in (asked.query, asked.key, asked.value))
        found = [_context_and_received(b, query, key, value, asked.scale, asked.window) for b in some]
        places, tokens = [b.tokens for b in some], asked.packed.tokens
        self._context = scatter(tokens, places, [context for context, _ in found]).flatten(1)
        return scatter(tokens, places, [received for _, received in found])

    def _rows(self) -> Tensor:
        return fused_rows(self.asked)


def _context_and_received(
    bucket: Bucket,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scale: float,
    window: int | None,
) -> tuple[Tensor, Tensor]:
    """``[tokens of the bucket, heads, head_dim]``, and importance ``[tokens of the bucket]``."""
    exact = torch.promote_types(query.dtype, torch.float32)
    q, k, v = (bucket.heads(x).to(exact) for x in (query, key, value))
    bias = bucket.mask(window, exact)  # the same seen from either side, but for padding
    context, rows = _fused(q, k, v, scale, bias)
    context = context.to(value.dtype).transpose(1, 2)[bucket.valid]
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
