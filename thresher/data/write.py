"""Rows into files: TSV, CSV, JSON Lines and Parquet."""

from __future__ import annotations

import csv
import json
import logging
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from thresher.data.formats import ARROW_ERRORS, format_of, open_file
from thresher.data.lines import HALF
from thresher.errors import UserError, writing

log = logging.getLogger(__name__)
_GROUP = 4096  # rows per Parquet row group
_ARROW_TYPES = {str: pa.string(), float: pa.float64()}  # of which no value is out of range


class RowWriter:
    """Write rows to a file in the format its suffix names; a context manager.

    The first row fixes the columns: a later row may lack some (left empty or null). Only JSON Lines
    takes rows as they come. TSV turns tabs and line ends inside values into one space; TSV and CSV
    take lists and dicts as JSON, Parquet dicts. What no text file can hold, a NUL or half of a surrogate
    pair, is written as its escape. Rows written are in the file after the `with` block, also when an
    exception ends it.

    Parameters
    ----------
    path : str or Path
        The file, written anew; its folder is made if need be.

    Raises
    ------
    UserError
        At construction: unknown suffix. On entering, in `write` and at the end of the block: the file cannot
        be written, as of a full disk; if another exception ends the block, that is logged instead. In
        `write`: a column that the first row lacks, or a value that does not fit the type of its Parquet
        column.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._kind, self._packed = format_of(self.path)
        self._columns: list[str] = []
        self._group: list[dict[str, Any]] = []  # Parquet rows not yet written
        self._file: Any = None
        self._parquet: Any = None  # opened when the first group has shown the types
        self._types: dict[str, pa.DataType] = {}

    def __enter__(self) -> RowWriter:
        text = {"encoding": "utf-8", "newline": "", "errors": "backslashreplace"}
        with writing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if self._kind == "parquet":
                self._file = open(self.path, "wb")
            else:
                self._file = open_file(self.path, self._packed, "wt", **text)
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            with writing(self.path):
                self._close()
        except UserError as error:
            if kind is None:
                raise
            log.warning("%s", error)  # the exception that ends the block says more

    def write(self, values: dict[str, Any]) -> None:
        """Write one row: `values` by column name, of Python, NumPy or PyTorch types."""
        with writing(self.path):
            self._write(values)

    def _close(self) -> None:
        with self._file:
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
        if len(self._group) == _GROUP:
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
