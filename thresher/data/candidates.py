"""Queries with the passages that are ranked for them: of a table, or of a folder in BEIR's layout by BM25."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from thresher.data.beir import Collection
from thresher.errors import UserError

if TYPE_CHECKING:
    import datasets

log = logging.getLogger(__name__)

BEST = 100  # documents of BM25 that are ranked again
FEW = 20  # such documents of queries that choose a checkpoint, which is often
HARD, NEAR, FAR = 2, 2, 3  # documents that are not relevant, for training
DRAWS = 40  # to find those that are far
K1, B = 0.9, 0.4  # of BM25, as in BEIR's own runs


class Bm25:
    """An index over documents.

    Parameters
    ----------
    documents : sequence of str

    Raises
    ------
    UserError
        If bm25s is not installed.
    """

    def __init__(self, documents: Sequence[str]):
        try:
            import bm25s
        except ImportError as error:
            raise UserError(
                "Candidates of a folder of documents and queries are found by bm25s, which is not installed: "
                "pip install 'thresher[retrieval]'."
            ) from error
        logging.getLogger("bm25s").setLevel(logging.WARNING)  # it tells of every step
        self._tokens = lambda texts, **how: bm25s.tokenize(texts, show_progress=False, **how)
        self._index = bm25s.BM25(k1=K1, b=B)
        self.size = len(documents)
        words = self._tokens(list(documents))
        self._empty = not any(words.ids)
        if not self._empty:
            self._index.index(words, show_progress=False)

    def best(self, queries: Sequence[str], count: int) -> list[np.ndarray]:
        """The places of the best documents for each query, the best first, of equal ones the first in the
        corpus; documents that share no word with the query are none of them."""
        if self._empty or not queries:
            return [np.zeros(0, dtype=np.int64) for _ in queries]
        return [self._best(words, count) for words in self._tokens(list(queries), return_ids=False)]

    def _best(self, words: list[str], count: int) -> np.ndarray:
        known = [word for word in words if word in self._index.vocab_dict]
        if not known:
            return np.zeros(0, dtype=np.int64)
        scores = self._index.get_scores(known)
        least = np.partition(scores, -count)[-count] if count < self.size else 0.0
        found = np.flatnonzero((scores >= least) & (scores > 0))
        return found[np.argsort(-scores[found], kind="stable")][:count]


def to_rank(collection: Collection, count: int = BEST) -> datasets.Dataset:
    """Each judged query with its best documents by BM25, to measure a ranking.

    Returns
    -------
    datasets.Dataset
        Columns ``text`` (the query), ``passages``, ``label`` and ``line``. A label holds the grades of the
        passages, and then those of judged documents that BM25 has missed.
    """
    keys = list(collection.documents)
    found = Bm25(list(collection.documents.values())).best(list(collection.queries.values()), count + 1)
    chosen: dict[str, list[str]] = {}
    for query, places in zip(collection.queries, found, strict=True):
        hits = [keys[place] for place in places if keys[place] != query]  # as in BEIR, not itself
        chosen[query] = hits[:count] or keys[:1]  # no query is left out
    missed = sum(
        not any(collection.judged[query].get(key, 0) > 0 for key in some) for query, some in chosen.items()
    )
    if missed:
        log.warning(
            "%s: of %d queries, %d have no relevant document among the %d best of BM25.",
            *(collection.file, len(chosen), missed, count),
        )
    return _examples(collection, chosen)


def to_learn(collection: Collection, seed: int) -> datasets.Dataset:
    """Each judged query with its relevant documents and a few others, to learn from: `HARD` of the twice as
    many that BM25 ranks first, `NEAR` of the rest of its `BEST`, and `FAR` of the whole corpus, from which
    what BM25 does not find is drawn, too.

    Returns as of `to_rank`; queries without a relevant document are left out.
    """
    keys = list(collection.documents)
    found = Bm25(list(collection.documents.values())).best(list(collection.queries.values()), BEST)
    random, chosen = np.random.default_rng(seed), {}

    def some(of: list[str], count: int) -> list[str]:
        return [of[i] for i in sorted(random.permutation(len(of))[:count])]

    for query, places in zip(collection.queries, found, strict=True):
        grades = collection.judged[query]
        relevant = [key for key, grade in grades.items() if grade > 0]
        if not relevant:
            continue
        hits = [key for key in map(keys.__getitem__, places) if grades.get(key, 0) <= 0 and key != query]
        others = some(hits[: 2 * HARD], HARD) + some(hits[2 * HARD :], NEAR)
        known = {*relevant, *others, query}
        for key in map(keys.__getitem__, random.integers(len(keys), size=DRAWS)):
            if len(others) < HARD + NEAR + FAR and key not in known:
                others.append(key)
                known.add(key)
        chosen[query] = relevant + others
    return _examples(collection, chosen)


def by_query(examples: datasets.Dataset, source: str, grade: Callable[[Any, str], float]) -> datasets.Dataset:
    """Pairs of a query and a passage as queries with their passages: those of equal queries belong together,
    wherever they stand.

    Parameters
    ----------
    examples : datasets.Dataset
        As of `load_examples`, with a column ``text_pair``.
    source : str
        The file, for messages.
    grade : callable
        Reads a label from its place.

    Returns
    -------
    datasets.Dataset
        As of `to_rank`; ``line`` is that of the first row of a query. Without labels, there are none.
    """
    import datasets  # slow to import

    places: dict[str, list[int]] = {}
    for row, query in enumerate(examples["text"][:]):
        places.setdefault(query, []).append(row)
    lines, passages = examples["line"][:], examples["text_pair"][:]
    columns: dict[str, list[Any]] = {
        "text": list(places),
        "passages": [[passages[row] for row in rows] for rows in places.values()],
        "line": [lines[rows[0]] for rows in places.values()],
    }
    if "label" in examples.column_names:
        labels = examples["label"][:]
        columns["label"] = [
            [grade(labels[row], f"{source}:{lines[row]}") for row in rows] for rows in places.values()
        ]
    return datasets.Dataset.from_dict(columns)


def pairs_of(examples: datasets.Dataset) -> datasets.Dataset:
    """Queries with their passages as pairs, one a row, without labels; other texts stay as they are."""
    import datasets  # slow to import

    if "passages" not in examples.column_names:
        return examples
    queries, passages = examples["text"][:], examples["passages"][:]
    columns = {
        "text": [query for query, some in zip(queries, passages, strict=True) for _ in some],
        "text_pair": list(chain.from_iterable(passages)),
    }
    return datasets.Dataset.from_dict(columns)


def _examples(collection: Collection, chosen: dict[str, list[str]]) -> datasets.Dataset:
    import datasets  # slow to import

    labels = []
    for query, keys in chosen.items():
        grades = collection.judged[query]
        among = set(keys)
        missed = [grade for key, grade in grades.items() if key not in among]
        labels.append([grades.get(key, 0.0) for key in keys] + missed)
    return datasets.Dataset.from_dict(
        {
            "text": [collection.queries[query] for query in chosen],
            "passages": [[collection.documents[key] for key in keys] for keys in chosen.values()],
            "label": labels,
            "line": [collection.lines[query] for query in chosen],
        }
    )
