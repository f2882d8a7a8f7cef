"""A text cut where the fate of its characters changes, and how the pieces are marked without colours."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

WORD_STARTS = ("Ġ", "▁")  # how byte-level BPE and SentencePiece write the space before a word
SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")

# Stretches of characters, each with the layers it got through. None: no token holds it (spaces).
Stretches = list[tuple[str, int | None]]


def by_offsets(text: str, spans: Sequence[tuple[int, int, int]]) -> Stretches:
    """Cut a text by ``(start, end, layers got through)`` of its tokens."""
    fates: list[int | None] = [None] * len(text)
    for start, end, last in spans:
        for place in range(start, end):
            if not text[place].isspace():  # some tokenizers count the space before a word in
                before = fates[place]  # a character in several tokens lives as long as the last of them
                fates[place] = last if before is None else max(before, last)
    held = [place for place, fate in enumerate(fates) if fate is not None]
    if not held:
        return [("…", None)] if text.strip() else []
    first, behind = held[0], held[-1] + 1
    while behind < len(text) and _continues(text, first, behind):
        behind += 1
    for start, end in clusters(text, first, behind):
        known = [fate for fate in fates[start:end] if fate is not None]
        fates[start:end] = [max(known, default=None)] * (end - start)
    stretches: Stretches = [("… ", None)] if text[:first].strip() else []
    for fate, places in groupby(range(first, behind), key=fates.__getitem__):
        stretches.append(("".join(text[place] for place in places), fate))
    return stretches + ([(" …", None)] if text[behind:].strip() else [])  # truncated


def with_labels(
    text: str, spans: Sequence[tuple[int, int, int]], labels: Sequence[tuple[int, str]]
) -> Stretches:
    """As `by_offsets`, with ``(end, label)`` in square brackets after what ends there.

    Examples
    --------
    >>> with_labels("take it now", [(0, 4, 2), (5, 7, 0), (8, 11, 1)], [(7, "Drug")])
    [('take', 2), (' ', None), ('it', 0), (' [Drug] ', None), ('now', 1)]
    """
    stretches: Stretches = []
    start = 0
    for end, label in [*labels, (len(text), "")]:
        inside = [(a - start, b - start, last) for a, b, last in spans if start <= a and b <= end]
        stretches += by_offsets(text[start:end], inside)
        stretches += [(f" [{label}] ", None)] if label else []
        start = end
    return stretches


def with_answer(text: str, spans: Sequence[tuple[int, int, int]], start: int, end: int) -> Stretches:
    """As `by_offsets`, with the answer from character `start` to `end` in square brackets.

    Examples
    --------
    >>> with_answer("in Paris now", [(0, 2, 1), (3, 8, 2), (9, 12, 0)], 3, 8)
    [('in', 1), (' [answer: ', None), ('Paris', 2), ('] ', None), ('now', 0)]
    """
    stretches: Stretches = []
    for first, last, mark in ((0, start, " [answer: "), (start, end, "] "), (end, len(text), "")):
        inside = [(a - first, b - first, fate) for a, b, fate in spans if first <= a and b <= last]
        stretches += by_offsets(text[first:last], inside)
        stretches += [(mark, None)] if mark else []
    return stretches


def by_tokens(tokens: Sequence[tuple[str, int]]) -> Stretches:
    """Put a text together from ``(token, layers got through)``."""
    marked = any(token.startswith(WORD_STARTS) for token, _ in tokens)
    stretches: Stretches = []
    for token, last in tokens:
        joined = not token.startswith(WORD_STARTS) if marked else token.startswith("##")
        piece = token.removeprefix("##").lstrip("".join(WORD_STARTS))
        if stretches and not joined:
            stretches.append((" ", None))
        if stretches and stretches[-1][1] == last:
            piece = stretches.pop()[0] + piece
        stretches.append((piece, last))
    return stretches


def clusters(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Start and end of each run of characters that is drawn as one, as a letter and its accent are."""
    for place in range(start + 1, end + 1):
        if place == end or not _continues(text, start, place):
            yield start, place
            start = place


def _continues(text: str, start: int, place: int) -> bool:
    """Whether the character at `place` belongs to the cluster that begins at `start`."""
    before, here = text[place - 1], text[place]
    if before.isspace():
        return False
    if before == "\u200d" or here in "\u200c\u200d" or unicodedata.category(here).startswith("M"):
        return True
    if _flag(here) and _flag(before):
        flags = 0  # letters of flags before this one: two of them are one flag
        while place - flags > start and _flag(text[place - flags - 1]):
            flags += 1
        return flags % 2 == 1
    # Skin tones, tags of regional flags, the vowels and last consonants of Korean syllables in parts.
    return "🏻" <= here <= "🏿" or "\U000e0020" <= here <= "\U000e007f" or "\u1160" <= here <= "\u11ff"


def _flag(character: str) -> bool:
    return "🇦" <= character <= "🇿"


def one_word(before: str, after: str) -> bool:
    """Whether two characters side by side look like two words once a space is put between them.

    They do not where one is punctuation, or belongs to a script that has no spaces anyway.
    """
    return all(_in_word(character) for character in (before, after))


def _in_word(character: str) -> bool:
    category = unicodedata.category(character)
    spaceless = unicodedata.east_asian_width(character) in "WF" and not "가" <= character <= "힣"
    return category[0] in "LMN" and not (category == "Lo" and spaceless)


@dataclass(frozen=True)
class Marks:
    """How numbers are written so that the text itself holds nothing that looks like them."""

    brackets: str  # "": superscripts
    joint: str  # before a piece that goes on the word before it

    @staticmethod
    def for_text(text: str, ascii_only: bool) -> Marks:
        free = [pair for pair in ("()", "[]", "{}", "<>") if not re.search(rf"{re.escape(pair[0])}\d", text)]
        superscripts = not ascii_only and not re.search("[⁰¹²³⁴⁵⁶⁷⁸⁹]", text)
        joints = "+~|" if ascii_only else "·+~"
        joint = next((mark for mark in joints if mark not in text), joints[0])
        return Marks("" if superscripts else (free or ["()"])[0], joint)

    def number(self, layer: int) -> str:
        digits = str(layer)
        return digits.join(self.brackets) if self.brackets else digits.translate(SUPERSCRIPTS)
