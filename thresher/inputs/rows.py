"""Rows of encoded texts, each of which may be a part of a text: a window of it, or one of its two texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

KEYS = ("input_ids", "token_type_ids")  # what a model reads
ROW = "row"  # column of the place of the text, where rows may be parts
ANSWERS = "answers"  # column of places of the tokens that answer, where not all do
PLACES = "places"  # column of the characters where each of these tokens begins and ends, one after the other
COUNTS = "counts"  # of a batch: how many tokens answer in each row, or rows in each text
NOWHERE = -1.0  # place of a token that stands for no text: it begins a window
BESIDE = (ROW, ANSWERS, PLACES)


def has_parts(rows: Any) -> bool:
    """Whether rows, a data set or a dict of lists, may be parts of texts."""
    return ROW in (rows if isinstance(rows, dict) else getattr(rows, "column_names", ()))


def first_rows(rows: Any) -> np.ndarray:
    """int64 [texts]: the first row of each text, of rows that may be parts."""
    return np.flatnonzero(np.diff(rows[ROW][:], prepend=-1))


def rows_of(rows: Any, texts: Any) -> Any:
    """The places of all rows of some texts, in their order."""
    if not has_parts(rows):
        return texts
    starts = first_rows(rows)
    ends = [*starts[1:], len(rows[ROW])]
    return [row for text in texts for row in range(starts[text], ends[text])]


def ragged(array: np.ndarray, counts: Sequence[int]) -> np.ndarray:
    """An array ``[answers, names]`` as an object array of so many answers each."""
    parts = np.empty(len(counts), dtype=object)
    for row, part in enumerate(np.split(array, np.cumsum(counts)[:-1])):
        parts[row] = part  # one by one, or parts of equal lengths would become one array
    return parts


def whole_texts(values: Any, rows: Any) -> Any:
    """What was answered for rows, an object array or a list ``[rows]``, joined for each text, of which a row
    may be a part. Where no row is, all stays as it is. Where rows tell the places of what answers, answers
    ``[answers, names]`` get them as two more columns: ``[answers, names + 2]``."""
    if not has_parts(rows):
        return values
    if PLACES in (rows if isinstance(rows, dict) else rows.column_names):
        values = _with_places(values, rows[PLACES][:])
    starts = first_rows(rows)
    ends = [*starts[1:], len(values)]
    if isinstance(values, list):
        return [[x for row in values[a:b] for x in row] for a, b in zip(starts, ends, strict=True)]
    joined = np.empty(len(starts), dtype=object)
    for i, (a, b) in enumerate(zip(starts, ends, strict=True)):
        joined[i] = np.concatenate(list(values[a:b])) if values.dtype == object else values[a:b]
    return joined


def _with_places(values: Any, places: Sequence[Sequence[int]]) -> Any:
    found = np.empty(len(values), dtype=object)
    for row, (part, where) in enumerate(zip(values, places, strict=True)):
        exact = np.promote_types(part.dtype, np.float32)  # so that characters are whole numbers
        found[row] = np.hstack([part, np.asarray(where, exact).reshape(-1, 2)])
    return found
