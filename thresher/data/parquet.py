"""Rows of Parquet, converted column by column, so that one that is not asked for cannot stop the reading."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from thresher.data.lines import LONGEST, too_long
from thresher.data.names import unique
from thresher.data.table import Table, unreadable
from thresher.errors import UserError, one_line

log = logging.getLogger(__name__)
_BATCH = 1024  # rows, where they are short
_WEIGHT = 1 << 26  # bytes that the rows of a batch may have, decoded
_PAGE = 192 << 20  # bytes of a page, which is decoded as a whole, and copied once
_DAMAGED = "it is not a whole Parquet file: write or copy it again"


def open_parquet(path: Path) -> Table:
    """Give the table whose columns the schema names."""
    try:
        with pq.ParquetFile(path) as file:
            columns = file.schema_arrow.names
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise unreadable(path, error, _DAMAGED) from error

    def read(wanted: Sequence[str], others: bool) -> Iterator[tuple[int, dict[str, Any]]]:
        return _read(path, unique(columns) if others else list(wanted), wanted, others)

    return Table(str(path), columns, read)


def _read(
    path: Path, names: list[str], wanted: Sequence[str], others: bool
) -> Iterator[tuple[int, dict[str, Any]]]:
    number, left_out = 0, set[str]()
    for batch in _batches(path, None if others else names):
        if batch.num_rows == 1 and _weight(batch) > LONGEST:
            raise too_long(path, number + 1)
        places = range(len(names)) if others else map(batch.schema.names.index, names)
        values: dict[str, list[Any]] = {}
        for name, place in zip(names, places, strict=True):
            if name in left_out:
                continue
            try:
                values[name] = _to_python(batch.column(place))
            except Exception as error:  # of many kinds: a date after year 9999, text not UTF-8, ...
                said = f"{path}: column {name!r} cannot be read from row {number + 1} on ({one_line(error)})"
                if name in wanted:
                    raise UserError(f"{said}; write the column anew, as text") from error
                log.warning("%s: it is left out.", said)
                left_out.add(name)
        for row in zip(*values.values(), strict=True) if values else [()] * len(batch):
            number += 1
            yield number, dict(zip(values, row, strict=True))


def _batches(path: Path, names: list[str] | None) -> Iterator[pa.RecordBatch]:
    """Some rows at a time; where they are long, one."""
    try:
        with pq.ParquetFile(path, buffer_size=1 << 20) as file:
            for group in range(file.num_row_groups):
                rows = _rows_at_once(path, file, group, names)
                for batch in file.iter_batches(rows, [group], names, use_threads=False):
                    if batch.nbytes <= LONGEST or _weight(batch) <= LONGEST:
                        yield batch
                    else:
                        yield from (batch.slice(row, 1) for row in range(len(batch)))
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise unreadable(path, error, _DAMAGED) from error


def _weight(batch: pa.RecordBatch) -> int:
    """Bytes of the rows; values of a dictionary count where they stand."""
    coded = pa.types.is_dictionary
    return sum((c.dictionary_decode() if coded(c.type) else c).nbytes for c in batch.columns)


def _rows_at_once(path: Path, file: pq.ParquetFile, group: int, names: list[str] | None) -> int:
    """How many rows of a group can be decoded at once, by what its metadata say of its columns.

    Raises
    ------
    UserError
        A column of which a single row, or page, may be larger than memory is kept free for: a few bytes can
        stand for gigabytes.
    """
    about = file.metadata.row_group(group)
    heaviest = 1
    for place in range(about.num_columns):
        column = about.column(place)
        name = column.path_in_schema.split(".")[0]
        if names is not None and name not in names:
            continue
        size, count = column.total_uncompressed_size, column.num_values
        pages = [_page_size(path, column.dictionary_page_offset), _page_size(path, column.data_page_offset)]
        repeated = file.schema.column(place).max_repetition_level > 0
        if (
            (largest := max(pages)) > _PAGE
            or (size > _PAGE and size > 256 * column.total_compressed_size)
            or (repeated and count > max(LONGEST, 8 * size))
        ):
            raise UserError(
                f"{path}: column {name!r} holds more in one piece than can be read at once "
                f"({max(largest, count):,}); write the file with smaller row groups (row_group_size=100)"
            )
        longest = size if "DELTA_BYTE_ARRAY" in column.encodings else pages[0]  # one value may be all of it
        heaviest = max(heaviest, longest, size // max(1, about.num_rows))
    return max(1, min(_BATCH, _WEIGHT // heaviest))


def _page_size(path: Path, offset: int | None) -> int:
    """Bytes of a page, unpacked: the second number of its header, each behind a byte of 0x15 and in sevens of
    bits. https://parquet.apache.org/docs/file-format/data-pages"""
    if offset is None:
        return 0
    with open(path, "rb") as file:
        file.seek(offset)
        head = file.read(16)
    found = re.match(rb"\x15[\x00-\x7f]\x15([\x80-\xff]*[\x00-\x7f])", head)
    bits = sum((byte & 0x7F) << 7 * place for place, byte in enumerate(found[1])) if found else 0
    return bits >> 1


def _to_python(column: pa.Array) -> list[Any]:
    try:
        return column.to_pylist()
    except Exception:  # as of a zone that only its writer knows, such as tzutc()
        if not (pa.types.is_timestamp(column.type) and column.type.tz):
            raise
        return column.cast(pa.timestamp(column.type.unit, "UTC")).to_pylist()
