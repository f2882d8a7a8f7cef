"""Which column a given name means."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches

from thresher.errors import UserError


def resolve(names: Sequence[str], present: Iterable[str], where: str) -> list[str]:
    """Find the columns that names given by a user mean.

    Parameters
    ----------
    names : sequence of str
        Each is a column, or several with commas between. A column as it stands comes before one that
        differs in outer space alone, and a whole name before its parts: ``Title, body`` means the column
        of that name where there is one.
    present : iterable of str
        The columns that there are.
    where : str
        The file or data set, for the error message.

    Returns
    -------
    list of str
        Columns, each as it stands in `present`, in the order of `names`.

    Raises
    ------
    UserError
        A name that means no column, or more than one.
    """
    present = list(present)
    return [column for name in names for column in _columns(name, present, where)]


def resolve_one(name: str, present: Iterable[str], where: str) -> str:
    """Find the one column that a name means; commas in it are part of the name."""
    present = list(present)
    if (column := _find(name, present, where)) is None:
        raise _absent(name, present, where)
    return column


def resolvable(names: Sequence[str], present: Iterable[str]) -> bool:
    """Whether `resolve` would find all of `names`."""
    try:
        resolve(names, present, "")
    except UserError:
        return False
    return True


def one_or_two(columns: list[str]) -> list[str]:
    """Refuse another number of text columns than a model takes."""
    if len(columns) not in (1, 2):
        found = f"not {len(columns)}" + (f" ({', '.join(columns)})" if columns else "")
        raise UserError(f"one text column or two are needed, {found}; name one, or the two of a pair")
    return columns


def unique(names: Sequence[str]) -> list[str]:
    """Give a name of its own to each column that has none, or that of a column before it."""
    found: list[str] = []
    for place, name in enumerate(names, 1):
        new, count = name or f"column {place}", 1
        while new in found or (new != name and new in names):
            count += 1
            new = f"{name.strip() or f'column {place}'} ({count})"
        found.append(new)
    return found


def _columns(name: str, present: list[str], where: str) -> list[str]:
    if (column := _find(name, present, where)) is not None:
        return [column]
    parts = [part.strip() for part in name.split(",") if part.strip()]
    found = [_find(part, present, where) for part in parts]
    if all(column is None for column in found):  # as of a misspelt name with a comma inside
        raise _absent(name, present, where)
    return [
        resolve_one(part, present, where) if column is None else column
        for part, column in zip(parts, found, strict=True)
    ]


def _find(name: str, present: list[str], where: str) -> str | None:
    exact = [column for column in present if column == name]
    alike = exact or [column for column in present if column.strip() == name.strip()]
    if not alike or not name.strip():
        return None
    if len(alike) > 1 and len(set(alike)) == 1:
        raise UserError(f"{where}: two columns are named {alike[0]!r}; rename one of them")
    if len(alike) > 1:
        both = " and ".join(map(repr, alike))
        raise UserError(f"{where}: {name!r} may mean {both}; write the name with its spaces, or rename one")
    return alike[0]


def _absent(name: str, present: list[str], where: str) -> UserError:
    named = [column for column in dict.fromkeys(present) if column.strip()]
    near = [column for column in named if column.strip().casefold() == name.strip().casefold()]
    near = near or get_close_matches(name, named, n=1, cutoff=0.75)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    return UserError(f"{where}: no column {name!r}; choose from: {', '.join(named)}{hint}")
