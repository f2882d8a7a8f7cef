"""What answers are worth, as plain functions of arrays. Texts may count by `weights` ``[n]``."""

from __future__ import annotations

import numpy as np


def accuracy(right: np.ndarray, weights: np.ndarray | None = None) -> float:
    """Percent of texts of which all decisions ``[n]`` or ``[n, labels]`` are right."""
    return 100.0 * float(np.average(right.reshape(len(right), -1).all(axis=1), weights=weights))


def class_f1(hit: np.ndarray, said: np.ndarray, true: np.ndarray) -> float:
    """Mean over classes of F1 in percent, 0 for a class that has no value.

    Parameters
    ----------
    hit, said, true : arrays [classes]
        Weight of the texts that rightly get a class, that get the class, and whose class it is.
    """
    both = said + true
    return 100.0 * float(np.divide(2 * hit, both, out=np.zeros(len(hit)), where=both > 0).mean())


def micro_f1(decided: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None) -> float:
    """F1 in percent over all decisions ``[n, labels]`` of 0 and 1; 0.0 where nothing is found."""
    weight, right = _weight(labels, weights), decided == labels
    found, wrong = weight @ (right & (decided == 1)).sum(1), weight @ (~right).sum(1)
    return 100.0 * float(2 * found / (2 * found + wrong)) if found else 0.0


def macro_f1_of_one(
    decided: np.ndarray, labels: np.ndarray, classes: int, weights: np.ndarray | None = None
) -> float:
    """Macro F1 in percent of ids ``[n]``.

    Average over the classes present in the labels, so that a stray prediction cannot change the denominator.
    """
    weight = _weight(labels, weights)
    said, true = (np.bincount(which, weight, classes) for which in (decided, labels))
    hit = np.bincount(labels, weight * (decided == labels), classes)
    return class_f1(*(some[true > 0] for some in (hit, said, true)))


def macro_f1_of_many(decided: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None) -> float:
    """Macro F1 in percent of decisions ``[n, labels]`` of 0 and 1, over all labels."""
    weight = _weight(labels, weights)
    return class_f1(weight @ (decided * labels), weight @ decided, weight @ labels)


def pearson(left: np.ndarray, right: np.ndarray, weights: np.ndarray | None = None) -> float:
    """Pearson's r times 100; 0.0 where it has no value because one side is constant."""
    if np.ptp(left) == 0 or np.ptp(right) == 0:
        return 0.0
    sides = np.cov(left.astype(float), np.asarray(right, dtype=float), aweights=weights)
    return 100.0 * float(sides[0, 1] / (sides[0, 0] * sides[1, 1]) ** 0.5)


def ranks(values: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Ranks, less a half. Equal values share the mean of their ranks, and a value takes as many as its
    weight."""
    _, place = np.unique(values, return_inverse=True)
    taken = np.bincount(place, weights=weights)
    return (taken.cumsum() - taken / 2)[place]


def rarest(counts: np.ndarray, texts: int) -> int:
    """How many texts a macro F1 is worth: as many as there are classes, times those of the rarest."""
    counts = counts[counts > 0]
    return max(1, min(texts, len(counts) * int(counts.min(initial=texts))))


def _weight(labels: np.ndarray, weights: np.ndarray | None) -> np.ndarray:
    return np.ones(len(labels)) if weights is None else weights


def places(scores: np.ndarray, at: np.ndarray, gains: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where relevant documents stand in a ranking, and the gain of each; of equal scores the less relevant
    document stands first, so that a model gains nothing by giving all the same.

    Parameters
    ----------
    scores : array [documents]
    at : int array [relevant]
        Which documents are relevant.
    gains : array [relevant]
        Above 0.

    Returns
    -------
    int array [relevant], array [relevant]
        Places from 0 on, in rising order, and gains.
    """
    order = np.lexsort((gains, -scores[at]))
    relevant = scores[at][order]
    before = (scores >= relevant[:, None]).sum(1) - (relevant >= relevant[:, None]).sum(1)
    return before + np.arange(len(order)), gains[order]


def ndcg(places: np.ndarray, gains: np.ndarray, all_gains: np.ndarray, most: int = 10) -> float:
    """Discounted gain of the first places over that of the best ranking, as trec_eval has it: gains are the
    grades themselves. `all_gains` are those of all relevant documents, found or not."""
    ideal = np.sort(all_gains)[::-1][:most]
    best = float((ideal / np.log2(np.arange(len(ideal)) + 2)).sum())
    first = places < most
    return float((gains[first] / np.log2(places[first] + 2)).sum()) / best


def reciprocal_rank(places: np.ndarray, gains: np.ndarray, all_gains: np.ndarray, most: int = 10) -> float:
    """1 over the rank of the first relevant document; 0 where there is none among the first places."""
    return float(1 / (places[0] + 1)) if len(places) and places[0] < most else 0.0


def recall(places: np.ndarray, gains: np.ndarray, all_gains: np.ndarray, most: int = 100) -> float:
    """Share of the relevant documents among the first places."""
    return float((places < most).sum() / len(all_gains))


def mean(values: np.ndarray, weights: np.ndarray | None = None) -> float:
    """Mean of those that are numbers, by weight; 0.0 where none is."""
    there = ~np.isnan(values)
    weight = _weight(values, weights)[there]
    return float(values[there] @ weight / weight.sum()) if weight.sum() else 0.0


def overlap(scores: np.ndarray, base: np.ndarray, most: int = 10) -> float:
    """How far two rankings of the same documents agree at their tops: the mean, over the first places, of the
    share of documents up to there that are the same. Of equal scores the first document stands first."""
    first, other = (np.argsort(-some, kind="stable")[:most] for some in (scores, base))
    return float(np.mean([len(np.intersect1d(first[:k], other[:k])) / k for k in range(1, len(first) + 1)]))
