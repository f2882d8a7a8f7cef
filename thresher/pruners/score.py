"""Learned scores: what a token's hidden state says of it, with the attention it receives or alone."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from thresher import native
from thresher.native.records import ScoreWork
from thresher.packed import PackedBatch
from thresher.pruners.base import Sample
from thresher.pruners.rule import LARGEST, TINY

RIDGE = 1e-3  # of the mean square of a feature


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


def regressed(samples: Iterable[Sample], beside_importance: bool) -> dict[int, Tensor]:
    """Vectors ``w`` by which ``exp(w h)`` predicts the saliency of tokens.

    Ridge regression of the logarithm of the saliency on the hidden state at the layer's entry. Both are
    relative to the mean of a text, because scores are.

    Parameters
    ----------
    samples : iterable of Sample
    beside_importance : bool
        Predict what is left of the saliency after dividing it by the importance.

    Returns
    -------
    dict of int to float32 tensor [dim]
        By layer, without those in which no text has two tokens of which one could go.
    """
    products: dict[int, Tensor] = {}
    for sample in samples:
        layer, free = sample.layer, sample.free
        wanted = sample.saliency.clamp(min=TINY).log()
        if beside_importance:
            wanted = wanted - layer.importance.clamp(min=TINY).log()
        columns = torch.cat([layer.hidden.double(), wanted.double()[:, None]], 1)
        means = layer.packed.mean(columns, free)
        columns = (columns - means[layer.packed.sequence])[free]
        products[layer.index] = products.get(layer.index, 0) + columns.T @ columns
    return {index: _ridge(product) for index, product in products.items() if product[:-1, :-1].any()}


def _ridge(product: Tensor) -> Tensor:
    """The vector, from the products of all columns; the last column is what the vector predicts."""
    square, wanted = product[:-1, :-1], product[:-1, -1]
    ridge = RIDGE * square.diagonal().mean() * torch.eye(len(square)).to(square)
    return torch.linalg.solve(square + ridge, wanted).float()


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
