"""ModernBERT: pre-norm, rotary positions, gated feed-forward, global and sliding-window layers."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers.models.modernbert.modeling_modernbert import apply_rotary_pos_emb

from thresher.errors import UserError
from thresher.families.base import Family
from thresher.packed import PackedBatch


class ModernBert(Family):
    """Windows and rotary angles go by original positions, whatever was dropped in between."""

    model_types = ("modernbert",)
    feed_forward_matrices = 3

    def __init__(self, model: Any):
        super().__init__(model)
        rotary = self.model.model.rotary_emb
        if "longrope" in rotary.rope_type.values():
            # By the longest text of a batch, or by its longest survivor.
            raise UserError("rope_type is 'longrope', whose angles depend on the other texts of a batch.")
        if any(2 * len(frequencies) != self.head_dim for frequencies in rotary.buffers()):
            raise UserError(f"The model's rotary positions do not fit heads of {self.head_dim} dimensions.")

    @property
    def max_length(self) -> int:
        return self.config.max_position_embeddings

    @property
    def stack(self) -> Any:
        return self.model.model.layers

    def window(self, index: int) -> int | None:
        sliding = self.layer(index).attention_type == "sliding_attention"
        return self.config.sliding_window if sliding else None

    def attention_dropout(self, index: int) -> float:
        return self.layer(index).attn.attention_dropout

    def embed(self, input_ids: Tensor, token_types: Tensor, positions: Tensor) -> Tensor:
        return self.model.model.embeddings(input_ids=input_ids)

    def qkv(self, index: int, hidden: Tensor, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        layer = self.layer(index)
        query, key, value = (
            layer.attn.Wqkv(layer.attn_norm(hidden)).unflatten(-1, (3, -1, self.head_dim)).unbind(1)
        )
        cos, sin = self.model.model.rotary_emb(hidden, positions[None], layer.attention_type)
        query, key = apply_rotary_pos_emb(query, key, cos[0], sin[0], unsqueeze_dim=1)
        return query, key, value

    def transform(self, index: int, hidden: Tensor, context: Tensor) -> Tensor:
        layer = self.layer(index)
        hidden = hidden + layer.attn.out_drop(layer.attn.Wo(context))
        return hidden + layer.mlp(layer.mlp_norm(hidden))

    @property
    def pools_prefix(self) -> bool:
        return self.config.classifier_pooling == "cls"

    def logits(self, hidden: Tensor, packed: PackedBatch, weight: Tensor | None = None) -> Tensor:
        if self.pools_prefix:
            pooled = self.model.model.final_norm(packed.first_tokens(hidden))
        else:
            pooled = packed.mean(self.model.model.final_norm(hidden), weight)
        return self.model.classifier(self.model.drop(self.model.head(pooled)))
