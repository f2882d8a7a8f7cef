"""Gemma 3 as an encoder, as EmbeddingGemma is: every token sees all others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from transformers.models.gemma3.modeling_gemma3 import apply_rotary_pos_emb

from thresher.errors import UserError
from thresher.families.base import Family, Pooling
from thresher.families.nomic_bert import FEED, HEADS
from thresher.families.rotary import angles, check_rotary
from thresher.families.shape import LayerShape
from thresher.packed import PackedBatch


class Gemma3Text(Family):
    """Norms by root mean square before and after each part, rotary positions, grouped heads, gated
    feed-forward, global and sliding-window layers. The head for texts reads the last token."""

    model_types = ("gemma3_text",)
    inputs = ("input_ids",)
    own_head_dim = True

    def __init__(self, model: Any):
        if not model.config.use_bidirectional_attention:
            raise UserError(
                "use_bidirectional_attention is false: this is a causal decoder, and only encoders, such as "
                "EmbeddingGemma, can be pruned."
            )
        super().__init__(model)
        if self.config.attn_logit_softcapping:
            raise UserError("attn_logit_softcapping is set; scores that are capped are not supported.")
        check_rotary(self.encoder.rotary_emb, self.shape(0).head_dim)

    @property
    def stack(self) -> Any:
        return self.encoder.layers

    def _shape(self, index: int) -> LayerShape:
        config, attention = self.config, self.layer(index).self_attn
        return LayerShape(
            config.hidden_size,
            config.num_attention_heads,
            config.num_key_value_heads,
            attention.head_dim,
            config.intermediate_size,
            3,
            attention.scaling,
            attention.sliding_window - 1 if attention.is_sliding else None,  # transformers' own excludes it
        )

    def attention_dropout(self, index: int) -> float:
        return self.layer(index).self_attn.attention_dropout

    def pack(self, inputs: Mapping[str, Tensor | None]) -> tuple[PackedBatch, dict[str, Tensor]]:
        packed, values = super().pack(inputs)
        pad, last = self.config.pad_token_id, packed.last_tokens(values["input_ids"])
        if self.pooling == "last" and pad is not None and (last == pad).any():
            raise UserError(
                "A text ends with the padding token, which the model's head does not read: cut it."
            )
        return packed, values

    def embed(self, inputs: dict[str, Tensor], positions: Tensor) -> Tensor:
        return self.encoder.embed_tokens(inputs["input_ids"])

    def qkv(self, index: int, hidden: Tensor, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        layer = self.layer(index)
        attention, normed = layer.self_attn, layer.input_layernorm(hidden)
        query, key, value = self._heads(attention, HEADS, normed)
        cos, sin = angles(self.encoder.rotary_emb, hidden, positions, attention.layer_type)
        query, key = apply_rotary_pos_emb(attention.q_norm(query), attention.k_norm(key), cos, sin)
        return query, key, value

    def fuse(self) -> None:
        for index in range(self.layers):
            self._join(self.layer(index).self_attn, HEADS)
            self._join(self.layer(index).mlp, FEED)

    def transform(self, index: int, hidden: Tensor, context: Tensor) -> Tensor:
        layer = self.layer(index)
        hidden = hidden + layer.post_attention_layernorm(layer.self_attn.o_proj(context))
        fed = self._gated(layer.mlp, layer.pre_feedforward_layernorm(hidden))
        return hidden + layer.post_feedforward_layernorm(fed)

    def norm(self, hidden: Tensor) -> Tensor:
        return self.encoder.norm(hidden)

    @property
    def pooling(self) -> Pooling:
        return "last" if hasattr(self.model, "score") else "first"

    def classify(self, pooled: Tensor) -> Tensor:
        return self.model.score(pooled)
