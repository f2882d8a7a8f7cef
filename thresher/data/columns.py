"""The columns of a file or of a data set of the hub."""

from __future__ import annotations

from collections.abc import Sequence

from thresher.data.beir import is_collection
from thresher.data.hub import open_source
from thresher.data.names import resolve

__all__ = ["columns_of", "resolve", "resolve_columns"]


def columns_of(source: str, split: str = "train") -> list[str]:
    """Give the names of the columns that have one, as they stand, of JSON Lines those of the first row.

    Parameters
    ----------
    source : str
        As of `load_examples`.
    split : str
        Split of a hub data set, where `source` names none.

    Raises
    ------
    UserError
        The source cannot be read.
    """
    return [name for name in open_source(str(source), split).columns if name.strip()]


def resolve_columns(source: str, names: Sequence[str], split: str = "train") -> list[str]:
    """Find the columns of a source that names given by a user mean: `columns_of`, and then `resolve`. Those
    of a folder of documents and queries (`is_collection`) are not asked for, and stay as they are."""
    if is_collection(source):
        return list(names)
    table = open_source(str(source), split, names)
    return resolve(names, table.columns, table.where)
