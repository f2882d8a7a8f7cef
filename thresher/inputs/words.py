"""Texts that come in words, each of which is answered for: long ones in windows that overlap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

from thresher.errors import UserError
from thresher.folders.tokenizer import in_words

OVERLAP = 4  # so manieth part of a window is in its neighbour as well


@dataclass(frozen=True)
class Window:
    """A run of a text's words.

    Attributes
    ----------
    first, end : int
        The words that are seen.
    answered : range
        The words that are answered for here: those that no other window sees as far from its ends.
    """

    first: int
    end: int
    answered: range


def windows(pieces: Sequence[int], room: int) -> list[Window]:
    """Cut a text into windows that fit.

    Parameters
    ----------
    pieces : sequence of int
        Tokens of each word.
    room : int
        Most tokens of a window. A longer word has a window of its own, and is cut there.

    Examples
    --------
    >>> [(w.first, w.end, w.answered) for w in windows([1] * 10, 8)]
    [(0, 8, range(0, 7)), (6, 10, range(7, 10))]
    """
    before = [0, *accumulate(pieces)]  # tokens before each word
    found: list[tuple[int, int]] = []
    first = 0
    while True:
        end = first + 1
        while end < len(pieces) and before[end + 1] - before[first] <= room:
            end += 1
        found.append((first, min(end, len(pieces))))
        if end >= len(pieces):
            break
        back = end
        while back - 1 > first and before[end] - before[back - 1] <= room // OVERLAP:
            back -= 1
        first = back
    borders = [0, *((a[1] + b[0] + 1) // 2 for a, b in pairwise(found)), len(pieces)]
    return [Window(*seen, range(*borders[i : i + 2])) for i, seen in enumerate(found)]


class WordEncoder:
    """Tokenises texts in words as one model wants them.

    Parameters
    ----------
    tokenizer : transformers tokenizer
        A fast one, which tells the words of its tokens.
    max_length : int
        Most tokens of a window.

    Attributes
    ----------
    cut : int
        Words so far that were longer than a window.

    Raises
    ------
    UserError
        For a tokenizer of Python alone.
    """

    def __init__(self, tokenizer: Any, max_length: int):
        if not tokenizer.is_fast:
            raise UserError(
                "This tokenizer does not tell which word a token is of: tags need a fast tokenizer "
                "(tokenizer.json)."
            )
        self.tokenizer, self.max_length = tokenizer, max_length
        self.room = max_length - tokenizer.num_special_tokens_to_add(pair=False)
        self.cut = 0

    def __call__(self, texts: Sequence[Sequence[str]]) -> dict[str, list[Any]]:
        """Encode texts.

        Parameters
        ----------
        texts : sequence of sequences of str
            The words of each.

        Returns
        -------
        dict of lists, one entry for each window
            Token ids, and what else the tokenizer gives; ``answers``: the first token of each word that is
            answered for, in order; ``row``: the place of the text.
        """
        columns: dict[str, list[Any]] = {"answers": [], "row": []}
        for row, words in enumerate(texts):
            words, pieces = self._pieces(words)
            self.cut += sum(count > self.room for count in pieces)
            for window in windows(pieces, self.room) if words else [Window(0, 0, range(0))]:
                encoded = self._encoded(words[window.first : window.end], whole=True)
                at: dict[int | None, int] = {}
                for place, word in enumerate(encoded.word_ids(0)):
                    at.setdefault(word, place)
                columns["answers"].append([at[word - window.first] for word in window.answered])
                columns["row"].append(row)
                for name, values in encoded.items():
                    columns.setdefault(name, []).append(values[0])
        return columns

    def _pieces(self, words: Sequence[str]) -> tuple[list[str], list[int]]:
        """The words, and how many tokens each has; one for which the tokenizer has none is unknown."""
        words = list(words)
        for _ in range(2):
            counts = [0] * len(words)
            for word in self._encoded(words, whole=False).word_ids(0) if words else ():
                counts[word] += word is not None
            if all(counts):
                break
            unknown = self.tokenizer.unk_token or self.tokenizer.all_special_tokens[0]
            words = [word if count else unknown for word, count in zip(words, counts, strict=True)]
        return words, counts

    def _encoded(self, words: list[str], whole: bool) -> Any:
        cut = {"truncation": True, "max_length": self.max_length} if whole else {"add_special_tokens": False}
        with in_words("The tokenizer fails on a text in words"):
            return self.tokenizer(
                [words], is_split_into_words=True, return_attention_mask=False, verbose=False, **cut
            )
