"""One answer for each sequence: classes, or a score."""

from __future__ import annotations

from torch import Tensor
from transformers import AutoModelForSequenceClassification
from transformers.loss.loss_utils import ForSequenceClassificationLoss
from transformers.modeling_outputs import SequenceClassifierOutput

from thresher.heads.base import Head, Reads
from thresher.packed import PackedBatch


class SequenceHead(Head):
    """Reads the first token, or the mean over the survivors, as the architecture has it."""

    suffix = "ForSequenceClassification"
    auto = AutoModelForSequenceClassification

    @property
    def reads(self) -> Reads:
        return "prefix" if self.family.pools_prefix else "survivors"

    def __call__(
        self, hidden: Tensor, packed: PackedBatch, weight: Tensor | None = None
    ) -> SequenceClassifierOutput:
        if self.reads == "prefix":
            pooled = self.family.norm(packed.first_tokens(hidden))
        else:
            pooled = packed.mean(self.family.norm(hidden), weight)
        return SequenceClassifierOutput(logits=self.family.classify(pooled))

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        return ForSequenceClassificationLoss(labels, logits, self.family.config)
