"""ALBERT: BERT's layer, the same for many layers."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from thresher.errors import UserError
from thresher.families.base import JOINED, Family
from thresher.families.bert import HEADS
from thresher.families.shape import LayerShape
from thresher.families.stage import StageModules


class Albert(Family):
    """Post-norm layers in groups that share weights, learned absolute positions, narrow embeddings."""

    model_types = ("albert",)

    def __init__(self, model: Any):
        if (inner := model.config.inner_group_num) != 1:
            raise UserError(f"inner_group_num is {inner}; only groups of one layer are supported.")
        super().__init__(model)

    @property
    def segments(self) -> int:
        return self.encoder.embeddings.token_type_embeddings.num_embeddings

    @property
    def stack(self) -> Any:
        """A layer for each pass: some are the same."""
        groups, count = self.encoder.encoder.albert_layer_groups, self.config.num_hidden_layers
        return [groups[int(i / (count / len(groups)))].albert_layers[0] for i in range(count)]

    def _shape(self, index: int) -> LayerShape:
        config = self.config
        return self._even(config.hidden_size, config.num_attention_heads, config.intermediate_size)

    def attention_dropout(self, index: int) -> float:
        return self.layer(index).attention.attention_dropout.p

    def embed(self, inputs: dict[str, Tensor], positions: Tensor) -> Tensor:
        hidden = self.encoder.embeddings(
            inputs["input_ids"][None],
            token_type_ids=inputs["token_type_ids"][None],
            position_ids=positions[None],
        )
        return self.encoder.encoder.embedding_hidden_mapping_in(hidden[0])

    def qkv(self, index: int, hidden: Tensor, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self._heads(self.layer(index).attention, HEADS, hidden)

    def fuse(self) -> None:
        for index in range(self.layers):
            self._join(self.layer(index).attention, HEADS)
            self._join_gelu(self.layer(index), "ffn", "activation")

    def stage(self, index: int) -> StageModules | None:
        layer, last = self.layer(index), index + 1 == self.layers
        following = None if last else getattr(self.layer(index + 1).attention, JOINED, None)
        if following is None and not last:
            return None
        return StageModules(
            output=layer.attention.dense,
            first=layer.attention.LayerNorm,
            up=layer.ffn,
            activation=layer.activation,
            down=layer.ffn_output,
            second=layer.full_layer_layer_norm,
            following=following,
        )

    def transform(self, index: int, hidden: Tensor, context: Tensor) -> Tensor:
        layer = self.layer(index)
        attention = layer.attention
        hidden = attention.LayerNorm(hidden + attention.output_dropout(attention.dense(context)))
        return layer.full_layer_layer_norm(layer.ff_chunk(hidden) + hidden)

    def summary(self, first: Tensor) -> Tensor | None:
        encoder = self.encoder
        return None if encoder.pooler is None else encoder.pooler_activation(encoder.pooler(first))
