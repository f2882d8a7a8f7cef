"""What tasks have in common whose figures are means over queries."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from thresher.tasks import metrics
from thresher.tasks.base import Task

Judged = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Scores of the documents ``[documents]``, their grades ``[documents]``, and grades of all judged ones."""

FIGURES: dict[str, Callable[[np.ndarray, np.ndarray, np.ndarray], float]] = {
    "ndcg@10": metrics.ndcg,
    "mrr@10": metrics.reciprocal_rank,
    "recall@100": metrics.recall,
}


class OfQueries(Task):
    """A query has a figure where a document is relevant to it, a grade above 0; others do not count."""

    @abstractmethod
    def judged(self, logits: np.ndarray, labels: Sequence[Any]) -> Iterator[Judged | None]:
        """What the figures of each text hang on; None where the text is no query."""

    def values(self, logits: np.ndarray, labels: Sequence[Any]) -> np.ndarray:
        return self._values(logits, labels, [self.metric])[:, 0]

    def quality(self, logits: np.ndarray, labels: Sequence[Any]) -> dict[str, float]:
        names = sorted(self.metrics, key=lambda name: name != self.metric)
        return dict(zip(names, map(metrics.mean, self._values(logits, labels, names).T), strict=True))

    def _values(self, logits: np.ndarray, labels: Sequence[Any], names: Sequence[str]) -> np.ndarray:
        """Figures of each text ``[texts, names]``, in percent; NaN where nothing is relevant."""
        found = []
        for judged in self.judged(logits, labels):
            scores, grades, all_grades = judged or (np.zeros(0),) * 3
            wanted, at = all_grades[all_grades > 0], np.flatnonzero(grades > 0)
            where = metrics.places(scores, at, grades[at])
            found.append([FIGURES[name](*where, wanted) if len(wanted) else np.nan for name in names])
        return 100.0 * np.array(found).reshape(-1, len(names))

    def main_quality(
        self, logits: np.ndarray, labels: Sequence[Any], weights: np.ndarray | None = None
    ) -> float:
        return metrics.mean(self.values(logits, labels), weights)
