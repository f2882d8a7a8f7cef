"""What a raw label says, however it is written: one normal form for data and for models."""

from __future__ import annotations

import ast
import json
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from thresher.errors import UserError

MISSING = {"nan", "null", "none", "na", "n/a", "<na>", "nil"}  # how programs write that there is no value
MANY = 20  # classes that are whole numbers: from here on they may be meant as scores

_WHOLE = re.compile(r"([+-]?(?:0|[1-9]\d*))\.0*")  # not 007.0, which is a code rather than a number
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")
_WORDS = {"True": True, "False": False, "true": True, "false": False, "None": None, "null": None}
# What str() puts around the list in an array, a tensor or a set, and around NumPy's scalars in a list.
_WRAPPED = re.compile(
    r"(?:\w+\.)?(?:array|tensor|set|frozenset)\((?P<inside>.*?)(?:,\s*dtype=[^\])]*)?\)", re.S
)
_SCALAR = re.compile(r"""np\.\w+\(('[^']*'|"[^"]*"|[\w.+-]+)\)""")
_TOKEN = re.compile(
    r"""\s*(?:(?P<quoted>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")|(?P<bare>[^\s,'"\[\](){}]+)|(?P<comma>,))\s*""",
    re.DOTALL,
)


def plain(label: Any) -> Any:
    """NumPy and PyTorch to Python."""
    return label.tolist() if hasattr(label, "tolist") else label


def spelled(label: Any) -> str:
    """A class as it is called: without outer space, and a whole number in digits alone.

    Examples
    --------
    >>> spelled(" pos "), spelled("3.0"), spelled(3.0), spelled("007"), spelled(True)
    ('pos', '3', '3', '007', 'True')
    """
    if isinstance(label, float) and label.is_integer():
        return str(int(label))
    text = unicodedata.normalize("NFC", str(label)).strip()
    return whole[1] if (whole := _WHOLE.fullmatch(text)) else text


def key(label: Any) -> str:
    """The normal form under which a label of the data meets a class of the model: `spelled`, and one
    spelling for bools."""
    text = spelled(label)
    return low if (low := text.casefold()) in ("true", "false") else text


def truth(text: str) -> str:
    """A key with bools as the numbers that they are."""
    return {"true": "1", "false": "0"}.get(text, text)


def number(label: Any) -> float | None:
    """The finite number that a label is or spells, if any."""
    try:
        found = math.nan if isinstance(label, bool) or "_" in str(label) else float(label)
    except (TypeError, ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None


def check_class(label: Any, where: str = "") -> None:
    """Refuse what can be no class: a list, a dict, nothing, NaN."""
    if not isinstance(label, (str, int, float)) or label != label:
        place = f"{where}: " if where else ""
        raise UserError(
            f"{place}label {label!r} is no class; use a string, number or bool, or in all rows a list"
        )


def items(label: Any, where: str) -> Sequence[Any]:
    """The classes in a multi-label value: a list, a list as a program wrote it, or names with commas between.

    Raises
    ------
    UserError
        For what begins as a list does and is not understood: commas in it may stand inside names.
    """
    if isinstance(label, (list, tuple, set, frozenset)):
        return list(label)
    if not isinstance(label, str):
        return [label]
    if (found := parse_list(label)) is not None:
        return found
    if looks_like_list(label):
        raise UserError(
            f'{where}: the label {label!r} begins as a list does, but is none; write ["a", "b"], or names '
            "with commas between"
        )
    return [item.strip() for item in label.split(",") if item.strip()]


def looks_like_list(text: str) -> bool:
    """Whether a cell begins as a list does, so that its commas may not be those between names."""
    text = text.strip()
    return text.startswith(("[", "{")) or (text.startswith("(") and "," in text) or bool(_WRAPPED.match(text))


def parse_list(text: str) -> list[Any] | None:
    """The list in a cell: JSON, or what str() makes of lists, tuples, sets, arrays and tensors; None if the
    cell holds none.

    Examples
    --------
    >>> parse_list('["a, b"]'), parse_list("['a', 'b']"), parse_list("['a' 'b']"), parse_list("[1. 0.]")
    (['a, b'], ['a', 'b'], ['a', 'b'], [1.0, 0.0])
    >>> parse_list("[a, b]") is None
    True
    """
    text = text.strip()
    if wrapped := _WRAPPED.fullmatch(text):
        return parse_list(wrapped["inside"]) if wrapped["inside"].strip() else []
    if len(text) < 2 or (text[0], text[-1]) not in (("[", "]"), ("(", ")"), ("{", "}")):
        return None
    with suppress(ValueError):
        found = json.loads(text)
        return found if isinstance(found, list) else None
    inside = text[1:-1].strip()
    return _parse_tokens(inside) if "np." not in inside else _parse_tokens(_SCALAR.sub(r"\1", inside))


def _parse_tokens(inside: str) -> list[Any] | None:
    """Values between brackets, with a comma after each, or with none, as NumPy writes them."""
    found: list[Any] = []
    commas, place = 0, 0
    while place < len(inside):
        token = _TOKEN.match(inside, place)
        if token is None:
            return None
        place = token.end()
        if token["comma"]:
            commas += 1
            if commas != len(found):
                return None
            continue
        try:
            found.append(ast.literal_eval(token["quoted"]) if token["quoted"] else _bare(token["bare"]))
        except (ValueError, SyntaxError):
            return None
    return found if commas in (0, len(found) - 1, len(found)) else None


def _bare(word: str) -> Any:
    """A value without quotes: a number, a bool or nothing."""
    if word in _WORDS:
        return _WORDS[word]
    if not _NUMBER.fullmatch(word):
        raise ValueError(word)
    return int(word) if word.lstrip("+-").isdigit() else float(word)


def are_hot(labels: Sequence[Any]) -> bool:
    """Whether labels are vectors of 0 and 1, all of one length, two or more: an entry for each class, as
    Hugging Face data sets hold them."""
    if not labels or not all(isinstance(label, (list, tuple)) for label in labels):
        return False
    width = len(labels[0])
    return width > 1 and all(
        len(label) == width and all(isinstance(item, (int, float)) and item in (0, 1) for item in label)
        for label in labels
    )


def relabel(label: Any, aliases: Mapping[str, str]) -> Any:
    """A label, or each class in a list of them, by the name that `aliases` give it."""
    if not aliases:
        return label
    if isinstance(label, (list, tuple)):
        return [relabel(item, aliases) for item in label]
    return aliases.get(key(label), label)


def doubts(names: Iterable[str], kind: str) -> Iterator[str]:
    """What is odd about the classes that were found in training labels, a sentence each."""
    names = list(names)
    folded = Counter(name.casefold() for name in names)
    for low in (low for low, count in folded.items() if count > 1):
        alike = [name for name in names if name.casefold() == low]
        yield f"The classes {' and '.join(map(repr, alike))} differ in case alone. {_JOIN}"
    for name in names:
        if name.casefold() in MISSING:
            yield f"The class {name!r} looks like a label that is missing. Remove those rows if it is."
        parts = [part.strip() for part in re.split(r"[;|/,]" if kind == "single-label" else r"[;|/]", name)]
        if len(parts) > 1 and any(part.casefold() in folded for part in parts):
            yield (
                f"The class {name!r} looks like several classes in one. If it is, write commas between them"
                + (", and ask for --task multi-label." if kind == "single-label" else ".")
            )
    if names and all(re.fullmatch(r"[+-]?\d+,\d+", name) for name in names):
        yield "The classes look like numbers with decimal commas. If they are scores, write points."
    if kind == "single-label" and len(names) > MANY and all(number(name) is not None for name in names):
        yield f"The labels are read as {len(names)} classes. If they are scores, ask for --task regression."


_JOIN = "If they are one class, join them: --label-map 'FROM=TO'."
