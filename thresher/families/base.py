"""What Thresher needs to know of an architecture."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, TypeGuard

from torch import Tensor, nn
from torch.nn import functional as F
from transformers.activations import GELUActivation

from thresher.errors import UserError
from thresher.packed import PackedBatch


def is_plain(module: nn.Module) -> TypeGuard[nn.Linear]:
    """True for a linear layer that is nothing else, and that nobody listens to."""
    return type(module) is nn.Linear and not _is_heard(module)


def is_gelu(module: nn.Module) -> bool:
    """True for the exact GELU that nobody listens to."""
    exact = isinstance(module, nn.GELU) and module.approximate == "none"
    return (exact or type(module) is GELUActivation) and not _is_heard(module)


def _is_heard(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)


class GeluLinear(nn.Linear):
    """A linear layer with GELU behind it, which engines compute in one go: what `Family.fuse` makes of two
    modules."""

    @classmethod
    def of(cls, linear: nn.Linear) -> GeluLinear:
        """The same weights, not a copy."""
        made = cls(linear.in_features, linear.out_features, device="meta")
        made.weight, made.bias = linear.weight, linear.bias
        return made

    def forward(self, values: Tensor) -> Tensor:
        return F.gelu(super().forward(values))


class Family(ABC):
    """One architecture, seen as: embed, then per layer attention and a token-by-token rest, then a head.

    A family is no Module and owns no weights: it finds the live submodules of the transformers
    model at call time and calls them as modules, so adapters, quantised linears and compiled
    modules inside keep working.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        With a sequence-classification head.

    Raises
    ------
    UserError
        If the model is built in a way that its family does not compute.

    Attributes
    ----------
    layers, heads, head_dim : int
    model_types : tuple of str
        Values of ``config.model_type`` that this family claims.
    feed_forward_matrices : int
        Matrices of width x feed-forward width: 2, or 3 when gated.
    """

    model_types: ClassVar[tuple[str, ...]]
    feed_forward_matrices: ClassVar[int] = 2

    def __init__(self, model: Any):
        self.model = model
        self.config = model.config
        # Asked for in every layer of every batch, and transformers' configs are slow to answer.
        self.layers, self.heads = self.config.num_hidden_layers, self.config.num_attention_heads
        self.head_dim = self.config.hidden_size // self.heads
        if (live := len(self.stack)) != self.layers or not live:
            raise UserError(
                f"The model has {live} layers, and num_hidden_layers of its config is {self.layers}: the two "
                "must be equal, and at least 1."
            )
        if self.config.hidden_size % self.heads:
            raise UserError(
                f"hidden_size is {self.config.hidden_size}, which {self.heads} attention heads do not divide."
            )

    # What an architecture answers -----------------------------------------------------------

    @property
    @abstractmethod
    def max_length(self) -> int:
        """Most tokens a sequence can have."""

    @property
    @abstractmethod
    def stack(self) -> Any:
        """The live list of layers."""

    @abstractmethod
    def embed(self, input_ids: Tensor, token_types: Tensor, positions: Tensor) -> Tensor:
        """Embed packed token ids.

        Parameters
        ----------
        input_ids, token_types, positions : int64 tensors [tokens]
            All tokens of every text; the last may be repeats that nobody reads.

        Returns
        -------
        tensor [tokens, dim]
        """

    @abstractmethod
    def qkv(self, index: int, hidden: Tensor, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys, values of layer `index`, ``[tokens, heads, head_dim]`` each, rotated if need be."""

    @abstractmethod
    def transform(self, index: int, hidden: Tensor, context: Tensor) -> Tensor:
        """The rest of layer `index`, token by token: output projection, residuals, norms, feed-forward.

        Parameters
        ----------
        hidden : tensor [survivors, dim]
            The layer's input.
        context : tensor [survivors, heads * head_dim]
            What attention gave.

        Returns
        -------
        tensor [survivors, dim]
        """

    @abstractmethod
    def attention_dropout(self, index: int) -> float:
        """Dropout on the attention probabilities of layer `index` while training."""

    @abstractmethod
    def logits(self, hidden: Tensor, packed: PackedBatch, weight: Tensor | None = None) -> Tensor:
        """Final norm, pooling and classification head: ``[survivors, dim]`` to ``[batch, labels]``.

        `weight` ``[tokens]`` says how alive each token is (soft stage, exact gate), for mean pooling.
        """

    @property
    def vocabulary(self) -> int:
        """Rows of the token embedding: ids are below."""
        return self.model.get_input_embeddings().num_embeddings

    @property
    def segments(self) -> int | None:
        """Rows of the embedding of token types; None where token types are not read."""
        return None

    @property
    def pools_prefix(self) -> bool:
        """True if the head reads the first token alone, so that no other is needed at the end."""
        return True

    def fuse(self) -> None:  # noqa: B027 - most have nothing to join
        """For inference: join plain linear layers that read the same input, or with the GELU behind them.
        The transformers model may not run by itself any more."""

    # What all of them share -----------------------------------------------------------------

    def layer(self, index: int) -> Any:
        """The live module of layer `index`."""
        return self.stack[index]

    def window(self, index: int) -> int | None:
        """Largest difference of positions that layer `index` attends to; None is everything."""
        return None

    def split_heads(self, values: Tensor) -> Tensor:
        """``[tokens, heads * head_dim]`` to ``[tokens, heads, head_dim]``."""
        return values.view(-1, self.heads, self.head_dim)

    def length_limit(self, asked: int | None = None) -> int:
        """Where texts are cut: at `asked` tokens, or at the most that the model allows.

        Raises
        ------
        UserError
            If the model does not allow so many.
        """
        if asked is not None and asked > self.max_length:
            raise UserError(f"--max-length is {asked}, but this model allows {self.max_length} tokens.")
        return self.max_length if asked is None else asked

    def check_length(self, longest: int) -> None:
        """Refuse sequences longer than the position table."""
        if longest > self.max_length:
            raise UserError(
                f"A text has {longest} tokens, but this model allows {self.max_length}; "
                f"tokenize with truncation=True, max_length={self.max_length}."
            )

    def layer_flops(
        self, tokens_in: Tensor, tokens_out: Tensor, pairs_in: Tensor, pairs_out: Tensor
    ) -> Tensor:
        """FLOPs of one layer, two per multiply-add, matrix products only (DESIGN of the method, section 2).

        Parameters
        ----------
        tokens_in, tokens_out : tensors [batch]
            Tokens alive at entry, and after the drop.
        pairs_in, pairs_out : tensors [batch]
            (query, key) pairs attended among the tokens at entry, and those whose query survives.
        """
        d, f = self.config.hidden_size, self.config.intermediate_size
        projections = 3 * d * d * tokens_in + d * d * tokens_out
        feed_forward = self.feed_forward_matrices * d * f * tokens_out
        return 2 * (projections + d * pairs_in + d * pairs_out + feed_forward)
