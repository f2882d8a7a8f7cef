"""Rows in and out of files, and labelled texts from files or the hub."""

from thresher.data.examples import load_examples
from thresher.data.read import Row, iter_rows
from thresher.data.write import RowWriter

__all__ = ["Row", "RowWriter", "iter_rows", "load_examples"]
