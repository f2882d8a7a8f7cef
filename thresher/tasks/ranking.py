"""Which passages answer a query best."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from thresher.batches import spread
from thresher.data import is_collection
from thresher.data.beir import open_collection
from thresher.data.candidates import BEST, FEW, by_query, to_learn, to_rank
from thresher.errors import UserError
from thresher.inputs.rows import first_rows, has_parts
from thresher.tasks import labels as raw
from thresher.tasks import metrics
from thresher.tasks.base import answers_of
from thresher.tasks.of_queries import Judged, OfQueries
from thresher.tasks.regression import Regression

RANKS = "ranks_passages"  # in a config: whether the score of a model ranks


class Ranking(OfQueries, Regression):
    """A score for each pair of a query and a passage. A text is a query with its passages, and figures are
    means over the queries.

    Logits of texts are an object array ``[queries]`` of ``[passages, 1]``, labels lists of grades: of the
    passages, and then of relevant documents that are not among them. Where pairs stand alone, as they are
    timed, logits are ``[pairs, 1]``, and a label holds the number of the query and the grade.

    Examples
    --------
    >>> Ranking(("relevance",)).encode([1, 0, 2], "dev.tsv:2")
    [1.0, 0.0, 2.0]
    """

    kind = "ranking"
    metrics = ("ndcg@10", "mrr@10")
    held_out_alike = False
    compares = True

    # Labels ----------------------------------------------------------------------------------

    @classmethod
    def load(cls, source: str, text: Sequence[str], label: str | None, split: str, seed: int = 0) -> Any:
        """Queries with their passages, in columns ``text`` and ``passages``: of a table the rows with the
        same query, of a folder in BEIR's layout what BM25 finds. Parameters as of `Task.load`."""
        if is_collection(source):
            collection = open_collection(source, split)
            if split == "train":
                return to_learn(collection, seed)
            return to_rank(collection, BEST if split == "test" else FEW)
        examples = super().load(source, text, label, split, seed)
        if "text_pair" not in examples.column_names:
            raise UserError(
                f"{source}: ranking is of pairs; name two columns in `text`, of the query and of the passage"
            )
        return by_query(examples, source, grade)

    @classmethod
    def load_apart(cls, source: str) -> Any:
        """Of a folder in BEIR's layout what BM25 finds, which is harder than what is learned from."""
        return to_rank(open_collection(source, "train"), FEW) if is_collection(source) else None

    @classmethod
    def inferred(
        cls, labels: list[Any], places: Sequence[str], aliases: Mapping[str, str], score_name: str
    ) -> tuple[Self, int]:
        found = {grade > 0 for grades in cls(("",))._encode(labels, places, "") for grade in grades}
        return cls(("relevance",), aliases=aliases), len(found)

    def _encode(self, labels: list[Any], places: Sequence[str], source: str) -> list[Any]:
        return [[grade(label, where) for label in row] for row, where in zip(labels, places, strict=True)]

    def encode_all(self, examples: Any, source: str) -> list[Any]:
        if "passages" in examples.column_names:
            found = super().encode_all(examples, source)
            if not any(grade > 0 for grades in found for grade in grades):
                raise UserError(
                    f"{source}: no passage has a grade above 0, so no order is the best; label some"
                )
            return found
        numbers: dict[str, int] = {}
        queries = [numbers.setdefault(query, len(numbers)) for query in examples["text"][:]]
        rows = zip(queries, examples["label"][:], examples["line"][:], strict=True)
        return [(query, grade(label, f"{source}:{line}")) for query, label, line in rows]

    def sample(self, examples: Any, count: int) -> np.ndarray:
        """Pairs of whole queries."""
        places: dict[str, list[int]] = {}
        for place, query in enumerate(texts := examples["text"][:]):
            places.setdefault(query, []).append(place)
        queries = list(places.values())
        some = spread(len(queries), max(1, count * len(queries) // len(texts)))
        return np.sort(np.concatenate([queries[query] for query in some]))

    def row_labels(self, rows: Any, labels: list[Any]) -> list[Any]:
        """The grade of each passage."""
        if not has_parts(rows):
            return labels
        counts = np.diff([*first_rows(rows), len(rows)])
        return [label for grades, count in zip(labels, counts, strict=True) for label in grades[:count]]

    @property
    def noted(self) -> dict[str, Any]:
        return {RANKS: True}

    def config_kwargs(self) -> dict[str, Any]:
        return super().config_kwargs() | self.noted

    # Training --------------------------------------------------------------------------------

    def loss(self, logits: Tensor, labels: Tensor, counts: Tensor | None = None) -> Tensor:
        """Binary cross entropy, as of sentence-transformers' cross-encoders, so that a score means the same
        for all queries; and the cross entropy between the softmax of a query's scores and the shares of its
        grades, after ListNet (Cao et al., 2007), by which the order is learned sooner. A query counts by how
        many passages it has in the batch. Grades above 1 are relevant."""
        scores, grades = logits.squeeze(-1), labels.clamp(min=0)
        pairs = F.binary_cross_entropy_with_logits(scores, grades.clamp(max=1))
        parts = [len(scores)] if counts is None else counts.tolist()
        lists = [
            -len(true) * (true / true.sum() * some.log_softmax(0)).sum()
            for some, true in zip(scores.split(parts), grades.split(parts), strict=True)
            if len(true) > 1 and true.sum() > 0
        ]
        return pairs + torch.stack(lists).sum() / len(scores) if lists else pairs

    # Figures ---------------------------------------------------------------------------------

    def judged(self, logits: np.ndarray, labels: Sequence[Any]) -> Iterator[Judged | None]:
        both = (logits, labels) if logits.dtype == object else _of_queries(logits, labels)
        for scores, grades in zip(*both, strict=True):
            all_grades = np.asarray(grades, dtype=float)
            yield scores.reshape(-1), all_grades[: len(scores)], all_grades

    def agreement(self, logits: np.ndarray, base: np.ndarray, weights: np.ndarray | None = None) -> float:
        """Of queries the mean of how far the first ten agree (`metrics.overlap`), times 100; of pairs that
        stand alone Pearson's r."""
        if logits.dtype != object:
            return super().agreement(logits, base, weights)
        both = zip(logits, base, strict=True)
        values = [100.0 * metrics.overlap(one.reshape(-1), other.reshape(-1)) for one, other in both]
        return metrics.mean(np.array(values), weights)

    def divergence(self, logits: np.ndarray, base: np.ndarray) -> float:
        return super().divergence(answers_of(logits), answers_of(base))


def _of_queries(logits: np.ndarray, labels: Sequence[Any]) -> tuple[list[np.ndarray], list[Any]]:
    """Pairs that stand alone as texts."""
    scores: dict[int, list[float]] = {}
    grades: dict[int, list[float]] = {}
    for score, (query, found) in zip(logits.reshape(-1), labels, strict=True):
        scores.setdefault(query, []).append(score)
        grades.setdefault(query, []).append(found)
    return [np.array(some) for some in scores.values()], list(grades.values())


def grade(label: Any, where: str) -> float:
    """A label as a number.

    Raises
    ------
    UserError
        If the label is no finite number.
    """
    number = float(label) if isinstance(label, bool) else raw.number(label)
    if number is None:
        raise UserError(
            f"{where}: label {label!r:.100} is no grade; write 0 for a passage that does not answer the "
            "query, and 1 or more for one that does"
        )
    return number
