"""File formats by suffix, and what reading and writing share."""

from __future__ import annotations

import gzip
import re
from pathlib import Path
from typing import Any

import pyarrow as pa

from thresher.errors import UserError

SUFFIX = re.compile(r"\.((?P<text>tsv|csv|jsonl|ndjson)(?P<gz>\.gz)?|parquet)$", re.IGNORECASE)
SUFFIXES = ".tsv, .csv, .jsonl (or .ndjson), each also with .gz, and .parquet"
ARROW_ERRORS = (pa.ArrowException, OverflowError)  # what a value that fits no Arrow type raises


def format_of(path: Path) -> tuple[str, bool]:
    """The format a path's suffix stands for, and whether it is gzipped."""
    if not (found := SUFFIX.search(path.name)):
        raise UserError(f"{path}: unknown file type; name it with one of the suffixes {SUFFIXES}")
    kind = (found["text"] or "parquet").lower()
    return {"ndjson": "jsonl"}.get(kind, kind), found["gz"] is not None


def open_file(path: Path, packed: bool, mode: str, **options: Any) -> Any:
    """Open a file, through gzip if it is `packed`."""
    return gzip.open(path, mode, **options) if packed else open(path, mode, **options)


def one_line(error: Exception) -> str:
    """What an exception says, without line ends."""
    return " ".join((getattr(error, "strerror", None) or str(error) or type(error).__name__).split())
