"""A vector for each text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import datasets
import numpy as np
from torch import Tensor
from torch.nn import functional as F

from thresher.data import is_collection
from thresher.data.beir import open_collection
from thresher.errors import UserError
from thresher.heads import EmbeddingHead
from thresher.inputs.rows import first_rows, has_parts
from thresher.tasks import labels as raw
from thresher.tasks import metrics
from thresher.tasks.base import Task, answers_of

STEEP = 10.0  # what a cosine's distance counts, so that it weighs as other tasks' distances do
TINY = 1e-12


class Embedding(Task):
    """Two texts are as near as the cosine of their vectors. Pairs with scores measure that; any texts do to
    learn from the base model's vectors, and nothing else is learned from.

    Logits are vectors ``[texts, dim]``, or those of pairs: an object array ``[pairs]`` of ``[2, dim]``.
    """

    kind = "embedding"
    problem = ""
    metrics = ("spearman", "pearson")
    head = EmbeddingHead
    decides = False
    apart = True
    teaches = False

    @classmethod
    def load(cls, source: str, text: Sequence[str], label: str | None, split: str, seed: int = 0) -> Any:
        """As of `Task.load`; of a folder in BEIR's layout the judged documents and the queries of a split."""
        if not is_collection(source):
            return super().load(source, text, label, split, seed)
        collection = open_collection(source, split)
        judged = dict.fromkeys(key for grades in collection.judged.values() for key in grades)
        texts = [*(collection.documents[key] for key in judged), *collection.queries.values()]
        return datasets.Dataset.from_dict({"text": texts, "line": [0] * len(texts)})

    @classmethod
    def inferred(
        cls, labels: list[Any], places: Sequence[str], aliases: Mapping[str, str], score_name: str
    ) -> tuple[Self, int]:
        raise UserError(
            "Embedders are not fine-tuned here: train one with sentence-transformers, and prune it."
        )

    def config_kwargs(self) -> dict[str, Any]:
        return {}

    def _encode(self, labels: list[Any], places: Sequence[str], source: str) -> list[Any]:
        found = [raw.number(label) for label in labels]
        if None in found:
            wrong = found.index(None)
            raise UserError(
                f"{places[wrong]}: label {labels[wrong]!r:.100} is no score of a pair. The model has no "
                "head, so it is pruned as an embedder. To have it answer with classes, fine-tune it first: "
                "`thresher finetune`, or thresher.training.finetune."
            )
        return found

    def row_labels(self, rows: Any, labels: list[Any]) -> list[Any]:
        """The label of a pair stands beside its first text; nothing is learned from it."""
        if not has_parts(rows):
            return labels
        of_first = dict(zip(first_rows(rows).tolist(), labels, strict=True))
        return [[of_first[row]] if row in of_first else [] for row in range(len(rows))]

    def loss(self, logits: Tensor, labels: Tensor, counts: Tensor | None = None) -> Tensor:
        raise UserError("Embedders learn from the base model's vectors alone.")

    def distance(self, logits: Tensor, base: Tensor, counts: Tensor | None = None) -> Tensor:
        if logits.shape[-1] != base.shape[-1]:
            raise UserError(
                f"The model's vectors have {logits.shape[-1]} numbers, and those of `teacher` have "
                f"{base.shape[-1]}: name a teacher with vectors as wide."
            )
        return STEEP * (1 - F.cosine_similarity(logits, base).mean())

    def divergence(self, logits: np.ndarray, base: np.ndarray) -> float:
        return 1 - self.agreement(logits, base) / 100

    def quality(self, logits: np.ndarray, labels: Sequence[Any]) -> dict[str, float]:
        if logits.dtype != object:
            raise UserError("Scores are of pairs: name two text columns.")
        return super().quality(logits, labels)

    def main_quality(
        self, logits: np.ndarray, labels: Sequence[Any], weights: np.ndarray | None = None
    ) -> float:
        near, true = np.array([cosine(*pair) for pair in logits]), np.asarray(labels, dtype=float).ravel()
        if self.metric == "spearman":
            near, true = metrics.ranks(near, weights), metrics.ranks(true, weights)
        return metrics.pearson(near, true, weights)

    def agreement(self, logits: np.ndarray, base: np.ndarray, weights: np.ndarray | None = None) -> float:
        """Mean cosine to the base model's vectors, times 100."""
        if weights is not None and logits.dtype == object:
            weights = np.repeat(weights, [len(row) for row in logits])
        both = zip(answers_of(logits), answers_of(base), strict=True)
        return 100.0 * float(np.average([cosine(a, b) for a, b in both], weights=weights))

    def doubt(self, change: float, texts: int) -> float:
        return change / texts**0.5  # texts differ from each other by about as much as they do from the base

    def answer(self, logits: np.ndarray, texts: Sequence[Any] = ()) -> dict[str, float]:
        return {"cosine": cosine(*logits)} if logits.ndim == 2 else {"norm": float(np.linalg.norm(logits))}

    def columns(self, logits: np.ndarray, texts: Sequence[Any] = ()) -> dict[str, Any]:
        """``prediction``: the vector, or of a pair the cosine."""
        if not np.isfinite(logits).all():
            return {"prediction": None}
        return {"prediction": cosine(*logits) if logits.ndim == 2 else logits.tolist()}


def cosine(one: np.ndarray, other: np.ndarray) -> float:
    """Of two vectors."""
    one, other = one.astype(np.float64), other.astype(np.float64)
    return float(one @ other / max(np.linalg.norm(one) * np.linalg.norm(other), TINY))
