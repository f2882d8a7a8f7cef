"""A score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Self

import numpy as np
from torch import Tensor
from torch.nn import functional as F

from thresher.errors import UserError
from thresher.tasks import labels as raw
from thresher.tasks import metrics
from thresher.tasks.base import Task

TINY = 1e-12


class Regression(Task):
    """One number a text."""

    kind = "regression"
    problem = "regression"
    metrics = ("pearson", "spearman")
    decides = False

    @classmethod
    def inferred(
        cls, labels: list[Any], places: Sequence[str], aliases: Mapping[str, str], score_name: str
    ) -> tuple[Self, int]:
        found = {score(label, where) for label, where in zip(labels, places, strict=True)}
        return cls((score_name,), aliases=aliases), len(found)

    def in_order_of(self, config: Any) -> Self:
        theirs = tuple(str(name) for name in config.id2label.values())
        same = [name.casefold() for name in theirs] == [name.casefold() for name in self.names]
        return replace(self, names=theirs) if same else self

    def _encode(self, labels: list[Any], places: Sequence[str], source: str) -> list[Any]:
        return [score(label, where) for label, where in zip(labels, places, strict=True)]

    def loss(self, logits: Tensor, labels: Tensor, counts: Tensor | None = None) -> Tensor:
        return F.mse_loss(logits.squeeze(-1), labels)

    def distance(self, logits: Tensor, base: Tensor, counts: Tensor | None = None) -> Tensor:
        return F.mse_loss(logits, base)

    def divergence(self, logits: np.ndarray, base: np.ndarray) -> float:
        """In units of the variance of the base model's scores."""
        return super().divergence(logits, base) / float(base.var(ddof=1) + TINY)

    def main_quality(
        self, logits: np.ndarray, labels: Sequence[Any], weights: np.ndarray | None = None
    ) -> float:
        scores, true = logits.reshape(-1), np.asarray(labels)
        if self.metric == "spearman":
            scores, true = metrics.ranks(scores, weights), metrics.ranks(true, weights)
        return metrics.pearson(scores, true, weights)

    def agreement(self, logits: np.ndarray, base: np.ndarray, weights: np.ndarray | None = None) -> float:
        """Pearson's r times 100; 100.0 for equal scores, even constant ones."""
        scores, wanted = logits.reshape(-1), base.reshape(-1)
        return 100.0 if np.array_equal(scores, wanted) else metrics.pearson(scores, wanted, weights)

    def doubt(self, change: float, texts: int) -> float:
        return 2 * change / texts**0.5  # of a correlation 1 - change: about (1 - r * r) / sqrt(n)

    def answer(self, logits: np.ndarray, texts: Sequence[Any] = ()) -> dict[str, float]:
        return {self.names[0]: float(logits[0])}

    def columns(self, logits: np.ndarray, texts: Sequence[Any] = ()) -> dict[str, Any]:
        return {"prediction": float(logits[0]) if np.isfinite(logits).all() else None}


def score(label: Any, where: str) -> float:
    """A label as a number.

    Raises
    ------
    UserError
        If the label is no finite number.
    """
    if (number := raw.number(label)) is None:
        raise UserError(f"{where}: label {label!r} is not a finite number, as regression needs; mend it")
    return number
