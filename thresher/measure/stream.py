"""Predictions for a file of any size, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np

from thresher.data import Row, RowWriter, iter_rows, resolve, text_of
from thresher.data.formats import same_file
from thresher.data.names import one_or_two
from thresher.data.read import open_table
from thresher.engines import check_engine
from thresher.errors import UserError
from thresher.measure.evaluate import make_ready, open_model, text_columns, warn_if_other_number
from thresher.measure.predict import predict, warn_if_bare
from thresher.measure.progress import Stages, silent
from thresher.tasks import Task

CHUNK = 2048  # rows read, sorted by length, run and written at a time

WithTexts = tuple[Row, list[str]]


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
    stage: Stages = silent,
) -> int:
    """Write every row of `source` with its prediction to `output`, in the same order.

    Parameters
    ----------
    folder : str
        A saved pruned model.
    source, output : Path
        Any of the file formats; they may differ.
    text : list of str
        Names of the text columns, found by `resolve`; empty for those the model was trained on.
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
    stage : Stages
        Told what begins, and the rows done.

    Returns
    -------
    int
        Rows written.

    Raises
    ------
    UserError
        Of the input, before anything is written, or after the rows before the fault are. Of the output.
    """
    if output.is_dir():
        raise UserError(f"{output} is a folder; name a file in it.")
    if output.exists() and not (force or resume):
        raise UserError(
            f"{output} exists already. Use --force to write over it, or --resume to go on behind its end."
        )
    if output.exists() and same_file(str(output), str(source)):
        raise UserError(f"{output} is the input as well; name another output file.")
    check_engine(engine, precision)
    stage("loading the model")
    model, encoder, task = open_model(folder, max_length, budget)
    stage("reading texts")
    table = open_table(source, names := text_columns(model, text))
    columns = one_or_two(resolve(names, table.columns, table.where))
    warn_if_other_number(model, columns)
    rows = _with_texts(table.rows(columns, others=True), columns, source)
    rows = chain([next(rows)], rows)  # a fault in the first row shows before the output is touched
    advance = stage("rows")
    written = 0
    done: Iterator[Row] = iter(())
    before = output.with_name("before-" + output.name)  # rows of an interrupted run, until they are copied
    if resume and (output.exists() or before.exists()):
        if not before.exists():
            output.replace(before)
        if before.stat().st_size:
            done = iter_rows(before)
    with RowWriter(output) as writer:
        for row in _but_last(done):
            writer.write(row.values)
            written += 1
        before.unlink(missing_ok=True)
        for chunk in _chunks(islice(rows, written, None), f"The rows before it are in {output}"):
            encoded = encoder.encode(*zip(*(texts for _, texts in chunk), strict=True))
            if model.precision is None:
                make_ready(model, encoder, encoded, precision, engine)
            found = predict(model, encoder, encoded)
            if not written:
                warn_if_bare(model, found)
            for (row, _), logits in zip(chunk, found.logits, strict=True):
                writer.write(row.values | _columns(task, logits))
            written += len(chunk)
            advance(len(chunk))
    encoder.warn(encoder.truncated, encoder.seen)
    return written


def _with_texts(rows: Iterator[Row], columns: list[str], source: Path) -> Iterator[WithTexts]:
    """Rows with their texts, where they have no column that predictions would write over."""
    for row in rows:
        where = f"{source}:{row.line}"
        if taken := sorted({"prediction", "score"} & row.values.keys()):
            raise UserError(
                f"{where} has a column '{taken[0]}' already, which predict would write; rename it."
            )
        named = zip(columns, row.wanted, strict=True)
        yield row, [text_of(value, f"{where}: column {column!r}") for column, value in named]


def _chunks(rows: Iterator[WithTexts], kept: str) -> Iterator[list[WithTexts]]:
    """Rows, `CHUNK` at a time; those before a fault come before the error of it."""
    fault: UserError | None = None
    while fault is None:
        chunk: list[WithTexts] = []
        try:
            chunk.extend(islice(rows, CHUNK))
        except UserError as error:
            fault = error
        if chunk:
            yield chunk
        elif fault is None:
            return
    raise UserError(
        f"{str(fault).rstrip('.')}. {kept}; mend the file, and --resume goes on after them."
    ) from fault


def _but_last(rows: Iterator[Row]) -> Iterator[Row]:
    """Rows of an interrupted run, without the last one: it may be torn, in ways that show or do not."""
    try:
        for row, _ in pairwise(rows):
            yield row
    except UserError:
        return


def _columns(task: Task, logits: np.ndarray) -> dict[str, Any]:
    """One text's outputs ``[labels]`` as columns: ``prediction``, and ``score`` for classes, of multi-label
    tasks every label's (of a single one, the number itself)."""
    if task.kind == "multi-label":
        logits = logits.astype(np.float64)
        sure = np.exp(-np.logaddexp(0, -logits)).tolist()
        names = [name for name, logit in zip(task.names, logits, strict=True) if logit > 0]
        return {
            "prediction": names,
            "score": dict(zip(task.names, sure, strict=True)) if sure[1:] else sure[0],
        }
    ((name, value),) = task.answer(logits).items()
    return {"prediction": value} if task.kind == "regression" else {"prediction": name, "score": value}
