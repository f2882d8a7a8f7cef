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
