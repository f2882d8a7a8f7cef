"""The tasks of all experiments: where their data is, and the fine-tuned bases they start from.

The environment variable THRESHER_DATA names a folder with these files (columns in brackets); the same data is
on the hub as named:

    sst2/train.tsv, dev.tsv (sentence, label)                       nyu-mll/glue, sst2
    mrpc/train.tsv, dev.tsv, test.tsv (sentence1, sentence2, label) nyu-mll/glue, mrpc
    stsb/train.tsv, dev.tsv, test.tsv (sentence1, sentence2, score) nyu-mll/glue, stsb
    rte/train.tsv, dev.tsv (sentence1, sentence2, label)            nyu-mll/glue, rte
    cola/train.tsv, dev.tsv (sentence, label)                       nyu-mll/glue, cola
    qqp/train_9k.tsv, heldout_1k.tsv (question1, question2, label)  nyu-mll/glue, qqp; 10,000 rows of train
    mnli/train_10k.tsv, dev_matched.tsv (premise, hypothesis, label)  nyu-mll/glue, mnli; 10,000 rows of train
    ag_news_10k/train.tsv, test.tsv (text, label)                   fancyzhx/ag_news; 10,000 rows of train
    imdb/train.jsonl.gz, test.jsonl.gz (text, label)                stanfordnlp/imdb
    movie_reviews/all.jsonl.gz (text, label, fold)                  nltk/nltk_data, movie_reviews, ten folds
    ner_bc5cdr/train.jsonl.gz, dev.jsonl.gz, test.jsonl.gz (tokens, tags)  BC5CDR, entities as BIO
    medquad/corpus.jsonl.gz, queries.jsonl.gz, qrels/*.tsv          MedQuAD in BEIR's layout
    squad2/train_4.7k.jsonl.gz, dev.jsonl.gz (a paragraph a line)   SQuAD 2.0; dev has a column `part`, a or b
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from filelock import FileLock

from results import RESULTS
from thresher.config import PruningConfig
from thresher.data import RowWriter, load_examples
from thresher.demo.run import encoder_folder
from thresher.errors import UserError
from thresher.files.atomic import replacing
from thresher.inference.load import open_model
from thresher.model import PrunedModel
from thresher.reports import Calibration, Training
from thresher.show.progress import stages
from thresher.training import Data, Job, TrainingSettings
from thresher.training.base import load_base
from thresher.training.examples import Examples, base_outputs
from thresher.training.recipes import finetune

COMMIT = subprocess.run(  # of the code as it is when a run begins
    ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
    cwd=Path(__file__).parent,
    capture_output=True,
    text=True,
    check=False,
).stdout.strip()
SEEN = 0.8  # of the training texts, where base is to leave some and the task does not say how many


@dataclass
class Task:
    """One data set: files, columns, and how long to train."""

    train: str
    test: str
    text: list[str]
    max_length: int
    base_epochs: float
    epochs: float  # of the soft stage, and again of the hard one
    label: str = "label"
    train_rows: int | None = None  # a sample, where the file is larger than need be
    test_rows: int | None = None
    train_folds: tuple[int, ...] | None = None  # where one file holds all
    test_folds: tuple[int, ...] | None = None
    phrases: bool = False  # of sentences, which are in the same file
    second: str | None = None  # another file with labels, larger than that of `test`
    held_out: str | None = None  # the file that chooses a checkpoint, where it is no part of `train`
    hard_epochs: float | None = None  # of the hard stage, where it is longer than the soft one
    base_rate: float = 5e-5
    rate: float = 5e-5
    metric: str | None = None
    bare: bool = False  # the encoder is the base itself: an embedder
    queries: dict[str, int] | None = None  # of each split, where `train` is a folder in BEIR's layout
    paragraphs: bool = False  # of questions and answers; those of part a of `test` are learned from, too


PAIR = ["sentence1", "sentence2"]
IMDB = "imdb/train.jsonl.gz", "imdb/test.jsonl.gz", ["text"]
MOVIES = "movie_reviews/all.jsonl.gz", "movie_reviews/all.jsonl.gz", ["text"]
TASKS = {
    "sst2": Task("sst2/train.tsv", "sst2/dev.tsv", ["sentence"], 128, 1.0, 0.35, phrases=True),
    "mrpc": Task("mrpc/train.tsv", "mrpc/dev.tsv", PAIR, 128, 6.0, 3.0, second="mrpc/test.tsv"),
    "stsb": Task("stsb/train.tsv", "stsb/dev.tsv", PAIR, 128, 4.0, 2.0, "score", second="stsb/test.tsv"),
    "ag_news": Task("ag_news_10k/train.tsv", "ag_news_10k/test.tsv", ["text"], 128, 2.0, 1.0),
    "imdb": Task(*IMDB, 384, 2.0, 1.0, train_rows=5000, test_rows=5000),
    "rte": Task("rte/train.tsv", "rte/dev.tsv", PAIR, 256, 6.0, 2.0),
    "cola": Task("cola/train.tsv", "cola/dev.tsv", ["sentence"], 128, 4.0, 2.0),
    "qqp": Task("qqp/train_9k.tsv", "qqp/heldout_1k.tsv", ["question1", "question2"], 128, 3.0, 1.5),
    "mnli": Task("mnli/train_10k.tsv", "mnli/dev_matched.tsv", ["premise", "hypothesis"], 128, 3.0, 1.5),
    "movie_reviews": Task(*MOVIES, 512, 4.0, 2.0, train_folds=tuple(range(8)), test_folds=(8, 9)),
    "bc5cdr": Task(
        "ner_bc5cdr/train.jsonl.gz",
        "ner_bc5cdr/test.jsonl.gz",
        ["tokens"],
        512,
        8.0,
        1.0,
        "tags",
        held_out="ner_bc5cdr/dev.jsonl.gz",
        hard_epochs=3.0,
        base_rate=3e-4,
        rate=1e-4,
    ),
    "stsb_vectors": Task(
        "stsb/train.tsv",
        "stsb/dev.tsv",
        PAIR,
        128,
        0.0,
        1.0,
        "score",
        hard_epochs=5.0,
        rate=2e-4,
        metric="spearman",
        bare=True,
    ),
    "medquad": Task(
        "medquad",
        "medquad",
        [],
        128,
        1.0,
        0.25,
        hard_epochs=0.75,
        base_rate=2e-4,
        rate=1e-4,
        queries={"train": 3000, "dev": 150, "test": 500},
    ),
    "medquad_vectors": Task(
        "medquad",
        "medquad",
        [],
        256,
        0.0,
        0.5,
        hard_epochs=1.5,
        rate=2e-4,
        bare=True,
        queries={"train": 3000, "dev": 150, "test": 2000},
    ),
    "squad2": Task(
        "squad2/train_4.7k.jsonl.gz",
        "squad2/dev.jsonl.gz",
        ["question", "context"],
        256,
        3.0,
        0.25,
        "answers",
        test_rows=280,
        hard_epochs=0.75,
        base_rate=2e-4,
        rate=1e-4,
        paragraphs=True,
    ),
}
MAIN = list(TASKS)[:5]  # of which reductions are averaged


def arguments(about: str | None) -> argparse.ArgumentParser:
    """What every experiment is asked."""
    parser = argparse.ArgumentParser(
        description=f"{about}\n{__doc__}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("--work", type=Path, default=Path("runs"), help="for bases and pruned models")
    parser.add_argument("--results", type=Path, default=RESULTS, help="for a line for each finished run")
    parser.add_argument("--encoder", default=None, help="default: the MiniLM of the extra `demo`")
    return parser


def script(main: Callable[[], None]) -> None:
    """Run a script; what is wrong with data or models is said without a traceback."""
    try:
        main()
    except UserError as error:
        print(error, file=sys.stderr)
        raise SystemExit(2) from None


def data_folder() -> Path:
    """Where the data is."""
    if not (found := os.environ.get("THRESHER_DATA")):
        raise SystemExit("Name the folder of the data in THRESHER_DATA; --help says what is to be there.")
    return Path(found)


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


def base(name: str, seed: int, work: Path, encoder: str | None = None, part: str | None = None) -> Path:
    """The folder of a model fine-tuned for a task, or on a file with a part of its texts; made if it is not
    there."""
    task, files = TASKS[name], data(name, work)
    if task.bare:
        return Path(encoder or encoder_folder())
    folder = work / f"{name}-{task.max_length}-base-{seed}"
    if part is not None:
        files, folder = replace(files, train=part), work / f"{Path(part).stem}-base-{seed}"
    settings = TrainingSettings(
        soft_epochs=0.0,
        hard_epochs=task.base_epochs,
        learning_rate=task.base_rate,
        distill=0.0,
        distill_hidden=0.0,
        saliency=False,
        seed=seed,
        metric=task.metric,
        evaluations=3,
        dropout=False,  # which halves the time on CPUs
    )
    with FileLock(f"{folder}.lock"):  # methods share it, and may run beside each other
        report = folder / "report.json"
        if not done(json.loads(report.read_text()) if report.exists() else None, str(report), settings):
            model = encoder or str(encoder_folder())
            job = Job(model, files, folder, settings, task.max_length)
            with stages() as stage:
                finetune(job.go_on(), stage=stage)
    return folder


def beside_base(
    start: Path, folder: Path, file: str, columns: Task | Data
) -> tuple[PrunedModel, Any, Any, Examples]:
    """A finished model, its encoder and its task, and a file's texts with labels and with the outputs of the
    base that it comes from."""
    model, encoder, labels = open_model(str(folder))
    texts = load_examples(file, columns.text, columns.label)
    rows = encoder.encode_examples(texts)
    dense = PrunedModel(load_base(str(start))[0], PruningConfig("none"))
    outputs = base_outputs(dense, encoder, rows, start / "outputs" / "base-eval.npy")
    return (
        model,
        encoder,
        labels,
        replace(Examples.of(labels, rows, labels.encode_all(texts, file)), base=outputs),
    )


def done(report: dict[str, Any] | None, name: str, settings: TrainingSettings) -> bool:
    """Whether a run has its report already; refuses one that was made with other settings."""
    if report is None:
        return False
    if settings.soft_epochs + settings.hard_epochs == 0:
        return True  # nothing was trained
    stored = report["settings"]
    if other := [name for name, value in asdict(settings).items() if stored.get(name) != value]:
        raise SystemExit(
            f"{name} was made with another {other[0]}: {stored.get(other[0])}. Delete it to run again."
        )
    return True


def portable(report: Training | Calibration) -> dict[str, Any]:
    """The JSON form without the paths of the machine that ran it; with the commit of the code."""
    values = report.to_json()
    files = ("train", "held_out", "eval", "texts")
    data = {
        key: Path(value).name if value and key in files else value for key, value in values["data"].items()
    }
    return values | {
        "commit": COMMIT,
        "model": Path(report.model).name,
        "out": Path(report.out).name,
        "data": data,
    }
