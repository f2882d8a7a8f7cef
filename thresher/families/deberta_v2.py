"""DeBERTa v2 and v3: attention scores of contents, and of contents by relative positions."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers.models.deberta_v2.modeling_deberta_v2 import make_log_bucket_position

from thresher.attention import Entries, TokenBias
from thresher.errors import UserError
from thresher.families.base import Family
from thresher.families.shape import LayerShape
from thresher.packed import PackedBatch

HEADS = "query_proj", "key_proj", "value_proj"


class DebertaV2(Family):
    """Post-norm layers. A score is scaled as a sum of all its terms: query by key, query by position of the
    key (c2p), and key by position of the query (p2c)."""

    model_types = ("deberta-v2",)
    biased = "by layer"

    def __init__(self, model: Any):
        super().__init__(model)
        config, stack = self.config, self.encoder.encoder
        if stack.conv is not None:
            raise UserError(
                f"conv_kernel_size is {config.conv_kernel_size}: a convolution mixes neighbours, which are "
                "others once tokens are dropped. DeBERTa v3 has none."
            )
        if not stack.relative_attention and set(config.pos_att_type or ()) & {"c2p", "p2c"}:
            raise UserError("relative_attention is false, but pos_att_type names relative positions.")
        self._entries = Entries(self._entries_of)

    @property
    def max_length(self) -> int:
        return self.config.max_position_embeddings

    @property
    def segments(self) -> int | None:
        table = self.encoder.embeddings.token_type_embeddings
        return None if table is None else table.num_embeddings

    @property
    def stack(self) -> Any:
        return self.encoder.encoder.layer

    def _shape(self, index: int) -> LayerShape:
        config, attention = self.config, self.layer(index).attention.self
        heads, head_dim = attention.num_attention_heads, attention.attention_head_size
        terms = [term for term in ("c2p", "p2c") if term in attention.pos_att_type]
        # As transformers rounds it.
        root = float(torch.tensor(float(head_dim * (1 + len(terms)))).sqrt())
        return LayerShape(
            config.hidden_size,
            heads,
            heads,
            head_dim,
            config.intermediate_size,
            2,
            1 / root,
            entries=len(terms) * 2 * attention.pos_ebd_size if attention.relative_attention else 0,
        )

    def attention_dropout(self, index: int) -> float:
        return self.layer(index).attention.self.dropout.p

    def embed(self, inputs: dict[str, Tensor], positions: Tensor) -> Tensor:
        return self.encoder.embeddings(
            input_ids=inputs["input_ids"][None],
            token_type_ids=inputs["token_type_ids"][None],
            position_ids=positions[None],
        )[0]

    def qkv(self, index: int, hidden: Tensor, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self._heads(self.layer(index).attention.self, HEADS, hidden)

    def bias(self, index: int, heads: tuple[Tensor, Tensor, Tensor], packed: PackedBatch) -> TokenBias | None:
        attention, shape = self.layer(index).attention.self, self.shape(index)
        if not shape.entries:
            return None
        span = attention.pos_ebd_size
        relative = attention.pos_dropout(self.encoder.encoder.get_rel_embedding()[: 2 * span])
        query, key, _ = heads

        def numbers(values: Tensor, name: str, own: str) -> Tensor | None:
            if name not in attention.pos_att_type:
                return None
            project = getattr(attention, "query_proj" if name == "p2c" else "key_proj")
            project = project if attention.share_att_key else getattr(attention, own)
            of_position = self.split_heads(project(relative)).permute(1, 2, 0)  # [heads, head_dim, entries]
            return (values.transpose(0, 1) * shape.scale @ of_position.to(values.dtype)).transpose(0, 1)

        return TokenBias(
            numbers(query, "c2p", "pos_key_proj"),
            numbers(key, "p2c", "pos_query_proj"),
            self._entries.reaching(packed),
        )

    def _entries_of(self, differences: Tensor) -> Tensor:
        """Entries of differences, key less query."""
        attention = self.layer(0).attention.self
        span, relative = attention.pos_ebd_size, -differences
        if attention.position_buckets > 0:
            of = partial(make_log_bucket_position, bucket_size=attention.position_buckets)
            relative = of(relative, max_position=attention.max_relative_positions).long()
        return (relative + span).clamp(0, 2 * span - 1)

    def transform(self, index: int, hidden: Tensor, context: Tensor) -> Tensor:
        layer = self.layer(index)
        hidden = layer.attention.output(context, hidden)
        return layer.output(layer.intermediate(hidden), hidden)

    def summary(self, first: Tensor) -> Tensor | None:
        pooler = getattr(self.model, "pooler", None)
        return None if pooler is None else pooler(first[:, None])
