"""BERT and everything that shares its layer: RoBERTa, XLM-R, CamemBERT, ELECTRA."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from thresher.errors import UserError
from thresher.families.base import JOINED, Family
from thresher.families.shape import LayerShape
from thresher.families.stage import StageModules

HEADS = "query", "key", "value"


def counted(input_ids: Tensor, positions: Tensor, padding: int) -> Tensor:
    """int64 [tokens]: rows of RoBERTa's position table.

    RoBERTa and its kin count a text's ids from after the padding id. A padding id inside a text, which
    "<pad>" in its words becomes, is not counted and has the row of the padding id.
    """
    counts = (input_ids != padding).long()
    seen = counts.cumsum(0)
    start = torch.arange(len(positions), device=positions.device) - positions  # of the token's own text
    return (seen - (seen - counts)[start]) * counts + padding


def stage_of(family: Family, index: int) -> StageModules | None:
    """The stage of a layer whose modules have BERT's names."""
    layer, last = family.layer(index), index + 1 == family.layers
    following = None if last else getattr(family.layer(index + 1).attention.self, JOINED, None)
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


class Bert(Family):
    """Post-norm layers, learned absolute positions, [CLS] head."""

    model_types: ClassVar[tuple[str, ...]] = ("bert", "roberta", "xlm-roberta", "camembert", "electra")

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
    def counts_ids(self) -> bool:
        """True for RoBERTa and its kin, which count positions by ids: see `counted`."""
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
        return self._even(config.hidden_size, config.num_attention_heads, config.intermediate_size)

    def attention_dropout(self, index: int) -> float:
        return self.layer(index).attention.self.dropout.p

    def embed(self, inputs: dict[str, Tensor], positions: Tensor) -> Tensor:
        input_ids, places = inputs["input_ids"], positions
        if self.counts_ids:
            places = counted(input_ids, positions, self.encoder.embeddings.padding_idx)
        hidden = self.encoder.embeddings(
            input_ids=input_ids[None],
            token_type_ids=inputs["token_type_ids"][None],
            position_ids=places[None],
        )[0]
        project = getattr(self.encoder, "embeddings_project", None)
        return hidden if project is None else project(hidden)

    def qkv(self, index: int, hidden: Tensor, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self._heads(self.layer(index).attention.self, HEADS, hidden)

    def fuse(self) -> None:
        for index in range(self.layers):
            layer = self.layer(index)
            self._join(layer.attention.self, HEADS)
            self._join_gelu(layer.intermediate, "dense", "intermediate_act_fn")

    def stage(self, index: int) -> StageModules | None:
        return stage_of(self, index)

    def transform(self, index: int, hidden: Tensor, context: Tensor) -> Tensor:
        layer = self.layer(index)
        hidden = layer.attention.output(context, hidden)
        return layer.output(layer.intermediate(hidden), hidden)

    def summary(self, first: Tensor) -> Tensor | None:
        of_choices = getattr(self.model, "sequence_summary", None)  # ELECTRA's
        return super().summary(first) if of_choices is None else of_choices(first[:, None])
