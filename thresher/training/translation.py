"""Translators before training: what the base model makes of a token in its later layers, predicted from the
state with which the token enters a layer, by the linear map of the tuned lens (arXiv 2303.08112)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from thresher.carried import Translator
from thresher.inputs.text import TextEncoder
from thresher.model import PrunedModel
from thresher.plan import Plan

RIDGE = 1e-3  # added to the variance of each number of a state, as a share of their mean


@torch.no_grad()
def fit_translator(
    model: PrunedModel,
    encoder: TextEncoder,
    rows: dict[str, list],
    autocast: torch.dtype | None = None,
    advance: Callable[[int], None] | None = None,
) -> None:
    """Set the translator of a model by least squares, in place. It needs no labels.

    Parameters
    ----------
    model : PrunedModel
        With the weights of the base model, and a translator.
    encoder : TextEncoder
    rows : dict of lists
        Encoded texts.
    autocast : torch.dtype, optional
        Run under autocast to this dtype.
    advance : callable, optional
        Told the number of texts done, after every batch.
    """
    translator = model.translator
    assert translator is not None
    layers, dim = translator.bias.shape
    square = translator.weight.new_zeros(layers, dim + 1, dim + 1, dtype=torch.float64)
    product = translator.weight.new_zeros(layers, dim + 1, dim, dtype=torch.float64)
    with model.evaluating():
        for index, batch in encoder.batches(rows):
            for layer, (states, last) in enumerate(_states(model, batch, autocast)):
                known = torch.cat([states, states.new_ones(len(states), 1)], 1)
                square[layer] += known.T @ known
                product[layer] += known.T @ (last - states)
            if advance:
                advance(len(index))
    _solve(translator, square, product)


def _states(
    model: PrunedModel, batch: dict[str, Tensor], autocast: torch.dtype | None
) -> list[tuple[Tensor, Tensor]]:
    """For each layer, states ``[tokens, dim]`` at its entry, and after the last layer, in float32."""
    packed, inputs = model.family.pack({key: values.to(model.device) for key, values in batch.items()})
    states: list[Tensor] = []
    with torch.autocast(model.device.type, autocast, enabled=autocast is not None):
        model.run(packed, inputs, Plan(dense=True), states)
    *entering, last = (state[: packed.tokens].float() for state in states)
    return [(state, last) for state in entering]


def _solve(translator: Translator, square: Tensor, product: Tensor) -> None:
    """Least squares of sums of squares ``[layers, dim + 1, dim + 1]`` and of products with what is wanted."""
    for layer, (known, wanted) in enumerate(zip(square, product, strict=True)):
        numbers = known.diagonal()[:-1]
        numbers += RIDGE * numbers.mean()
        found = torch.linalg.solve(known, wanted).T
        translator.weight[layer] = found[:, :-1]
        translator.bias[layer] = found[:, -1]
