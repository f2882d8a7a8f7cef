"""The order in which rows are learned from, where those of a text are compared."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler


class TextSampler(Sampler[int]):
    """Texts in an order drawn anew for each epoch, all rows of one after the other.

    Parameters
    ----------
    starts : int array [texts]
        The first row of each text.
    rows : int
        How many there are.
    seed : int
    """

    def __init__(self, starts: np.ndarray, rows: int, seed: int):
        self.bounds, self.seed, self.epoch = [*starts.tolist(), rows], seed, 0

    def __len__(self) -> int:
        return self.bounds[-1]

    def set_epoch(self, epoch: int) -> None:
        """Trainer tells the epoch, so that a run that is gone on with has the same order."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        for text in np.random.default_rng((self.seed, self.epoch)).permutation(len(self.bounds) - 1):
            yield from range(self.bounds[text], self.bounds[text + 1])
