"""From the states of a text's tokens to one vector, as sentence-transformers computes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from thresher.packed import PackedBatch

ATTRIBUTE = "sentence_layout"  # of a transformers model: it goes wherever the model goes
ACTIVATIONS: dict[str, type[nn.Module]] = {
    kind.__name__: kind
    for kind in (nn.Identity, nn.Tanh, nn.ReLU, nn.GELU, nn.SiLU, nn.Sigmoid, nn.LeakyReLU, nn.ELU)
}
"""What a `Dense` may end with, at its default settings."""


def _max(states: Tensor, packed: PackedBatch) -> Tensor:
    texts = packed.sequence[:, None].expand_as(states)
    found = states.new_zeros(packed.batch, states.shape[1])
    return found.scatter_reduce(0, texts, states, "amax", include_self=False)


def _mean_by_root(states: Tensor, packed: PackedBatch) -> Tensor:
    mean = packed.mean(states.to(torch.promote_types(states.dtype, torch.float32)))
    return (mean * packed.lengths.to(mean.dtype)[:, None].sqrt()).to(states.dtype)


MODES: dict[str, Callable[[Tensor, PackedBatch], Tensor]] = {
    "cls": lambda states, packed: packed.first_tokens(states),
    "max": _max,
    "mean": lambda states, packed: packed.mean(states),
    "mean_sqrt_len_tokens": _mean_by_root,
    "weightedmean": lambda states, packed: packed.mean(states, packed.positions + 1),
    "lasttoken": lambda states, packed: packed.last_tokens(states),
}
"""sentence-transformers' modes of pooling: states ``[tokens, dim]`` to ``[texts, dim]``."""


@dataclass(frozen=True, eq=False)
class Dense:
    """A linear layer after pooling, which is kept as it is.

    Parameters
    ----------
    weight : float tensor [outputs, inputs]
    bias : float tensor [outputs], optional
    activation : str
        One of `ACTIVATIONS`.
    residual : float tensor [outputs, inputs], or None
        What the input is multiplied with before it is added to the output.
    adds : bool
        Whether the input is added to the output.
    """

    weight: Tensor = field(repr=False)
    bias: Tensor | None = field(default=None, repr=False)
    activation: str = "Tanh"
    residual: Tensor | None = field(default=None, repr=False)
    adds: bool = False

    def __call__(self, vectors: Tensor) -> Tensor:
        found = ACTIVATIONS[self.activation]()(_linear(vectors, self.weight, self.bias))
        if not self.adds:
            return found
        return found + (vectors if self.residual is None else _linear(vectors, self.residual))


@dataclass(frozen=True, eq=False)
class Normalize:
    """Vectors of length 1."""

    def __call__(self, vectors: Tensor) -> Tensor:
        return F.normalize(vectors, dim=-1)


@dataclass(frozen=True, eq=False)
class Layout:
    """What a sentence-transformers folder holds beside its model.

    Parameters
    ----------
    modes : tuple of str
        Of `MODES`; their vectors are joined. None of a cross-encoder.
    after : tuple of `Dense` and `Normalize`
        What follows on pooling.
    files : dict of str to bytes
        The files, by their place in the folder, so that they can be written beside another model.
    max_length : int, optional
        Where sentence-transformers cuts texts, if the folder says so.
    dim : int, optional
        How many numbers of a vector count.
    """

    modes: tuple[str, ...] = ("mean",)
    after: tuple[Dense | Normalize, ...] = ()
    files: dict[str, bytes] = field(default_factory=dict, repr=False)
    max_length: int | None = None
    dim: int | None = None

    def __call__(self, states: Tensor, packed: PackedBatch) -> Tensor:
        """A vector for each text ``[texts, dim]``, of states ``[tokens, dim]``: that of
        ``SentenceTransformer.encode``."""
        vectors = torch.cat([MODES[mode](states, packed) for mode in self.modes], -1)
        for step in self.after:
            vectors = step(vectors)
        return vectors[:, : self.dim]


def layout_of(model: Any) -> Layout | None:
    """The layout that a transformers model came with; None where it came from no sentence-transformers
    folder."""
    return getattr(model, ATTRIBUTE, None)


def _linear(vectors: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return F.linear(vectors, weight.to(vectors), None if bias is None else bias.to(vectors))
