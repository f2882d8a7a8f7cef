"""Questions on paragraphs, nested as SQuAD has them: one question a row.

A document, an article or a paragraph may be a line of JSON Lines, or all of a JSON file. A row has the
columns id, question, context and answers, the last as data sets of the hub have them,
{"text": [...], "answer_start": [...]}, with empty lists where the question has no answer.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from thresher.data.formats import open_file
from thresher.data.jsonlines import open_jsonl
from thresher.data.sniff import GZIP_ERRORS, Found
from thresher.data.table import Table, no_rows, unreadable
from thresher.errors import UserError, one_line

COLUMNS = ["id", "question", "context", "answers"]
LAYOUT = '{"data": [{"paragraphs": [{"context": "...", "qas": [{"question": "...", "answers": [...]}]}]}]}'
NESTS = ("data", "paragraphs", "context", "qas")  # what holds texts
Rows = Iterator[tuple[int, dict[str, Any]]]


def open_json(found: Found) -> Table:
    """Give the table of a JSON file in SQuAD's layout, whose rows are numbered by question. A file that has
    an object a line is opened as JSON Lines."""
    try:
        with (
            open_file(found.path, found.packed, "rb") as file,
            io.TextIOWrapper(file, found.encoding) as text,
        ):
            document = json.load(text)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":
            return open_questions(open_jsonl(replace(found, kind="jsonl")))
        where = f"{found.path}:{error.lineno}"
        raise UserError(f"{where}: invalid JSON ({one_line(error)}); write or copy the file again") from error
    except (OSError, UnicodeDecodeError, RecursionError, *GZIP_ERRORS) as error:
        raise unreadable(found.path, error, "write or copy the file again") from error
    if not is_nested(document):
        raise UserError(
            f"{found.path}: is JSON, but not in SQuAD's layout, {LAYOUT}; write other rows as JSON Lines"
        )

    def read(wanted: Sequence[str], others: bool) -> Rows:
        rows = _rows(document, str(found.path), "answers" in wanted)
        return iter(enumerate(rows, 1))

    if next(_rows(document, str(found.path), False), None) is None:
        raise no_rows(found.path)
    return Table(str(found.path), COLUMNS, read)


def open_questions(table: Table) -> Table:
    """The table of questions of JSON Lines that hold them nested; other tables stay as they are."""
    first = next(iter(table.read(NESTS, True)), (0, None))[1]
    if not is_nested(first):
        return table

    def read(wanted: Sequence[str], others: bool) -> Rows:
        for line, values in table.read(NESTS, True):
            for row in _rows(values, f"{table.source}:{line}", "answers" in wanted):
                yield line, row

    return Table(table.source, COLUMNS, read, table.where)


def is_nested(value: Any) -> bool:
    """Whether a JSON value is a document, an article or a paragraph with questions."""
    if not isinstance(value, dict):
        return False
    if "context" in value and isinstance(value.get("qas"), list):
        return True
    inner = value.get("data", value.get("paragraphs"))
    return isinstance(inner, list) and bool(inner) and is_nested(inner[0])


def _rows(value: Any, where: str, labelled: bool, place: str = "") -> Iterator[dict[str, Any]]:
    """A row for each question. `place` says where in the nested value they are."""
    if not isinstance(value, dict):
        raise UserError(f"{where}{place}: expected an object, found {value!r:.60}; the layout is {LAYOUT}")
    for name in ("data", "paragraphs"):
        if name in value:
            for number, part in enumerate(_list(value, name, where, place), 1):
                yield from _rows(part, where, labelled, f"{place} {name} {number}")
            return
    if "context" not in value:
        raise UserError(f"{where}{place}: a paragraph has no 'context'; the layout is {LAYOUT}")
    for number, asked in enumerate(_list(value, "qas", where, place), 1):
        here = f"{place} qas {number}"
        if not isinstance(asked, dict) or "question" not in asked:
            raise UserError(f"{where}{here}: there is no 'question'; the layout is {LAYOUT}")
        row = {"id": asked.get("id"), "question": asked["question"], "context": value["context"]}
        yield row | {"answers": _answers(asked, f"{where}{here}") if labelled else _as_is(asked)}


def _list(value: dict[str, Any], name: str, where: str, place: str) -> list[Any]:
    found = value.get(name)
    if not isinstance(found, list):
        raise UserError(f"{where}{place}: {name!r} is no list; the layout is {LAYOUT}")
    return found


def _answers(asked: dict[str, Any], where: str) -> dict[str, list[Any]] | None:
    """The answers to a question in columns; None where nobody has said whether there are any.

    Raises
    ------
    UserError
        If answers are no list of objects with a text and its start, or a question without one has some.
    """
    answers = asked.get("answers")
    impossible = asked.get("is_impossible", asked.get("impossible", False))
    if answers is None and not impossible:
        return None
    answers = answers or []
    if not isinstance(answers, list) or not all(map(_has_start, answers)):
        raise UserError(
            f"{where}: the answers are {answers!r:.100}; write a list of answers, each with its text "
            'and start: [{"text": "...", "answer_start": 0}]'
        )
    if impossible and answers:
        raise UserError(
            f"{where}: the question is marked impossible, but has the answer {answers[0]['text']!r:.60}; "
            "remove the mark, or the answer"
        )
    starts = [answer.get("answer_start", answer.get("start")) for answer in answers]
    return {"text": [answer["text"] for answer in answers], "answer_start": starts}


def _has_start(answer: Any) -> bool:
    return isinstance(answer, dict) and "text" in answer and bool({"answer_start", "start"} & answer.keys())


def _as_is(asked: dict[str, Any]) -> Any:
    """Answers that nobody asked for, in columns where that can be, so that none stops the reading."""
    try:
        return _answers(asked, "")
    except UserError:
        return asked["answers"]
