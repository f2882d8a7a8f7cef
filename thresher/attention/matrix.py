"""The plain route: the attention matrix of sequences of near lengths, a bucket at a time.

Works on every device and dtype, with dropout, and is differentiable. No context row is computed
for a token that is dropped.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from thresher.attention.base import Asked, Attended
from thresher.attention.buckets import Bucket, buckets, scatter


class Matrix(Attended):
    """Takes everything: gates, dropout, gradients, any device and dtype."""

    @classmethod
    def serves(cls, asked: Asked) -> bool:
        return True

    def __init__(self, asked: Asked):
        super().__init__(asked)
        self.buckets: list[Bucket] = []
        self.probabilities: list[Tensor] = []  # of each bucket, once they are wanted

    def _receive(self) -> Tensor:
        log_weight = self.asked.log_weight
        votes = None if log_weight is None else log_weight.exp()
        self._look()
        with torch.autocast(self.asked.query.device.type, enabled=False):
            received = [
                _importance(b, p, votes) for b, p in zip(self.buckets, self.probabilities, strict=True)
            ]
        return scatter(self.asked.packed.tokens, [b.tokens for b in self.buckets], received)

    def context(self, survivors: Tensor | None = None) -> Tensor:
        asked = self.asked
        if not self.probabilities and survivors is None and asked.log_weight is None:
            return self._rows()
        self._look()
        count, places, keep = asked.packed.tokens, [b.tokens for b in self.buckets], None
        if survivors is not None:
            keep = torch.zeros(count, dtype=torch.bool, device=survivors.device)
            keep[survivors] = True
            place = keep.cumsum(0) - 1
            count, places = len(survivors), [place[some[keep[some]]] for some in places]
        value = asked.value.contiguous()
        with torch.autocast(value.device.type, enabled=False):
            parts = [
                _context(b, p, value, keep, asked.dropout)
                for b, p in zip(self.buckets, self.probabilities, strict=True)
            ]
        return scatter(count, places, parts).flatten(1)

    def _rows(self) -> Tensor:
        return fused_rows(self.asked)

    def _look(self) -> None:
        """Compute the probabilities."""
        if self.probabilities:
            return
        asked = self.asked
        self.buckets = buckets(asked.packed)
        query, key = asked.query.contiguous(), asked.key.contiguous()  # once, not in every bucket
        # Importance wants float32 whatever autocast says: bfloat16 scores move it by 3e-3.
        with torch.autocast(query.device.type, enabled=False):
            self.probabilities = [_probabilities(b, query, key, asked) for b in self.buckets]


def fused_rows(asked: Asked) -> Tensor:
    """Context rows ``[tokens, heads * head_dim]`` by torch's own fused attention, bucket by bucket."""
    some = buckets(asked.packed)
    query, key, value = (x.contiguous() for x in (asked.query, asked.key, asked.value))
    parts = [_fused(b, query, key, value, asked) for b in some]
    return scatter(asked.packed.tokens, [b.tokens for b in some], parts).flatten(1)


def _dropout(values: Tensor, share: float) -> Tensor:
    """Dropout, its share rounded to 1/256. On a CPU torch draws 64 random bits for every number, on one
    core, and longer texts' training spends most of its time there; a byte will do."""
    if values.device.type != "cpu" or share > 0.99:
        return F.dropout(values, share)
    bits = torch.empty(-(-values.numel() // 8), dtype=torch.int64).random_(-(2**63), None)
    level = round(256 * share)
    keep = bits.view(torch.uint8)[: values.numel()].view(values.shape) >= level
    return torch.where(keep, values, 0.0) * (256 / (256 - level))


def _fused(bucket: Bucket, query: Tensor, key: Tensor, value: Tensor, asked: Asked) -> Tensor:
    """Context rows ``[tokens of the bucket, heads, head_dim]`` by torch's own fused attention."""
    q, k, v = (bucket.heads(x) for x in (query, key, value))
    mask = bucket.reachable(asked.window)
    if asked.bias is not None:
        bias = bucket.biased(asked.bias).to(q.dtype)
        mask = bias if mask is None else bias.masked_fill(~mask, -torch.inf)
    context = F.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, dropout_p=asked.dropout, scale=asked.scale
    )
    return context.transpose(1, 2)[bucket.valid]


def _probabilities(bucket: Bucket, query: Tensor, key: Tensor, asked: Asked) -> Tensor:
    """Attention probabilities ``[b, heads, n, n]``, at least float32."""
    exact = torch.promote_types(query.dtype, torch.float32)
    scores = (bucket.heads(query).to(exact) * asked.scale) @ bucket.heads(key).to(exact).transpose(-1, -2)
    if asked.bias is not None:
        scores = scores + bucket.biased(asked.bias).to(exact)
    if asked.log_weight is not None:
        scores = scores.add_(asked.log_weight[bucket.index][:, None, None, :])
    if (mask := bucket.mask(asked.window, exact)) is not None:
        scores = scores.add_(mask)
    return scores.softmax(-1)


def _importance(bucket: Bucket, probabilities: Tensor, votes: Tensor | None) -> Tensor:
    """Attention received ``[tokens of the bucket]``: weighted column sums, mean over heads."""
    heads = probabilities.shape[1]
    weight = bucket.valid.to(probabilities.dtype)
    if votes is not None:
        weight = weight * votes[bucket.index]
    received = (weight[:, None, None, :] @ probabilities).sum((1, 2)) / heads
    return received[bucket.valid]


def _context(
    bucket: Bucket, probabilities: Tensor, value: Tensor, keep: Tensor | None, dropout: float
) -> Tensor:
    """Context rows ``[survivors of the bucket, heads, head_dim]``."""
    if dropout:
        probabilities = _dropout(probabilities, dropout)
    probabilities = probabilities.to(value.dtype)
    alive = bucket.valid if keep is None else bucket.valid & keep[bucket.index]
    # Few survivors: gather their rows first, and spare the others' products.
    if keep is not None and 2 * (most := int(alive.sum(1).max())) <= alive.shape[1]:
        rows = alive.int().argsort(dim=1, descending=True, stable=True)[:, :most]
        spread = rows[:, None, :, None].expand(-1, probabilities.shape[1], -1, probabilities.shape[3])
        probabilities, alive = probabilities.gather(2, spread), alive.gather(1, rows)
    return (probabilities @ bucket.heads(value)).transpose(1, 2)[alive]
