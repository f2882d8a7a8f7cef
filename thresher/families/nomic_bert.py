"""NomicBERT, GTE and Jina embeddings v3: post-norm layers with rotary positions."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers.models.nomic_bert.modeling_nomic_bert import apply_rotary_pos_emb

from thresher.families.base import JOINED, Family
from thresher.families.rotary import angles, check_rotary, turns
from thresher.families.shape import LayerShape
from thresher.families.stage import StageModules

HEADS = "q_proj", "k_proj", "v_proj"
FEED = "gate_proj", "up_proj"


class NomicBert(Family):
    """The feed-forward is gated, but in Jina's."""

    model_types = ("nomic_bert", "gte", "jina_embeddings_v3")
    own_head_dim = True

    def __init__(self, model: Any):
        super().__init__(model)
        self._turns: Tensor | None = None
        check_rotary(self.encoder.rotary_emb, self.shape(0).head_dim)

    @property
    def segments(self) -> int | None:
        table = self.encoder.embeddings.token_type_embeddings
        return None if table is None else table.num_embeddings

    @property
    def stack(self) -> Any:
        return self.encoder.layers

    def _shape(self, index: int) -> LayerShape:
        config, layer = self.config, self.layer(index)
        heads, head_dim = config.num_attention_heads, layer.self_attn.head_dim
        matrices = 3 if hasattr(layer.mlp, "gate_proj") else 2
        return LayerShape(
            config.hidden_size, heads, heads, head_dim, config.intermediate_size, matrices, head_dim**-0.5
        )

    def attention_dropout(self, index: int) -> float:
        return self.layer(index).self_attn.attention_dropout

    def embed(self, inputs: dict[str, Tensor], positions: Tensor) -> Tensor:
        return self.encoder.embeddings(
            input_ids=inputs["input_ids"][None], token_type_ids=inputs["token_type_ids"][None]
        )[0]

    def qkv(self, index: int, hidden: Tensor, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        query, key, value = self._heads(self.layer(index).self_attn, HEADS, hidden)
        cos, sin = angles(self.encoder.rotary_emb, hidden, positions)
        query, key = apply_rotary_pos_emb(query, key, cos, sin)
        return query, key, value

    def fuse(self) -> None:
        for index in range(self.layers):
            layer = self.layer(index)
            self._join(layer.self_attn, HEADS)
            if self.shape(index).ffn_matrices == 3:
                self._join(layer.mlp, FEED)
            else:
                self._join_gelu(layer.mlp, "fc1", "activation_fn")

    def stage(self, index: int) -> StageModules | None:
        layer, last = self.layer(index), index + 1 == self.layers
        following = None if last else getattr(self.layer(index + 1).self_attn, JOINED, None)
        gated = self.shape(index).ffn_matrices == 3
        up = getattr(layer.mlp, JOINED if gated else "fc1", None)
        if up is None or (following is None and not last):
            return None
        if self._turns is None:
            self._turns = turns(self.encoder.rotary_emb, self.max_length, self.model.device)
        return StageModules(
            output=layer.self_attn.o_proj,
            first=layer.post_attention_layernorm,
            up=up,
            activation=layer.mlp.act_fn if gated else layer.mlp.activation_fn,
            down=layer.mlp.down_proj if gated else layer.mlp.fc2,
            second=layer.post_mlp_layernorm,
            following=following,
            gated=gated,
            turns=None if last else self._turns,
        )

    def transform(self, index: int, hidden: Tensor, context: Tensor) -> Tensor:
        layer = self.layer(index)
        attended = layer.post_attention_dropout(layer.self_attn.o_proj(context))
        hidden = layer.post_attention_layernorm(hidden + attended)
        return layer.post_mlp_layernorm(hidden + layer.post_mlp_dropout(self._gated(layer.mlp, hidden)))
