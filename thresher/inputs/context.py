"""Questions with the contexts that their answers stand in: long contexts in windows that overlap."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from thresher.errors import UserError
from thresher.folders.tokenizer import in_words
from thresher.inputs.rows import ANSWERS, NOWHERE, PLACES, ROW

OVERLAP = 128  # tokens that a window shares with the next, or half of them where windows are short
LEAST = 16  # tokens of a context that a window has room for, whatever the question
SIGHT = 1 << 18  # characters that are tokenised together


class LongQuestion(UserError):
    """A question that leaves no room for its context. `row` is its place among the texts."""

    def __init__(self, row: int, message: str):
        super().__init__(message)
        self.row = row


def windows(tokens: int, room: int) -> list[tuple[int, int]]:
    """First and end of windows of at most `room` tokens that overlap by `OVERLAP` of them.

    Examples
    --------
    >>> windows(10, 6), windows(0, 6)
    ([(0, 6), (3, 9), (6, 10)], [(0, 0)])
    """
    found = [(0, min(room, tokens))]
    while found[-1][1] < tokens:
        first = found[-1][1] - min(OVERLAP, room // 2)
        found.append((first, min(first + room, tokens)))
    return found


@contextmanager
def at_lines(source: str, lines: Sequence[int]) -> Iterator[None]:
    """Name the file and the line of a question that is too long, where all texts have a line."""
    try:
        yield
    except LongQuestion as error:
        raise UserError(f"{source or 'line'}:{lines[error.row]}: {error}") from error


class ContextEncoder:
    """Tokenises pairs of a question and a context as one model wants them. Every window has all of the
    question. The first token of a window answers for there being no answer in it, and the tokens of the
    context for themselves.

    Parameters
    ----------
    tokenizer : transformers tokenizer
        A fast one, which tells the characters of its tokens.
    max_length : int
        Most tokens of a window.
    stand_in : int
        Id of the one token of a window that would have none.

    Raises
    ------
    UserError
        For a tokenizer of Python alone.
    """

    def __init__(self, tokenizer: Any, max_length: int, stand_in: int = 0):
        if not tokenizer.is_fast:
            raise UserError(
                "This tokenizer does not tell where in a text its tokens stand: answers from a context need "
                "a fast tokenizer (tokenizer.json)."
            )
        self.tokenizer, self.max_length, self.stand_in = tokenizer, max_length, stand_in

    def __call__(self, questions: Sequence[str], contexts: Sequence[str] | None) -> dict[str, list[Any]]:
        """Encode texts.

        Parameters
        ----------
        questions, contexts : sequences of str
            None, where the user named one column, is refused.

        Returns
        -------
        dict of lists, one entry for each window
            Token ids, and what else the tokenizer gives; ``answers``: the tokens that answer; ``places``: the
            first and end character of each in the context, one after the other, those of the first token
            `NOWHERE`; ``row``: the place of the text.

        Raises
        ------
        LongQuestion
            If a window has no room for `LEAST` tokens of a context, nor for all of it.
        """
        if contexts is None:
            raise UserError(
                "The model answers a question from a context: name the columns of both in `text`, that of "
                "the question first."
            )
        columns: dict[str, list[Any]] = {ANSWERS: [], PLACES: [], ROW: []}
        for group in _groups(questions, contexts):
            with in_words("The tokenizer fails on a question with its context"):
                encoded = self.tokenizer(
                    [questions[row] for row in group],
                    [contexts[row] for row in group],
                    return_attention_mask=False,
                    verbose=False,
                )
            for place, row in enumerate(group):
                parts = {name: values[place] for name, values in encoded.items()}
                for name, values in self._windows(parts, encoded.encodings[place], contexts[row], row):
                    columns.setdefault(name, []).append(values)
        return columns

    def _windows(
        self, parts: dict[str, list[int]], encoding: Any, context: str, row: int
    ) -> Iterator[tuple[str, Any]]:
        """The columns of all windows of one text, one after the other."""
        owners = encoding.sequence_ids
        inside = [place for place, owner in enumerate(owners) if owner == 1]
        first, end = (inside[0], inside[-1] + 1) if inside else (len(owners), len(owners))
        room = self.max_length - (len(owners) - (end - first))
        if room < min(end - first, LEAST) or room < 0:
            raise LongQuestion(
                row,
                f"the question has {owners.count(0)} tokens, which leaves no room for its context in "
                f"`max_length`, {self.max_length}; shorten the question, or set a larger `max_length`",
            )
        places = trimmed(context, encoding.offsets[first:end])
        for start, stop in windows(end - first, room):
            for name, values in parts.items():
                kept = values[:first] + values[first + start : first + stop] + values[end:]
                yield name, kept or [self.stand_in if name == "input_ids" else 0]
            yield ANSWERS, [0, *range(first, first + stop - start)]
            yield PLACES, [int(NOWHERE), int(NOWHERE), *places[2 * start : 2 * stop].tolist()]
            yield ROW, row


def trimmed(context: str, offsets: Sequence[tuple[int, int]]) -> np.ndarray:
    """int64 [2 * tokens]: first and end characters of tokens, without the spaces that some tokenizers count
    in."""
    found = np.array(offsets, dtype=np.int64).reshape(-1, 2)
    first, end = found[:, 0], found[:, 1]
    blank = np.array([*map(str.isspace, context), False])
    while (ahead := (first < end) & blank[first]).any():
        first[ahead] += 1
    while (behind := (first < end) & blank[end - 1]).any():
        end[behind] -= 1
    return found.ravel()


def _groups(questions: Sequence[str], contexts: Sequence[str]) -> Iterator[list[int]]:
    """Places of texts, as many as the tokenizer may see at a time."""
    group: list[int] = []
    taken = 0
    for row, both in enumerate(zip(questions, contexts, strict=True)):
        taken += (length := sum(map(len, both)))
        if group and taken > SIGHT:
            yield group
            group, taken = [], length
        group.append(row)
    if group:
        yield group
