"""Rows of CoNLL columns: a word a line with its tag at the end, and a blank line between texts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from thresher.data.lines import lines
from thresher.data.sniff import Found
from thresher.data.table import Table, no_rows
from thresher.errors import UserError

WORDS, TAGS = "tokens", "tags"  # the columns of a row
NO_TEXT = ("-DOCSTART-", "# id ", "# sent_id")  # how lines begin that are of no word


def open_conll(found: Found) -> Table:
    """Give the table of texts: their words, and their tags unless there is one column alone."""
    if (first := next(_texts(found), None)) is None:
        raise no_rows(found.path)
    line, values = first

    def read(wanted: Sequence[str], others: bool) -> Iterator[tuple[int, dict[str, Any]]]:
        return _texts(found)

    return Table(str(found.path), list(values), read, f"{found.path}:{line}")


def _texts(found: Found) -> Iterator[tuple[int, dict[str, Any]]]:
    """The first line of each text, and its words and tags."""
    rows: list[list[str]] = []
    start = width = 0
    for number, line in enumerate(lines(found), 1):
        content = line.rstrip("\r\n")
        if not content.strip():
            if rows:
                yield start, _columns(rows)
            rows = []
            continue
        if content.startswith(NO_TEXT):
            continue
        cells = content.split("\t") if "\t" in content else content.split()
        width = width or len(cells)
        if len(cells) != width:
            raise UserError(
                f"{found.path}:{number}: there are {len(cells)} columns, and {width} in the lines before; "
                "write a word and its tag in each line, and a blank line between texts"
            )
        start = number if not rows else start
        rows.append(cells)
    if rows:
        yield start, _columns(rows)


def _columns(rows: list[list[str]]) -> dict[str, Any]:
    values: dict[str, Any] = {WORDS: [cells[0].strip() for cells in rows]}
    return values if len(rows[0]) == 1 else values | {TAGS: [cells[-1].strip() for cells in rows]}
