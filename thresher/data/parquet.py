"""Rows of Parquet, converted column by column, so that one that is not asked for cannot stop the reading."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from thresher.data.names import unique
from thresher.data.table import Table, unreadable
from thresher.errors import UserError, one_line

log = logging.getLogger(__name__)
_BATCH = 1024  # rows
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
    try:
        with pq.ParquetFile(path) as file:
            yield from file.iter_batches(_BATCH, columns=names)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise unreadable(path, error, _DAMAGED) from error


def _to_python(column: pa.Array) -> list[Any]:
    try:
        return column.to_pylist()
    except Exception:  # as of a zone that only its writer knows, such as tzutc()
        if not (pa.types.is_timestamp(column.type) and column.type.tz):
            raise
        return column.cast(pa.timestamp(column.type.unit, "UTC")).to_pylist()
