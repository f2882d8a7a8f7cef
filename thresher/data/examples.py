"""Labelled texts, from a file or from a data set of the Hugging Face hub."""

from __future__ import annotations

import numbers
import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from thresher.data.formats import ARROW_ERRORS, SUFFIX
from thresher.data.read import Row, iter_rows, require_columns
from thresher.errors import UserError, one_line

if TYPE_CHECKING:
    import datasets


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
    except ARROW_ERRORS:
        return False
    return True


def _source_rows(source: str, split: str, text: list[str], label: str | None) -> Iterator[Row]:
    """Rows of a file, or of the hub where no file can be meant."""
    wanted = list(dict.fromkeys(text if label is None else [*text, label]))
    name, *parts = source.split(":")
    hub_like = re.fullmatch(r"\w[\w.-]*(/[\w.-]+)?", name) and len(parts) <= 2 and all(parts)
    if Path(source).exists() or SUFFIX.search(source) or not hub_like:
        return iter_rows(source, wanted)
    import datasets

    config, split = (parts[0] if len(parts) == 2 else None), (parts[-1] if parts else split)
    try:
        data = datasets.load_dataset(name, config, split=split)
    except Exception as error:  # of many kinds: offline, not found, no such split, gated, ...
        raise UserError(
            f"{source}: neither a file nor a hub data set that could be loaded "
            f"({type(error).__name__}: {one_line(error)}); check the path, or the name, split and network"
        ) from error
    require_columns(wanted, data.column_names, source)
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
