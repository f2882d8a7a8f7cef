"""The texts of a training job: read from its files, counted, and split."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import datasets
import numpy as np

from thresher.data.beir import is_collection, same_texts
from thresher.data.formats import same_file
from thresher.errors import UserError
from thresher.tasks import Task
from thresher.training.job import Data, Job

log = logging.getLogger(__name__)

HELD_OUT, HELD_OUT_SHARE = 1000, 0.1  # texts that choose thresholds and checkpoint, at most
# Texts, or of short ones tokens, that a drop is measured on, at most. Where they are shorter than those in
# use, many count for little: 4,000 of SST-2's tell no more than 1,700 that all count alike.
MEASURED, MEASURED_TOKENS = 4000, 400_000


@dataclass
class Texts:
    """What the files of a job hold.

    Attributes
    ----------
    train : datasets.Dataset
        To learn from, and where no file is named for it to choose on.
    held_out, eval : datasets.Dataset, or None
        To choose on, and to report on, where files are named for them.
    apart : datasets.Dataset, or None
        Train as a part of it is measured, where that is not how it is learned from (`Task.load_apart`).
    """

    train: datasets.Dataset
    held_out: datasets.Dataset | None
    eval: datasets.Dataset | None
    apart: datasets.Dataset | None = None

    def encoded(self, task: Task, data: Data) -> Texts:
        """The same, with labels as `task` encodes them: file by file, because what lists mean shows in all
        rows of a file."""

        def encode(examples: Any, source: str | None) -> Any:
            if examples is None or "label" not in examples.column_names:
                return examples
            labels = task.encode_all(examples, str(source))
            return examples.remove_columns("label").add_column("label", labels)

        return Texts(
            encode(self.train, data.train),
            encode(self.held_out, data.held_out),
            encode(self.eval, data.eval),
            encode(self.apart, data.train),
        )


def load_texts(job: Job, task: Task | type[Task]) -> Texts:
    """Read the files of a job, before anything slow begins.

    Parameters
    ----------
    job : Job
    task : Task, or type of Task
        Which reads them.

    Raises
    ------
    UserError
        What `Task.load` raises; too few rows to tell what the job asks for.
    """
    data = job.data
    if data.held_out is not None and _same(data.held_out, "validation", data.train):
        raise UserError("`held_out` is the file of `train`: name texts that are not learned from.")
    if data.eval is not None and _same(data.eval, "test", data.train):
        log.warning("Quality is reported on texts that are learned from: name others in `eval`.")

    def load(source: str | None, split: str, label: str | None = data.label) -> Any:
        if source is None:
            return None
        if not (data.text or is_collection(source)):
            raise UserError(f"{source}: name the column of texts in `text`.")
        return task.load(source, data.text, label, split, job.settings.seed)

    measured_elsewhere = not task.teaches and data.held_out is not None  # so that train needs no labels
    texts = Texts(
        load(data.train, "train", None if measured_elsewhere else data.label),
        load(data.held_out, "validation"),
        load(data.eval, "test"),
        task.load_apart(data.train) if data.held_out is None else None,
    )
    _check_count(job, texts)
    return texts


def _same(one: str, split: str, train: str) -> bool:
    """Whether other texts, of which `split` is the default, are those of train."""
    if is_collection(one) and is_collection(train):
        return same_texts(one, split, train, "train")
    return same_file(one, train)


def _check_count(job: Job, texts: Texts) -> None:
    """Refuse too few rows to choose on: of a drop, one text has to count for less than the bound."""
    bound = job.settings.max_drop
    least = 1 if bound is None else math.ceil(100 / bound)
    what = "which checkpoint is best" if bound is None else f"whether {bound:g} points are lost"
    if texts.held_out is not None:
        if len(texts.held_out) < least:
            raise UserError(
                f"{job.data.held_out} has {len(texts.held_out)} rows: too few to tell {what}; give "
                f"{least} at least."
            )
    elif round(HELD_OUT_SHARE * len(texts.train)) < least:
        raise UserError(
            f"{job.data.train} has {len(texts.train)} rows: too few to tell {what} on {HELD_OUT_SHARE:.0%} "
            f"of them. Give {math.ceil(least / HELD_OUT_SHARE)} at least, or name {least} or more others in "
            "`held_out`, best texts that the model has not learned from."
        )


def split(
    job: Job, texts: Texts, mean_length: Callable[[datasets.Dataset], float], together: str | None = None
) -> tuple[datasets.Dataset, datasets.Dataset]:
    """Texts to choose on, and texts to learn from: two parts of train, where no file is named for the first.

    `mean_length` looks at some texts, for how many tokens they have. Texts that share a value of the column
    `together` are held out together.
    """
    source, share = (texts.train, HELD_OUT_SHARE) if texts.held_out is None else (texts.held_out, 1.0)
    random = np.random.default_rng(job.settings.seed)
    order = random.permutation(len(source))
    most = HELD_OUT
    if job.settings.max_drop is not None:
        most = max(MEASURED, round(MEASURED_TOKENS / mean_length(source.select(order))))
    cut = min(most, round(share * len(order)))
    if together is not None and source is texts.train:
        order, cut = _by_groups(order, source[together][:], cut)
    learned = order[cut:] if source is texts.train else random.permutation(len(texts.train))
    kept_apart = source.select(order[:cut])
    if source is texts.train and texts.apart is not None:
        places = {line: place for place, line in enumerate(texts.apart["line"])}
        kept_apart = texts.apart.select([places[line] for line in kept_apart["line"]])
    return kept_apart, texts.train.select(learned)


def _by_groups(order: np.ndarray, values: list[Any], cut: int) -> tuple[np.ndarray, int]:
    """Rows in an order in which those with one value follow each other, and a cut near `cut` that is between
    values, where there are several."""
    groups: dict[Any, list[int]] = {}
    for row in order.tolist():
        groups.setdefault(values[row], []).append(row)
    ends = np.cumsum([len(rows) for rows in groups.values()])
    between = [int(end) for end in ends[:-1]]
    near = min(between, key=lambda end: abs(end - cut), default=cut)
    return np.concatenate(list(groups.values())), near
