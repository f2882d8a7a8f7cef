"""Rows out of files: TSV, CSV, JSON Lines and Parquet, with errors that name the line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from thresher.data.conll import open_conll
from thresher.data.delimited import open_delimited
from thresher.data.jsonlines import open_jsonl
from thresher.data.names import resolve
from thresher.data.parquet import open_parquet
from thresher.data.sniff import sniff
from thresher.data.squad import open_json, open_questions
from thresher.data.table import Row, Table
from thresher.errors import UserError


def iter_rows(path: str | Path, columns: Sequence[str] = ()) -> Iterator[Row]:
    """Stream the rows of a file, whatever its size.

    Parameters
    ----------
    path : str or Path
        A `.tsv`, `.csv`, `.jsonl` or `.ndjson` file (perhaps with `.gz`), a `.parquet` file, or a `.json`
        file in SQuAD's layout. What the bytes show counts more than the name: gzip, Parquet, UTF-8 or
        UTF-16, the line ends, and the delimiter.
    columns : sequence of str
        Columns that every row must have, each found by `resolve`.

    Returns
    -------
    iterator of Row
        Rows in file order, with all their columns; one without a name of its own goes by a made-up one.
        Blank lines are no rows, except in TSV of one column, where each is an empty text; between the
        rows of wider TSV they are an error.

    Raises
    ------
    UserError
        At the call: no such file, unknown suffix, no rows, a column that is not there, a broken
        first row. While iterating: a later line that is broken or lacks a column.
    """
    table = open_table(path, columns)
    return table.rows(resolve(columns, table.columns, table.where), others=True)


def open_table(path: str | Path, names: Sequence[str] = ()) -> Table:
    """Open a file: see what it is, and which columns it has. Columns that `names` mean help with that."""
    path = Path(path)
    if path.is_dir():
        raise UserError(f"{path}: is a folder; give a file in it")
    if not path.exists():
        raise UserError(f"{path}: no such file; check the path")
    found = sniff(path)
    if found.kind == "parquet":
        return open_parquet(path)
    if found.kind == "conll":
        return open_conll(found)
    if found.kind == "json":
        return open_json(found)
    return open_questions(open_jsonl(found)) if found.kind == "jsonl" else open_delimited(found, names)
