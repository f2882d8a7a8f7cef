"""Hidden states: a token that survives a layer shall be there what it is in the base model.

Outputs alone teach little where the base model is sure of all its training texts. Layer by layer, as TinyBERT
(arXiv 1909.10351) has it, every survivor teaches. Weights start from those of the base model, so that nothing
needs to be projected.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from thresher.objectives.base import Batch, Objective, Progress
from thresher.trace import Trace

TINY = 1e-6


class DistilHidden(Objective):
    """Distance of survivors' hidden states from those of the base model, in the hard stage.

    In the soft stage this term would be cheated: tokens that are all half alive cost half, and attention,
    which is relative, does not notice. Hidden states are those of the base model as long as nothing is
    dropped for real.

    Parameters
    ----------
    weight : float
    """

    needs = frozenset({"base states"})
    stages = frozenset({"hard"})

    def __init__(self, weight: float):
        self.weight = weight

    def __call__(self, batch: Batch, output: Any, trace: Trace, progress: Progress) -> Tensor:
        assert batch.base_states is not None
        return self.weight * hidden_distance(trace, output.hidden_states, batch.base_states)


def hidden_distance(trace: Trace, states: tuple[Tensor, ...], wanted: tuple[Tensor, ...]) -> Tensor:
    """How far survivors' hidden states are from those of the base model.

    Parameters
    ----------
    trace : Trace
        Trace of a forward pass in the hard stage.
    states : tuple of tensors [tokens or survivors, dim]
        Embeddings, which are left out, and after each layer.
    wanted : tuple of tensors [tokens, dim]
        Those of the base model, of all tokens.

    Returns
    -------
    scalar tensor
        Mean squared error in units of the variance of the base model's states over tokens: mean over the
        layers, and in a layer over the survivors.
    """
    alive = torch.arange(trace.start.tokens, device=trace.start.positions.device)
    total = torch.zeros((), device=alive.device)
    for step, found, base in zip(trace.steps, states[1:], wanted[1:], strict=True):
        alive = alive if step.keep is None else alive[step.keep]
        base = base.float()
        error = (found.float() - base[alive]).square().mean(1) / base.var(0, correction=0).mean().clamp(TINY)
        total = total + error.mean()
    return total / len(trace.steps)
