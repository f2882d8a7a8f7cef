"""Rows of TSV and CSV."""

from __future__ import annotations

import csv
import itertools
import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from thresher.data.lines import LONGEST, lines, too_long
from thresher.data.names import resolvable, unique
from thresher.data.sniff import Found
from thresher.data.table import Table, no_rows
from thresher.errors import UserError

log = logging.getLogger(__name__)
_COLUMNS = 100_000
_SHOWN = 50  # rows that a delimiter is judged by
_SEPARATOR = re.compile('"?sep=(.)"?\r?\n?$')  # a first line of Excel's
_WORDS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "pipes"}
Record = tuple[int, list[str]]  # line on which it starts, fields


class Layout(NamedTuple):
    """How a line is parted: by which character, whether fields may be quoted, and after how many lines."""

    delimiter: str
    quoted: bool = True
    skipped: int = 0


def open_delimited(found: Found, names: Sequence[str]) -> Table:
    """Give the table whose columns the header names; columns that `names` mean help to find the delimiter."""
    csv.field_size_limit(max(csv.field_size_limit(), LONGEST))  # its own, 131,072, is too short for documents
    layout = _tsv_layout(found, names) if found.kind == "tsv" else _csv_layout(found, names)
    if (first := next(_records(found, layout), None)) is None:
        raise no_rows(found.path)
    columns = first[1]
    if len(columns) > _COLUMNS:
        raise UserError(
            f"{found.path}: the header has {len(columns):,} columns, more than {_COLUMNS:,}; give "
            "the columns with texts alone"
        )

    def read(wanted: Sequence[str], others: bool) -> Iterator[tuple[int, dict[str, Any]]]:
        return _read(found, layout, columns, None if others else wanted)

    return Table(str(found.path), columns, read)


def _read(
    found: Found, layout: Layout, columns: list[str], wanted: Sequence[str] | None
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Rows of the columns wanted, or of all (None)."""
    width, names = len(columns), unique(columns)
    places = [(name, columns.index(name)) for name in wanted or ()]
    blank = 0  # the first of the blank lines just passed; fine if nothing follows
    for line, fields in itertools.islice(_records(found, layout), 1, None):
        if fields == [""] and width > 1 and not layout.quoted:
            blank = blank or line
            continue
        if blank:
            raise UserError(f"{found.path}:{blank}: expected {width} fields, found a blank line; remove it")
        if len(fields) != width:
            fields = _fitted(fields, columns)
        if len(fields) != width:
            advice = (
                f"put a text with {_WORDS[layout.delimiter]} in double quotes"
                if layout.quoted
                else "TSV has no quoting, so write a tab inside a text as a space"
            )
            raise UserError(
                f"{found.path}:{line}: expected {width} fields as in the header, "
                f"found {len(fields)}; {advice}"
            )
        if wanted is None:
            yield line, dict(zip(names, fields, strict=True))
        else:
            yield line, {name: fields[place] for name, place in places}


def _fitted(fields: list[str], columns: list[str]) -> list[str]:
    """A row without its empty fields too many, or with those of columns without a name that it lacks."""
    width = len(columns)
    if len(fields) > width and not any(fields[width:]):
        return fields[:width]
    if len(fields) < width and not "".join(columns[len(fields) :]).strip():
        return fields + [""] * (width - len(fields))
    return fields


def _records(found: Found, layout: Layout) -> Iterator[Record]:
    """The header and the rows. Of a plain line, the fields are as they stand."""
    if layout.quoted:
        return _quoted(found, layout)
    return _plain(found)


def _plain(found: Found) -> Iterator[Record]:
    warned = False
    for number, line in enumerate(lines(found), 1):
        fields = line.removesuffix("\n").removesuffix("\r").split("\t")
        if '"' in line and not warned and number > 1 and any(map(_enclosed, fields)):
            warned = True
            log.warning(
                "%s:%d: a field is enclosed in double quotes. TSV has no quoting here, so they are part of "
                "the text. If they are quoting, quote the fields of the header as well, or write CSV.",
                found.path,
                number,
            )
        yield number, fields


def _quoted(found: Found, layout: Layout) -> Iterator[Record]:
    """Records by the rules of CSV, without blank lines."""
    start = size = 0

    def counted() -> Iterator[str]:
        nonlocal size
        for line in itertools.islice(lines(found), layout.skipped, None):
            size += len(line)
            if size > LONGEST:  # quotes that are not closed would take the whole file for one record
                raise too_long(found.path, start)
            yield line

    reader = csv.reader(counted(), delimiter=layout.delimiter, strict=True)
    while True:
        start, size = reader.line_num + layout.skipped + 1, 0
        try:
            fields = next(reader, None)
        except csv.Error as error:
            where = f"{found.path}:{start}"
            if "new-line character" in str(error):
                raise UserError(
                    f"{where}: a carriage return stands inside a field without quotes; remove it, or put the "
                    "field in double quotes"
                ) from error
            raise UserError(f"{where}: broken CSV ({error}); check the quotes from here on") from error
        if fields is None:
            return
        if fields:
            yield start, fields


def _enclosed(field: str) -> bool:
    return len(field) > 1 and field[0] == field[-1] == '"'


def _tsv_layout(found: Found, names: Sequence[str]) -> Layout:
    """Plain lines, unless the header is quoted, or has no tab and not the columns wanted, as that of CSV."""
    header = next(iter(found.head_lines()), "").rstrip("\r\n").split("\t")
    if all(map(_enclosed, header)):
        return Layout("\t")
    if len(header) == 1 and not resolvable(names, header):
        layout = _csv_layout(found, names)
        if layout.delimiter != "\t" and resolvable(names, next(iter(_first_rows(found, layout)), [])):
            log.warning(
                "%s: its fields are separated by %s, not tabs: it is read as CSV.",
                found.path,
                _WORDS.get(layout.delimiter, layout.delimiter),
            )
            return layout
    return Layout("\t", quoted=False)


def _csv_layout(found: Found, names: Sequence[str]) -> Layout:
    """The delimiter under which the wanted columns are there, then the one that parts the header at all, then
    the one under which most rows have the header's width; in doubt the first."""
    if told := _SEPARATOR.match(next(iter(found.head_lines()), "")):
        return Layout(told[1], skipped=1)

    def fit(layout: Layout) -> tuple[bool, bool, float]:
        header, *rows = _first_rows(found, layout) or [[]]
        parted = len(header) > 1
        fitting = [len(_fitted(row, header)) == len(header) for row in rows if parted]
        return resolvable(names, header), parted, sum(fitting) / max(1, len(fitting))

    return max(map(Layout, _WORDS), key=fit)


def _first_rows(found: Found, layout: Layout) -> list[list[str]]:
    """Header and rows as far as the head goes and they can be told apart."""
    rows: list[list[str]] = []
    reader = csv.reader(found.head_lines()[layout.skipped :], delimiter=layout.delimiter)
    with suppress(csv.Error):
        rows.extend(row for row in itertools.islice(reader, _SHOWN) if row)
    return rows
