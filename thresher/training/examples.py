"""What there is to learn from: encoded texts, labels, and the base model's outputs."""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from dataclasses import dataclass, replace
from itertools import accumulate, groupby
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from torch import Tensor

from thresher.errors import writing
from thresher.files.atomic import partial_of, settle
from thresher.inference.predict import Predictions, predict
from thresher.inputs.rows import (
    ANSWERS,
    COUNTS,
    KEYS,
    ROW,
    first_rows,
    has_parts,
    ragged,
    rows_of,
    whole_texts,
)
from thresher.inputs.text import TextEncoder
from thresher.model import PrunedModel
from thresher.tasks import Task
from thresher.training.lengths import LengthWeights

RESAMPLES = 500  # of the bootstrap


@dataclass
class Drop:
    """What some outputs lose against those of the base model.

    Attributes
    ----------
    points : float
        Points of the main figure.
    error : float
        Its standard error, by bootstrap over texts, base and the other in pairs. Where no draw differs from
        another, what one text counts for (`Task.grain`): less cannot be told.
    interval : tuple of float
        95 %, by the same draws. Where none differs, though outputs do, it is as wide as the rule of three has
        it: what happens in none of n texts may happen in 3 / n of all.
    """

    points: float
    error: float
    interval: tuple[float, float]


@dataclass
class Examples:
    """Encoded texts with what there is to learn from them.

    Attributes
    ----------
    rows : datasets.Dataset
        Token ids.
    labels : list or array, or None
        What each row is taught.
    truths : list or array, or None
        What the answers to each text are held against; None where these are the labels.
    base : float32 array [n, labels], or object array [n], or None
        Base's outputs, as of `Predictions`.
    weights : float64 array [n], or None
        How much each text counts, in FLOPs and in what is lost: they stand for texts of other lengths.
    """

    rows: datasets.Dataset
    labels: Any = None
    base: np.ndarray | None = None
    weights: np.ndarray | None = None
    truths: Any = None

    @classmethod
    def of(cls, task: Task, rows: datasets.Dataset, labels: list[Any] | None) -> Examples:
        """Of encoded rows, and the encoded labels of their texts."""
        if labels is None:
            return cls(rows)
        return cls(rows, task.row_labels(rows, labels), truths=labels)

    def __len__(self) -> int:
        return len(self.rows)

    def select(self, texts: Any) -> Examples:
        """Some of the texts, with all of their rows."""
        index = rows_of(self.rows, texts)
        base, weights = (None if part is None else part[index] for part in (self.base, self.weights))
        labels = None if self.labels is None else [self.labels[i] for i in index]
        truths = None if self.truths is None else [self.truths[i] for i in texts]
        return Examples(self.rows.select(index), labels, base, weights, truths)

    @property
    def texts(self) -> int:
        """How many texts the rows are of."""
        return len(first_rows(self.rows)) if has_parts(self.rows) else len(self)

    def digest(self) -> str:
        """Equal where token ids and labels are."""
        labels = None if self.labels is None else [np.asarray(label).tolist() for label in self.labels]
        digest = hashlib.sha256(json.dumps(labels).encode())
        for start in range(0, len(self.rows), 1000):
            digest.update(json.dumps(self.rows[start : start + 1000]).encode())
        return digest.hexdigest()

    def lengths(self) -> np.ndarray:
        """int64 [n]: tokens of each text."""
        return np.array([len(ids) for ids in self.rows["input_ids"][:]])

    def weigh(self, wanted: np.ndarray | None) -> Examples:
        """The same, each counting by how often its length is met in `wanted`, tokens of texts in use."""
        if wanted is None:
            return self
        lengths = self.lengths()
        return replace(self, weights=LengthWeights(lengths, wanted)(lengths))

    def predict(self, model: PrunedModel, encoder: TextEncoder, **how: Any) -> Predictions:
        """What `model` says of them, as it stands; further arguments as of `predict`."""
        return replace(predict(model, encoder, self.rows, **how), weights=self.weights)

    def table(self) -> datasets.Dataset:
        """All of it as one data set, for Trainer."""
        table = self.rows
        if self.labels is not None:
            table = table.add_column("labels", self.labels)
        if self.base is not None:
            table = table.add_column("base", [row.tolist() for row in self.base])
        return table

    def quality(self, task: Task, logits: np.ndarray) -> dict[str, float]:
        """Quality of logits ``[n, labels]`` against the truths, or without labels against the base model."""
        if self.labels is not None:
            return task.quality(whole_texts(logits, self.rows), self._truths)
        return {"agreement": self.agreement(task, logits)}

    def figure(self, task: Task) -> str:
        """The name of the main figure; without labels it is the agreement with the base model."""
        return "agreement" if self.labels is None else task.metric

    def agreement(self, task: Task, logits: np.ndarray) -> float:
        """Percent in which answers agree with those of the base model."""
        assert self.base is not None
        return task.agreement(*(whole_texts(some, self.rows) for some in (logits, self.base)))

    @property
    def _truths(self) -> Any:
        return self.labels if self.truths is None else self.truths

    def _text_weights(self) -> np.ndarray | None:
        """`weights` of whole texts: the mean over the rows of each."""
        if self.weights is None or not has_parts(self.rows):
            return self.weights
        starts = first_rows(self.rows)
        return np.add.reduceat(self.weights, starts) / np.diff([*starts, len(self.rows)])

    def base_quality(self, task: Task) -> dict[str, float]:
        """Quality of the base model's outputs, which all agree where there are no labels."""
        assert self.base is not None
        return self.quality(task, self.base)

    def main_quality(self, task: Task, logits: np.ndarray) -> float:
        """The main figure of `quality` alone; texts count by `weights`."""
        if self.labels is not None:
            return task.main_quality(whole_texts(logits, self.rows), self._truths, self._text_weights())
        assert self.base is not None
        found, base = (whole_texts(x, self.rows) for x in (logits, self.base))
        return task.agreement(found, base, self._text_weights())

    def base_level(self, task: Task) -> float:
        """The main figure of the base model's outputs, as of `main_quality`."""
        assert self.base is not None
        return self.main_quality(task, self.base)

    def drop(self, task: Task, logits: np.ndarray) -> float:
        """Points of the main figure by which `logits` are worse than the base model's outputs."""
        return self.base_level(task) - self.main_quality(task, logits)

    def grain(self, task: Task) -> float:
        """Points that one text may cost, about."""
        return 100 / self.texts if self.labels is None else task.grain(self._truths)

    def _lost(self, task: Task, found: np.ndarray, base: np.ndarray) -> np.ndarray | None:
        """Points that each text loses, where the drop is the mean of these; NaN for a text that does not
        count."""
        if self.labels is None:
            agreements = task.agreements(found, base)
            return None if agreements is None else 100.0 - agreements
        level, reached = (task.values(some, self._truths) for some in (base, found))
        if level is None or reached is None or np.isnan(level).all():
            return None
        return level - reached

    def estimate_drop(self, task: Task, logits: np.ndarray) -> Drop:
        """What `logits` lose, and how sure that is."""
        assert self.base is not None
        found, base = (whole_texts(part, self.rows) for part in (logits, self.base))
        weights = self._text_weights()
        labels = None if self.labels is None else as_array(self._truths)
        random, n = np.random.default_rng(0), len(found)
        if (lost := self._lost(task, found, base)) is not None:  # so that a draw is a mean
            there = ~np.isnan(lost)
            lost, n = lost[there], int(there.sum())
            weights = None if weights is None else weights[there]

        def drop(index: np.ndarray) -> float:
            some = None if weights is None else weights[index]
            if lost is not None:
                return float(np.average(lost[index], weights=some))
            if labels is None:
                return 100.0 - task.agreement(found[index], base[index], some)
            level, reached = (task.main_quality(x[index], labels[index], some) for x in (base, found))
            return level - reached

        drops = [drop(random.integers(n, size=n)) for _ in range(RESAMPLES)]
        low, high = np.nanpercentile(drops, [2.5, 97.5])
        same = all(np.allclose(a, b, atol=1e-3) for a, b in zip(found, base, strict=True))
        if low == high and not same:
            low, high = low - 3 * self.grain(task), high + 3 * self.grain(task)
        error = float(np.nanstd(drops)) or self.grain(task)
        return Drop(self.drop(task, logits), error, (float(low), float(high)))


def as_array(labels: Any) -> np.ndarray:
    """Labels as an array to index; of labels that are lists of many lengths, one of objects."""
    if isinstance(labels, np.ndarray) or len({np.shape(label) for label in labels}) < 2:
        return np.asarray(labels)
    array = np.empty(len(labels), dtype=object)
    array[:] = labels
    return array


def join(first: Examples, second: Examples, most: int) -> Examples:
    """The texts alone of the first, filled up with those of the second to so many."""
    few = range(min(len(second), max(0, most - len(first))))
    rows = datasets.concatenate_datasets([first.rows, second.rows.select(few)])
    return Examples(rows.select(range(min(len(rows), most))))


class Collator:
    """Encoded rows to a padded batch."""

    def __init__(self, encoder: TextEncoder, task: Task):
        self.encoder = encoder
        self.label_type, self.compares = task.label_dtype, task.compares

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        extra = {}
        if "labels" in rows[0]:
            extra["labels"] = self._tensor(rows, "labels", self.label_type)
        if "base" in rows[0]:
            extra["base"] = self._tensor(rows, "base", torch.float32)
        if ANSWERS in rows[0]:  # as places among all tokens of the batch
            starts = accumulate((len(row["input_ids"]) for row in rows), initial=0)
            places = [start + at for start, row in zip(starts, rows, strict=False) for at in row[ANSWERS]]
            extra[ANSWERS] = torch.tensor(places, dtype=torch.int64)
            extra[COUNTS] = torch.tensor([len(row[ANSWERS]) for row in rows])
        elif self.compares and ROW in rows[0]:
            extra[COUNTS] = torch.tensor([len([*some]) for _, some in groupby(row[ROW] for row in rows)])
        tokens = {key: [row[key] for row in rows] for key in rows[0] if key in KEYS}
        return self.encoder.pad(tokens) | extra

    @staticmethod
    def _tensor(rows: list[dict[str, Any]], name: str, dtype: torch.dtype) -> Tensor:
        """A column, one entry after the other where each is for many answers."""
        values = [row[name] for row in rows]
        if ANSWERS in rows[0]:
            values = [value for row in values for value in row]
        return torch.tensor(values, dtype=dtype)


def base_outputs(
    model: PrunedModel,
    encoder: TextEncoder,
    rows: datasets.Dataset,
    file: Path,
    autocast: torch.dtype | None = None,
    advance: Any = None,
) -> np.ndarray:
    """Outputs of the unpruned model for every text, kept for a resumed run in `file`, to whose name is added
    which texts they are of."""
    texts = zlib.crc32(
        b"".join(np.array([-1, *ids], dtype=np.int32).tobytes() for ids in rows["input_ids"][:])
    )
    file = file.with_stem(f"{file.stem}-{texts:08x}")
    if (known := _read(file, rows)) is not None:
        return known
    with model.dense():
        outputs = predict(model, encoder, rows, autocast=autocast, advance=advance).logits
    with writing(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = partial_of(file).with_suffix(f".{os.getpid()}.npy")  # other runs may write it, too
        try:
            np.save(partial, np.concatenate(list(outputs)) if outputs.dtype == object else outputs)
            settle(partial, file)
        finally:
            partial.unlink(missing_ok=True)
    return outputs


def _read(file: Path, rows: datasets.Dataset) -> np.ndarray | None:
    """Outputs for some rows; None where there are none, or no whole file of them."""
    counts = [len(places) for places in rows[ANSWERS][:]] if ANSWERS in rows.column_names else None
    total = len(rows) if counts is None else sum(counts)
    try:
        found = np.load(file)
    except (OSError, ValueError, EOFError):
        return None
    if not isinstance(found, np.ndarray) or found.ndim != 2 or len(found) != total:
        return None
    return found if counts is None else ragged(found, counts)
