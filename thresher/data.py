"""Rows in and out of files: TSV, CSV, JSON Lines and Parquet, with errors that name the line."""

from __future__ import annotations

import csv
import gzip
import itertools
import json
import numbers
import re
import zlib
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from thresher.errors import UserError

if TYPE_CHECKING:
    import datasets

_SUFFIX = re.compile(r"\.((?P<text>tsv|csv|jsonl|ndjson)(?P<gz>\.gz)?|parquet)$", re.IGNORECASE)
_SUFFIXES = ".tsv, .csv, .jsonl (or .ndjson), each also with .gz, and .parquet"
_LONGEST_FIELD = 1 << 27  # characters; csv's own limit of 131,072 is too short for documents
_GROUP = 4096  # rows per Parquet row group
_ARROW_TYPES = {str: pa.string(), float: pa.float64()}  # of which no value is out of range
_ARROW_ERRORS = (pa.ArrowException, OverflowError)  # what a value that fits no Arrow type raises


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


def _format(path: Path) -> tuple[str, bool]:
    """The format a path's suffix stands for, and whether it is gzipped."""
    if not (found := _SUFFIX.search(path.name)):
        raise UserError(f"{path}: unknown file type; name it with one of the suffixes {_SUFFIXES}")
    kind = (found["text"] or "parquet").lower()
    return {"ndjson": "jsonl"}.get(kind, kind), found["gz"] is not None


def _open(path: Path, packed: bool, mode: str, **options: Any) -> Any:
    return gzip.open(path, mode, **options) if packed else open(path, mode, **options)


def _unreadable(path: Path, error: Exception, advice: str) -> UserError:
    return UserError(f"{path}: cannot be read ({_one_line(error)}); {advice}")


def _one_line(error: Exception) -> str:
    return " ".join((getattr(error, "strerror", None) or str(error) or type(error).__name__).split())


def _lines(path: Path, packed: bool) -> Iterator[str]:
    """Decode a file line by line (endings kept), so that an error knows its line."""
    line = 0
    try:
        with _open(path, packed, "rb") as file:
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
            reason = "half of a surrogate pair" if isinstance(error, UnicodeError) else _one_line(error)
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


def _read(path: Path, columns: Sequence[str]) -> Iterator[Row]:
    kind, packed = _format(path)
    if kind == "parquet":
        rows = _read_parquet(path)
    else:
        rows = {"tsv": _read_tsv, "csv": _read_csv, "jsonl": _read_jsonl}[kind](path, _lines(path, packed))
    for row in rows:
        _require(columns, row.values, f"{path}:{row.line}" if kind == "jsonl" else f"{path}")
        yield row


def _require(columns: Iterable[str], present: Iterable[str], where: str) -> None:
    for column in columns:
        if column not in present:
            raise UserError(f"{where}: no column {column!r}; choose from: {', '.join(map(str, present))}")


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


def load_examples(
    source: str, text: Sequence[str], label: str | None = None, split: str = "train"
) -> datasets.Dataset:
    """Load texts, and labels if asked, from a file or from a data set of the Hugging Face hub.

    Parameters
    ----------
    source : str
        Path of a file, or `name`, `name:split` or `name:config:split` of a hub data set (`name` may
        have an owner: `owner/name`).
    text : sequence of str
        The one text column, or the two columns of a pair of texts.
    label : str, optional
        The label column.
    split : str
        Split of a hub data set, where `source` names none.

    Returns
    -------
    datasets.Dataset
        Columns `text`, `text_pair` (with two text columns), `label` (if asked; as it stands in the
        source, class ids of the hub as their names) and `line` (1-based line or row number).

    Raises
    ------
    UserError
        What `iter_rows` raises; a number of text columns other than one or two; a null text or a
        missing label; labels of different types; a data set that cannot be loaded.
    """
    import datasets  # slow to import

    text = [text] if isinstance(text, str) else list(text)
    if len(text) not in (1, 2):
        raise UserError(f"one text column or two are needed, not {len(text)}; name one, or the two of a pair")
    columns: dict[str, list[Any]] = {column: [] for column in ("text", "text_pair")[: len(text)]}
    columns |= {"line": []} if label is None else {"label": [], "line": []}
    for row in _source_rows(str(source), split, text, label):
        where = f"{source}:{row.line}"
        columns["line"].append(row.line)
        for column, name in zip(columns, text, strict=False):
            columns[column].append(_text(row.values[name], f"{where}: column {name!r}"))
        if label is not None:
            columns["label"].append(_label(row.values[label], f"{where}: column {label!r}"))
    labels = columns.get("label", [])
    if not _one_type(labels):
        odd = bisect_left(range(len(labels)), True, key=lambda i: not _one_type(labels[: i + 1]))
        raise UserError(
            f"{source}:{columns['line'][odd]}: column {label!r} holds {labels[odd]!r}, of another type than "
            "the labels before it; write all in one type"
        )
    return datasets.Dataset.from_dict(columns)


def _text(value: Any, where: str) -> str:
    if value is None or value != value:  # NaN is how pandas writes a null
        raise UserError(f"{where} has no text; remove the row or write an empty text")
    if not isinstance(value, (str, numbers.Number)):
        raise UserError(f"{where} is a {type(value).__name__}, not a text; name a column of texts")
    return str(value)


def _label(value: Any, where: str) -> Any:
    if value is None or value != value or (isinstance(value, str) and not value.strip()):
        raise UserError(f"{where} has no label; remove the row or label it")
    return value


def _one_type(values: list[Any]) -> bool:
    try:
        pa.array(values)
    except _ARROW_ERRORS:
        return False
    return True


def _source_rows(source: str, split: str, text: list[str], label: str | None) -> Iterator[Row]:
    """Rows of a file, or of the hub where no file can be meant."""
    wanted = list(dict.fromkeys(text if label is None else [*text, label]))
    name, *parts = source.split(":")
    hub_like = re.fullmatch(r"\w[\w.-]*(/[\w.-]+)?", name) and len(parts) <= 2 and all(parts)
    if Path(source).exists() or _SUFFIX.search(source) or not hub_like:
        return iter_rows(source, wanted)
    import datasets

    config, split = (parts[0] if len(parts) == 2 else None), (parts[-1] if parts else split)
    try:
        data = datasets.load_dataset(name, config, split=split)
    except Exception as error:  # of many kinds: offline, not found, no such split, gated, ...
        raise UserError(
            f"{source}: neither a file nor a hub data set that could be loaded "
            f"({type(error).__name__}: {_one_line(error)}); check the path, or the name, split and network"
        ) from error
    _require(wanted, data.column_names, source)
    feature = data.features[label] if label is not None else None
    feature = getattr(feature, "feature", feature)  # of a list of labels: what the list holds
    names: list[str] = feature.names if isinstance(feature, datasets.ClassLabel) else []

    def named(value: Any) -> Any:
        if isinstance(value, list):
            return [named(item) for item in value]
        return None if value is None or value < 0 else names[value]  # -1 marks a hidden label

    def rows() -> Iterator[Row]:
        for number, values in enumerate(data.select_columns(wanted), 1):
            yield Row(number, values | {label: named(values[label])} if label and names else values)

    return rows()


class RowWriter:
    """Write rows to a file in the format its suffix names; a context manager.

    The first row fixes the columns: a later row may lack some (left empty or null). Only JSON Lines
    takes rows as they come. TSV turns tabs and line ends inside values into one space; TSV and CSV
    take lists and dicts as JSON, Parquet dicts. Rows written are in the file after the `with` block,
    also when an exception ends it.

    Parameters
    ----------
    path : str or Path
        The file, written anew; its folder is made if need be.

    Raises
    ------
    UserError
        At construction: unknown suffix. On entering: the file cannot be written. In `write`: a column
        that the first row lacks, or a value that does not fit the type of its Parquet column.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._kind, self._packed = _format(self.path)
        self._columns: list[str] = []
        self._group: list[dict[str, Any]] = []  # Parquet rows not yet written
        self._file: Any = None
        self._parquet: Any = None  # opened when the first group has shown the types
        self._types: dict[str, pa.DataType] = {}

    def __enter__(self) -> RowWriter:
        text = {"encoding": "utf-8", "newline": "", "errors": "backslashreplace"}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if self._kind == "parquet":
                self._file = open(self.path, "wb")
            else:
                self._file = _open(self.path, self._packed, "wt", **text)
        except OSError as error:
            reason = _one_line(error)
            raise UserError(f"{self.path}: cannot be written ({reason}); choose another path") from error
        return self

    def __exit__(self, *exception: object) -> None:
        with self._file:
            if self._kind == "parquet":
                if self._group or not self._parquet:
                    self._flush()
                self._parquet.close()

    def write(self, values: dict[str, Any]) -> None:
        """Write one row: `values` by column name, of Python, NumPy or PyTorch types."""
        row = {name: value.tolist() if hasattr(value, "tolist") else value for name, value in values.items()}
        if self._kind == "jsonl":
            self._file.write(_json(row) + "\n")
            return
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
        row = {name: _json(value) if isinstance(value, dict) else value for name, value in row.items()}
        if self._parquet:
            self._check(row)
        self._group.append(row)
        if len(self._group) == _GROUP:
            self._flush()

    def _put(self, values: list[Any]) -> None:
        cells = [_cell(value) for value in values]
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
            except _ARROW_ERRORS as error:
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


def _arrow(values: list[Any], kind: pa.DataType | None) -> pa.Array:
    """A Parquet column, of text where the values have no type in common, or none at all."""
    try:
        column = pa.array(values, kind)
    except _ARROW_ERRORS:
        if kind not in (None, pa.string()):
            raise
        column = pa.array([None if value is None else _cell(value) for value in values])
    return column.cast(pa.string()) if pa.types.is_null(column.type) else column
