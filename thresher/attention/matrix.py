"""The plain route: the attention matrix of sequences of near lengths, a bucket at a time.

Works on every device and dtype, and is differentiable: training always takes it. No context row is computed
for a token that is dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from thresher.packed import PackedBatch

if TYPE_CHECKING:
    from thresher.pruners import Decision

# Sequences share a bucket while the longest is at most SLACK times the shortest plus SPARE tokens,
# and the bucket's matrix holds at most CELLS numbers per head: padding costs less than another
# round of small kernels, and a bucket's matrices stay near the cache.
SLACK, SPARE, CELLS = 1.125, 4, 1 << 18


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
    """As `thresher.attention.attend`."""
    buckets = [_Bucket(packed, rows, longest) for rows, longest in _plan(packed)]
    heads_dim = query.shape[1] * query.shape[2]
    if decide is None and log_weight is None:
        parts = [b.fused(query, key, value, scale, window, dropout) for b in buckets]
        return _scatter(packed.tokens, [b.tokens for b in buckets], parts).view(-1, heads_dim), None

    # Importance wants float32 whatever autocast says: bfloat16 scores move it by 3e-3.
    with torch.autocast(query.device.type, enabled=False):
        probabilities = [b.probabilities(query, key, scale, window, log_weight) for b in buckets]
        decision = None if callable(decide) else decide
        if callable(decide):
            votes = None if log_weight is None else log_weight.exp()
            received = [b.importance(p, votes) for b, p in zip(buckets, probabilities, strict=True)]
            decision = decide(_scatter(packed.tokens, [b.tokens for b in buckets], received))
        keep = decision.keep if decision is not None else None
        parts = [b.context(p, value, keep, dropout) for b, p in zip(buckets, probabilities, strict=True)]
    if keep is None:
        return _scatter(packed.tokens, [b.tokens for b in buckets], parts).view(-1, heads_dim), decision
    place = keep.cumsum(0) - 1
    places = [place[b.tokens[keep[b.tokens]]] for b in buckets]
    return _scatter(int(place[-1]) + 1, places, parts).view(-1, heads_dim), decision


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


def _scatter(size: int, places: list[Tensor], parts: list[Tensor]) -> Tensor:
    """Put rows back in packed order."""
    rows = torch.cat(parts)
    return rows.new_empty(size, *rows.shape[1:]).index_copy(0, torch.cat(places), rows)


def _dropout(values: Tensor, share: float) -> Tensor:
    """Dropout, its share rounded to 1/256. On a CPU torch draws 64 random bits for every number, on one
    core, and longer texts' training spends most of its time there; a byte will do."""
    if values.device.type != "cpu" or share > 0.99:
        return F.dropout(values, share)
    bits = torch.empty(-(-values.numel() // 8), dtype=torch.int64).random_(-(2**63), None)
    level = round(256 * share)
    keep = bits.view(torch.uint8)[: values.numel()].view(values.shape) >= level
    return torch.where(keep, values, 0.0) * (256 / (256 - level))


class _Bucket:
    """Sequences of near lengths, padded to the longest of them: ``index [b, n]`` into the tokens."""

    def __init__(self, packed: PackedBatch, rows: Tensor | slice, longest: int):
        starts, lengths = packed.cu_seqlens[:-1].long()[rows, None], packed.lengths[rows, None]
        places = torch.arange(longest, device=lengths.device)
        self.valid = places < lengths  # [b, n]
        # Padding repeats the last token: finite numbers that nobody reads.
        self.index = starts + torch.minimum(places, lengths - 1)
        self.ragged = not bool(self.valid.all())
        self.tokens = self.index[self.valid]
        self.packed = packed
        self.rows: Tensor | None = None  # index of every (token, head)

    def _heads(self, values: Tensor) -> Tensor:
        """``[tokens, heads, head_dim]`` to ``[b, heads, n, head_dim]``."""
        # One index_select of (token, head) rows: products want contiguous matrices, and the backward
        # pass of plain indexing runs on one core.
        (b, n), (_, heads, dim) = self.index.shape, values.shape
        if self.rows is None:
            self.rows = (heads * self.index[:, None] + self.index.new_tensor(range(heads))[:, None]).flatten()
        return values.reshape(-1, dim).index_select(0, self.rows).view(b, heads, n, dim)

    def _reachable(self, window: int | None) -> Tensor | None:
        """Bool mask that broadcasts to ``[b, 1, n, n]``, or None where every key is reached."""
        mask = self.valid[:, None, None, :] if self.ragged else None
        if window is None:
            return mask
        at = self.packed.positions[self.index]
        near = ((at[:, :, None] - at[:, None, :]).abs() <= window)[:, None]
        return near if mask is None else near & mask

    def fused(
        self, query: Tensor, key: Tensor, value: Tensor, scale: float, window: int | None, dropout: float
    ) -> Tensor:
        """Context rows ``[tokens of the bucket, heads, head_dim]`` by torch's own fused attention."""
        q, k, v = (self._heads(x) for x in (query, key, value))
        mask = self._reachable(window)
        context = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout, scale=scale)
        return context.transpose(1, 2)[self.valid]

    def probabilities(
        self, query: Tensor, key: Tensor, scale: float, window: int | None, log_weight: Tensor | None
    ) -> Tensor:
        """Attention probabilities ``[b, heads, n, n]``, at least float32."""
        exact = torch.promote_types(query.dtype, torch.float32)
        scores = (self._heads(query).to(exact) * scale) @ self._heads(key).to(exact).transpose(-1, -2)
        if log_weight is not None:
            scores.add_(log_weight[self.index][:, None, None, :])
        if (mask := self._reachable(window)) is not None:
            # Adding a small broadcast bias is many times faster than filling the scores by a mask.
            scores.add_(torch.zeros_like(mask, dtype=exact).masked_fill_(~mask, -torch.inf))
        return scores.softmax(-1)

    def importance(self, probabilities: Tensor, votes: Tensor | None) -> Tensor:
        """Attention received ``[tokens of the bucket]``: weighted column sums, mean over heads."""
        heads = probabilities.shape[1]
        weight = self.valid.to(probabilities.dtype)
        if votes is not None:
            weight = weight * votes[self.index]
        received = (weight[:, None, None, :] @ probabilities).sum((1, 2)) / heads
        return received[self.valid]

    def context(self, probabilities: Tensor, value: Tensor, keep: Tensor | None, dropout: float) -> Tensor:
        """Context rows ``[survivors of the bucket, heads, head_dim]``."""
        if dropout:
            probabilities = _dropout(probabilities, dropout)
        probabilities = probabilities.to(value.dtype)
        alive = self.valid if keep is None else self.valid & keep[self.index]
        # Few survivors: gather their rows first, and spare the others' products.
        if keep is not None and 2 * (most := int(alive.sum(1).max())) <= alive.shape[1]:
            rows = alive.int().argsort(dim=1, descending=True, stable=True)[:, :most]
            spread = rows[:, None, :, None].expand(-1, probabilities.shape[1], -1, probabilities.shape[3])
            probabilities, alive = probabilities.gather(2, spread), alive.gather(1, rows)
        return (probabilities @ self._heads(value)).transpose(1, 2)[alive]
