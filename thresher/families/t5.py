"""The encoders of T5, mT5 and UMT5: pre-norm by root mean square, a bias of relative positions."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from thresher.attention import Entries, TableBias
from thresher.errors import UserError
from thresher.families.base import JOINED, Family
from thresher.families.decoded import refuse_decoded
from thresher.families.mpnet import HEADS
from thresher.families.shape import LayerShape
from thresher.families.stage import StageModules
from thresher.packed import PackedBatch

LONGEST = 2**20  # tokens, which no text has: relative positions end nowhere


class T5(Family):
    """Scores are not scaled. The bias is layer 0's for all layers, but in UMT5, where each has its own."""

    model_types = ("t5", "mt5", "umt5")
    inputs = ("input_ids",)
    own_head_dim = True

    def __init__(self, model: Any):
        refuse_decoded(
            model,
            self._holder(model),
            "T5EncoderModel, or a model ForTokenClassification or ForConditionalGeneration",
        )
        super().__init__(model)
        self._entries = Entries(self._entries_of)
        own = self.layers > 1 and self._attention(1).has_relative_attention_bias
        self.biased = "by layer" if own else "alike"

    @staticmethod
    def _holder(model: Any) -> Any:
        """The model that holds the encoder."""
        return getattr(model, "transformer", model)

    @property
    def encoder(self) -> Any:
        return self._holder(self.model).encoder

    @staticmethod
    def sizes(config: Any) -> tuple[int, int]:
        return config.num_layers, config.d_model

    @staticmethod
    def check(config: Any) -> None:
        buckets, farthest = config.relative_attention_num_buckets, config.relative_attention_max_distance
        if buckets < 4 or farthest <= buckets // 2:
            raise UserError(
                f"relative_attention_num_buckets is {buckets}, and relative_attention_max_distance is "
                f"{farthest}: there must be 4 buckets or more, and the distance must be above half of them."
            )

    @property
    def max_length(self) -> int:
        return LONGEST

    @property
    def stack(self) -> Any:
        return self.encoder.block

    def _shape(self, index: int) -> LayerShape:
        config = self.config
        heads, gated = config.num_heads, config.is_gated_act
        return LayerShape(config.d_model, heads, heads, config.d_kv, config.d_ff, 3 if gated else 2, 1.0)

    def attention_dropout(self, index: int) -> float:
        return self._attention(index).dropout

    def _attention(self, index: int) -> Any:
        return self.layer(index).layer[0].SelfAttention

    def embed(self, inputs: dict[str, Tensor], positions: Tensor) -> Tensor:
        return self.encoder.dropout(self.encoder.embed_tokens(inputs["input_ids"]))

    def qkv(self, index: int, hidden: Tensor, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self._heads(self._attention(index), HEADS, self.layer(index).layer[0].layer_norm(hidden))

    def bias(self, index: int, heads: tuple[Tensor, Tensor, Tensor], packed: PackedBatch) -> TableBias:
        attention = self._attention(index)
        if not attention.has_relative_attention_bias:
            attention = self._attention(0)
        return TableBias(attention.relative_attention_bias.weight.T, self._entries.reaching(packed))

    def _entries_of(self, differences: Tensor) -> Tensor:
        attention, config = self._attention(0), self.config
        if config.model_type == "umt5":
            return attention._relative_position_bucket(differences)
        return attention._relative_position_bucket(
            differences,
            num_buckets=config.relative_attention_num_buckets,
            max_distance=config.relative_attention_max_distance,
        )

    def fuse(self) -> None:
        for index in range(self.layers):
            self._join(self._attention(index), HEADS)
            if self.config.is_gated_act:
                self._join(self.layer(index).layer[-1].DenseReluDense, ("wi_0", "wi_1"))

    def stage(self, index: int) -> StageModules | None:
        attention, feed = self.layer(index).layer[0], self.layer(index).layer[-1]
        last, inner = index + 1 == self.layers, feed.DenseReluDense
        following = None if last else getattr(self._attention(index + 1), JOINED, None)
        up = getattr(inner, JOINED if self.config.is_gated_act else "wi", None)
        if up is None or (following is None and not last):
            return None
        return StageModules(
            output=attention.SelfAttention.o,
            first=feed.layer_norm,
            up=up,
            activation=inner.act,
            down=inner.wo,
            second=None if last else self.layer(index + 1).layer[0].layer_norm,
            following=following,
            pre_norm=True,
            gated=self.config.is_gated_act,
        )

    def transform(self, index: int, hidden: Tensor, context: Tensor) -> Tensor:
        attention, feed = self.layer(index).layer[0], self.layer(index).layer[-1]
        hidden = hidden + attention.dropout(attention.SelfAttention.o(context))
        inner, normed = feed.DenseReluDense, feed.layer_norm(hidden)
        if (joined := getattr(inner, JOINED, None)) is not None:
            gate, up = joined(normed).chunk(2, -1)
            wide = inner.act(gate) * up
        elif self.config.is_gated_act:
            wide = inner.act(inner.wi_0(normed)) * inner.wi_1(normed)
        else:
            wide = inner.act(inner.wi(normed))
        return hidden + feed.dropout(inner.wo(inner.dropout(wide)))  # not `inner`, which reads wo.weight

    def norm(self, hidden: Tensor) -> Tensor:
        return self.encoder.dropout(self.encoder.final_layer_norm(hidden))
