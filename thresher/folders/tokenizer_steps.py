"""What a tokenizer does to texts, step by step, and how long that may take or make them."""

from __future__ import annotations

import json
import re
import struct
from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from thresher.errors import UserError

STEPS = ("normalizer", "pre_tokenizer", "post_processor")
LONGEST = 4096  # characters of a token
GROWTH = 400  # times: compatibility forms make 18 characters of one, and Albert's tokenizer makes them twice
SPACES = {" {2,}": 2, r"\s{2,}|[\n\r\t]": 1, r"\s+": 1, "\n": 1}
"""Regular expressions that find no single space, or a space, and the fewest characters that each finds."""

_NESTED = re.compile(r"[+*}][^()\\]*\)[+*{]")  # as (a+)+, which may take time without end
_FORMS = {"NFKC": 18, "NFKD": 18, "NFD": 4, "NFC": 3, "Lowercase": 2, "Nmt": 1, "Strip": 1, "StripAccents": 1}
"""The most characters that one becomes. Such steps give nothing for each other to lengthen again."""
_OTHER = 4  # ByteLevel's bytes of a character; BertNormalizer's spaces around an ideograph are fewer


def parts(tokenizer: Any, name: str) -> list[dict[str, Any]]:
    """What a fast tokenizer does to texts in one of its steps, in order, as its file would say."""
    return described(getattr(tokenizer.backend_tokenizer, name))


def described(step: Any) -> list[dict[str, Any]]:
    """A step of the tokenizers library as its parts, one after the other."""
    return [] if step is None else list(_flat(json.loads(step.__getstate__())))


def _flat(step: Any) -> Iterator[dict[str, Any]]:
    if step["type"] != "Sequence":
        yield step
        return
    for inner in step.get("normalizers") or step.get("pretokenizers") or step.get("processors") or ():
        yield from _flat(inner)


def check_growth(normalizers: Iterable[dict[str, Any]], path: str | Path) -> None:
    """Refuse normalizers that lengthen a text by so much that a short text fills the memory.

    Raises
    ------
    UserError
        With how much that is.
    """
    if (grown := growth(normalizers)) > GROWTH:
        raise UserError(
            f"The tokenizer of '{path}' makes texts up to {grown:.3g} times as long before it parts them. "
            "Take the tokenizer that the model was trained with."
        )


def growth(normalizers: Iterable[dict[str, Any]]) -> float:
    """How many times as long as a text, in characters, what normalizers make of it may be."""
    grown, forms = 1.0, 1
    for part in normalizers:
        if (most := _FORMS.get(part["type"])) is not None:
            forms = max(forms, most)
        else:
            grown, forms = grown * forms * _growth(part), 1
    return grown * forms


def _growth(part: dict[str, Any]) -> float:
    kind = part["type"]
    if kind == "Prepend":
        return 1.0 + len(part["prepend"])
    if kind == "Precompiled":
        return _longest(b64decode(part["precompiled_charsmap"] or ""))
    if kind != "Replace":
        return _OTHER
    pattern, content = part["pattern"], len(part["content"])
    least = len(pattern["String"]) if "String" in pattern else SPACES.get(pattern["Regex"], 0)
    return max(1.0, content / least) if least else 1.0 + 2 * content  # before and after any character


def _longest(charsmap: bytes) -> int:
    """The most characters that a map of SentencePiece makes of one: its trie is followed by what it gives."""
    if not charsmap:
        return 1
    given = charsmap[4 + struct.unpack_from("<I", charsmap)[0] :].split(b"\0")
    return max(1, *(len(text.decode(errors="replace")) for text in given))


def check_sentencepiece(model: bytes, path: str | Path) -> None:
    """Refuse a file of SentencePiece that lengthens a text without bound, or has tokens without end. The file
    is read by hand, because transformers applies the map, and takes tokens apart, while it loads them.

    Raises
    ------
    UserError
        With what is out of bounds.
    """
    maps = []
    for field, content in _fields(model):
        if field == 1 and len(content) > 4 * LONGEST:
            raise UserError(
                f"The tokenizer of '{path}' has a token of {len(content):,} bytes, more than any needs. "
                "Take the tokenizer that the model was trained with."
            )
        if field == 3:
            found = (map_ for inner, map_ in _fields(content) if inner == 2)
            maps += [{"type": "Precompiled", "precompiled_charsmap": b64encode(map_)} for map_ in found]
    check_growth(maps, path)


def _fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """Numbers and contents of the fields in a protobuf message that hold bytes."""
    place = 0

    def number() -> int:
        nonlocal place
        found = shift = 0
        while True:
            byte = message[place]
            place, found, shift = place + 1, found | (byte & 127) << shift, shift + 7
            if byte < 128:
                return found

    with suppress(IndexError):  # it ends within a number: whoever loads it will refuse it
        while place < len(message):
            field, kind = divmod(number(), 8)
            size = number() if kind in (0, 2) else {1: 8, 5: 4}.get(kind, 0)
            if kind == 2:
                yield field, message[place : place + size]
            place += size if kind else 0


def check_steps(tokenizer: Any, path: str | Path) -> None:
    """Refuse a tokenizer whose steps could take hours for a text of a page, make a book of it, or surround it
    with one.

    Raises
    ------
    UserError
        With what is out of bounds.
    """
    if not tokenizer.is_fast:
        return
    check_growth(parts(tokenizer, "normalizer"), path)
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
        "characters of a token": (max(map(len, tokenizer.get_vocab()), default=0), LONGEST),
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
