"""Which documents of a whole corpus answer a query, by vectors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import datasets
import numpy as np

from thresher.data import is_collection
from thresher.data.beir import Collection, open_collection
from thresher.tasks.embedding import TINY, Embedding
from thresher.tasks.of_queries import Judged, OfQueries

TOGETHER = 256  # queries that are held against all documents at a time
NO_CANDIDATE = -np.inf  # grade of a document that is the query itself


class Retrieval(OfQueries, Embedding):
    """Documents are ranked by the cosine of their vectors to that of the query. Texts are all documents and
    then the queries; a query's label lists places and grades of its judged documents, and a document's label
    is empty.

    What is learned from, and what chooses, are texts without labels, as for any embedder.
    """

    kind = "retrieval"
    metrics = ("ndcg@10", "recall@100")
    held_out_alike = False

    @classmethod
    def load(cls, source: str, text: Sequence[str], label: str | None, split: str, seed: int = 0) -> Any:
        if split == "test" and is_collection(source):
            return to_search(open_collection(source, split))
        return super().load(source, text, None, split, seed)

    def _encode(self, labels: list[Any], places: Sequence[str], source: str) -> list[Any]:
        return labels

    def judged(self, logits: np.ndarray, labels: Sequence[Any]) -> Iterator[Judged | None]:
        vectors = logits / np.maximum(np.linalg.norm(logits, axis=1, keepdims=True), TINY)
        queries = [row for row, label in enumerate(labels) if len(label)]
        documents = vectors[[row for row, label in enumerate(labels) if not len(label)]]
        yield from [None] * len(documents)
        for start in range(0, len(queries), TOGETHER):
            some = queries[start : start + TOGETHER]
            for row, scores in zip(some, vectors[some] @ documents.T, strict=True):
                at, found = (np.array(part) for part in zip(*labels[row], strict=True))
                scores[at[found == NO_CANDIDATE].astype(int)] = -np.inf
                grades = np.zeros(len(scores))
                grades[at.astype(int)] = found
                yield scores, grades, found

    def grain(self, labels: Sequence[Any]) -> float:
        return 100 / max(1, sum(bool(len(label)) for label in labels))


def to_search(collection: Collection) -> datasets.Dataset:
    """All documents, and then the judged queries: columns ``text``, ``label`` and ``line``."""
    places = {key: place for place, key in enumerate(collection.documents)}
    labels: list[list[tuple[float, float]]] = [[] for _ in places]
    for query, grades in collection.judged.items():
        judged = {places[key]: grade for key, grade in grades.items()}
        if query in places:  # as BEIR has it, a query does not find itself
            judged[places[query]] = NO_CANDIDATE
        labels.append([(float(place), grade) for place, grade in judged.items()])
    return datasets.Dataset.from_dict(
        {
            "text": [*collection.documents.values(), *collection.queries.values()],
            "label": labels,
            "line": [0] * len(places) + [collection.lines[query] for query in collection.queries],
        }
    )
