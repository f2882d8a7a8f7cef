"""Texts in use may be longer or shorter than those of train: how much one of these counts towards FLOPs."""

from __future__ import annotations

import numpy as np

BINS = 16
PRIOR = 32  # texts met that count among those in use, of which there may be few


class LengthWeights:
    """Weights that make some texts, together, as long as texts in use.

    A text's FLOPs ratio depends on its length: [CLS] and [SEP], which stay, are a quarter of a short one.
    SST-2, which trains on phrases and is tested on sentences, would come to 0.43 at a budget of 0.5. So FLOPs
    are steered by sums over texts in which a length counts as often as it is met in use. Nothing but lengths
    is asked of the texts in use.

    Parameters
    ----------
    met : array of int
        Tokens of the texts that are to be weighed. Other texts need weights of their own.
    wanted : array of int, optional
        Tokens of texts in use. None: as long as those met, and all weights are 1.
    """

    def __init__(self, met: np.ndarray, wanted: np.ndarray | None):
        wanted = met if wanted is None else np.clip(wanted, met.min(), met.max())
        grid = np.linspace(0, 1, 101)
        pooled = np.concatenate([np.quantile(lengths, grid) for lengths in (met, wanted)])
        self.edges = np.quantile(pooled, np.linspace(0, 1, BINS + 1)[1:-1])
        share, in_use = self._shares(met), self._shares(wanted)
        in_use = (len(wanted) * in_use + PRIOR * share) / (len(wanted) + PRIOR)
        self.table = np.divide(in_use, share, out=np.zeros(BINS), where=share > 0)
        self.table /= (self.table * share).sum()

    def _shares(self, lengths: np.ndarray) -> np.ndarray:
        return np.bincount(np.searchsorted(self.edges, lengths), minlength=BINS) / len(lengths)

    def __call__(self, lengths: np.ndarray) -> np.ndarray:
        """float64 [n]: the weight of each text, by its tokens; mean 1 over those met."""
        return self.table[np.searchsorted(self.edges, lengths)]
