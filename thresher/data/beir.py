"""Folders in the layout of BEIR: documents, queries, and judgements of which documents answer a query."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thresher.data.names import resolve
from thresher.data.read import open_table
from thresher.data.table import Row, text_of
from thresher.errors import UserError

CORPUS, QUERIES, QRELS = "corpus.jsonl", "queries.jsonl", "qrels"
JUDGEMENT = ("query-id", "corpus-id", "score")  # columns of a file of judgements
OTHER_NAMES = {"train": ("train",), "validation": ("dev", "validation"), "test": ("test", "dev")}
"""The splits that stand for a default split, the first that there is."""


@dataclass(frozen=True)
class Collection:
    """What a folder holds, of one split.

    Attributes
    ----------
    documents : dict of str to str
        Title and text by id, in the order of the file.
    queries : dict of str to str
        Texts of the queries that are judged in the split, by id, in the order of their first judgement.
    judged : dict of str to dict of str to float
        By query the grades of documents; a grade above 0 means that the document is relevant.
    lines : dict of str to int
        Line of the first judgement of each query.
    file : Path
        The file of judgements.
    """

    documents: dict[str, str]
    queries: dict[str, str]
    judged: dict[str, dict[str, float]]
    lines: dict[str, int]
    file: Path


def is_collection(source: str | None) -> bool:
    """Whether a source of data is such a folder, or ``FOLDER:SPLIT``: any of its files is enough."""
    if source is None or (parted := _parted(source)) is None:
        return False
    folder = parted[0]
    return (folder / QRELS).is_dir() or any(_file(folder, name) is not None for name in (CORPUS, QUERIES))


def judgements_of(source: str, split: str) -> Path:
    """The file of judgements that a source means.

    Parameters
    ----------
    source : str
        ``FOLDER``, or ``FOLDER:SPLIT``.
    split : str
        Default split: "train", "validation" (which may be called dev) or "test" (in place of which dev will
        do).

    Raises
    ------
    UserError
        If there is no such split; the message names those that there are.
    """
    parted = _parted(source)
    assert parted is not None
    folder, named = parted
    for name in (named,) if named else OTHER_NAMES[split]:
        if (file := _file(folder / QRELS, f"{name}.tsv")) is not None:
            return file
    there = sorted({entry.name.split(".tsv")[0] for entry in (folder / QRELS).glob("*.tsv*")})
    if not there:
        raise UserError(f"{folder}: {QRELS} holds no file of judgements; add {QRELS}/test.tsv, for instance")
    raise UserError(
        f"{source}: there is no {QRELS}/{named or split}.tsv; name one of the splits {', '.join(there)}, as "
        f"{folder}:{there[0]}"
    )


def open_collection(source: str, split: str) -> Collection:
    """Read a folder: ``corpus.jsonl`` (``_id``, ``title``, ``text``), ``queries.jsonl`` (``_id``, ``text``),
    each also with ``.gz``, and ``qrels/SPLIT.tsv`` (query-id, corpus-id, score). Parameters as of
    `judgements_of`.

    Raises
    ------
    UserError
        With file and line: an id that two rows have, a judgement of a query or document that is not there, a
        score that is no number. If a file or the split is missing, or nothing is relevant to any query.
    """
    file = judgements_of(source, split)
    folder = file.parent.parent
    documents = dict(_texts(folder, CORPUS, "document"))
    queries = dict(_texts(folder, QUERIES, "query"))
    judged: dict[str, dict[str, float]] = {}
    lines: dict[str, int] = {}
    table = open_table(file, JUDGEMENT)
    for row in table.rows(resolve(JUDGEMENT, table.columns, table.where), others=False):
        where = f"{file}:{row.line}"
        query, document, grade = _judgement(row, where)
        for key, known, name in ((query, queries, QUERIES), (document, documents, CORPUS)):
            if key not in known:
                raise UserError(f"{where}: {key!r} is not in {name}; add it there, or remove the line")
        if judged.setdefault(query, {}).setdefault(document, grade) != grade:
            raise UserError(f"{where}: {document!r} is judged twice for {query!r}, and not alike; keep one")
        lines.setdefault(query, row.line)
    if not any(grade > 0 for grades in judged.values() for grade in grades.values()):
        raise UserError(f"{file}: no document is relevant to any query; give some a score above 0")
    return Collection(documents, {key: queries[key] for key in judged}, judged, lines, file)


def same_texts(one: str, split: str, other: str, other_split: str) -> bool:
    """Whether two sources that are such folders mean the same judgements."""
    return judgements_of(one, split).samefile(judgements_of(other, other_split))


def _parted(source: str) -> tuple[Path, str] | None:
    """Folder and split, which may be empty; None where no folder is meant."""
    if Path(source).is_dir():
        return Path(source), ""
    folder, _, split = str(source).rpartition(":")
    return (Path(folder), split) if folder and Path(folder).is_dir() else None


def _file(folder: Path, name: str) -> Path | None:
    return next((file for file in (folder / name, folder / f"{name}.gz") if file.is_file()), None)


def _texts(folder: Path, name: str, what: str) -> Iterator[tuple[str, str]]:
    """Ids and texts, a title before the text."""
    if (file := _file(folder, name)) is None:
        raise UserError(
            f"{folder}: there is no {name} (nor {name}.gz), which a folder of documents and queries needs"
        )
    seen: dict[str, int] = {}
    for row in open_table(file, ["_id", "text"]).rows(["_id", "text"], others=True):
        where = f"{file}:{row.line}"
        key = _id(row.wanted[0], f"{where}: column '_id'")
        if (line := seen.setdefault(key, row.line)) != row.line:
            raise UserError(f"{where}: the {what} of line {line} has the _id {key!r}, too; give it another")
        text = text_of(row.wanted[1], f"{where}: column 'text'")
        title = row.values.get("title")
        title = "" if title is None else text_of(title, f"{where}: column 'title'")
        yield key, f"{title} {text}".strip()


def _id(value: Any, where: str) -> str:
    key = text_of(value, where).strip()
    if not key:
        raise UserError(f"{where} is empty; give the row an id")
    return key


def _judgement(row: Row, where: str) -> tuple[str, str, float]:
    keys = zip(row.wanted[:2], JUDGEMENT[:2], strict=True)
    query, document = (_id(value, f"{where}: {name}") for value, name in keys)
    try:
        grade = float(row.wanted[2])
    except (TypeError, ValueError):
        grade = math.nan
    if not math.isfinite(grade):
        raise UserError(f"{where}: the score is {row.wanted[2]!r:.100}; write a number, 0 for not relevant")
    return query, document, grade
