"""How much of a long text its first tokens hang on, so that a tokenizer need not see the rest."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from thresher.errors import UserError

SIGHT = 1 << 18  # characters of an excerpt that may end anywhere: its first tokens hang on none so far away
FARTHEST = 1 << 22  # characters after which no more are looked for: so many without tokens are no text
_PIECE = 1 << 16  # characters that are counted at once
_PLACE = re.compile("[0-9A-Za-z](?= [0-9A-Za-z])")
_AHEAD = "a"  # what stands before a piece: it is not the start of a text, and its first space counts

STEPS = ("normalizer", "pre_tokenizer", "post_processor")
_NESTED = re.compile(r"[+*}][^()\\]*\)[+*{]")  # as (a+)+, which may take time without end

_LOCAL = {"BertNormalizer", "Lowercase", "NFC", "NFD", "NFKC", "NFKD", "Nmt", "Precompiled", "Prepend"}
_LOCAL |= {"Strip", "StripAccents"}
_SPACES = {
    " {2,}",
    r"\s{2,}|[\n\r\t]",
    r"\s+",
    "\n",
}  # regular expressions that find no single space, or a space
_SPLITTERS = {"BertPreTokenizer", "Whitespace", "WhitespaceSplit", "ByteLevel", "Metaspace"}
_HARMLESS = {"Digits", "Punctuation", "UnicodeScripts"}  # they split, and leave the spaces where they are


class Excerpts:
    """Beginnings of texts that give the same first tokens.

    A tokenizer that splits at spaces before anything else gives a part of a text that ends before a space,
    between ASCII letters or digits, the tokens that it has in the whole. Excerpts for other tokenizers, and
    of texts without such a space, have `SIGHT` characters.

    Parameters
    ----------
    tokenizer : transformers tokenizer
    most : int
        Tokens that are wanted of a text.
    """

    def __init__(self, tokenizer: Any, most: int):
        self.tokenizer = tokenizer
        self.left = tokenizer.truncation_side == "left"
        self.at_spaces = splits_at_spaces(tokenizer)
        self.first = min(16 * most, SIGHT) if self.at_spaces and not self.left else SIGHT

    def of(self, text: str, size: int) -> str:
        """About the first `size` characters of a text, or all, or `SIGHT`; those at the end where tokens are
        taken from there."""
        if len(text) <= size:
            return text
        if self.left:
            return text[-size:]
        place = _PLACE.search(text, size, 2 * size) if self.at_spaces else None
        return text[: max(size, SIGHT)] if place is None else text[: place.end()]

    def next(self, size: int) -> int:
        """The size to try where one has too few tokens."""
        return 4 * size if 4 * size <= SIGHT else size - size % SIGHT + 2 * SIGHT

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
            place = _PLACE.search(text, start + _PIECE, start + SIGHT) if self.at_spaces else None
            end = start + SIGHT if place is None else place.end()
            yield self._tokens(ahead + text[start:end]) - (self._tokens(ahead) if ahead else 0)
            start, ahead = end, "" if place is None else _AHEAD

    def _tokens(self, piece: str) -> int:
        return len(self.tokenizer(piece, add_special_tokens=False, verbose=False)["input_ids"])


def parts(tokenizer: Any, name: str) -> list[dict[str, Any]]:
    """What a fast tokenizer does to texts in one of its steps, in order, as its file would say."""
    step = getattr(tokenizer.backend_tokenizer, name)
    return [] if step is None else list(flat(json.loads(step.__getstate__())))


def flat(step: Any) -> Iterator[dict[str, Any]]:
    """A step of a tokenizer's file as its parts, one after the other."""
    if step["type"] != "Sequence":
        yield step
        return
    for inner in step.get("normalizers") or step.get("pretokenizers") or step.get("processors") or ():
        yield from flat(inner)


def check_steps(tokenizer: Any, path: str | Path) -> None:
    """Refuse a tokenizer whose steps could take hours for a text of a page, or surround it with a book.

    Raises
    ------
    UserError
        With what is out of bounds.
    """
    if not tokenizer.is_fast:
        return
    steps = [part for name in STEPS for part in parts(tokenizer, name)]
    model = tokenizer.backend_tokenizer.model
    around = [
        getattr(model, name, None) or "" for name in ("continuing_subword_prefix", "end_of_word_suffix")
    ]
    regexes = [str((step.get("pattern") or {}).get("Regex", "")) for step in steps]
    named = [
        piece["Sequence"]["id"] for step in steps for piece in step.get("pair", ()) if "Sequence" in piece
    ]
    numbers = {
        "steps": (len(steps), 64),
        "tokens of its own around a pair": (tokenizer.num_special_tokens_to_add(pair=True), 16),
        "times a text": (max(map(named.count, named), default=1), 1),
        "characters of a word (max_input_chars_per_word)": (
            getattr(model, "max_input_chars_per_word", None) or 0,
            1000,
        ),
        "characters of a prefix or suffix": (max(map(len, around)), 64),
        "characters of a token": (max(map(len, tokenizer.get_vocab()), default=0), 4096),
        "repetitions of repetitions in a regular expression": (
            sum(map(bool, map(_NESTED.search, regexes))),
            0,
        ),
    }
    for what, (found, most) in numbers.items():
        if found > most:
            raise UserError(
                f"The tokenizer of '{path}' has {found:,} {what}, more than the {most:,} that any needs. "
                "Take the tokenizer that the model was trained with."
            )


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
    return pattern["Regex"] in _SPACES and content == " "
