"""One class a text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from thresher.tasks import metrics
from thresher.tasks.of_classes import TEMPERATURE, OfClasses


class SingleLabel(OfClasses):
    """The class of the largest logit.

    Examples
    --------
    >>> SingleLabel(("neg", "pos")).encode("POS", "dev.tsv:2")
    1
    """

    kind = "single-label"
    problem = "single_label_classification"
    metrics: ClassVar[tuple[str, ...]] = ("accuracy", "macro_f1")
    label_dtype = torch.long
    many = False

    def loss(self, logits: Tensor, labels: Tensor, counts: Tensor | None = None) -> Tensor:
        return F.cross_entropy(logits, labels)

    def distance(self, logits: Tensor, base: Tensor, counts: Tensor | None = None) -> Tensor:
        wanted = (base / TEMPERATURE).log_softmax(-1)
        given = (logits / TEMPERATURE).log_softmax(-1)
        return F.kl_div(given, wanted, reduction="batchmean", log_target=True) * TEMPERATURE**2

    def decided(self, logits: np.ndarray) -> np.ndarray:
        return logits.argmax(axis=-1)

    def main_quality(
        self, logits: np.ndarray, labels: Sequence[Any], weights: np.ndarray | None = None
    ) -> float:
        decided, true = self.decided(logits), np.asarray(labels)
        if self.metric == "macro_f1":
            return metrics.macro_f1_of_one(decided, true, len(self.names), weights)
        return metrics.accuracy(decided == true, weights)

    def grain(self, labels: Sequence[Any]) -> float:
        if self.metric != "macro_f1":
            return super().grain(labels)
        return 100 / metrics.rarest(np.bincount(np.asarray(labels)), len(labels))

    def margins(self, logits: np.ndarray, base: np.ndarray) -> np.ndarray:
        best = np.eye(logits.shape[1], dtype=bool)[base.argmax(axis=1)]
        others = np.where(best, -np.inf, logits).max(axis=1, keepdims=True)
        return logits[best][:, None] - others

    def answer(self, logits: np.ndarray, texts: Sequence[Any] = ()) -> dict[str, float]:
        """The best label alone."""
        best = int(logits.argmax())
        shifted = np.exp(logits - logits.max())
        return {self.names[best]: float(shifted[best] / shifted.sum())}

    def columns(self, logits: np.ndarray, texts: Sequence[Any] = ()) -> dict[str, Any]:
        if not np.isfinite(logits).all():
            return {"prediction": None, "score": None}
        ((name, value),) = self.answer(logits).items()
        return {"prediction": name, "score": value}
