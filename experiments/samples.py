"""The files that tasks are learned from and measured on: a data set's own, or samples of them."""

from __future__ import annotations

import gzip
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset

from tasks import TASKS, Task, data_folder
from thresher.data import RowWriter, load_examples
from thresher.files.atomic import replacing
from thresher.training import Data

SEEN = 0.8  # of the training texts, where base is to leave some and the task does not say how many


def data(name: str, work: Path) -> Data:
    """The files of a task; samples of larger files are written to `work`."""
    task, folder = TASKS[name], data_folder()
    work.mkdir(parents=True, exist_ok=True)
    if task.queries is not None:
        some = few_queries(folder / task.train, work / name, task.queries)
        return Data(f"{some}:train", task.text, None, None, f"{some}:dev")
    if task.paragraphs:
        train, test = paragraphs(task, folder, work / name)
        return Data(train, task.text, test, task.label)
    train, test = (
        sample(task, folder / file, work / f"{name}-{part}.jsonl", rows, folds)
        for part, file, rows, folds in (
            ("train", task.train, task.train_rows, task.train_folds),
            ("test", task.test, task.test_rows, task.test_folds),
        )
    )
    held_out = None if task.held_out is None else str(folder / task.held_out)
    return Data(train, task.text, test, task.label, held_out)


def parts(name: str, work: Path) -> tuple[str | None, str]:
    """A file of texts to fine-tune on, None where the task's own will do, and one of others."""
    task, folder = TASKS[name], data_folder()
    source, seen = folder / task.train, task.train_rows
    part, unseen = work / f"{name}-seen.jsonl", work / f"{name}-unseen.jsonl"
    if folds := task.train_folds:
        cut = round(SEEN * len(folds))
        return sample(task, source, part, folds=folds[:cut]), sample(task, source, unseen, folds=folds[cut:])
    if task.phrases:  # which go with their sentences, or what is kept apart is half known
        if not unseen.exists():
            examples = load_examples(str(source), task.text, task.label)
            of = sentences(examples["text"][:])
            drawn = np.random.default_rng(0).permutation(np.unique(of))
            known = np.isin(of, drawn[: round(SEEN * len(drawn))])
            for file, rows in ((part, known), (unseen, ~known)):
                write(file, examples.select(np.flatnonzero(rows)), task)
        return str(part), str(unseen)
    if seen is not None:
        return None, sample(task, source, unseen, skip=seen)
    seen = round(SEEN * len(load_examples(str(source), task.text, task.label)))
    return sample(task, source, part, seen), sample(task, source, unseen, skip=seen)


def sentences(texts: list[str]) -> np.ndarray:
    """int [texts]: which of them each is a phrase of, words in a row. It is the longest's, or the first's."""
    found: dict[int, int] = {}  # spans of words, by their hashes, to the sentence
    of = np.zeros(len(texts), dtype=int)
    for index in sorted(range(len(texts)), key=lambda index: -len(texts[index].split())):
        words = texts[index].split()
        of[index] = found.get(hash(tuple(words)), index)
        if of[index] == index:
            for start in range(len(words)):
                for end in range(start + 1, len(words) + 1):
                    found.setdefault(hash(tuple(words[start:end])), index)
    return of


def sample(
    task: Task,
    source: Path,
    file: Path,
    rows: int | None = None,
    folds: tuple[int, ...] | None = None,
    skip: int = 0,
) -> str:
    """Some rows of `source`, by their fold or drawn with a fixed seed, as `file`; `source` itself where all.
    With `skip`, rows that are drawn after so many others."""
    if rows is None and folds is None and not skip:
        return str(source)
    if not file.exists():
        # A fold stands where the other text of a pair would.
        examples = load_examples(str(source), [*task.text, *([] if folds is None else ["fold"])], task.label)
        chosen = np.random.default_rng(0).permutation(len(examples))[skip:]
        if folds is not None:
            chosen = np.flatnonzero(np.isin(np.array(examples["text_pair"][:], dtype=int), folds))
        write(file, examples.select(chosen[:rows]), task)
    return str(file)


def few_queries(source: Path, folder: Path, counts: dict[str, int]) -> Path:
    """A folder in BEIR's layout with all documents, and of each split so many queries, drawn with a fixed
    seed."""
    (folder / "qrels").mkdir(parents=True, exist_ok=True)
    for file in source.glob("*.jsonl*"):
        with suppress(FileExistsError):
            (folder / file.name).symlink_to(file.resolve())
    for split, count in counts.items():
        header, *lines = (source / "qrels" / f"{split}.tsv").read_text().splitlines()
        queries = sorted({line.split("\t")[0] for line in lines})
        chosen = set(np.random.default_rng(0).permutation(queries)[:count])
        kept = [line for line in lines if line.split("\t")[0] in chosen]
        with replacing(folder / "qrels" / f"{split}.tsv") as partial:
            partial.write_text("\n".join([header, *kept]) + "\n")
    return folder


def read_lines(file: Path) -> list[dict[str, Any]]:
    """The objects of a file of JSON Lines, as they stand."""
    with gzip.open(file, "rt") as lines:
        return [json.loads(line) for line in lines]


def paragraphs(task: Task, folder: Path, start: Path) -> tuple[str, str]:
    """A file to learn from, all paragraphs of `train` and those of part a of `test`, and one to test on, some
    of part b, drawn with a fixed seed."""
    learned, rows = (read_lines(folder / file) for file in (task.train, task.test))
    parts = {part: [row for row in rows if row["part"] == part] for part in "ab"}
    chosen = np.random.default_rng(0).permutation(len(parts["b"]))[: task.test_rows]
    made = []
    for part, some in (("train", learned + parts["a"]), ("test", [parts["b"][i] for i in sorted(chosen)])):
        made.append(str(file := start.with_name(f"{start.name}-{part}.jsonl")))
        with replacing(file) as partial:
            partial.write_text("".join(json.dumps(row) + "\n" for row in some))
    return made[0], made[1]


def write(file: Path, examples: Dataset, task: Task) -> None:
    """All examples, under the names that the task's columns have, or no file."""
    columns = dict(zip(("text", "text_pair"), task.text, strict=False)) | {"label": task.label}
    partial = file.with_name(f"partial-{os.getpid()}-{file.name}")  # others may write it, too
    with RowWriter(partial) as writer:
        for row in examples:
            writer.write({name: row[key] for key, name in columns.items()})
    partial.replace(file)
