"""Importance without the attention matrix on a GPU: two calls of FlexAttention, through the log-sum-exp.

As in `thresher.attention.logsumexp`, queries and keys change places in the second call; but the packed batch
is taken whole, with neither buckets nor padding. Forward only.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import AuxRequest, BlockMask, flex_attention
from torch.utils._triton import has_triton

from thresher.attention.base import Asked, Attended
from thresher.attention.reach import reach
from thresher.native import wants_gradients
from thresher.packed import PackedBatch

LONG = 384  # tokens of a text, from which its matrix costs a GPU too much memory; not measured for speed
NARROWEST = 16  # head that FlexAttention compiles for
BLOCK = 128  # tokens; FlexAttention skips a block of queries by a block of keys where none is reached


class Flex(Attended):
    """For long texts on CUDA, where no gradients are wanted and Triton can make a kernel."""

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
        if any(x.device.type != "cuda" or x.dtype == torch.float64 for x in inputs):
            return False
        if asked.query.shape[-1] < NARROWEST or not has_triton():
            return False
        return int(asked.packed.lengths.max()) >= LONG

    def __init__(self, asked: Asked):
        super().__init__(asked)
        asked, tokens = self.asked, asked.packed.tokens
        # [1, heads, tokens, head_dim]
        self.heads = [x[:tokens].transpose(0, 1)[None] for x in (asked.query, asked.key, asked.value)]
        self.options = {"block_mask": _block_mask(asked.packed, asked.window), "scale": asked.scale}

    def _run(self, *heads: Tensor, **options: Any) -> tuple[Tensor, Tensor]:
        """Context ``[1, heads, tokens, head_dim]``, and the log-sum-exp of each row of scores."""
        flex = _compiled() if self.asked.query.is_cuda else flex_attention
        with torch.autocast(heads[0].device.type, enabled=False):  # the log-sum-exp stays float32
            found, aux = flex(*heads, **self.options, return_aux=AuxRequest(lse=True), **options)
        return found, aux.lse

    def _receive(self) -> Tensor:
        query, key, value = self.heads
        context, rows = self._run(query, key, value)
        self._context = context[0].transpose(0, 1).flatten(1)

        def less_row(score: Tensor, batch: Tensor, head: Tensor, place: Tensor, other: Tensor) -> Tensor:
            return score - rows[batch, head, other]

        _, columns = self._run(key, query, query, score_mod=less_row)  # whoever reaches is reached
        return columns.exp().mean(1)[0]

    def _rows(self) -> Tensor:
        context, _ = self._run(*self.heads)
        return context[0].transpose(0, 1).flatten(1)


@cache
def _compiled() -> Any:
    return torch.compile(flex_attention, dynamic=True)


def _block_mask(packed: PackedBatch, window: int | None) -> BlockMask:
    """Built from the ends of each block: `create_block_mask` would look at every pair of tokens."""
    low, high = reach(packed, window)
    begins = torch.arange(0, packed.tokens, BLOCK, device=low.device)
    first = low[begins] // BLOCK
    last = (high[(begins + BLOCK - 1).clamp(max=packed.tokens - 1)] - 1) // BLOCK
    blocks = torch.arange(len(begins), device=low.device)
    return BlockMask.from_kv_blocks(
        (last - first + 1).int()[None, None],
        (first[:, None] + blocks).clamp(max=len(blocks) - 1).int()[None, None],
        BLOCK_SIZE=BLOCK,
        mask_mod=lambda batch, head, place, other: (low[place] <= other) & (other < high[place]),
        seq_lengths=(packed.tokens, packed.tokens),
        compute_q_blocks=False,  # for gradients alone
    )
