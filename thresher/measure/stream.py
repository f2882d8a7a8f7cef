"""Predictions for a file of any size, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np

from thresher.data import Row, RowWriter, iter_rows
from thresher.data.formats import same_file
from thresher.engines import check_engine
from thresher.errors import UserError
from thresher.measure.evaluate import make_ready, open_model, text_columns
from thresher.measure.predict import predict, warn_if_bare
from thresher.tasks import Task

CHUNK = 2048  # rows read, sorted by length, run and written at a time


def predict_file(
    folder: str,
    source: Path,
    output: Path,
    text: list[str],
    *,
    precision: str = "fp32",
    engine: str = "torch",
    max_length: int | None = None,
    budget: float | None = None,
    force: bool = False,
    resume: bool = False,
    advance: Callable[[int], None] | None = None,
) -> int:
    """Write every row of `source` with its prediction to `output`, in the same order.

    Parameters
    ----------
    folder : str
        A saved pruned model.
    source, output : Path
        Any of the file formats; they may differ.
    text : list of str
        Text columns; empty for those the model was trained on.
    precision, engine : str
        As of `PrunedModel.for_inference`.
    max_length : int, optional
        Most tokens of a text. Default: as in training.
    budget : float, optional
        Of a model that holds several, the one to run at. Default: the first.
    force : bool
        Write over an existing output.
    resume : bool
        Keep the rows that an interrupted run wrote to `output`, and go on behind them.

    Returns
    -------
    int
        Rows written.
    """
    if output.exists() and not (force or resume):
        raise UserError(
            f"{output} exists already. Use --force to write over it, or --resume to go on behind its end."
        )
    if output.exists() and same_file(str(output), str(source)):
        raise UserError(f"{output} is the input as well; name another output file.")
    check_engine(engine, precision)
    model, encoder, task = open_model(folder, max_length, budget)
    columns = text_columns(model, text)
    rows = iter_rows(source, columns)
    first = next(iter_rows(source)).values
    if taken := {"prediction", "score"} & set(first):
        raise UserError(
            f"{source} has a column '{taken.pop()}' already, which predict would write; rename it."
        )
    written = 0
    done: Iterator[Row] = iter(())
    before = output.with_name("before-" + output.name)  # rows of an interrupted run, until they are copied
    if resume and (output.exists() or before.exists()):
        if not before.exists():
            output.replace(before)
        done = iter_rows(before)
    with RowWriter(output) as writer:
        for row in _but_last(done):
            writer.write(row.values)
            written += 1
        before.unlink(missing_ok=True)
        rows = islice(rows, written, None)
        while chunk := list(islice(rows, CHUNK)):
            texts = [[_text(row, column, source) for row in chunk] for column in columns]
            encoded = encoder.encode(*texts)
            if model.precision is None:
                make_ready(model, encoder, encoded, precision, engine)
            found = predict(model, encoder, encoded)
            if not written:
                warn_if_bare(model, found)
            for row, logits in zip(chunk, found.logits, strict=True):
                writer.write(row.values | _columns(task, logits))
            written += len(chunk)
            if advance:
                advance(len(chunk))
    encoder.warn(encoder.truncated, encoder.seen)
    return written


def _but_last(rows: Iterator[Row]) -> Iterator[Row]:
    """Rows of an interrupted run, without the last one: it may be torn, in ways that show or do not."""
    try:
        for row, _ in pairwise(rows):
            yield row
    except UserError:
        return


def _columns(task: Task, logits: np.ndarray) -> dict[str, Any]:
    """One text's outputs ``[labels]`` as columns: ``prediction``, and ``score`` for a class."""
    answer = task.answer(logits)
    if task.kind == "multi-label":
        return {"prediction": list(answer)}
    ((name, value),) = answer.items()
    return {"prediction": value} if task.kind == "regression" else {"prediction": name, "score": value}


def _text(row: Row, column: str, source: Path) -> str:
    value = row.values.get(column)
    if value is None:
        raise UserError(f"{source}:{row.line}: column '{column}' has no text.")
    return str(value)
