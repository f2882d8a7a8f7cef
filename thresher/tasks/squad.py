"""What answers to questions are worth, as the official scripts of SQuAD 1.1 and 2.0 have it."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence

PUNCTUATION = str.maketrans("", "", string.punctuation)
ARTICLES = re.compile(r"\b(a|an|the)\b")


def normalized(text: str) -> str:
    """Lower case, without punctuation, articles and spare white space.

    Examples
    --------
    >>> normalized("The  U.S. Army,")
    'us army'
    """
    return " ".join(ARTICLES.sub(" ", text.lower().translate(PUNCTUATION)).split())


def worth(answer: str, gold: Sequence[str], none: bool) -> tuple[float, float]:
    """F1 of words and exact match of an answer, each the best over gold answers, from 0 to 1.

    Parameters
    ----------
    answer : str
        Empty where the model says that there is none.
    gold : sequence of str
        Empty where there is no answer.
    none : bool
        Whether questions may have no answer: by the script of 2.0, to which gold answers of articles and
        punctuation alone are none, rather than by that of 1.1.
    """
    said = normalized(answer)
    wanted = list(map(normalized, gold))
    if none:
        wanted = [text for text in wanted if text] or [""]
    return (
        max((_f1(said, text, none) for text in wanted), default=0.0),
        float(said in wanted),
    )


def _f1(said: str, wanted: str, none: bool) -> float:
    first, second = said.split(), wanted.split()
    if none and not (first and second):
        return float(first == second)
    same = sum((Counter(first) & Counter(second)).values())
    return 2 * same / (len(first) + len(second)) if same else 0.0
