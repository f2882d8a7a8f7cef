"""States of dropped tokens: what a head reads that wants every token."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from thresher.config import PruningConfig
from thresher.packed import PackedBatch
from thresher.trace import Step


class Translator(nn.Module):
    """Translates the state with which a token enters a layer into the state with which the token would leave
    the last layer: one linear map for each layer, ``h + W h + b``.

    These are the translators of the tuned lens (Belrose et al., arXiv 2303.08112). Training starts them by
    least squares on the base model, and teaches them on. At 0, where they begin, a state stays as it is.

    Parameters
    ----------
    layers, dim : int
        Layers of the model, and width of its hidden states.

    Attributes
    ----------
    weight : float32 parameter [layers, dim, dim]
    bias : float32 parameter [layers, dim]

    Examples
    --------
    >>> states = torch.randn(5, 8)
    >>> torch.equal(Translator(3, 8)(0, states), states)
    True
    """

    def __init__(self, layers: int, dim: int):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(layers, dim, dim, dtype=torch.float32))
        self.bias = nn.Parameter(torch.zeros(layers, dim, dtype=torch.float32))

    def forward(self, layer: int, states: Tensor) -> Tensor:
        """States ``[tokens, dim]`` at the entry of a layer, translated."""
        weight, bias = self.weight[layer].to(states.dtype), self.bias[layer].to(states.dtype)
        return states + F.linear(states, weight, bias)

    def of_depths(self, states: Tensor, depths: Tensor) -> Tensor:
        """States ``[tokens, dim]`` of all tokens after a whole pass, those of dropped tokens translated.

        Parameters
        ----------
        states : tensor [tokens, dim]
            Of a dropped token that with which it entered the layer that dropped it.
        depths : int64 tensor [tokens]
            How many layers' drops each token survives.
        """
        for layer in range(len(self.weight)):
            if len(gone := (depths == layer).nonzero().squeeze(1)):
                states = states.index_copy(0, gone, self(layer, states[gone]))
        return states


def make_translator(config: PruningConfig, layers: int, dim: int) -> Translator | None:
    """The translator that `config` asks for, of a model of `layers` layers and states of width `dim`."""
    return Translator(layers, dim) if config.dropped == "translate" else None


class Carried:
    """Keeps the state with which each dropped token entered the layer that dropped it, or its translation.

    In the soft stage, with exact gates, a token that is partly dropped in several layers gets the mean of
    these states, by how much of it each layer drops, so that gates learn from every token.

    Parameters
    ----------
    packed : PackedBatch
        All tokens, before the first layer.
    translator : Translator, optional
        What translates the states.
    """

    def __init__(self, packed: PackedBatch, translator: Translator | None = None):
        self.packed, self.translator = packed, translator
        self.alive = torch.arange(packed.tokens, device=packed.positions.device)  # places among all tokens
        self.places: list[Tensor] = []
        self.states: list[Tensor] = []

    def leave(self, layer: int, hidden: Tensor, step: Step) -> None:
        """Note what leaves in one layer.

        Parameters
        ----------
        layer : int
        hidden : tensor [tokens at entry or more, dim]
            The layer's input.
        step : Step
            What became of the tokens.
        """
        hidden, entering, leaving = hidden[: step.entry.tokens], step.log_weight_in, step.log_weight_out
        if leaving is not None and leaving is not entering:
            assert entering is not None
            share = entering.exp() - (leaving.exp() if step.keep is None else leaving.exp() * step.keep)
            self._put(self.alive, self._translated(layer, hidden) * share[:, None].to(hidden.dtype))
        elif step.keep is not None:
            gone = (~step.keep).nonzero().squeeze(1)
            self._put(self.alive[gone], self._translated(layer, hidden.index_select(0, gone)))
        if step.keep is not None:
            self.alive = self.alive[step.keep]

    def _translated(self, layer: int, states: Tensor) -> Tensor:
        return states if self.translator is None else self.translator(layer, states)

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
