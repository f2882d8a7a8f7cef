"""Tables of files, and of data sets of the Hugging Face hub."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from thresher.data.beir import is_collection
from thresher.data.formats import SUFFIX
from thresher.data.read import open_table
from thresher.data.table import Table
from thresher.errors import UserError, one_line


def open_source(source: str, split: str, names: Sequence[str] = ()) -> Table:
    """Open a file, or a data set of the hub where no file can be meant; `names` are as of `open_table`."""
    if is_collection(source):
        raise UserError(
            f"{source}: is a folder of documents and queries, which rerankers and embedders take; give a "
            "file, or set `kind` to ranking"
        )
    name, *parts = source.split(":")
    hub_like = re.fullmatch(r"\w[\w.-]*(/[\w.-]+)?", name) and len(parts) <= 2 and all(parts)
    if Path(source).exists() or SUFFIX.search(source) or not hub_like:
        return open_table(source, names)
    import datasets  # slow to import

    from thresher.files.hub import refusal

    cached = Path(datasets.config.HF_DATASETS_CACHE) / name.replace("/", "___")
    if not cached.exists() and (why := refusal(name, "dataset")) is not None:
        raise UserError(
            f"{source}: no such file, and the Hugging Face hub cannot be asked for a data set of that name "
            f"({why}); check the path, or the network"
        )
    config, split = (parts[0] if len(parts) == 2 else None), (parts[-1] if parts else split)
    try:
        data = datasets.load_dataset(name, config, split=split)
    except Exception as error:  # of many kinds: offline, not found, no such split, gated, ...
        raise UserError(
            f"{source}: neither a file nor a hub data set that could be loaded "
            f"({type(error).__name__}: {one_line(error)}); check the path, or the name, split and network"
        ) from error

    def read(wanted: Sequence[str], others: bool) -> Iterator[tuple[int, dict[str, Any]]]:
        for number, values in enumerate(data if others else data.select_columns(list(wanted)), 1):
            yield number, {column: _named(value, data.features[column]) for column, value in values.items()}

    return Table(source, data.column_names, read)


def _named(value: Any, feature: Any) -> Any:
    """A value with class ids as their names; -1 marks a hidden label."""
    if isinstance(value, list):
        return [_named(item, getattr(feature, "feature", None)) for item in value]
    names = getattr(feature, "names", None)
    if names is None:
        return value
    return None if value is None or value < 0 else names[value]
