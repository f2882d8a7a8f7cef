"""How tables and views put things: numbers, nouns, and the words of others exactly as they stand."""

from __future__ import annotations

import math
import unicodedata
from typing import Any, TypeGuard

from rich.text import Text

JOINERS = "\u200c\u200d\u200e\u200f"  # they shape words and emoji; other invisible marks can reorder a line
MISSING = "-"


def literal(words: object, style: str = "") -> Text:
    """The words for rich, which in a plain string reads ``[/old]`` as markup and ``:smile:`` as emoji."""
    return Text(printable(str(words)), style)


def printable(words: str, encoding: str = "utf-8") -> str:
    """The words without what commands a terminal, and with "?" for what the output cannot write."""
    if encoding.lower().startswith("utf"):
        return "".join(map(_safe, words))
    safe = "".join(map(_safe, words.replace("…", "...")))
    return safe.encode(encoding, "replace").decode(encoding)


def _safe(character: str) -> str:
    if character.isprintable() or character in "\n\t" or character in JOINERS:
        return character
    if character.isspace():
        return " "
    return "" if unicodedata.category(character) == "Cf" else "?"


def count(number: float, noun: str) -> str:
    """A number with its noun: 1 thread, 2 threads."""
    digits = f"{number:g}" if isinstance(number, float) else str(number)
    return f"{digits} {noun}" + ("" if number == 1 else "s")


def known(value: Any) -> TypeGuard[float]:
    """False for None and for what is no finite number."""
    return value is not None and math.isfinite(value)


def number(value: Any, form: str = ".2f", unit: str = "") -> str:
    """A number in a format, with its unit, and never as "-0.00"; "-" where there is none."""
    return f"{value:z{form}}{unit}" if known(value) else MISSING


def rate_text(value: Any) -> str:
    """A rate in three figures at least."""
    if not known(value):
        return MISSING
    return f"{value:.0f}" if value >= 100 else f"{value:#.3g}".rstrip(".")


def points(drop: Any, interval: Any) -> tuple[str, str, str]:
    """Points of quality that were lost or gained: which of the two, how many, and the interval in that sense.

    Parameters
    ----------
    drop : float or None
        Points lost; negative where points were gained.
    interval : pair of float, or None

    Examples
    --------
    >>> points(-0.67, [-1.5, 0.2])
    ('gained', '0.67', '-0.20 to 1.50')
    """
    low, high = interval or (None, None)
    gained = known(drop) and round(drop, 2) < 0
    if gained:
        drop, low, high = (-value if known(value) else None for value in (drop, high, low))
    return "gained" if gained else "lost", number(drop), f"{number(low)} to {number(high)}"
