"""Predictions for a file of any size, in bounded memory."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from thresher.data import Row, RowWriter, resolve, text_of, words_of
from thresher.data.formats import format_of, is_stream, same_file
from thresher.data.names import one_or_two
from thresher.data.read import open_table
from thresher.engines import AUTO, check_engine, chosen
from thresher.errors import UserError, one_line
from thresher.files.atomic import partial_of
from thresher.files.lock import sole_writer
from thresher.folders.fingerprint import fingerprint
from thresher.inference.journal import Answers, Journal, Unkept, journal_of
from thresher.inference.load import make_ready, open_model, text_columns, warn_if_other_number
from thresher.inference.predict import NotFinite, check_finite, predict, warn_if_bare
from thresher.inference.progress import Stages, silent
from thresher.inputs.context import at_lines
from thresher.inputs.rows import whole_texts
from thresher.inputs.text import TextEncoder
from thresher.model import PrunedModel
from thresher.tasks import Task
from thresher.version import __version__

CHUNK = 2048  # rows read, sorted by length, run and written at a time, at most
CHARACTERS = 1 << 22  # of such rows, after which no further one is added

WithTexts = tuple[Row, list[Any]]  # each a text, or its words


class Fault(UserError):
    """A row of the input is broken; those before it are answered."""


@dataclass
class Chunk:
    """Rows that are answered together. Where a chunk ends depends on the rows alone, so that a resumed run
    has the same batches, and rounds the same, as the run left alone.

    Attributes
    ----------
    rows : list of Row
    texts : list of lists
        Of each row, one text or two, or the words of one.
    whole : bool
        False where a fault in the input ended it.
    digest : str
        What the rows hold.
    """

    rows: list[Row] = field(default_factory=list)
    texts: list[list[Any]] = field(default_factory=list)
    whole: bool = True
    digest: str = ""


def predict_file(
    folder: str,
    source: Path,
    output: Path,
    text: list[str],
    *,
    precision: str = "fp32",
    engine: str = AUTO,
    max_length: int | None = None,
    budget: float | None = None,
    force: bool = False,
    resume: bool = False,
    stage: Stages = silent,
) -> int:
    """Write every row of `source` with its prediction to `output`, in the same order.

    Answers are kept in a hidden file beside the output, chunk by chunk; the output itself appears when it is
    whole, or when a fault in the input ends the run. Equal runs write equal bytes, interrupted or not.

    Parameters
    ----------
    folder : str
        A saved pruned model.
    source, output : Path
        Any of the file formats. A pipe, or ``-`` for the standard output, is written as rows are answered:
        without a suffix in the format of `source`, and in JSON Lines for Parquet and JSON.
    text : list of str
        Names of the text columns, found by `resolve`; empty for those the model was trained on.
    precision, engine : str
        As of `PrunedModel.for_inference`.
    max_length, budget : optional
        As of `open_model`.
    force, resume : bool
        Write over an existing output; or go on after the rows that an interrupted run of the same model,
        settings and input has answered.
    stage : Stages
        Told what begins, and the rows done.

    Returns
    -------
    int, of the rows written

    Raises
    ------
    UserError
        Of the input, before anything is written, or after the rows before the fault are. Of the output.
        If the run to be resumed had another model, settings or input.
    NotFinite
        At the end, if some answers are no finite numbers: their rows have no prediction.
    BrokenPipeError
        If the output is a pipe that nobody reads any longer.
    """
    streams = is_stream(output)
    _check_output(output, source, streams and resume)
    check_engine(engine, precision)
    kind = format_of(source)[0]
    writer = RowWriter(output, like=f"rows.{'jsonl' if kind in ('json', 'parquet') else kind}")
    with ExitStack() as ends:
        if not streams:
            ends.enter_context(sole_writer(output))
        journal = ends.enter_context(
            closing(Unkept() if streams else Journal(output, force=force, resume=resume))
        )
        stage("loading the model")
        model, encoder, task = open_model(folder, max_length, budget)
        stage("reading texts")
        columns, rows = _rows(source, model, text, task)
        chunks = _chunks(rows, output)
        journal.begin(lambda: _run(model, encoder, columns, precision, engine))
        if isinstance(journal, Journal) and journal.finished:
            stage("comparing the input with that of the finished run")
            journal.compare(chunk.digest for chunk in chunks)
        else:
            answerer = Answerer(model, encoder, task, precision, engine, str(source))
            with writer, _discarded(writer):
                _write(chunks, journal, writer, answerer, stage("rows"))
            journal.finish()
            encoder.warn(encoder.truncated, encoder.seen)
    _check_missing(journal, output)
    return journal.rows


def _check_missing(journal: Unkept, output: Path) -> None:
    if journal.missing:
        raise NotFinite(
            f"{journal.missing} of {journal.rows} rows have no prediction, because the model's answers to "
            f"them are no finite numbers. All rows are in {output}. Try another precision, such as fp32."
        )


def _rows(
    source: Path, model: PrunedModel, text: list[str], task: Task
) -> tuple[list[str], Iterator[WithTexts]]:
    """The text columns, and all rows. A fault in the first row shows at once."""
    table = open_table(source, names := text_columns(model, text))
    columns = one_or_two(resolve(names, table.columns, table.where))
    warn_if_other_number(model, columns)
    read, written = words_of if task.by_word else text_of, set(task.written)
    rows = _with_texts(table.rows(columns, others=True), columns, source, read, written)
    return columns, chain([next(rows)], rows)


@contextmanager
def _discarded(writer: RowWriter) -> Iterator[None]:
    """Show nothing of an output that is not whole, unless a fault in the input ended it."""
    try:
        yield
    except BaseException as error:
        if not isinstance(error, Fault):
            writer.discard()
        raise


def _check_output(output: Path, source: Path, resumes_stream: bool) -> None:
    if output.is_dir():
        raise UserError(f"{output} is a folder; name a file in it.")
    try:
        place = output.resolve()
    except (OSError, RuntimeError) as error:  # links in a circle
        raise UserError(f"{output} leads nowhere ({one_line(error)}); name another output file.") from error
    same = place.exists() and same_file(str(place), str(source))
    if same or source.resolve() in (partial_of(place), journal_of(place)):
        raise UserError(f"{output} is the input as well, or would remove it; name another output file.")
    if resumes_stream:
        raise UserError(f"{output} is no file, so that nobody can go on with it: leave out `resume`.")


def _run(
    model: PrunedModel, encoder: TextEncoder, columns: list[str], precision: str, engine: str
) -> dict[str, Any]:
    """What a resumed run must have in common with the interrupted one."""
    return {
        "version": __version__,
        "model": fingerprint(model, encoder.tokenizer, model.pruning.to_dict()),
        "budget": model.budgets[model.plan().rung] if model.budgets else None,
        "precision": precision,
        "engine": chosen(engine),
        "max_length": encoder.max_length,
        "text": columns,
        "chunk": [CHUNK, CHARACTERS],
    }


def _write(
    chunks: Iterator[Chunk],
    journal: Unkept,
    writer: RowWriter,
    answerer: Answerer,
    advance: Callable[[int], None],
) -> None:
    """Write rows with their answers, those of an interrupted run first."""
    for chunk in chunks:
        answerer.meet(chunk)
        if (answers := journal.answers(chunk.digest, len(chunk.rows))) is None:
            answers = answerer(chunk)
            if chunk.whole:
                journal.add(chunk.digest, answers)
        for row, found in zip(chunk.rows, answers, strict=True):
            writer.write(row.values | found)
        writer.flush()
        journal.count(chunk.digest, answers)
        advance(len(answers))
    journal.end()


class Answerer:
    """Runs a model on chunks of texts.

    Parameters
    ----------
    model, encoder, task
        As `open_model` gives them.
    precision, engine : str
        As of `PrunedModel.for_inference`.
    source : str
        Where the texts are from, for messages.
    """

    def __init__(
        self,
        model: PrunedModel,
        encoder: TextEncoder,
        task: Task,
        precision: str,
        engine: str,
        source: str = "",
    ):
        self.model, self.encoder, self.task = model, encoder, task
        self.precision, self.engine, self.source = precision, engine, source
        self._first: Chunk | None = None

    def meet(self, chunk: Chunk) -> None:
        """Be shown a chunk, answered before or not: the first one is what engines take their scales from."""
        self._first = self._first or chunk

    def __call__(self, chunk: Chunk) -> Answers:
        encoded = self._encoded(chunk)
        first = self.model.precision is None
        if first:
            assert self._first is not None
            with self.encoder.uncounted():
                shown = encoded if self._first is chunk else self._encoded(self._first)
            make_ready(self.model, self.encoder, shown, self.precision, self.engine)
            self._first = chunk
        found = predict(self.model, self.encoder, encoded, finite=False)
        if first:
            warn_if_bare(self.model, found)
            if not any(np.isfinite(some).any() for some in found.logits):
                check_finite(self.model, found.logits)
        both = zip(whole_texts(found.logits, encoded), chunk.texts, strict=True)
        return [self.task.columns(logits, texts) for logits, texts in both]

    def _encoded(self, chunk: Chunk) -> dict[str, list[list[int]]]:
        if self.task.by_word:
            return self.encoder.encode_words([words for (words,) in chunk.texts])
        with at_lines(self.source, [row.line for row in chunk.rows]):
            return self.encoder.encode(*zip(*chunk.texts, strict=True))


def _with_texts(
    rows: Iterator[Row],
    columns: list[str],
    source: Path,
    read: Callable[[Any, str], Any],
    written: set[str],
) -> Iterator[WithTexts]:
    """Rows with their texts, where they have no column that predictions would write over."""
    for row in rows:
        where = f"{source}:{row.line}"
        if taken := sorted(written & row.values.keys()):
            raise UserError(
                f"{where} has a column '{taken[0]}' already, which predict would write; rename it."
            )
        named = zip(columns, row.wanted, strict=True)
        yield row, [read(value, f"{where}: column {column!r}") for column, value in named]


def _chunks(rows: Iterator[WithTexts], output: Path) -> Iterator[Chunk]:
    """Rows, so many at a time; those before a fault come before the error of it."""
    fault: UserError | None = None
    while fault is None:
        chunk, digest, characters = Chunk(), hashlib.sha256(), 0
        try:
            for row, texts in rows:
                chunk.rows.append(row)
                chunk.texts.append(texts)
                held = repr(row.values)
                digest.update(held.encode("utf-8", "surrogatepass"))
                characters += len(held)
                if len(chunk.rows) == CHUNK or characters >= CHARACTERS:
                    break
        except UserError as error:
            fault, chunk.whole = error, False
        chunk.digest = digest.hexdigest()
        if chunk.rows:
            yield chunk
        elif fault is None:
            return
    advice = "Mend the file"
    if not is_stream(output):
        advice = f"The rows before it are in {output}; mend the file, and set `resume` to go on after them"
    raise Fault(f"{str(fault).rstrip('.')}. {advice}.") from fault
