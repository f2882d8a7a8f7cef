"""How much of a long text its first tokens hang on, so that a tokenizer need not see the rest."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from thresher.folders.tokenizer_steps import SPACES, growth, parts

SIGHT = 1 << 18  # characters of an excerpt that may end anywhere: its first tokens hang on none so far away
FARTHEST = 1 << 22  # characters after which no more are looked for: so many without tokens are no text
_GROWN = 20  # times as many may the tokenizer make of what is seen, before it is shown less: NFKC makes 18
_PIECE = 1 << 16  # characters that are counted at once
_PLACE = re.compile("[0-9A-Za-z](?= [0-9A-Za-z])")
_AHEAD = "a"  # what stands before a piece: it is not the start of a text, and its first space counts

_LOCAL = {"BertNormalizer", "Lowercase", "NFC", "NFD", "NFKC", "NFKD", "Nmt", "Precompiled", "Prepend"}
_LOCAL |= {"Strip", "StripAccents"}
_SPLITTERS = {"BertPreTokenizer", "Whitespace", "WhitespaceSplit", "ByteLevel", "Metaspace"}
_HARMLESS = {"Digits", "Punctuation", "UnicodeScripts"}  # they split, and leave the spaces where they are


class Excerpts:
    """Beginnings of texts that give the same first tokens.

    A tokenizer that splits at spaces before anything else gives a part of a text that ends before a space,
    between ASCII letters or digits, the tokens that it has in the whole. Excerpts for other tokenizers, and
    of texts without such a space, have `sight` characters.

    Parameters
    ----------
    tokenizer : transformers tokenizer
    most : int
        Tokens that are wanted of a text.

    Attributes
    ----------
    sight, farthest : int
        `SIGHT` and `FARTHEST`, or fewer where the tokenizer's first step may lengthen texts a lot.
    """

    def __init__(self, tokenizer: Any, most: int):
        self.tokenizer = tokenizer
        self.left = tokenizer.truncation_side == "left"
        self.at_spaces = splits_at_spaces(tokenizer)
        grown = growth(parts(tokenizer, "normalizer")) if tokenizer.is_fast else 1
        self.sight = int(SIGHT * min(1, _GROWN / grown))
        self.farthest = FARTHEST if grown <= _GROWN else self.sight
        self.first = min(16 * most, self.sight) if self.at_spaces and not self.left else self.sight

    def of(self, text: str, size: int) -> str:
        """About the first `size` characters of a text, or all, or `sight`; those at the end where tokens are
        taken from there."""
        if len(text) <= size:
            return text
        if self.left:
            return text[-size:]
        place = _PLACE.search(text, size, 2 * size) if self.at_spaces else None
        return text[: max(size, self.sight)] if place is None else text[: place.end()]

    def next(self, size: int) -> int:
        """The size to try where one has too few tokens."""
        return 4 * size if 4 * size <= self.sight else size - size % self.sight + 2 * self.sight

    def longer(self, first: str, second: str) -> bool:
        """Whether one text has more tokens than another; the longer one is read no further than need be."""
        seen, counts = [0, 0], [self._counts(first), self._counts(second)]
        while True:
            behind = int(seen[0] > seen[1])
            if (count := next(counts[behind], None)) is None:
                return bool(behind)
            seen[behind] += count

    def _counts(self, text: str) -> Iterator[int]:
        """Tokens of a text, piece by piece."""
        start, ahead = 0, ""
        while start < len(text):
            place = _PLACE.search(text, start + _PIECE, start + self.sight) if self.at_spaces else None
            end = start + self.sight if place is None else place.end()
            yield self._tokens(ahead + text[start:end]) - (self._tokens(ahead) if ahead else 0)
            start, ahead = end, "" if place is None else _AHEAD

    def _tokens(self, piece: str) -> int:
        return len(self.tokenizer(piece, add_special_tokens=False, verbose=False)["input_ids"])


def splits_at_spaces(tokenizer: Any) -> bool:
    """Whether it is known that words which a space parts give tokens of their own."""
    if not tokenizer.is_fast or any(re.search(r"\s", token) for token in tokenizer.get_added_vocab()):
        return False
    if not all(map(_local, parts(tokenizer, "normalizer"))):
        return False
    split = (part for part in parts(tokenizer, "pre_tokenizer") if part["type"] not in _HARMLESS)
    first = next(split, {"type": ""})
    whole = first.get("split") is False or first.get("use_regex") is False
    return first["type"] in _SPLITTERS and not whole


def _local(normalizer: dict[str, Any]) -> bool:
    if normalizer["type"] != "Replace":
        return normalizer["type"] in _LOCAL
    pattern, content = normalizer["pattern"], normalizer["content"]
    if "String" in pattern:
        return re.search(r"^$|\s", pattern["String"]) is None
    return pattern["Regex"] in SPACES and content == " "


def longest_first(counts: Sequence[int], room: int) -> tuple[int, ...]:
    """How many tokens are kept of one text or two, as transformers cuts them: the shorter one stays while
    it fills no more than half, and a half that is not even has one more for the longer, or the second."""
    if sum(counts) <= room:
        return tuple(counts)
    if len(counts) == 1:
        return (room,)
    short = min(*counts, room // 2)
    return (room - short, short) if counts[0] > counts[1] else (short, room - short)
