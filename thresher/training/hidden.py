"""Distillation of hidden states: a token that survives a layer shall be there what it is in base.

Outputs alone teach little where base is sure of all its training texts. Layer by layer, as TinyBERT (arXiv
1909.10351) has it, every survivor teaches; as weights start from base's, nothing needs to be projected.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from thresher.model import PrunedModel
from thresher.trace import Trace

TINY = 1e-6


class Teacher:
    """A frozen copy of a model as it is now, with nothing pruned.

    Parameters
    ----------
    model : PrunedModel
    dtype : torch.dtype, optional
        What it is computed in: bfloat16, or by default float32.
    """

    def __init__(self, model: PrunedModel, dtype: torch.dtype | None = None):
        self.model = copy.deepcopy(model).for_inference("bf16" if dtype == torch.bfloat16 else "fp32")

    @torch.no_grad()
    def states(self, inputs: dict[str, Tensor]) -> tuple[Tensor, ...]:
        """Embeddings and hidden states ``[tokens, dim]`` behind each layer, of all tokens of a padded batch,
        packed."""
        with self.model.dense():
            return self.model(**inputs, output_hidden_states=True).hidden_states


def hidden_loss(trace: Trace, states: tuple[Tensor, ...], wanted: tuple[Tensor, ...]) -> Tensor:
    """How far survivors' hidden states are from base's.

    Parameters
    ----------
    trace : Trace
        Of the hard stage. In the soft one this loss would be cheated: tokens that are all half alive cost
        half, and attention, which is relative, does not notice, so that hidden states are base's as long as
        nothing is dropped for real.
    states : tuple of tensors [tokens or survivors, dim]
        Embeddings, which are left out, and behind each layer.
    wanted : tuple of tensors [tokens, dim]
        Base's, of all tokens.

    Returns
    -------
    scalar tensor
        Mean squared error in units of the variance of base's states over tokens: mean over the layers, and in
        a layer over the survivors.
    """
    alive = torch.arange(trace.start.tokens, device=trace.start.positions.device)
    total = torch.zeros((), device=alive.device)
    for step, found, base in zip(trace.steps, states[1:], wanted[1:], strict=True):
        alive = alive if step.keep is None else alive[step.keep]
        base = base.float()
        error = (found.float() - base[alive]).square().mean(1) / base.var(0, correction=0).mean().clamp(TINY)
        total = total + error.mean()
    return total / len(trace.steps)
