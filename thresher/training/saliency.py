"""Scores before training: what a model's own gradient says of its tokens, foretold from hidden states.

How far the outputs move with a token's hidden state behind a layer tells better than the attention that it
receives whether it can go; but nobody knows it before the model has run to its end. A learned score can
foretell it, and for that it needs neither labels nor training: it is a linear regression.
"""

from __future__ import annotations

from collections.abc import Callable

import datasets
import torch
from torch import Tensor

from thresher.inference.predict import KEYS
from thresher.inputs.text import TextEncoder
from thresher.model import PrunedModel
from thresher.packed import PackedBatch
from thresher.plan import Plan
from thresher.pruners import Decision, Pruner
from thresher.pruners.threshold import Threshold

TOKENS = 50_000  # that are enough for the regression
RIDGE = 1e-3  # of the mean square of a feature
TINY = 1e-9


class _Listener(Pruner):
    """Keeps all, and notes what a pruner is told."""

    def __init__(self, layers: int, dim: int):
        super().__init__(layers, dim)
        self.heard: dict[int, tuple[Tensor, Tensor]] = {}

    def forward(
        self, layer: int, importance: Tensor, hidden: Tensor, packed: PackedBatch, plan: Plan
    ) -> Decision:
        self.heard[layer] = importance.detach(), hidden.detach()
        return Decision()


def fit_scores(
    model: PrunedModel,
    encoder: TextEncoder,
    rows: dict[str, list],
    seed: int = 0,
    autocast: torch.dtype | None = None,
    advance: Callable[[int], None] | None = None,
) -> None:
    """Set the learned scores of a model so that they foretell the saliency of tokens, in place.

    Saliency of a token behind a layer is the norm of the gradient, there, of the outputs in a random
    direction. Ridge regression of its logarithm, less that of the importance where that is part of the score,
    on the hidden state at the layer's entry; all relative to the mean of a text, because scores are.

    Parameters
    ----------
    model : PrunedModel
        With base's weights, of pruner ``threshold`` with learned scores.
    encoder : TextEncoder
    rows : dict of lists
        Encoded texts; `enough` of them, if there are many.
    seed : int
        Of the random directions.
    autocast : torch.dtype, optional
        Run under autocast to this dtype.
    advance : callable, optional
        Told the number of texts done, after every batch.
    """
    pruner = model.pruner
    assert isinstance(pruner, Threshold)
    generator = torch.Generator().manual_seed(seed)
    products: dict[int, Tensor] = {}
    model.pruner = listener = _Listener(pruner.layers, pruner.dim).to(model.device)
    training = model.training
    model.eval()
    try:
        for index, batch in encoder.batches(rows):
            packed, saliency = _saliency(model, batch, listener, generator, autocast)
            free = ~packed.ends(*model.pruning.ends)
            for layer, (importance, hidden) in listener.heard.items():
                wanted = saliency[layer].clamp(min=TINY).log()
                if pruner.score == "both":
                    wanted = wanted - importance.clamp(min=TINY).log()
                columns = torch.cat([hidden.double(), wanted.double()[:, None]], 1)
                means = packed.mean(columns, free)
                columns = (columns - means[packed.sequence])[free]
                products[layer] = products.get(layer, 0) + columns.T @ columns
            if advance:
                advance(len(index))
    finally:
        model.pruner = pruner
        model.train(training)
    for layer, product in products.items():
        square, wanted = product[:-1, :-1], product[:-1, -1]
        if not square.any():
            continue  # no text has two tokens of which one could go
        ridge = RIDGE * square.diagonal().mean() * torch.eye(len(square)).to(square)
        pruner.weight.data[layer] = torch.linalg.solve(square + ridge, wanted).float()


def _saliency(
    model: PrunedModel,
    batch: dict[str, Tensor],
    listener: _Listener,
    generator: torch.Generator,
    autocast: torch.dtype | None,
) -> tuple[PackedBatch, dict[int, Tensor]]:
    """A batch packed, and float32 [tokens] for each layer that was asked whom to keep."""
    batch = {key: values.to(model.device) for key, values in batch.items()}
    ids = batch["input_ids"]
    types = batch.get("token_type_ids", torch.zeros_like(ids))
    packed, *values = PackedBatch.from_padded(batch["attention_mask"], ids, types)
    states: list[Tensor] = []
    with torch.enable_grad(), torch.autocast(model.device.type, autocast, enabled=autocast is not None):
        logits, _ = model.run(packed, values[0], values[1], states)
        way = torch.randn(logits.shape, generator=generator).to(logits)
        behind = [states[layer + 1] for layer in listener.heard]
        gradients = torch.autograd.grad((logits * way).sum(), behind)
    found = (gradient[: packed.tokens].float().norm(dim=1) for gradient in gradients)
    return packed, dict(zip(listener.heard, found, strict=True))


def enough(rows: datasets.Dataset) -> dict[str, list]:
    """The first texts, for `fit_scores`."""
    total, count = 0, 0
    while total < TOKENS and count < len(rows):
        total, count = total + len(rows[count]["input_ids"]), count + 1
    some = rows[:count]
    return {key: some[key] for key in KEYS if key in some}
