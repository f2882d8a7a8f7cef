"""Importance without the attention matrix on a GPU: two calls of FlexAttention, through the log-sum-exp.

As in `thresher.attention.logsumexp`, queries and keys change places in the second call; but the packed batch
is taken whole, with neither buckets nor padding. Forward only.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import AuxRequest, BlockMask, flex_attention
from torch.utils._triton import has_triton

from thresher.attention.reach import reach
from thresher.native import wants_gradients
from thresher.packed import PackedBatch

if TYPE_CHECKING:
    from thresher.pruners import Decision

LONG = 384  # tokens of a text, from which its matrix costs a GPU too much memory; not measured for speed
NARROWEST = 16  # head that FlexAttention compiles for
BLOCK = 128  # tokens; FlexAttention skips a block of queries by a block of keys where none is reached


def serves(packed: PackedBatch, *inputs: Tensor) -> bool:
    """True for long texts on CUDA, where no gradients are wanted and Triton can make a kernel."""
    if any(x.device.type != "cuda" or x.dtype == torch.float64 for x in inputs):
        return False
    if wants_gradients(*inputs) or inputs[0].shape[-1] < NARROWEST or not has_triton():
        return False
    return int(packed.lengths.max()) >= LONG


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
    # [1, heads, tokens, head_dim]
    q, k, v = (x[: packed.tokens].transpose(0, 1)[None] for x in (query, key, value))
    flex = _compiled() if q.is_cuda else flex_attention
    options = {"block_mask": _block_mask(packed, window), "scale": scale, "return_aux": AuxRequest(lse=True)}
    decision = None if callable(decide) else decide
    with torch.autocast(q.device.type, enabled=False):  # the log-sum-exp stays float32
        context, aux = flex(q, k, v, **options)
        if callable(decide):
            rows = aux.lse

            def less_row(score: Tensor, batch: Tensor, head: Tensor, place: Tensor, other: Tensor) -> Tensor:
                return score - rows[batch, head, other]

            _, aux = flex(k, q, q, score_mod=less_row, **options)  # whoever reaches is reached
            decision = decide(aux.lse.exp().mean(1)[0])
    context = context[0].transpose(0, 1).flatten(1)
    if decision is not None and decision.keep is not None:
        context = context.index_select(0, decision.survivors)
    return context, decision


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
