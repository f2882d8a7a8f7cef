"""Rows into files: TSV, CSV, JSON Lines and Parquet."""

from __future__ import annotations

import csv
import gzip
import io
import json
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from thresher.data.formats import ARROW_ERRORS, SUFFIX, format_of, is_standard_output, is_stream
from thresher.data.lines import HALF
from thresher.errors import UserError, writing
from thresher.files.atomic import create_partial, partial_of, settle

log = logging.getLogger(__name__)
_GROUP = 4096  # rows per Parquet row group
_CHARACTERS = 1 << 22  # in the texts of a group, after which it takes no more rows
_ARROW_TYPES = {str: pa.string(), float: pa.float64()}  # of which no value is out of range


class RowWriter:
    """Write rows to a file in the format its suffix names; a context manager.

    The first row fixes the columns: a later row may lack some (left empty or null). Only JSON Lines
    takes rows as they come. TSV turns tabs and line ends inside values into one space; TSV and CSV
    take lists and dicts as JSON, Parquet dicts. What no text file can hold, a NUL or half of a surrogate
    pair, is written as its escape. Rows written are in the file after the `with` block, also when an
    error ends it, but not when Ctrl-C does.

    Parameters
    ----------
    path : str or Path
        The file; its folder is made if need be. The file appears when the block ends; what was there stays
        until then, and where no row was written or a write failed. A pipe or device, and ``-``, the standard
        output, are written at once.
    like : str or Path, optional
        For a pipe or device: a file whose suffix names the format, where the suffix of `path` does not.

    Raises
    ------
    UserError
        At construction: unknown suffix, or one that is read alone. On entering, in `write` and at the end of
        the block: the file cannot be written, as of a full disk; if another exception ends the block, that is
        logged instead. In `write`: a column that the first row lacks, or a value that does not fit the type
        of its Parquet column.
    BrokenPipeError
        If nobody reads the pipe any longer.
    """

    def __init__(self, path: str | Path, like: str | Path | None = None) -> None:
        self.path = Path(path)
        self._streams = is_stream(self.path)
        named = self.path if like is None or not self._streams or SUFFIX.search(self.path.name) else like
        self._kind, self._packed = format_of(Path(named))
        if self._kind == "json":
            raise UserError(f"{self.path}: rows are not written as one JSON document; name it .jsonl")
        self._place = self.path if self._streams else self.path.resolve()
        self._partial = self.path if self._streams else partial_of(self._place)
        self._columns: list[str] = []
        self._group: list[dict[str, Any]] = []  # Parquet rows not yet written
        self._characters = 0  # in their texts
        self._raw: Any = None
        self._file: Any = None
        self._parquet: Any = None  # opened when the first group has shown the types
        self._types: dict[str, pa.DataType] = {}
        self._whole = True  # what is in the file: no write has failed halfway

    def __enter__(self) -> RowWriter:
        with self._writing():
            if not self._streams:
                create_partial(self._place)
            printed = is_standard_output(self.path)
            self._raw = self._file = open(1 if printed else self._partial, "wb", closefd=not printed)
            if self._packed:  # no time of writing, so that equal rows are equal bytes
                self._file = gzip.GzipFile("", "wb", fileobj=self._raw, mtime=0)
            if self._kind != "parquet":
                self._file = io.TextIOWrapper(
                    self._file, encoding="utf-8", newline="", errors="backslashreplace"
                )
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            with self._writing():
                self._close()
                self._end(kind)
        except (UserError, BrokenPipeError) as error:
            if kind is None:
                raise
            log.warning("%s", error)  # the exception that ends the block says more
        finally:
            if not self._streams:
                self._partial.unlink(missing_ok=True)

    def write(self, values: dict[str, Any]) -> None:
        """Write one row: `values` by column name, of Python, NumPy or PyTorch types."""
        with self._writing():
            self._write(values)

    def discard(self) -> None:
        """Have no file appear at the end of the block."""
        self._whole = False

    def flush(self) -> None:
        """Let who reads a pipe have the rows; a file appears when it is whole."""
        if self._streams and self._kind != "parquet":
            with self._writing():
                self._file.flush()
                self._raw.flush()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            with writing(self.path):
                yield
        except UserError as error:
            if isinstance(error.__cause__, BrokenPipeError):
                raise error.__cause__ from None
            self._whole = self._whole and not isinstance(error.__cause__, OSError)
            raise

    def _end(self, kind: type[BaseException] | None) -> None:
        """Put the file in its place, where there is something whole to put there."""
        stopped = kind is not None and not issubclass(kind, Exception)
        nothing = kind is not None and not self._columns
        if not (self._streams or stopped or nothing) and self._whole:
            settle(self._partial, self._place)

    def _close(self) -> None:
        with self._raw, self._file:
            if self._kind == "parquet":
                try:
                    if self._group or not self._parquet:
                        self._flush()
                finally:
                    if self._parquet:
                        self._parquet.close()

    def _write(self, values: dict[str, Any]) -> None:
        row = {name: value.tolist() if hasattr(value, "tolist") else value for name, value in values.items()}
        if self._kind == "jsonl":
            self._columns = self._columns or list(row)
            self._file.write(_json(row) + "\n")
            return
        if self._kind == "parquet":
            flat = {name: _json(value) if isinstance(value, dict) else value for name, value in row.items()}
            row = _sound(flat)
        if not self._columns:
            self._columns = list(row)
            if self._kind != "parquet":
                self._put(self._columns)
        if more := [name for name in row if name not in self._columns]:
            raise UserError(
                f"{self.path}: the first row has no column {more[0]!r}; write .jsonl, where rows may differ"
            )
        if self._kind != "parquet":
            self._put([row.get(name) for name in self._columns])
            return
        if self._parquet:
            self._check(row)
        self._group.append(row)
        self._characters += sum(len(value) for value in row.values() if isinstance(value, str))
        if len(self._group) == _GROUP or self._characters >= _CHARACTERS:
            self._flush()

    def _put(self, values: list[Any]) -> None:
        cells = [_cell(value).replace("\0", "\\x00") for value in values]
        if self._kind == "csv":
            csv.writer(self._file).writerow(cells)
        else:
            self._file.write("\t".join(re.sub(r"[\t\r\n]+", " ", cell) for cell in cells) + "\n")

    def _check(self, row: dict[str, Any]) -> None:
        """Refuse a row that would spoil its group, while the rows before it can still be written."""
        for name, value in row.items():
            if _ARROW_TYPES.get(type(value)) == (kind := self._types[name]):
                continue
            try:
                _arrow([value], kind)
                if kind != pa.string():
                    pa.array([value]).cast(kind)  # strict, where the line above cuts 1.5 to 1
            except ARROW_ERRORS as error:
                raise UserError(
                    f"{self.path}: {value!r} does not fit column {name!r} of type {kind}; "
                    "write .jsonl, where types may differ"
                ) from error

    def _flush(self) -> None:
        columns = {name: [row.get(name) for row in self._group] for name in self._columns}
        table = pa.table({name: _arrow(values, self._types.get(name)) for name, values in columns.items()})
        self._types = {field.name: field.type for field in table.schema}
        self._parquet = self._parquet or pq.ParquetWriter(self._file, table.schema)
        self._parquet.write_table(table)
        self._group.clear()
        self._characters = 0


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=lambda item: getattr(item, "tolist", item.__str__)())


def _cell(value: Any) -> str:
    return "" if value is None else _json(value) if isinstance(value, (list, tuple, dict)) else str(value)


def _sound(value: Any) -> Any:
    """A value for Parquet, with halves of surrogate pairs as their escapes."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode() if HALF.search(value) else value
    if isinstance(value, (list, tuple)):
        return [_sound(item) for item in value]
    if isinstance(value, dict):
        return {_sound(name): _sound(item) for name, item in value.items()}
    return value


def _arrow(values: list[Any], kind: pa.DataType | None) -> pa.Array:
    """A Parquet column, of text where the values have no type in common, or none at all."""
    try:
        column = pa.array(values, kind)
        if kind is None and (known := _known(column.type)) != column.type:
            column = pa.array(values, known)
    except ARROW_ERRORS:
        if kind not in (None, pa.string()):
            raise
        column = pa.array([None if value is None else _cell(value) for value in values], pa.string())
    return column


def _known(kind: pa.DataType) -> pa.DataType:
    """A type with text where no value has shown one: of nulls, of what empty lists hold, of empty dicts."""
    if pa.types.is_list(kind):
        return pa.list_(_known(kind.value_type))
    if pa.types.is_struct(kind) and kind.num_fields:
        return pa.struct(
            [field.with_type(_known(field.type)) for field in map(kind.field, range(kind.num_fields))]
        )
    return pa.string() if pa.types.is_null(kind) or pa.types.is_struct(kind) else kind
