"""States of all tokens, of a model without a head: what embedders pool."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers import AutoModel, AutoModelForTextEncoding
from transformers.modeling_outputs import BaseModelOutputWithPooling

from thresher.errors import UserError
from thresher.heads.base import Head, Inputs, padded
from thresher.heads.pooling import layout_of
from thresher.packed import PackedBatch


class EmbeddingHead(Head):
    """Reads every token. The logits of a packed batch are a vector for each text: the mean over its tokens,
    or what the sentence-transformers folder says that the model came from."""

    suffix = "Model"
    auto = AutoModel
    instead = (AutoModelForTextEncoding,)  # which leaves decoders out
    labels = ()

    def __call__(
        self, hidden: Tensor, packed: PackedBatch, weight: Tensor | None = None
    ) -> BaseModelOutputWithPooling:
        states = self.family.norm(hidden)
        output = BaseModelOutputWithPooling(
            last_hidden_state=states, pooler_output=self.family.summary(packed.first_tokens(states))
        )
        output["logits"] = self.pooled(states, packed)
        return output

    def pooled(self, states: Tensor, packed: PackedBatch) -> Tensor:
        """A vector for each text, ``[texts, outputs]``, of states ``[tokens, dim]``."""
        layout = layout_of(self.family.model)
        return packed.mean(states) if layout is None else layout(states, packed)

    @property
    def protects_last(self) -> bool:  # type: ignore[override]
        layout = layout_of(self.family.model)
        return layout is not None and "lasttoken" in layout.modes

    def restored(self, output: Any, inputs: Inputs) -> Any:
        return BaseModelOutputWithPooling(
            last_hidden_state=padded(output.last_hidden_state, inputs), pooler_output=output.pooler_output
        )

    def read(self, output: Any, inputs: Inputs) -> Tensor:
        packed, states = _packed(output.last_hidden_state, inputs.get("attention_mask"))
        return self.pooled(states, packed)

    def loss(self, output: Any, **labels: Tensor) -> Tensor:
        raise UserError("A model without a head has no loss of its own: make one of last_hidden_state.")


def _packed(states: Tensor, mask: Tensor | None) -> tuple[PackedBatch, Tensor]:
    packed, *values = PackedBatch.from_padded(
        states.new_ones(states.shape[:2]) if mask is None else mask, states
    )
    return packed, values[0]
