"""States of dropped tokens: what a head reads that wants every token."""

from __future__ import annotations

import torch
from torch import Tensor

from thresher.packed import PackedBatch
from thresher.trace import Step


class Carried:
    """Keeps the state with which each dropped token entered the layer that dropped it.

    In the soft stage, with exact gates, a token that is partly dropped in several layers gets the mean of
    these states, by how much of it each layer drops, so that gates learn from every token.

    Parameters
    ----------
    packed : PackedBatch
        All tokens, before the first layer.
    """

    def __init__(self, packed: PackedBatch):
        self.packed = packed
        self.alive = torch.arange(packed.tokens, device=packed.positions.device)  # places among all tokens
        self.places: list[Tensor] = []
        self.states: list[Tensor] = []

    def leave(self, hidden: Tensor, step: Step) -> None:
        """Note what leaves in one layer.

        Parameters
        ----------
        hidden : tensor [tokens at entry or more, dim]
            The layer's input.
        step : Step
            What became of the tokens.
        """
        hidden, entering, leaving = hidden[: step.entry.tokens], step.log_weight_in, step.log_weight_out
        if leaving is not None and leaving is not entering:
            assert entering is not None
            share = entering.exp() - (leaving.exp() if step.keep is None else leaving.exp() * step.keep)
            self._put(self.alive, hidden * share[:, None].to(hidden.dtype))
        elif step.keep is not None:
            gone = (~step.keep).nonzero().squeeze(1)
            self._put(self.alive[gone], hidden.index_select(0, gone))
        if step.keep is not None:
            self.alive = self.alive[step.keep]

    def _put(self, places: Tensor, states: Tensor) -> None:
        self.places.append(places)
        self.states.append(states)

    def all(self, hidden: Tensor, weight: Tensor | None) -> Tensor:
        """States ``[tokens, dim]`` of all tokens.

        Parameters
        ----------
        hidden : tensor [survivors, dim]
            After the last layer.
        weight : float tensor [survivors], optional
            How alive each survivor is.
        """
        if weight is not None:
            hidden = hidden * weight[:, None].to(hidden.dtype)
        if not self.states:
            return hidden
        places, states = torch.cat([*self.places, self.alive]), torch.cat([*self.states, hidden])
        return states.new_zeros(self.packed.tokens, states.shape[1]).index_add(0, places, states)


def filled(hidden: Tensor, weight: Tensor | None, left: PackedBatch, packed: PackedBatch) -> Tensor:
    """States ``[tokens, dim]`` of all tokens, where a dropped one has the mean over the survivors of its
    sequence, so that a mean over all tokens is one over the survivors.

    Parameters
    ----------
    hidden : tensor [survivors, dim]
    weight : float tensor [survivors], optional
        How alive each is.
    left, packed : PackedBatch
        The survivors, and all tokens.
    """
    mean = left.mean(hidden, weight)
    if weight is not None:
        return mean[packed.sequence]
    places = packed.cu_seqlens[:-1].long()[left.sequence] + left.positions
    return mean[packed.sequence].index_copy(0, places, hidden)
