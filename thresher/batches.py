"""Batches by token budget: near lengths together, so that little is padded and memory is bounded."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def token_batches(lengths: Sequence[int], tokens: int = 8192, rows: int = 64) -> list[list[int]]:
    """Group texts of near lengths.

    Parameters
    ----------
    lengths : sequence of int
        Tokens of each text.
    tokens : int
        Most tokens in a batch, padding counted. A longer text is a batch of its own.
    rows : int
        Most texts in a batch.

    Returns
    -------
    list of lists of int
        Indices into `lengths`, longest texts first. Every text is in exactly one batch.
    """
    batches: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True):
        if batches and len(batches[-1]) < rows and (len(batches[-1]) + 1) * lengths[batches[-1][0]] <= tokens:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches


def spread(count: int, most: int) -> np.ndarray:
    """At most `most` of the indices below `count`, spread evenly over them."""
    return np.unique(np.linspace(0, count - 1, most).astype(int))
