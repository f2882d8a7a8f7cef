"""Rows in and out of files, and labelled texts from files or the hub."""

from thresher.data.beir import is_collection
from thresher.data.columns import columns_of, resolve, resolve_columns
from thresher.data.examples import load_examples, words_of
from thresher.data.read import iter_rows
from thresher.data.table import Row, text_of
from thresher.data.write import RowWriter

__all__ = [
    "Row",
    "RowWriter",
    "columns_of",
    "is_collection",
    "iter_rows",
    "load_examples",
    "resolve",
    "resolve_columns",
    "text_of",
    "words_of",
]
