"""What Thresher needs to know of an architecture."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from thresher.attention import Bias
from thresher.errors import UserError
from thresher.families.linear import GeluLinear, is_gelu, is_plain
from thresher.families.shape import LayerShape
from thresher.families.stage import StageModules
from thresher.heads.pooling import layout_of
from thresher.packed import PackedBatch

JOINED = "joined"  # name of what `Family.fuse` makes of several linear layers of a module
Pooling = Literal["first", "last", "mean", "late"]
"""What a model's answer to a text is made of: its first token, its last, the mean over its tokens, or the
mean over answers to each token."""


class Family(ABC):
    """One architecture, seen as: embed, then per layer attention and a token-by-token rest, then a head.

    A family is no Module and owns no weights: it finds the live submodules of the transformers
    model at call time and calls them as modules, so adapters, quantised linears and compiled
    modules inside keep working.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        With a head that `thresher.heads` knows, or without one.

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
    own_head_dim : bool
        Whether heads may be wider or narrower than the hidden states over their number.
    biased : {"never", "alike", "by layer"}
        Whether relative positions add to attention scores, and then whether by one table for all layers.
    inputs : tuple of str
        Names of the padded inputs ``[batch, length]`` that `embed` reads, the token ids first.
    """

    model_types: ClassVar[tuple[str, ...]]
    inputs: ClassVar[tuple[str, ...]] = ("input_ids", "token_type_ids")
    own_head_dim: ClassVar[bool] = False
    biased: Literal["never", "alike", "by layer"] = "never"

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
    def max_length(self) -> int:
        """Most tokens a sequence can have."""
        return self.config.max_position_embeddings

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
        """Queries, keys, values of layer `index`, ``[tokens, heads, head_dim]`` each, rotated if need be.
        Keys and values may have fewer heads, each for as many of queries."""

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

    @property
    def encoder(self) -> Any:
        """The model under the head, or the model itself where there is no head."""
        return getattr(self.model, self.model.base_model_prefix, self.model)

    # Heads, by the model's own modules: those that most architectures have ---------------------

    def classify(self, pooled: Tensor) -> Tensor:
        """Logits ``[rows, labels]`` of pooled, normed states ``[rows, dim]``: for texts, and for choices."""
        if (summary := self.summary(pooled)) is not None:
            return self.model.classifier(self._dropped(summary))
        return self.model.classifier(pooled[:, None])  # which wants [batch, length, dim], and reads the first

    def tag(self, hidden: Tensor) -> Tensor:
        """Logits ``[tokens, labels]`` of normed states ``[tokens, dim]``."""
        return self.model.classifier(self._dropped(hidden))

    def mark(self, hidden: Tensor) -> Tensor:
        """Logits ``[tokens, 2]`` of where an answer starts and ends, of normed states ``[tokens, dim]``."""
        return self.model.qa_outputs(self._dropped(hidden))

    def summary(self, first: Tensor) -> Tensor | None:
        """The pooler's ``[rows, dim]`` of first tokens ``[rows, dim]``; None where there is no pooler."""
        pooler = getattr(self.encoder, "pooler", None)
        return None if pooler is None else pooler(first[:, None])

    def _dropped(self, hidden: Tensor) -> Tensor:
        """Dropout before a head's last linear layer, where there is one."""
        dropout = getattr(self.model, "dropout", None)
        return hidden if dropout is None else dropout(hidden)

    @property
    def pooling(self) -> Pooling:
        """What the head for texts reads."""
        return "first"

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

    def bias(self, index: int, heads: tuple[Tensor, Tensor, Tensor], packed: PackedBatch) -> Bias | None:
        """What is added to the attention scores of layer `index`, by the original positions.

        Parameters
        ----------
        heads : tuple of tensors [tokens, heads, head_dim]
            As of `qkv`.
        packed : PackedBatch
        """
        return None

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

    # Linear layers that read the same input are one after `fuse`, in place of their parts.

    def _heads(self, owner: Any, names: Sequence[str], values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What a module's linear layers for queries, keys and values make, joined or not."""
        if (joined := getattr(owner, JOINED, None)) is None:
            query, key, value = (self.split_heads(getattr(owner, name)(values)) for name in names)
        else:
            shape = self._shapes[0]
            parts = shape.heads, shape.kv_heads, shape.kv_heads
            query, key, value = self.split_heads(joined(values)).split(parts, 1)
        return query, key, value

    @staticmethod
    def _join(owner: Any, names: Sequence[str]) -> None:
        """Make one linear layer of several of a module, if they are plain and alike."""
        if hasattr(owner, JOINED):  # by another PrunedModel of the same model, or of another layer
            return
        parts = [getattr(owner, name) for name in names]
        if not all(is_plain(part) and (part.bias is None) == (parts[0].bias is None) for part in parts):
            return
        kinds = ("weight",) if parts[0].bias is None else ("weight", "bias")
        outputs = sum(part.out_features for part in parts)
        joined = nn.Linear(parts[0].in_features, outputs, bias=len(kinds) > 1, device="meta")
        for kind in kinds:
            whole = torch.cat([getattr(part, kind) for part in parts])
            setattr(joined, kind, nn.Parameter(whole, requires_grad=False))
        setattr(owner, JOINED, joined)
        for name in names:
            delattr(owner, name)

    @staticmethod
    def _gated(feed: Any, values: Tensor) -> Tensor:
        """A gated feed-forward, whose two layers that read the same may be joined."""
        if (joined := getattr(feed, JOINED, None)) is None:
            return feed(values)
        gate, up = joined(values).chunk(2, -1)
        return feed.down_proj(feed.act_fn(gate) * up)

    @staticmethod
    def _join_gelu(owner: Any, linear: str, activation: str) -> None:
        """Make one module of a linear layer and the GELU after it."""
        if is_plain(plain := getattr(owner, linear)) and is_gelu(getattr(owner, activation)):
            setattr(owner, linear, GeluLinear.of(plain))
            setattr(owner, activation, nn.Identity())

    @staticmethod
    def _even(dim: int, heads: int, ffn: int, ffn_matrices: int = 2, window: int | None = None) -> LayerShape:
        """The sizes of a layer whose heads share the width of the hidden states."""
        if dim % heads:
            raise UserError(f"hidden_size is {dim}, which {heads} attention heads do not divide.")
        head_dim = dim // heads
        return LayerShape(dim, heads, heads, head_dim, ffn, ffn_matrices, head_dim**-0.5, window)

    @staticmethod
    def sizes(config: Any) -> tuple[int, int]:
        """Number of layers and width of hidden states of a config, before there is a model."""
        return config.num_hidden_layers, config.hidden_size

    @staticmethod  # noqa: B027 - most have nothing more to check
    def check(config: Any) -> None:
        """Refuse, by a `UserError`, what a config says and no model of this architecture can be, before
        anything is built of it. Most sizes have bounds already (`thresher.folders.model_config`)."""

    def pack(self, inputs: Mapping[str, Tensor | None]) -> tuple[PackedBatch, dict[str, Tensor]]:
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
        """``[tokens, heads * head_dim]`` to ``[tokens, heads, head_dim]``, for as many heads as there are."""
        return values.unflatten(-1, (-1, self._shapes[0].head_dim))

    def length_limit(self, asked: int | None = None) -> int:
        """Where texts are cut: at `asked` tokens, or where sentence-transformers cuts them, or at the most
        that the model allows.

        Raises
        ------
        UserError
            If the model does not allow so many.
        """
        if asked is not None and asked > self.max_length:
            raise UserError(f"`max_length` is {asked}, but this model allows {self.max_length} tokens.")
        if asked is not None:
            return asked
        layout = layout_of(self.model)
        own = None if layout is None else layout.max_length
        return self.max_length if own is None else min(own, self.max_length)

    def check_length(self, longest: int) -> None:
        """Refuse sequences longer than the position table."""
        if longest > self.max_length:
            raise UserError(
                f"A text has {longest} tokens, but this model allows {self.max_length}; "
                f"tokenize with truncation=True, max_length={self.max_length}."
            )
