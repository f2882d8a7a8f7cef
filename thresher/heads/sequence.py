"""One answer for each sequence: classes, or a score."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor
from transformers import AutoModelForSequenceClassification
from transformers.loss.loss_utils import ForSequenceClassificationLoss
from transformers.modeling_outputs import SequenceClassifierOutput

from thresher.heads.base import Head, Reads
from thresher.packed import PackedBatch

READS: dict[str, Reads] = {"first": "prefix", "last": "suffix"}


class SequenceHead(Head):
    """Reads the first token, or the last, or the mean over the survivors, as the architecture has it."""

    suffix = "ForSequenceClassification"
    auto: ClassVar[Any] = AutoModelForSequenceClassification

    @property
    def reads(self) -> Reads:  # type: ignore[override]
        return READS.get(self.family.pooling, "survivors")

    def __call__(self, hidden: Tensor, packed: PackedBatch, weight: Tensor | None = None) -> Any:
        return SequenceClassifierOutput(logits=self._logits(hidden, packed, weight))

    def _logits(self, hidden: Tensor, packed: PackedBatch, weight: Tensor | None) -> Tensor:
        """``[sequences, labels]``"""
        family, pooling = self.family, self.family.pooling
        if pooling == "first":
            return family.classify(family.norm(packed.first_tokens(hidden)))
        if pooling == "last":
            return family.classify(family.norm(packed.last_tokens(hidden)))
        if pooling == "mean":
            return family.classify(packed.mean(family.norm(hidden), weight))
        return packed.mean(family.classify(family.norm(hidden)), weight)

    def loss(self, output: Any, **labels: Tensor) -> Tensor:
        return ForSequenceClassificationLoss(labels["labels"], output.logits, self.family.config)
