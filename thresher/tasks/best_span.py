"""The answer that a model gives to a question: the best span over the windows of the context, or none."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np

from thresher.inputs.rows import NOWHERE

LONGEST = 30  # tokens of an answer, as in the scripts of BERT


class Found(NamedTuple):
    """First and end character of an answer, -1 where there is none, and how probable its two ends are: the
    product of their shares of the window."""

    first: int
    end: int
    probability: float


def best_span(text: np.ndarray, none: bool) -> Found:
    """Decide on an answer.

    Parameters
    ----------
    text : array [tokens, 4]
        Logits of the start and of the end, and first and end character, of the tokens that answer: of each
        window its first token, at `NOWHERE`, and then those of the context.
    none : bool
        Whether "none" may be the answer: where the first token, as start and end, has more than the best
        span, in the window where it has least.

    Returns
    -------
    Found
    """
    best, least = (-np.inf, Found(-1, -1, 0.0)), (np.inf, Found(-1, -1, 0.0))
    for first, end in pairwise([*np.flatnonzero(text[:, 2] == NOWHERE), len(text)]):
        window = text[first:end].astype(np.float64)
        logits = window[:, :2]
        whole = float((np.log(np.exp(logits - logits.max(0)).sum(0)) + logits.max(0)).sum())
        if (nothing := float(logits[0].sum())) < least[0]:
            least = nothing, Found(-1, -1, float(np.exp(nothing - whole)))
        score, start, stop = _span(window[1:])
        if score > best[0]:
            place = int(window[1 + start, 2]), int(window[1 + stop, 3])
            best = score, Found(*place, float(np.exp(score - whole)))
    return least[1] if best[1].first < 0 or (none and least[0] > best[0]) else best[1]


def _span(tokens: np.ndarray) -> tuple[float, int, int]:
    """The best score of a span of tokens ``[tokens, 4]``, its first token and its last. Tokens without
    characters neither begin nor end one."""
    held = tokens[:, 2] < tokens[:, 3]
    if not held.any():
        return -np.inf, 0, 0
    starts, ends = np.where(held[:, None], tokens[:, :2], -np.inf).T
    later = np.concatenate([ends, np.full(LONGEST - 1, -np.inf)])
    scores = starts[:, None] + np.lib.stride_tricks.sliding_window_view(later, LONGEST)
    start, more = divmod(int(scores.argmax()), LONGEST)
    return float(scores[start, more]), start, start + more
