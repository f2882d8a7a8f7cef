"""EuroBERT: pre-norm by root mean square, rotary positions, gated feed-forward, grouped heads."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers.models.eurobert.modeling_eurobert import apply_rotary_pos_emb

from thresher.errors import UserError
from thresher.families.base import JOINED, Family, Pooling
from thresher.families.nomic_bert import FEED, HEADS
from thresher.families.rotary import angles, check_rotary, turns
from thresher.families.shape import LayerShape
from thresher.families.stage import StageModules

POOLING: dict[str, Pooling] = {"bos": "first", "mean": "mean", "late": "late"}


class EuroBert(Family):
    """The head for texts reads the first token, or the mean of all, or answers to each token first."""

    model_types = ("eurobert",)
    inputs = ("input_ids",)
    own_head_dim = True

    def __init__(self, model: Any):
        super().__init__(model)
        self._turns: Tensor | None = None
        check_rotary(self.encoder.rotary_emb, self.shape(0).head_dim)

    @staticmethod
    def check(config: Any) -> None:
        if (given := config.classifier_pooling) not in POOLING:
            raise UserError(f"classifier_pooling is {given!r:.100}; choose one of: {', '.join(POOLING)}.")

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
        )

    def attention_dropout(self, index: int) -> float:
        return self.layer(index).self_attn.attention_dropout

    def embed(self, inputs: dict[str, Tensor], positions: Tensor) -> Tensor:
        return self.encoder.embed_tokens(inputs["input_ids"])

    def qkv(self, index: int, hidden: Tensor, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        layer = self.layer(index)
        attention, normed = layer.self_attn, layer.input_layernorm(hidden)
        query, key, value = self._heads(attention, HEADS, normed)
        cos, sin = angles(self.encoder.rotary_emb, hidden, positions)
        query, key = apply_rotary_pos_emb(query, key, cos, sin)
        return query, key, value

    def fuse(self) -> None:
        for index in range(self.layers):
            self._join(self.layer(index).self_attn, HEADS)
            self._join(self.layer(index).mlp, FEED)

    def stage(self, index: int) -> StageModules | None:
        layer, last = self.layer(index), index + 1 == self.layers
        following = None if last else self.layer(index + 1)
        joined = None if following is None else getattr(following.self_attn, JOINED, None)
        up = getattr(layer.mlp, JOINED, None)
        if up is None or (joined is None and not last):
            return None
        if self._turns is None:
            self._turns = turns(self.encoder.rotary_emb, self.max_length, self.model.device)
        return StageModules(
            output=layer.self_attn.o_proj,
            first=layer.post_attention_layernorm,
            up=up,
            activation=layer.mlp.act_fn,
            down=layer.mlp.down_proj,
            second=None if following is None else following.input_layernorm,
            following=joined,
            pre_norm=True,
            gated=True,
            turns=None if last else self._turns,
        )

    def transform(self, index: int, hidden: Tensor, context: Tensor) -> Tensor:
        layer = self.layer(index)
        hidden = hidden + layer.self_attn.o_proj(context)
        return hidden + self._gated(layer.mlp, layer.post_attention_layernorm(hidden))

    def norm(self, hidden: Tensor) -> Tensor:
        return self.encoder.norm(hidden)

    @property
    def pooling(self) -> Pooling:
        return POOLING[self.config.classifier_pooling]

    def classify(self, pooled: Tensor) -> Tensor:
        return self.model.classifier(self.model.activation(self.model.dense(pooled)))
