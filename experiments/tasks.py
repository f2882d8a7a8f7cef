"""The tasks of all experiments: where their data is, and how long to train.

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
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from results import RESULTS
from thresher.errors import UserError


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
        2.0,
        0.2,
        "answers",
        test_rows=280,
        hard_epochs=0.5,
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
