"""Any number of classes a text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor
from torch.nn import functional as F

from thresher.tasks import metrics
from thresher.tasks.of_classes import OfClasses


class MultiLabel(OfClasses):
    """The classes of which the logit is above 0.

    Examples
    --------
    >>> MultiLabel(("bug", "account", "other")).encode("other, bug", "dev.tsv:2")
    [1.0, 0.0, 1.0]
    """

    kind = "multi-label"
    problem = "multi_label_classification"
    metrics = ("micro_f1", "macro_f1", "exact_match")
    blank_is_none = True
    many = True

    def loss(self, logits: Tensor, labels: Tensor, counts: Tensor | None = None) -> Tensor:
        return F.binary_cross_entropy_with_logits(logits, labels)

    def distance(self, logits: Tensor, base: Tensor, counts: Tensor | None = None) -> Tensor:
        return F.binary_cross_entropy_with_logits(logits, base.sigmoid())

    def decided(self, logits: np.ndarray) -> np.ndarray:
        return (logits > 0).astype(int)

    def main_quality(
        self, logits: np.ndarray, labels: Sequence[Any], weights: np.ndarray | None = None
    ) -> float:
        decided, true = self.decided(logits), np.asarray(labels)
        if self.metric == "exact_match":
            return metrics.accuracy(decided == true, weights)
        figure = metrics.macro_f1_of_many if self.metric == "macro_f1" else metrics.micro_f1
        return figure(decided, true, weights)

    def grain(self, labels: Sequence[Any]) -> float:
        if self.metric != "macro_f1":
            return super().grain(labels)
        return 100 / metrics.rarest(np.asarray(labels).sum(0), len(labels))

    def margins(self, logits: np.ndarray, base: np.ndarray) -> np.ndarray:
        return np.where(base > 0, logits, -logits)

    def answer(self, logits: np.ndarray, texts: Sequence[Any] = ()) -> dict[str, float]:
        """All labels that apply, maybe none."""
        return {
            name: float(1 / (1 + np.exp(-logit)))
            for name, logit in zip(self.names, logits, strict=True)
            if logit > 0
        }

    def columns(self, logits: np.ndarray, texts: Sequence[Any] = ()) -> dict[str, Any]:
        """``score`` is that of every label; where there is one label alone, the number itself."""
        if not np.isfinite(logits).all():
            return {"prediction": None, "score": None}
        logits = logits.astype(np.float64)
        sure = np.exp(-np.logaddexp(0, -logits)).tolist()
        names = [name for name, logit in zip(self.names, logits, strict=True) if logit > 0]
        return {
            "prediction": names,
            "score": dict(zip(self.names, sure, strict=True)) if sure[1:] else sure[0],
        }
