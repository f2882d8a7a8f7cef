"""What Thresher needs to know of an architecture."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, TypeGuard

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.activations import GELUActivation

from thresher.errors import UserError
from thresher.families.shape import LayerShape
from thresher.families.stage import StageModules
from thresher.packed import PackedBatch


def is_plain(module: nn.Module) -> TypeGuard[nn.Linear]:
    """True for a plain linear layer without hooks."""
    return type(module) is nn.Linear and not is_heard(module)


def is_gelu(module: nn.Module) -> bool:
    """True for the exact GELU without hooks."""
    exact = isinstance(module, nn.GELU) and module.approximate == "none"
    return (exact or type(module) is GELUActivation) and not is_heard(module)


def is_heard(module: nn.Module) -> bool:
    """True for a module with hooks, which must be called to be heard."""
    return bool(module._forward_hooks or module._forward_pre_hooks)


class GeluLinear(nn.Linear):
    """A linear layer with GELU after it, which engines compute in one go: what `Family.fuse` makes of two
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
    layers, dim : int
        How many layers there are, and the width of hidden states.
    model_types : tuple of str
        Values of ``config.model_type`` that this family claims.
    inputs : tuple of str
        Names of the padded inputs ``[batch, length]`` that `embed` reads, the token ids first.
    """

    model_types: ClassVar[tuple[str, ...]]
    inputs: ClassVar[tuple[str, ...]] = ("input_ids", "token_type_ids")

    def __init__(self, model: Any):
        self.model = model
        self.config = model.config
        self.layers, self.dim = self.sizes(self.config)
        if (live := len(self.stack)) != self.layers or not live:
            raise UserError(
                f"The model has {live} layers, and num_hidden_layers of its config is {self.layers}: the two "
                "must be equal, and at least 1."
            )
        # Made once: every layer of every batch asks for one, and transformers' configs answer slowly.
        self._shapes = [self._shape(index) for index in range(self.layers)]

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
    def embed(self, inputs: dict[str, Tensor], positions: Tensor) -> Tensor:
        """Embed the packed inputs.

        Parameters
        ----------
        inputs : dict of tensors [tokens]
            By the names in `inputs`: all tokens of every text. The last rows may be repeats that are not
            read.
        positions : int64 tensor [tokens]
            Position of each token in its own text.

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
    def classify(self, pooled: Tensor) -> Tensor:
        """Logits ``[batch, labels]`` of pooled, normed states ``[batch, dim]``, by the model's own head."""

    def norm(self, hidden: Tensor) -> Tensor:
        """The norm after the last layer, where there is one: ``[tokens, dim]`` to ``[tokens, dim]``."""
        return hidden

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
        """Whether the head reads the first token alone, so that no other is needed at the end."""
        return True

    def stage(self, index: int) -> StageModules | None:
        """The live modules of a stage, after `fuse`; None where they must be called one by one."""
        return None

    def fuse(self) -> None:  # noqa: B027 - most have nothing to join
        """For inference: join plain linear layers that read the same input, or with the GELU after them.
        The transformers model may not run by itself any more."""

    # What all of them share -----------------------------------------------------------------

    def layer(self, index: int) -> Any:
        """The live module of layer `index`."""
        return self.stack[index]

    def shape(self, index: int) -> LayerShape:
        """The sizes of layer `index`."""
        return self._shapes[index]

    @abstractmethod
    def _shape(self, index: int) -> LayerShape:
        """Read the sizes of layer `index`."""

    @staticmethod
    def _head_dim(dim: int, heads: int) -> int:
        """Width of a head, where the heads share the width of the hidden states."""
        if dim % heads:
            raise UserError(f"hidden_size is {dim}, which {heads} attention heads do not divide.")
        return dim // heads

    @staticmethod
    def sizes(config: Any) -> tuple[int, int]:
        """Number of layers and width of hidden states of a config, before there is a model."""
        return config.num_hidden_layers, config.hidden_size

    def pack(self, inputs: dict[str, Tensor | None]) -> tuple[PackedBatch, dict[str, Tensor]]:
        """From padded to packed.

        Parameters
        ----------
        inputs : dict of tensors [batch, length]
            Token ids, and what else there is of `inputs` and ``attention_mask``. Without a mask, every token
            is real; other inputs that are missing are 0.

        Returns
        -------
        PackedBatch
        dict of tensors [tokens]

        Raises
        ------
        UserError
            As of `PackedBatch.from_padded`.
        """
        ids = inputs[self.inputs[0]]
        assert ids is not None
        mask = inputs.get("attention_mask")
        given = {name: inputs.get(name) for name in self.inputs}
        padded = [torch.zeros_like(ids) if values is None else values for values in given.values()]
        packed, *values = PackedBatch.from_padded(torch.ones_like(ids) if mask is None else mask, *padded)
        return packed, dict(zip(given, values, strict=True))

    def split_heads(self, values: Tensor) -> Tensor:
        """``[tokens, heads * head_dim]`` to ``[tokens, heads, head_dim]``."""
        shape = self._shapes[0]
        return values.view(-1, shape.heads, shape.head_dim)

    def length_limit(self, asked: int | None = None) -> int:
        """Where texts are cut: at `asked` tokens, or at the most that the model allows.

        Raises
        ------
        UserError
            If the model does not allow so many.
        """
        if asked is not None and asked > self.max_length:
            raise UserError(f"`max_length` is {asked}, but this model allows {self.max_length} tokens.")
        return self.max_length if asked is None else asked

    def check_length(self, longest: int) -> None:
        """Refuse sequences longer than the position table."""
        if longest > self.max_length:
            raise UserError(
                f"A text has {longest} tokens, but this model allows {self.max_length}; "
                f"tokenize with truncation=True, max_length={self.max_length}."
            )
