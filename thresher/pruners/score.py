"""Learned scores: what a token's hidden state says of it, with the attention it receives or alone."""

from __future__ import annotations

import torch
from torch import Tensor

from thresher import native
from thresher.native.records import ScoreWork
from thresher.packed import PackedBatch

LARGEST = 8.0  # logarithm of what a learned score may multiply importance by, or divide
TINY = 1e-9


def fair_scores(
    importance: Tensor, hidden: Tensor, vector: Tensor, packed: PackedBatch, alone: bool = False
) -> Tensor:
    """``importance * exp(w h)``, or ``exp(w h)`` alone, scaled to the sum of the importance in a sequence:
    as long as scores are in fair shares, those of a layer cannot all rise or fall together.

    Parameters
    ----------
    importance : float tensor [tokens]
    hidden : tensor [tokens, dim]
    vector : float tensor [dim]
    packed : PackedBatch
    alone : bool

    Returns
    -------
    float tensor [tokens]
        Differentiable.
    """
    if _served(importance, hidden, vector):
        return _native(importance, hidden, vector, packed, alone)
    exact = torch.promote_types(hidden.dtype, torch.float32)
    with torch.autocast(hidden.device.type, enabled=False):
        learned = (hidden.to(exact) @ vector.to(exact)).clamp(-LARGEST, LARGEST).exp()
    score = learned if alone else importance * learned
    return score * (packed.sum(importance) / packed.sum(score).clamp(min=TINY))[packed.sequence]


def _served(importance: Tensor, hidden: Tensor, vector: Tensor) -> bool:
    return (
        native.serves(hidden)
        and importance.dtype == vector.dtype == torch.float32
        and hidden.stride(1) == 1
        and not native.wants_gradients(importance, hidden, vector)
    )


def _native(importance: Tensor, hidden: Tensor, vector: Tensor, packed: PackedBatch, alone: bool) -> Tensor:
    """One pass by our own C++: as operations of torch it is a tenth of the time of short texts."""
    importance, vector = importance.contiguous(), vector.contiguous()
    scores = torch.empty_like(importance)
    work = ScoreWork(
        hidden=hidden,
        vector=vector,
        importance=importance,
        starts=packed.cu_seqlens,
        scores=scores,
        batch=packed.batch,
        dim=hidden.shape[1],
        stride=hidden.stride(0),
        largest=LARGEST,
        least=TINY,
        alone=alone,
        bf16=hidden.dtype == torch.bfloat16,
    )
    native.call("score", work, hidden.numel())
    return scores
