"""One answer for each token: tags."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers import AutoModelForTokenClassification
from transformers.loss.loss_utils import ForTokenClassification
from transformers.modeling_outputs import TokenClassifierOutput

from thresher.heads.base import Head, Inputs, padded, unpadded
from thresher.packed import PackedBatch


class TokenHead(Head):
    """Reads every token."""

    suffix = "ForTokenClassification"
    auto = AutoModelForTokenClassification
    by_token = True

    def __call__(
        self, hidden: Tensor, packed: PackedBatch, weight: Tensor | None = None
    ) -> TokenClassifierOutput:
        return TokenClassifierOutput(logits=self.family.tag(self.family.norm(hidden)))

    def restored(self, output: Any, inputs: Inputs) -> Any:
        return TokenClassifierOutput(logits=padded(output.logits, inputs))

    def read(self, output: Any, inputs: Inputs) -> Tensor:
        return unpadded(output.logits, inputs)

    def loss(self, output: Any, **labels: Tensor) -> Tensor:
        return ForTokenClassification(output.logits, labels["labels"], self.family.config)
