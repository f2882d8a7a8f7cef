"""The sizes of a layer, and the FLOPs that follow from them."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class LayerShape:
    """One layer in numbers.

    Attributes
    ----------
    dim : int
        Width of hidden states.
    heads, kv_heads : int
        Heads of queries, and of keys and values.
    head_dim : int
    ffn : int
        Width of the feed-forward.
    ffn_matrices : int
        Matrices of width `dim` x `ffn`: 2, or 3 where the feed-forward is gated.
    scale : float
        Factor on the attention scores.
    window : int, optional
        Largest difference of original positions that is attended; None attends to all.
    entries : int
        Numbers that the bias of relative positions takes of every token and head.
    """

    dim: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    ffn_matrices: int
    scale: float
    window: int | None = None
    entries: int = 0

    def flops(self, tokens_in: Tensor, tokens_out: Tensor, pairs_in: Tensor, pairs_out: Tensor) -> Tensor:
        """FLOPs of the layer, two for each multiply-add, of matrix products alone.

        Parameters
        ----------
        tokens_in, tokens_out : tensors [batch]
            Tokens alive at entry, and after the drop.
        pairs_in, pairs_out : tensors [batch]
            (query, key) pairs attended among the tokens at entry, and those whose query survives.
        """
        inner = self.heads * self.head_dim
        entering = self.dim * (inner + 2 * self.kv_heads * self.head_dim)  # queries, keys and values
        entering += self.entries * inner
        surviving = self.dim * inner + self.ffn_matrices * self.dim * self.ffn
        pairs = inner * (pairs_in + pairs_out)  # scores, and context rows
        return 2 * (entering * tokens_in + surviving * tokens_out + pairs)
