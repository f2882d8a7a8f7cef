"""Labelled texts, from a file or from a data set of the Hugging Face hub."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from thresher.data.formats import ARROW_ERRORS
from thresher.data.hub import open_source
from thresher.data.names import one_or_two, resolve
from thresher.data.table import text_of
from thresher.errors import UserError

if TYPE_CHECKING:
    import datasets


def load_examples(
    source: str,
    text: Sequence[str],
    label: str | None = None,
    split: str = "train",
    *,
    blank_labels: bool = False,
) -> datasets.Dataset:
    """Load texts, and labels if asked, from a file or from a data set of the Hugging Face hub.

    Parameters
    ----------
    source : str
        Path of a file, or `name`, `name:split` or `name:config:split` of a hub data set (`name` may
        have an owner: `owner/name`).
    text : sequence of str
        The one text column, or the two columns of a pair of texts, each found by `resolve`.
    label : str, optional
        The label column, found likewise.
    split : str
        Split of a hub data set, where `source` names none.
    blank_labels : bool
        Take an empty label, which means none of the classes in multi-label data.

    Returns
    -------
    datasets.Dataset
        Columns `text`, `text_pair` (with two text columns), `label` (if asked; as it stands in the
        source, a blank one as "", class ids of the hub as their names) and `line` (1-based line or row
        number). Texts that are lists of words are in a column `words` instead.

    Raises
    ------
    UserError
        What `iter_rows` raises; a number of text columns other than one or two; a null text or a
        missing label; labels of different types; a data set that cannot be loaded.
    """
    import datasets  # slow to import

    names = [text] if isinstance(text, str) else list(text)
    labels_in = [] if label is None else [label]
    table = open_source(str(source), split, [*names, *labels_in])
    names = one_or_two(resolve(names, table.columns, table.where))
    labels_in = resolve(labels_in, table.columns, table.where)
    if label is not None and len(labels_in) != 1:
        raise UserError(f"{source}: {label!r} names {len(labels_in)} columns; name the one of labels")
    columns: dict[str, list[Any]] = {}
    for row in table.rows([*names, *labels_in], others=False):
        where = f"{source}:{row.line}"
        if not columns:
            in_words = isinstance(row.wanted[0], (list, tuple))
            columns = {column: [] for column in texts_of(in_words, len(names), where)}
            columns |= {"line": []} if label is None else {"label": [], "line": []}
        columns["line"].append(row.line)
        read = words_of if in_words else text_of
        for column, name, value in zip(columns, names, row.wanted, strict=False):
            columns[column].append(read(value, f"{where}: column {name!r}"))
        if label is not None:
            columns["label"].append(_label(row.wanted[-1], f"{where}: column {labels_in[0]!r}", blank_labels))
    labels = columns.get("label", [])
    if not _one_type(labels):
        odd = bisect_left(range(len(labels)), True, key=lambda i: not _one_type(labels[: i + 1]))
        raise UserError(
            f"{source}:{columns['line'][odd]}: column {label!r} holds {labels[odd]!r}, of another type than "
            "the labels before it; write all in one type"
        )
    return datasets.Dataset.from_dict(columns)


def texts_of(in_words: bool, texts: int, where: str) -> tuple[str, ...]:
    """Names of the columns of texts."""
    if not in_words:
        return ("text", "text_pair")[:texts]
    if texts > 1:
        raise UserError(f"{where}: a text in words stands alone; name one column of words")
    return ("words",)


def words_of(value: Any, where: str) -> list[str]:
    """Give a value of a text column as words.

    Raises
    ------
    UserError
        Anything but a list of strings or numbers.
    """
    if not isinstance(value, (list, tuple)):
        raise UserError(f"{where} is {value!r:.60}, but the texts before it are lists of words; write a list")
    return [text_of(word, where) for word in value]


def _label(value: Any, where: str, blank_labels: bool) -> Any:
    blank = isinstance(value, str) and not value.strip()
    if blank and blank_labels:
        return ""
    if blank or value is None or value != value:
        advice = (
            "write [] or an empty cell for none of the classes, or remove the row"
            if blank_labels
            else "remove the row or label it; if an empty cell means none of the classes, fine-tune with "
            "`kind` multi-label"
            if blank
            else "remove the row or label it"
        )
        raise UserError(f"{where} has no label; {advice}")
    return value


def _one_type(values: list[Any]) -> bool:
    try:
        pa.array(values)
    except ARROW_ERRORS:
        return False
    return True
