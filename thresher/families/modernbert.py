"""ModernBERT: pre-norm, rotary positions, gated feed-forward, global and sliding-window layers."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers.models.modernbert.modeling_modernbert import apply_rotary_pos_emb

from thresher.families.base import Family, Pooling
from thresher.families.rotary import angles, check_rotary, turns
from thresher.families.shape import LayerShape
from thresher.families.stage import StageModules


class ModernBert(Family):
    """Windows and rotary angles go by original positions, whatever was dropped in between."""

    model_types = ("modernbert",)

    def __init__(self, model: Any):
        super().__init__(model)
        self._tables: dict[str, Tensor] = {}
        check_rotary(self.encoder.rotary_emb, self.shape(0).head_dim)

    @property
    def stack(self) -> Any:
        return self.encoder.layers

    def _shape(self, index: int) -> LayerShape:
        config = self.config
        sliding = self.layer(index).attention_type == "sliding_attention"
        window = config.sliding_window if sliding else None
        dim, heads = config.hidden_size, config.num_attention_heads
        return self._even(dim, heads, config.intermediate_size, 3, window)

    def attention_dropout(self, index: int) -> float:
        return self.layer(index).attn.attention_dropout

    def embed(self, inputs: dict[str, Tensor], positions: Tensor) -> Tensor:
        return self.encoder.embeddings(input_ids=inputs["input_ids"])

    def qkv(self, index: int, hidden: Tensor, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        layer = self.layer(index)
        query, key, value = (
            layer.attn.Wqkv(layer.attn_norm(hidden))
            .unflatten(-1, (3, -1, self.shape(index).head_dim))
            .unbind(1)
        )
        cos, sin = angles(self.encoder.rotary_emb, hidden, positions, layer.attention_type)
        query, key = apply_rotary_pos_emb(query, key, cos, sin, unsqueeze_dim=1)
        return query, key, value

    def transform(self, index: int, hidden: Tensor, context: Tensor) -> Tensor:
        layer = self.layer(index)
        hidden = hidden + layer.attn.out_drop(layer.attn.Wo(context))
        return hidden + layer.mlp(layer.mlp_norm(hidden))

    def stage(self, index: int) -> StageModules | None:
        layer = self.layer(index)
        following = None if index + 1 == self.layers else self.layer(index + 1)
        return StageModules(
            output=layer.attn.Wo,
            first=layer.mlp_norm,
            up=layer.mlp.Wi,
            activation=layer.mlp.act,
            down=layer.mlp.Wo,
            second=None if following is None else following.attn_norm,
            following=None if following is None else following.attn.Wqkv,
            pre_norm=True,
            gated=True,
            turns=None if following is None else self._turns(following.attention_type),
        )

    def _turns(self, kind: str) -> Tensor:
        """Cosines and sines of all positions, made once for each kind of layer."""
        if kind not in self._tables:
            self._tables[kind] = turns(self.encoder.rotary_emb, self.max_length, self.model.device, kind)
        return self._tables[kind]

    @property
    def pooling(self) -> Pooling:
        return "first" if self.config.classifier_pooling == "cls" else "mean"

    def norm(self, hidden: Tensor) -> Tensor:
        return self.encoder.final_norm(hidden)

    def classify(self, pooled: Tensor) -> Tensor:
        return self.model.classifier(self.model.drop(self.model.head(pooled)))

    def tag(self, hidden: Tensor) -> Tensor:
        return self.classify(hidden)

    def mark(self, hidden: Tensor) -> Tensor:
        return self.classify(hidden)
