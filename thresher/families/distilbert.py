"""DistilBERT: BERT's layer without token types, under names of its own."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn import functional as F

from thresher.families.base import JOINED, Family
from thresher.families.shape import LayerShape
from thresher.families.stage import StageModules

HEADS = "q_lin", "k_lin", "v_lin"


class DistilBert(Family):
    """Post-norm layers, learned absolute positions; a head of two layers reads [CLS]."""

    model_types = ("distilbert",)
    inputs = ("input_ids",)

    @property
    def stack(self) -> Any:
        return self.encoder.transformer.layer

    def _shape(self, index: int) -> LayerShape:
        return self._even(self.config.dim, self.config.n_heads, self.config.hidden_dim)

    def attention_dropout(self, index: int) -> float:
        return self.layer(index).attention.dropout.p

    def embed(self, inputs: dict[str, Tensor], positions: Tensor) -> Tensor:
        return self.encoder.embeddings(inputs["input_ids"][None], position_ids=positions[None])[0]

    def qkv(self, index: int, hidden: Tensor, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self._heads(self.layer(index).attention, HEADS, hidden)

    def fuse(self) -> None:
        for index in range(self.layers):
            layer = self.layer(index)
            self._join(layer.attention, HEADS)
            self._join_gelu(layer.ffn, "lin1", "activation")

    def stage(self, index: int) -> StageModules | None:
        layer, last = self.layer(index), index + 1 == self.layers
        following = None if last else getattr(self.layer(index + 1).attention, JOINED, None)
        if following is None and not last:
            return None
        return StageModules(
            output=layer.attention.out_lin,
            first=layer.sa_layer_norm,
            up=layer.ffn.lin1,
            activation=layer.ffn.activation,
            down=layer.ffn.lin2,
            second=layer.output_layer_norm,
            following=following,
        )

    def transform(self, index: int, hidden: Tensor, context: Tensor) -> Tensor:
        layer = self.layer(index)
        hidden = layer.sa_layer_norm(layer.attention.out_lin(context) + hidden)
        return layer.output_layer_norm(layer.ffn.ff_chunk(hidden) + hidden)

    def classify(self, pooled: Tensor) -> Tensor:
        return self.model.classifier(self._dropped(F.relu(self.model.pre_classifier(pooled))))
