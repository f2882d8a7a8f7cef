"""File formats by suffix, and what reading and writing share."""

from __future__ import annotations

import gzip
import os
import re
from pathlib import Path
from typing import Any

import pyarrow as pa

from thresher.errors import UserError
from thresher.files.atomic import is_device

SUFFIX = re.compile(
    r"\.((?P<text>tsv|csv|jsonl|ndjson|json|conll|iob2?|bio)(?P<gz>\.gz)?|parquet)$", re.IGNORECASE
)
SUFFIXES = (
    ".tsv, .csv, .jsonl (or .ndjson), .json (SQuAD's), .conll (or .iob, .bio), each also with .gz, "
    "and .parquet"
)
OTHER_NAMES = {"ndjson": "jsonl", "iob": "conll", "iob2": "conll", "bio": "conll"}
STANDARD_OUTPUT = ("/dev/stdout", "/dev/fd/1", "/proc/self/fd/1")
ARROW_ERRORS = (pa.ArrowException, OverflowError)  # what a value that fits no Arrow type raises


def format_of(path: Path) -> tuple[str, bool]:
    """The format a path's suffix stands for, and whether it is gzipped."""
    if not (found := SUFFIX.search(path.name)):
        raise UserError(f"{path}: unknown file type; name it with one of the suffixes {SUFFIXES}")
    kind = (found["text"] or "parquet").lower()
    return OTHER_NAMES.get(kind, kind), found["gz"] is not None


def open_file(path: Path, packed: bool, mode: str, **options: Any) -> Any:
    """Open a file, through gzip if it is `packed`."""
    return gzip.open(path, mode, **options) if packed else open(path, mode, **options)


def is_stream(path: Path) -> bool:
    """Whether a path to write to is none of a file: a pipe, a device, or ``-``, the standard output."""
    return is_standard_output(path) or is_device(path)


def is_standard_output(path: Path) -> bool:
    """Whether a path means the standard output. Opened by name, it would have a place of its own in a file,
    and what else is printed would be written over it."""
    return str(path) == "-" or os.path.abspath(path) in STANDARD_OUTPUT


def same_file(one: str, other: str) -> bool:
    """Whether two names of data are one, however they are written."""
    paths = Path(one), Path(other)
    return one == other or (all(path.exists() for path in paths) and paths[0].samefile(paths[1]))
