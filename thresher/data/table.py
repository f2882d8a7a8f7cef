"""Rows, and what every source of rows has in common."""

from __future__ import annotations

import itertools
import logging
import numbers
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from thresher.data.names import resolve_one, unique
from thresher.errors import UserError, one_line

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Row:
    """One row of a file.

    Attributes
    ----------
    line : int
        1-based line on which the row starts; in Parquet, the 1-based row number.
    values : dict
        Every column's value by name: `str` from TSV and CSV, any type from JSON Lines and Parquet.
    wanted : tuple
        Values of the columns that were asked for, in the order asked for.
    """

    line: int
    values: dict[str, Any]
    wanted: tuple[Any, ...] = field(default=(), compare=False)


@dataclass(frozen=True)
class Table:
    """A source of rows whose columns are known.

    Attributes
    ----------
    source : str
        Path or name, for messages about rows.
    columns : list of str
        Names as they stand: some may be empty or occur twice. Of JSON Lines, those of the first row.
    read : callable
        Takes the columns wanted, and whether the others are as well; gives line and values of each row. All
        columns together go by `unique` names.
    where : str
        The source, or the line in it, that `columns` are from. Default: `source`.
    """

    source: str
    columns: list[str]
    read: Callable[[Sequence[str], bool], Iterable[tuple[int, dict[str, Any]]]]
    where: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "where", self.where or self.source)

    def rows(self, wanted: Sequence[str], *, others: bool) -> Iterator[Row]:
        """Read the rows, with the first one already here.

        Parameters
        ----------
        wanted : sequence of str
            Columns that every row must have.
        others : bool
            Whether the values hold all other columns as well.

        Raises
        ------
        UserError
            At the call: no rows, or a broken first row. While iterating: a later row that is broken.
        """
        if others and (made_up := [new for new in unique(self.columns) if new not in self.columns]):
            names = ", ".join(map(repr, made_up))
            log.warning("%s: columns without a name of their own are called %s.", self.source, names)
        rows = self._rows(wanted, others)
        if (first := next(rows, None)) is None:
            raise no_rows(self.source)
        return itertools.chain((first,), rows)

    def _rows(self, wanted: Sequence[str], others: bool) -> Iterator[Row]:
        for line, values in self.read(wanted, others):
            try:
                found = tuple([values[column] for column in wanted])
            except KeyError:  # rows of JSON Lines may differ
                where = f"{self.source}:{line}"
                found = tuple(values[resolve_one(column, values, where)] for column in wanted)
            yield Row(line, values, found)


def text_of(value: Any, where: str) -> str:
    """Give a value of a text column as a text: a string, or a number as it is written.

    `where` is the row and its column, for the error message.

    Raises
    ------
    UserError
        Null or NaN, or anything else that is neither.
    """
    if value is None or value != value:  # NaN is how pandas writes a null
        raise UserError(f"{where} has no text; remove the row or write an empty text")
    if not isinstance(value, (str, numbers.Number)):
        raise UserError(f"{where} is a {type(value).__name__}, not a text; name a column of texts")
    return str(value)


class NoRows(UserError):
    """A file is sound, but empty."""


def no_rows(source: str | Path) -> NoRows:
    """A file without rows."""
    return NoRows(f"{source}: the file has no rows; give it at least one (after the header, if any)")


def unreadable(path: Path, error: Exception, advice: str) -> UserError:
    """A file that cannot be read, and why."""
    return UserError(f"{path}: cannot be read ({one_line(error)}); {advice}")
