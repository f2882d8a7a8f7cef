"""The modules of a stage, for engines that run it as one."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True)
class StageModules:
    """What `Family.transform` of a layer and `Family.qkv` of the next call, in this order.

    Attributes
    ----------
    output : nn.Module
        From the attention's context to what is added to the hidden states.
    first : nn.Module
        The norm of that sum; or, in a pre-norm layer, of what the feed-forward reads.
    up, down : nn.Module
        The feed-forward.
    activation : nn.Module
        Between the two; the identity where `up` includes GELU.
    second : nn.Module, optional
        The norm of the sum with the feed-forward; or, in a pre-norm layer, of what the next layer reads.
    following : nn.Module, optional
        The next layer's queries, keys and values in one linear layer, ``[heads + 2 kv_heads, head_dim]``.
        None after the last layer.
    pre_norm : bool
    gated : bool
        Whether the first half of what `up` gives is activated, and times the second half.
    turns : float32 tensor [positions, 2, head_dim / 2], optional
        Cosines and sines of rotary positions: numbers i and i + head_dim / 2 of queries and keys are turned.
    """

    output: nn.Module
    first: nn.Module
    up: nn.Module
    activation: nn.Module
    down: nn.Module
    second: nn.Module | None
    following: nn.Module | None
    pre_norm: bool = False
    gated: bool = False
    turns: Tensor | None = None

    def all(self) -> tuple[nn.Module, ...]:
        """All modules that there are."""
        return tuple(x for x in vars(self).values() if isinstance(x, nn.Module))
