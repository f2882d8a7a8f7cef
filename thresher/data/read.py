"""Rows out of files: TSV, CSV, JSON Lines and Parquet, with errors that name the line."""

from __future__ import annotations

import csv
import gzip
import itertools
import json
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from thresher.data.formats import format_of, open_file
from thresher.errors import UserError, one_line

_LONGEST_FIELD = 1 << 27  # characters; csv's own limit of 131,072 is too short for documents


@dataclass(frozen=True)
class Row:
    """One row of a file.

    Attributes
    ----------
    line : int
        1-based line on which the row starts; in Parquet, the 1-based row number.
    values : dict
        Every column's value by name: `str` from TSV and CSV, any type from JSON Lines and Parquet.
    """

    line: int
    values: dict[str, Any]


def iter_rows(path: str | Path, columns: Sequence[str] = ()) -> Iterator[Row]:
    """Stream the rows of a file, whatever its size.

    Parameters
    ----------
    path : str or Path
        A `.tsv`, `.csv`, `.jsonl` or `.ndjson` file (UTF-8, perhaps with `.gz`), or a `.parquet` file.
    columns : sequence of str
        Columns that every row must have.

    Returns
    -------
    iterator of Row
        Rows in file order, with all their columns. Blank lines are no rows, except in TSV of one
        column, where each is an empty text; between the rows of wider TSV they are an error.

    Raises
    ------
    UserError
        At the call: no such file, unknown suffix, no rows, a column that is not there, a broken
        first row. While iterating: a later line that is broken or lacks a column.
    """
    path = Path(path)
    if path.is_dir():
        raise UserError(f"{path}: is a folder; give a file in it")
    if not path.exists():
        raise UserError(f"{path}: no such file; check the path")
    rows = _read(path, columns)
    if (first := next(rows, None)) is None:
        raise UserError(f"{path}: the file has no rows; give it at least one (after the header, if any)")
    return itertools.chain((first,), rows)


def require_columns(columns: Iterable[str], present: Iterable[str], where: str) -> None:
    """Refuse the first of `columns` that is not among those `present`."""
    for column in columns:
        if column not in present:
            raise UserError(f"{where}: no column {column!r}; choose from: {', '.join(map(str, present))}")


def _read(path: Path, columns: Sequence[str]) -> Iterator[Row]:
    kind, packed = format_of(path)
    if kind == "parquet":
        rows = _read_parquet(path)
    else:
        rows = {"tsv": _read_tsv, "csv": _read_csv, "jsonl": _read_jsonl}[kind](path, _lines(path, packed))
    for row in rows:
        require_columns(columns, row.values, f"{path}:{row.line}" if kind == "jsonl" else f"{path}")
        yield row


def _read_tsv(path: Path, lines: Iterable[str]) -> Iterator[Row]:
    header: list[str] = []
    blank = 0  # the first of the blank lines just passed; fine if nothing follows
    advice = "TSV has no quoting, so write a tab inside a text as a space"
    for number, line in enumerate(lines, 1):
        fields = line.removesuffix("\n").removesuffix("\r").split("\t")
        if number == 1:
            header = _header(path, fields)
        elif fields == [""] and len(header) > 1:
            blank = blank or number
        elif blank:
            raise UserError(f"{path}:{blank}: expected {len(header)} fields, found a blank line; remove it")
        else:  # in a file of one column a blank line is an empty text
            yield _named(path, number, header, fields, advice)


def _read_csv(path: Path, lines: Iterable[str]) -> Iterator[Row]:
    csv.field_size_limit(max(csv.field_size_limit(), _LONGEST_FIELD))
    reader = csv.reader(lines, strict=True)
    header: list[str] = []
    while True:
        start = reader.line_num + 1
        try:
            fields = next(reader, None)
        except csv.Error as error:
            raise UserError(f"{path}:{start}: broken CSV ({error}); check the quotes from here on") from error
        if fields is None:
            return
        if not header:
            header = _header(path, fields)
        elif fields:
            yield _named(path, start, header, fields, "put a text with commas in double quotes")


def _read_jsonl(path: Path, lines: Iterable[str]) -> Iterator[Row]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
            if "\\ud" in line.lower():  # half a surrogate pair passes as JSON, but is no text
                json.dumps(values, ensure_ascii=False).encode()
        except (ValueError, RecursionError) as error:
            reason = "half of a surrogate pair" if isinstance(error, UnicodeError) else one_line(error)
            raise UserError(f"{path}:{number}: invalid JSON ({reason}); write one object a line") from error
        if not isinstance(values, dict):
            kind = type(values).__name__
            raise UserError(
                f"{path}:{number}: expected a JSON object, found a {kind}; write one object a line"
            )
        yield Row(number, values)


def _read_parquet(path: Path) -> Iterator[Row]:
    number = 0
    try:
        with pq.ParquetFile(path) as file:
            _header(path, file.schema_arrow.names)
            for batch in file.iter_batches(batch_size=1024):
                for values in batch.to_pylist():
                    number += 1
                    yield Row(number, values)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise _unreadable(path, error, "it is not a whole Parquet file: write or copy it again") from error


def _header(path: Path, names: list[str]) -> list[str]:
    if twice := [name for i, name in enumerate(names) if name in names[:i]]:
        raise UserError(f"{path}: two columns are named {twice[0]!r}; rename one of them")
    return names


def _named(path: Path, line: int, header: list[str], fields: list[str], advice: str) -> Row:
    if len(fields) != len(header):
        raise UserError(
            f"{path}:{line}: expected {len(header)} fields as in the header, found {len(fields)}; {advice}"
        )
    return Row(line, dict(zip(header, fields, strict=True)))


def _lines(path: Path, packed: bool) -> Iterator[str]:
    """Decode a file line by line (endings kept), so that an error knows its line."""
    line = 0
    try:
        with open_file(path, packed, "rb") as file:
            for raw in file:
                line += 1
                yield raw.decode("utf-8-sig" if line == 1 else "utf-8")
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise UserError(f"{path}:{line}: byte 0x{byte:02x} is not UTF-8; save the file as UTF-8") from error
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise _unreadable(
            path, error, f"the gzip data are damaged after line {line}: copy it again"
        ) from error
    except OSError as error:
        raise _unreadable(path, error, "check the path and its permissions") from error


def _unreadable(path: Path, error: Exception, advice: str) -> UserError:
    return UserError(f"{path}: cannot be read ({one_line(error)}); {advice}")
