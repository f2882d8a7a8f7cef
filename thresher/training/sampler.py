"""The order in which rows are learned from, where those of a text are compared."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler

MOST = 16  # rows of a text that stand together, so that a batch has several texts


class TextSampler(Sampler[int]):
    """Rows in an order drawn anew for each epoch, in which those of a text follow each other. A text with
    more rows than `MOST` is parted, and so is one that stands where a batch ends.

    Parameters
    ----------
    starts : int array [texts]
        The first row of each text.
    rows : int
        How many there are.
    seed : int
    """

    def __init__(self, starts: np.ndarray, rows: int, seed: int):
        self.starts, self.rows, self.seed, self.epoch = starts, rows, seed, 0

    def __len__(self) -> int:
        return self.rows

    def set_epoch(self, epoch: int) -> None:
        """Trainer tells the epoch, so that a run that is gone on with has the same order."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        random, parts = np.random.default_rng((self.seed, self.epoch)), []
        for text in np.split(np.arange(self.rows), self.starts[1:]):
            parts += np.array_split(random.permutation(text), -(-len(text) // MOST))
        for part in random.permutation(len(parts)):
            yield from parts[part].tolist()
