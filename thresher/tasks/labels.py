"""What a raw label says, however it is written: one normal form for data and for models."""

from __future__ import annotations

import ast
import csv
import json
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any

from thresher.errors import UserError

# How programs write that there is no value.
MISSING = {"nan", "null", "none", "na", "n/a", "#n/a", "<na>", "nat", "nil", "\\n", "?", "-"}
MANY = 20  # classes in a message; and classes that are whole numbers, from where on they may be scores

_WHOLE = re.compile(r"[+-]?(?:0|[1-9]\d*)(?:\.0*)?", re.ASCII)  # not 007, which is a code, not a number
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
_UNSEEN = dict.fromkeys((0x200B, 0x2060, 0xFEFF, 0xAD))  # marks that no reader can tell labels apart by


def plain(label: Any) -> Any:
    """NumPy and PyTorch to Python."""
    return label.tolist() if hasattr(label, "tolist") else label


def spelled(label: Any) -> str:
    """A class as it is called: without outer space or what is not seen, and a whole number in digits alone.

    Examples
    --------
    >>> spelled(" pos "), spelled("3.0"), spelled(3.0), spelled("+1"), spelled("007"), spelled(True)
    ('pos', '3', '3', '1', '007', 'True')
    """
    if isinstance(label, float) and label.is_integer():
        return str(int(label))
    text = " ".join(unicodedata.normalize("NFC", str(label)).translate(_UNSEEN).split())
    return str(int(float(text))) if len(text) < 16 and _WHOLE.fullmatch(text) else text


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
        return [item for item in label if not (isinstance(item, str) and not item.strip())]
    if not isinstance(label, str):
        return [label]
    if (found := parse_list(label)) is not None:
        return items(found, where)
    if looks_like_list(label):
        raise UserError(
            f'{where}: the label {label!r} begins as a list does, but is none; write ["a", "b"], or names '
            "with commas between"
        )
    # As in CSV, a name with commas may be quoted. Other quotes and brackets around commas are a program's.
    line = " ".join(label.splitlines())
    parts = next(csv.reader([line], skipinitialspace=True), []) if '"' in line else line.split(",")
    if any(part.count(a) != part.count(b) for part in parts for a, b in ("()", "[]", "{}")):
        raise UserError(
            f'{where}: commas in the label {label!r} are inside brackets; write a list, as ["a, b", "c"]'
        )
    return [item.strip() for item in parts if item.strip()]


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


def as_vectors(rows: Sequence[Sequence[Any]], places: Sequence[str]) -> list[list[int]] | None:
    """A column of labels as vectors of 0 and 1 with an entry for each class, as Hugging Face data sets hold
    them; None if the lists hold classes.

    Parameters
    ----------
    rows : sequence of sequences
        What each label holds. An empty one is of none of the classes.
    places : sequence of str
        File and line of each, for messages.

    Raises
    ------
    UserError
        For lists that can be neither: vectors of several lengths, or with other entries than 0 and 1.
    """
    full = [(row, where) for row, where in zip(rows, places, strict=True) if len(row)]
    width = max((len(row) for row, _ in full), default=0)
    if width < 2:
        return None
    bits = [[{"0": 0, "1": 1}.get(truth(key(item))) for item in row] for row, _ in full]
    twice = next((i for i, (row, _) in enumerate(full) if len(set(map(key, row))) < len(row)), None)
    if all(bit is not None for row in bits for bit in row):
        short = next((i for i, row in enumerate(bits) if len(row) < width), None)
        if short is None:
            found = iter(bits)
            return [[int(bit or 0) for bit in next(found)] if len(row) else [0] * width for row in rows]
        if twice is not None:
            raise UserError(
                f"{full[short][1]}: the label {list(full[short][0])!r} has {len(bits[short])} entries, where "
                f"others have {width}; give vectors one entry a class"
            )
        return None
    for row, where in full:
        numbers = [number(item) for item in row if not isinstance(item, bool)]
        soft = any(n is not None and not n.is_integer() for n in numbers)
        if soft or (len(set(map(key, row))) < len(row) and all(n is not None for n in numbers)):
            raise UserError(
                f"{where}: the label {list(row)!r} is neither a list of classes nor a vector of 0 and 1; "
                "write one of these"
            )
    return None


def doubts(names: Iterable[str], kind: str) -> Iterator[str]:
    """What is odd about the classes that were found in training labels, a sentence for each oddity."""
    names = list(names)
    single = kind == "single-label"
    folded = Counter(name.casefold() for name in names)
    if alike := [name for name in names if folded[name.casefold()] > 1]:
        yield f"Some classes differ in case alone: {few(alike)}. {_JOIN}"
    if missing := [name for name in names if name.casefold() in MISSING]:
        yield f"Some classes look like missing labels: {few(missing)}. Remove those rows if they are."
    if "-1" in names and {"0", "1"} <= set(names) and single:
        yield "The label -1 often marks a text without a label. Remove those rows if it does."
    if lists := [name for name in names if single and looks_like_list(name)]:
        yield f"Some classes look like lists: {few(lists)}. If they are, set `kind` to multi-label."
    parted = re.compile(r"[;|/,]" if single else r"[;|/]")
    parts = {name: [part.strip().casefold() for part in parted.split(name)] for name in names}
    if joined := [name for name in names if len(parts[name]) > 1 and any(p in folded for p in parts[name])]:
        advice = ", and set `kind` to multi-label" if single else ""
        yield f"Some classes look like several: {few(joined)}. If so, write commas between them{advice}."
    scores = [name for name in names if number(name) is not None]
    if single and len(scores) < len(names) <= 2 * len(scores) and not all(n.isdigit() for n in scores):
        odd = few(name for name in names if number(name) is None)
        yield f"Most labels look like scores, but not these: {odd}. Remove those rows if they are missing."
    if names and all(re.fullmatch(r"[+-]?\d+,\d+", name) for name in names):
        yield "The classes look like numbers with decimal commas. If they are scores, write points."
    if single and len(names) > MANY and all(number(name) is not None for name in names):
        yield f"The labels are read as {len(names)} classes. If they are scores, set `kind` to regression."


def few(words: Iterable[Any]) -> str:
    """Some words for a message, and how many more there are."""
    words = list(words)
    more = f" and {len(words) - MANY} more" if len(words) > MANY else ""
    return ", ".join(map(repr, words[:MANY])) + more


_JOIN = "If they are one class, join them in `label_map`."
