"""Scores before training: what a model's own gradient says of its tokens, predicted from hidden states.

How far the outputs move with a token's hidden state after a layer tells better than attention whether the
token can go. But nobody knows the gradient before the model has run to its end. A learned score predicts the
gradient by a linear regression, which needs neither labels nor training.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import datasets
import torch
from torch import Tensor

from thresher.inputs.rows import KEYS
from thresher.inputs.text import TextEncoder
from thresher.model import PrunedModel
from thresher.plan import Plan
from thresher.pruners import Decision, LayerView, Pruner, Sample

TOKENS = 50_000  # that are enough for the regression


def fit_scores(
    model: PrunedModel,
    encoder: TextEncoder,
    rows: dict[str, list],
    seed: int = 0,
    autocast: torch.dtype | None = None,
    advance: Callable[[int], None] | None = None,
) -> None:
    """Set the learned scores of a model so that they predict the saliency of tokens, in place.

    Parameters
    ----------
    model : PrunedModel
        With the weights of the base model, and a pruner that `fits`.
    encoder : TextEncoder
    rows : dict of lists
        Encoded texts; `enough` of them, if there are many.
    seed : int
        Seed of the random directions.
    autocast : torch.dtype, optional
        Run under autocast to this dtype.
    advance : callable, optional
        Told the number of texts done, after every batch.
    """
    generator = torch.Generator().manual_seed(seed)

    def samples() -> Iterator[Sample]:
        for index, batch in encoder.batches(rows):
            yield from _samples(model, batch, generator, autocast)
            if advance:
                advance(len(index))

    with model.evaluating():
        model.pruner.fit(samples())


def _samples(
    model: PrunedModel, batch: dict[str, Tensor], generator: torch.Generator, autocast: torch.dtype | None
) -> list[Sample]:
    """One batch, layer by layer, but for a last layer that drops all it can whatever the scores.

    Saliency of a token after a layer is the norm of the gradient, there, of the outputs in a random
    direction.
    """
    views: list[LayerView] = []

    def keep_all(pruner: Pruner, seen: tuple[LayerView, Plan], decision: Decision) -> Decision:
        view = seen[0]
        importance = view.importance.detach()
        views.append(
            replace(view, hidden=view.hidden.detach(), keys=view.keys.detach(), received=lambda: importance)
        )
        return Decision()

    packed, inputs = model.family.pack({key: values.to(model.device) for key, values in batch.items()})
    states: list[Tensor] = []
    with (
        torch.enable_grad(),
        torch.autocast(model.device.type, autocast, enabled=autocast is not None),
        model.pruner.register_forward_hook(keep_all),
    ):
        output, _ = model.run(packed, inputs, states=states)
        way = torch.randn(output.logits.shape, generator=generator).to(output.logits)
        after = [states[view.index + 1] for view in views]
        gradients = torch.autograd.grad((output.logits * way).sum(), after)
    free = ~packed.ends(*model.pruning.ends)
    norms = (gradient[: packed.tokens].float().norm(dim=1) for gradient in gradients)
    return [Sample(view, norm, free) for view, norm in zip(views, norms, strict=True)]


def enough(rows: datasets.Dataset) -> dict[str, list]:
    """The first texts, for `fit_scores`."""
    total, count = 0, 0
    while total < TOKENS and count < len(rows):
        total, count = total + len(rows[count]["input_ids"]), count + 1
    some = rows[:count]
    return {key: some[key] for key in KEYS if key in some}
