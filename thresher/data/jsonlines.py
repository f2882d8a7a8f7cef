"""Rows of JSON Lines."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from thresher.data.lines import HALF, lines
from thresher.data.names import unique
from thresher.data.sniff import Found
from thresher.data.table import Table, no_rows
from thresher.errors import UserError, one_line

_ESCAPE = re.compile(r"\\u[dD]")  # of half of a surrogate pair, and of some whole letters


def open_jsonl(found: Found) -> Table:
    """Give the table whose columns are the keys of the first object."""
    if (first := next(_objects(found), None)) is None:
        raise no_rows(found.path)
    line, values = first

    def read(wanted: Sequence[str], others: bool) -> Iterator[tuple[int, dict[str, Any]]]:
        return _objects(found, {name.strip() for name in wanted})

    return Table(str(found.path), list(values), read, f"{found.path}:{line}")


def _objects(found: Found, wanted: Collection[str] = ()) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(lines(found), 1):
        if not line.strip():
            continue
        where = f"{found.path}:{number}"
        try:
            values = _parse(line)
        except (ValueError, RecursionError) as error:
            advice = "write one object a line, as jq -c . does"
            raise UserError(f"{where}: invalid JSON ({one_line(error)}); {advice}") from error
        if not isinstance(values, dict):
            kind = type(values).__name__
            raise UserError(f"{where}: expected a JSON object, found a {kind}; write one object a line")
        if _ESCAPE.search(line):
            for name, value in values.items():
                if name.strip() in wanted and HALF.search(json.dumps(value, ensure_ascii=False)):
                    raise UserError(
                        f"{where}: column {name!r} holds half of a surrogate pair, which is no character; "
                        "write whole characters"
                    )
        if not all(values):  # an empty name
            values = dict(zip(unique(list(values)), values.values(), strict=True))
        yield number, values


def _parse(line: str) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError:
        raise
    except ValueError:  # an integer with more digits than Python converts: the digits stand for it
        return json.loads(line, parse_int=_integer)


def _integer(digits: str) -> int | str:
    try:
        return int(digits)
    except ValueError:
        return digits
