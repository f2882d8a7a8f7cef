"""ModernBERT: pre-norm, rotary positions, gated feed-forward, global and sliding-window layers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.models.modernbert.modeling_modernbert import apply_rotary_pos_emb

from thresher.errors import UserError
from thresher.families.base import Family
from thresher.families.shape import LayerShape
from thresher.families.stage import StageModules


class ModernBert(Family):
    """Windows and rotary angles go by original positions, whatever was dropped in between."""

    model_types = ("modernbert",)

    def __init__(self, model: Any):
        super().__init__(model)
        self._tables: dict[str, Tensor] = {}
        rotary = self.model.model.rotary_emb
        if "longrope" in rotary.rope_type.values():
            # By the longest text of a batch, or by its longest survivor.
            raise UserError("rope_type is 'longrope', whose angles depend on the other texts of a batch.")
        head_dim = self.shape(0).head_dim
        if any(2 * len(frequencies) != head_dim for frequencies in rotary.buffers()):
            raise UserError(f"The model's rotary positions do not fit heads of {head_dim} dimensions.")

    @property
    def max_length(self) -> int:
        return self.config.max_position_embeddings

    @property
    def stack(self) -> Any:
        return self.model.model.layers

    def _shape(self, index: int) -> LayerShape:
        config = self.config
        dim, heads = config.hidden_size, config.num_attention_heads
        head_dim = self._head_dim(dim, heads)
        sliding = self.layer(index).attention_type == "sliding_attention"
        window = config.sliding_window if sliding else None
        return LayerShape(dim, heads, heads, head_dim, config.intermediate_size, 3, head_dim**-0.5, window)

    def attention_dropout(self, index: int) -> float:
        return self.layer(index).attn.attention_dropout

    def embed(self, inputs: dict[str, Tensor], positions: Tensor) -> Tensor:
        return self.model.model.embeddings(input_ids=inputs["input_ids"])

    def qkv(self, index: int, hidden: Tensor, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        layer = self.layer(index)
        query, key, value = (
            layer.attn.Wqkv(layer.attn_norm(hidden))
            .unflatten(-1, (3, -1, self.shape(index).head_dim))
            .unbind(1)
        )
        cos, sin = self.model.model.rotary_emb(hidden, positions[None], layer.attention_type)
        query, key = apply_rotary_pos_emb(query, key, cos[0], sin[0], unsqueeze_dim=1)
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
        if kind in self._tables:
            return self._tables[kind]
        positions = torch.arange(self.max_length, device=self.model.device)
        like = torch.empty(0, dtype=torch.float32, device=self.model.device)
        cos, sin = self.model.model.rotary_emb(like, positions[None], kind)
        half = cos.shape[-1] // 2
        self._tables[kind] = torch.stack([cos[0, :, :half], sin[0, :, :half]], 1).contiguous()
        return self._tables[kind]

    @property
    def pools_prefix(self) -> bool:
        return self.config.classifier_pooling == "cls"

    def norm(self, hidden: Tensor) -> Tensor:
        return self.model.model.final_norm(hidden)

    def classify(self, pooled: Tensor) -> Tensor:
        return self.model.classifier(self.model.drop(self.model.head(pooled)))
