"""DeBERTa v2 and v3: attention scores of contents, and of contents by relative positions."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers.models.deberta_v2.modeling_deberta_v2 import make_log_bucket_position

from thresher.attention import Entries, TokenBias
from thresher.errors import UserError
from thresher.families.base import JOINED, Family, is_plain
from thresher.families.bert import stage_of
from thresher.families.shape import LayerShape
from thresher.families.stage import StageModules
from thresher.packed import PackedBatch

HEADS = "query_proj", "key_proj", "value_proj"
PLACES = "places"  # name of what `fuse` makes of relative positions, in a module of attention
TERMS = {"c2p": ("key_proj", "pos_key_proj"), "p2c": ("query_proj", "pos_query_proj")}
"""Which linear layer makes heads of positions: one that is shared with the tokens, or its own."""


class DebertaV2(Family):
    """Post-norm layers. A score is scaled as a sum of all its terms: query by key, query by position of the
    key (c2p), and key by position of the query (p2c)."""

    model_types = ("deberta-v2",)

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
        self.biased = "by layer" if any(shape.entries for shape in self._shapes) else "never"

    @staticmethod
    def check(config: Any) -> None:
        buckets, farthest = getattr(config, "position_buckets", -1), config.max_relative_positions
        farthest = config.max_position_embeddings if farthest < 1 else farthest
        if buckets == 1 or farthest - 1 <= buckets // 2:
            raise UserError(
                f"position_buckets is {buckets}, and relative positions reach to {farthest}: there must be 2 "
                "buckets or more, and positions must reach beyond half of them."
            )

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
        if (places := getattr(attention, PLACES, None)) is None:
            places = self._places(attention, attention.pos_dropout(self._relative(attention)))

        def numbers(values: Tensor, term: str) -> Tensor | None:
            if (of_position := places.get(term)) is None:
                return None
            return (values.transpose(0, 1) * shape.scale @ of_position.to(values.dtype)).transpose(0, 1)

        query, key, _ = heads
        return TokenBias(numbers(query, "c2p"), numbers(key, "p2c"), self._entries.reaching(packed))

    def _relative(self, attention: Any) -> Tensor:
        """Embeddings ``[entries, dim]`` of relative positions."""
        return self.encoder.encoder.get_rel_embedding()[: 2 * attention.pos_ebd_size]

    def _places(self, attention: Any, relative: Tensor) -> dict[str, Tensor]:
        """Heads ``[heads, head_dim, entries]`` of relative positions, by the term that they are for."""
        found = {}
        for term, (shared, own) in TERMS.items():
            if term in attention.pos_att_type:
                project = getattr(attention, shared if attention.share_att_key else own)
                found[term] = self.split_heads(project(relative)).permute(1, 2, 0)
        return found

    def fuse(self) -> None:
        for index in range(self.layers):
            layer = self.layer(index)
            self._keep_places(index)
            self._join(layer.attention.self, HEADS)
            self._join_gelu(layer.intermediate, "dense", "intermediate_act_fn")

    @torch.no_grad()
    def _keep_places(self, index: int) -> None:
        """Make heads of relative positions for good, if the linear layers that do it are plain."""
        attention, names = self.layer(index).attention.self, set(HEADS)
        if not self.shape(index).entries or hasattr(attention, PLACES) or hasattr(attention, JOINED):
            return
        if not attention.share_att_key:
            names |= {own for term, (_, own) in TERMS.items() if term in attention.pos_att_type}
        if all(is_plain(getattr(attention, name)) for name in names):
            made = self._places(attention, self._relative(attention))
            kept = {term: nn.Parameter(values.contiguous(), False) for term, values in made.items()}
            setattr(attention, PLACES, nn.ParameterDict(kept))
            for name in names - set(HEADS):
                delattr(attention, name)

    def stage(self, index: int) -> StageModules | None:
        return stage_of(self, index)

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
