"""BERT and everything that shares its layer: RoBERTa, XLM-R, CamemBERT, ELECTRA."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from thresher.errors import UserError
from thresher.families.base import Family, GeluLinear, is_gelu, is_plain
from thresher.families.shape import LayerShape
from thresher.families.stage import StageModules

FUSED = "query_key_value"


class Bert(Family):
    """Post-norm layers, learned absolute positions, [CLS] head."""

    model_types = ("bert", "roberta", "xlm-roberta", "camembert", "electra")

    def __init__(self, model: Any):
        super().__init__(model)
        if (kind := getattr(self.config, "position_embedding_type", None)) not in (None, "absolute"):
            raise UserError(f"position_embedding_type is '{kind}'; only absolute positions are supported.")
        if self.counts_ids and self.encoder.embeddings.padding_idx is None:
            raise UserError(
                "The model's config has no pad_token_id; set it and load the model again, because positions "
                f"of a {self.config.model_type} start after it."
            )

    @property
    def encoder(self) -> Any:
        """The model under the head (``model.bert``, ``model.roberta``, ...)."""
        return getattr(self.model, self.model.base_model_prefix)

    @property
    def counts_ids(self) -> bool:
        """True for RoBERTa and its kin, which count positions by ids: see `position_ids`."""
        return hasattr(self.encoder.embeddings, "padding_idx")

    @property
    def max_length(self) -> int:
        taken = self.encoder.embeddings.padding_idx + 1 if self.counts_ids else 0
        return self.config.max_position_embeddings - taken

    @property
    def segments(self) -> int:
        return self.encoder.embeddings.token_type_embeddings.num_embeddings

    @property
    def stack(self) -> Any:
        return self.encoder.encoder.layer

    def _shape(self, index: int) -> LayerShape:
        config = self.config
        dim, heads = config.hidden_size, config.num_attention_heads
        head_dim = self._head_dim(dim, heads)
        return LayerShape(dim, heads, heads, head_dim, config.intermediate_size, 2, head_dim**-0.5)

    def attention_dropout(self, index: int) -> float:
        return self.layer(index).attention.self.dropout.p

    def embed(self, inputs: dict[str, Tensor], positions: Tensor) -> Tensor:
        input_ids = inputs["input_ids"]
        hidden = self.encoder.embeddings(
            input_ids=input_ids[None],
            token_type_ids=inputs["token_type_ids"][None],
            position_ids=self.position_ids(input_ids, positions)[None],
        )[0]
        project = getattr(self.encoder, "embeddings_project", None)
        return hidden if project is None else project(hidden)

    def position_ids(self, input_ids: Tensor, positions: Tensor) -> Tensor:
        """int64 [tokens]: rows of the position table.

        RoBERTa and its kin count a text's ids from after the padding id. A padding id inside a text, which
        "<pad>" in its words becomes, is not counted and has the row of the padding id.
        """
        if not self.counts_ids:
            return positions
        padding = self.encoder.embeddings.padding_idx
        counts = (input_ids != padding).long()
        seen = counts.cumsum(0)
        start = torch.arange(len(positions), device=positions.device) - positions  # of the token's own text
        return (seen - (seen - counts)[start]) * counts + padding

    def qkv(self, index: int, hidden: Tensor, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        attention = self.layer(index).attention.self
        if hasattr(attention, FUSED):
            query, key, value = getattr(attention, FUSED)(hidden).chunk(3, -1)
        else:
            query, key, value = attention.query(hidden), attention.key(hidden), attention.value(hidden)
        return self.split_heads(query), self.split_heads(key), self.split_heads(value)

    def fuse(self) -> None:
        for index in range(self.layers):
            attention, feed = self.layer(index).attention.self, self.layer(index).intermediate
            if hasattr(attention, FUSED):
                continue  # by another PrunedModel of the same model
            if is_plain(feed.dense) and is_gelu(feed.intermediate_act_fn):
                feed.dense, feed.intermediate_act_fn = GeluLinear.of(feed.dense), nn.Identity()
            parts = [attention.query, attention.key, attention.value]
            if all(is_plain(part) and part.bias is not None for part in parts):
                fused = nn.Linear(parts[0].in_features, 3 * parts[0].out_features, device="meta")
                for name in ("weight", "bias"):
                    joined = torch.cat([getattr(part, name) for part in parts])
                    setattr(fused, name, nn.Parameter(joined, requires_grad=False))
                setattr(attention, FUSED, fused)
                del attention.query, attention.key, attention.value

    def stage(self, index: int) -> StageModules | None:
        layer, last = self.layer(index), index + 1 == self.layers
        following = None if last else getattr(self.layer(index + 1).attention.self, FUSED, None)
        if following is None and not last:
            return None
        return StageModules(
            output=layer.attention.output.dense,
            first=layer.attention.output.LayerNorm,
            up=layer.intermediate.dense,
            activation=layer.intermediate.intermediate_act_fn,
            down=layer.output.dense,
            second=layer.output.LayerNorm,
            following=following,
        )

    def transform(self, index: int, hidden: Tensor, context: Tensor) -> Tensor:
        layer = self.layer(index)
        hidden = layer.attention.output(context, hidden)
        return layer.output(layer.intermediate(hidden), hidden)

    def classify(self, pooled: Tensor) -> Tensor:
        first = pooled[:, None]  # pooler and heads want [batch, 1, dim]
        pooler = getattr(self.encoder, "pooler", None)
        if pooler is None:
            return self.model.classifier(first)
        return self.model.classifier(self.model.dropout(pooler(first)))
