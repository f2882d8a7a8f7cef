"""MPNet: BERT's layer, with a bias of relative positions that all layers share."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from thresher.attention import Entries, TableBias
from thresher.families.base import JOINED, Family
from thresher.families.bert import counted
from thresher.families.shape import LayerShape
from thresher.families.stage import StageModules
from thresher.packed import PackedBatch

HEADS = "q", "k", "v"


class MPNet(Family):
    """Post-norm layers, learned absolute positions counted as in RoBERTa, and relative ones in 32 buckets."""

    model_types = ("mpnet",)
    inputs = ("input_ids",)
    biased = "alike"

    def __init__(self, model: Any):
        super().__init__(model)
        self._entries = Entries(self.encoder.encoder.relative_position_bucket)

    @property
    def max_length(self) -> int:
        return self.config.max_position_embeddings - self.encoder.embeddings.padding_idx - 1

    @property
    def stack(self) -> Any:
        return self.encoder.encoder.layer

    def _shape(self, index: int) -> LayerShape:
        config = self.config
        return self._even(config.hidden_size, config.num_attention_heads, config.intermediate_size)

    def attention_dropout(self, index: int) -> float:
        return self.layer(index).attention.attn.dropout.p

    def embed(self, inputs: dict[str, Tensor], positions: Tensor) -> Tensor:
        ids, embeddings = inputs["input_ids"], self.encoder.embeddings
        places = counted(ids, positions, embeddings.padding_idx)
        return embeddings(input_ids=ids[None], position_ids=places[None])[0]

    def qkv(self, index: int, hidden: Tensor, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self._heads(self.layer(index).attention.attn, HEADS, hidden)

    def fuse(self) -> None:
        for index in range(self.layers):
            layer = self.layer(index)
            self._join(layer.attention.attn, HEADS)
            self._join_gelu(layer.intermediate, "dense", "intermediate_act_fn")

    def stage(self, index: int) -> StageModules | None:
        layer, last = self.layer(index), index + 1 == self.layers
        following = None if last else getattr(self.layer(index + 1).attention.attn, JOINED, None)
        if following is None and not last:
            return None
        return StageModules(
            output=layer.attention.attn.o,
            first=layer.attention.LayerNorm,
            up=layer.intermediate.dense,
            activation=layer.intermediate.intermediate_act_fn,
            down=layer.output.dense,
            second=layer.output.LayerNorm,
            following=following,
        )

    def bias(self, index: int, heads: tuple[Tensor, Tensor, Tensor], packed: PackedBatch) -> TableBias:
        table = self.encoder.encoder.relative_attention_bias.weight
        return TableBias(table.T, self._entries.reaching(packed))

    def transform(self, index: int, hidden: Tensor, context: Tensor) -> Tensor:
        layer = self.layer(index)
        attention = layer.attention
        hidden = attention.LayerNorm(attention.dropout(attention.attn.o(context)) + hidden)
        return layer.output(layer.intermediate(hidden), hidden)
