"""What labels mean: one class of several, any number of classes, or a score."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, cast

import numpy as np

from thresher.errors import UserError

Kind = Literal["single-label", "multi-label", "regression"]

_PROBLEMS = {  # as transformers calls them
    "single-label": "single_label_classification",
    "multi-label": "multi_label_classification",
    "regression": "regression",
}
METRICS = {  # the first is the main one unless another is asked for
    "single-label": ("accuracy", "macro_f1"),
    "multi-label": ("micro_f1", "macro_f1", "exact_match"),
    "regression": ("pearson", "spearman"),
}
_SHOWN = 20  # label names in an error message


@dataclass(frozen=True)
class Task:
    """What a model predicts, and how that is scored.

    Attributes
    ----------
    kind : {"single-label", "multi-label", "regression"}
        One class a text, any number of classes a text, or a number.
    names : tuple of str
        Label names in the order of their ids; for regression the one name of the score.
    metric : str
        Key of the main figure in `quality`, in which losses are measured. Default: accuracy, micro_f1 or
        pearson.

    Raises
    ------
    UserError
        If there is no such metric for this kind.
    """

    kind: Kind
    names: tuple[str, ...]
    metric: str = ""

    def __post_init__(self) -> None:
        known = METRICS[self.kind]
        object.__setattr__(self, "metric", self.metric or known[0])
        if self.metric not in known:
            raise UserError(
                f"There is no metric '{self.metric}' for {self.kind} tasks; choose from: {', '.join(known)}."
            )

    def measured_by(self, metric: str | None) -> Task:
        """The same task with another main figure; None: with the default."""
        return replace(self, metric=metric or "")

    def in_order_of(self, config: Any) -> Task:
        """The same task with its names as a model has them, if it has the same, so that a head keeps its
        meaning."""
        names = tuple(str(config.id2label[key]) for key in sorted(config.id2label))
        return replace(self, names=names) if sorted(names) == sorted(self.names) else self

    @staticmethod
    def infer(labels: Iterable[Any], kind: str | None = None, score_name: str = "score") -> Task:
        """Find the task that raw training labels stand for; sort names by value if all are integers.

        Parameters
        ----------
        labels : iterable
            Strings, numbers, bools, or lists of them.
        kind : str, optional
            By default lists are multi-label, numbers that are not all whole are regression, and all
            else is single-label. If "multi-label", strings hold names with commas between.
        score_name : str
            Name of the score in regression.

        Raises
        ------
        UserError
            Unknown kind; no labels; fewer than two different ones; labels that do not fit the kind.
        """
        labels = [_plain(label) for label in labels]
        if not labels:
            raise UserError("there are no labels; give at least one labelled row")
        kind = _guess(labels) if kind is None else kind
        if kind not in METRICS:
            raise UserError(f"unknown kind of task {kind!r}; choose from: {', '.join(METRICS)}")
        if kind == "regression":
            found: set[Any] = {_score(label, "in the labels") for label in labels}
        elif kind == "multi-label":
            found = {_name(item) for label in labels for item in _items(label)}
        else:
            found = {_name(label) for label in labels}
        if len(found) < 2:
            only = f"is {found.pop()!r}" if found else "is empty"
            raise UserError(f"every label {only}: there is nothing to learn; give rows with other labels")
        names = [score_name] if kind == "regression" else sorted(found)
        if all(re.fullmatch(r"[+-]?\d+", name) for name in names):
            names.sort(key=int)
        return Task(cast(Kind, kind), tuple(names))

    @staticmethod
    def of(config: Any) -> Task:
        """Read the task from a transformers config; one output is regression, whatever its problem type.

        Raises
        ------
        UserError
            Regression with several outputs.
        """
        count, problem = config.num_labels, getattr(config, "problem_type", None)
        by_id = {int(key): str(name) for key, name in config.id2label.items()}
        names = tuple(by_id.get(i, f"LABEL_{i}") for i in range(count))
        if count == 1:
            return Task("regression", ("score",) if names == ("LABEL_0",) else names)
        if problem == "regression":
            raise UserError(f"the model predicts {count} scores; only regression with one is supported")
        return Task("multi-label" if problem == "multi_label_classification" else "single-label", names)

    def config_kwargs(self) -> dict[str, Any]:
        """Give the keyword arguments that make `from_pretrained` build a model for this task."""
        return {
            "num_labels": len(self.names),
            "id2label": dict(enumerate(self.names)),
            "label2id": {name: i for i, name in enumerate(self.names)},
            "problem_type": _PROBLEMS[self.kind],
        }

    @cached_property
    def _ids(self) -> dict[str, int]:
        ids = {name: i for i, name in enumerate(self.names)}
        if all(name == f"LABEL_{i}" for i, name in enumerate(self.names)):  # nobody has named them
            ids |= {str(i): i for i in range(len(self.names))}
        return ids

    def encode(self, label: Any, where: str) -> int | list[float] | float:
        """Turn a raw label into its id, a list of 0.0 or 1.0 for each name (multi-label), or a number.

        3, 3.0 and "3" all mean the label "3", or id 3 where names are transformers' defaults. `where`
        is the label's file and line, for the error message.

        Raises
        ------
        UserError
            Unknown label; in regression, not a finite number.
        """
        label = _plain(label)
        if self.kind == "regression":
            return _score(label, where)
        if self.kind == "single-label":
            return self._id(label, where)
        ids = {self._id(item, where) for item in _items(label)}
        return [float(i in ids) for i in range(len(self.names))]

    def encode_all(self, examples: Any, source: str) -> list[Any]:
        """Encode the column "label" of a data set that was read from the file `source`."""
        return [
            self.encode(label, f"{source}:{line}")
            for label, line in zip(examples["label"][:], examples["line"][:], strict=True)
        ]

    def _id(self, label: Any, where: str) -> int:
        for spelling in _spellings(label):
            if spelling in self._ids:
                return self._ids[spelling]
        known = ", ".join(map(repr, self.names[:_SHOWN]))
        more = f" and {len(self.names) - _SHOWN} more" if len(self.names) > _SHOWN else ""
        raise UserError(f"{where}: unknown label {label!r}; the model knows {known}{more}: mend the label")

    def quality(self, predictions: np.ndarray, encoded_labels: Sequence[Any]) -> dict[str, float]:
        """Score logits, of shape (texts, names), against what `encode` gave for each text.

        Returns
        -------
        dict of str to float
            The main figure, and then the others of `METRICS`, in percent (correlations times 100, and 0.0
            where one side is constant). Macro F1 of single labels is over the classes that labels have.
        """
        names = sorted(METRICS[self.kind], key=lambda name: name != self.metric)
        return {name: replace(self, metric=name).main_quality(predictions, encoded_labels) for name in names}

    def main_quality(
        self, predictions: np.ndarray, encoded_labels: Sequence[Any], weights: np.ndarray | None = None
    ) -> float:
        """The main figure of `quality` alone; texts may count by `weights`."""
        labels = np.asarray(encoded_labels)
        if self.kind == "regression":
            scores = predictions.reshape(-1)
            if self.metric == "spearman":
                scores, labels = _ranks(scores, weights), _ranks(labels, weights)
            return _pearson(scores, labels, weights)
        right = (decided := self._decide(predictions)) == labels
        if self.metric in ("accuracy", "exact_match"):
            return 100.0 * float(np.average(right.reshape(len(right), -1).all(axis=1), weights=weights))
        weight = np.ones(len(labels)) if weights is None else weights
        if self.metric == "macro_f1":
            return 100.0 * float(self._class_f1(decided, labels, weight).mean())
        found, wrong = weight @ (right & (decided == 1)).sum(1), weight @ (~right).sum(1)
        return 100.0 * float(2 * found / (2 * found + wrong)) if found else 0.0

    def _class_f1(self, decided: np.ndarray, labels: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """float64 [classes]: F1 of each, 0 where it has no value. Of single labels, of those alone that are
        right of a text: an answer that is right of none would change how many there are."""
        if self.kind == "multi-label":
            hit, said, true = weight @ (decided * labels), weight @ decided, weight @ labels
        else:
            count = len(self.names)
            said, true = (np.bincount(which, weight, count) for which in (decided, labels))
            hit = np.bincount(labels, weight * (decided == labels), count)
            hit, said, true = (some[true > 0] for some in (hit, said, true))
        return np.divide(2 * hit, said + true, out=np.zeros(len(hit)), where=said + true > 0)

    def grain(self, encoded_labels: Sequence[Any]) -> float:
        """Points of the main figure that one text may cost, about: as in a mean over texts; of macro F1, one
        of the rarest class."""
        texts = len(encoded_labels)
        if self.metric == "macro_f1":
            labels = np.asarray(encoded_labels)
            counts = np.bincount(labels) if self.kind == "single-label" else labels.sum(0)
            counts = counts[counts > 0]
            texts = max(1, min(texts, len(counts) * int(counts.min(initial=texts))))
        return 100 / texts

    def answer(self, logits: np.ndarray) -> dict[str, float]:
        """Say what one text's outputs mean: label names with their probabilities, or the score.

        Parameters
        ----------
        logits : float array [labels]

        Returns
        -------
        dict of str to float
            Single-label: the best label. Multi-label: all that apply, maybe none. Regression: the score.
        """
        if self.kind == "regression":
            return {self.names[0]: float(logits[0])}
        if self.kind == "multi-label":
            return {
                name: float(1 / (1 + np.exp(-logit)))
                for name, logit in zip(self.names, logits, strict=True)
                if logit > 0
            }
        best = int(logits.argmax())
        shifted = np.exp(logits - logits.max())
        return {self.names[best]: float(shifted[best] / shifted.sum())}

    def agreement(
        self, logits: np.ndarray, reference_logits: np.ndarray, weights: np.ndarray | None = None
    ) -> dict[str, float]:
        """Compare two models' logits on the same texts: "agreement" is the percent of equal decisions.

        For regression it is Pearson's r times 100 (100.0 for equal scores, even constant ones). Texts may
        count by `weights`.
        """
        if self.kind != "regression":
            same = self._decide(logits) == self._decide(reference_logits)
            return {
                "agreement": 100.0 * float(np.average(same.reshape(len(same), -1).mean(1), weights=weights))
            }
        scores, reference = logits.reshape(-1), reference_logits.reshape(-1)
        alike = np.array_equal(scores, reference)
        return {"agreement": 100.0 if alike else _pearson(scores, reference, weights)}

    def margins(self, logits: np.ndarray, reference_logits: np.ndarray) -> np.ndarray:
        """How far logits ``[n, labels]`` are from another decision than the reference's, negative where they
        have made it: ``[n, 1]``, and ``[n, labels]`` where every label is a yes or no."""
        if self.kind == "multi-label":
            return np.where(reference_logits > 0, logits, -logits)
        best = np.eye(logits.shape[1], dtype=bool)[reference_logits.argmax(axis=1)]
        others = np.where(best, -np.inf, logits).max(axis=1, keepdims=True)
        return logits[best][:, None] - others

    def _decide(self, logits: np.ndarray) -> np.ndarray:
        return logits.argmax(axis=-1) if self.kind == "single-label" else (logits > 0).astype(int)


def _plain(label: Any) -> Any:
    return label.tolist() if hasattr(label, "tolist") else label  # NumPy and PyTorch to Python


def _number(label: Any) -> float | None:
    """The finite number that a label is or spells, if any."""
    try:
        number = math.nan if isinstance(label, bool) else float(label)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _score(label: Any, where: str) -> float:
    if (number := _number(label)) is None:
        raise UserError(f"{where}: label {label!r} is not a finite number, as regression needs; mend it")
    return number


def _spellings(label: Any) -> list[str]:
    """The names a label may go by: as written and, for a whole number, in digits alone."""
    number = float(label) if isinstance(label, bool) else _number(label)
    return [str(label)] + ([str(int(number))] if number is not None and number.is_integer() else [])


def _name(label: Any) -> str:
    if not isinstance(label, (str, int, float)) or label != label:
        raise UserError(f"label {label!r} is no class; use a string, number or bool, or in all rows a list")
    return _spellings(label)[-1] if isinstance(label, float) else str(label)  # 3.0 is "3"


def _items(label: Any) -> Sequence[Any]:
    """The labels in a multi-label value: a list, such a list in JSON, or names with commas between."""
    if isinstance(label, (list, tuple)):
        return label
    if not isinstance(label, str):
        return [label]
    if label.lstrip().startswith("["):
        with suppress(ValueError):
            return cast(list[Any], json.loads(label))
    return [item.strip() for item in label.split(",") if item.strip()]


def _guess(labels: list[Any]) -> str:
    if any(isinstance(label, (list, tuple)) for label in labels):
        return "multi-label"
    numbers = [_number(label) for label in labels]
    scores = all(n is not None for n in numbers) and not all(n.is_integer() for n in numbers if n is not None)
    return "regression" if scores else "single-label"


def _ranks(values: np.ndarray, weights: np.ndarray | None) -> np.ndarray:
    """Ranks, less a half; equal values share the mean of theirs, and a value takes as many as its weight."""
    _, place = np.unique(values, return_inverse=True)
    taken = np.bincount(place, weights=weights)
    return (taken.cumsum() - taken / 2)[place]


def _pearson(left: np.ndarray, right: np.ndarray, weights: np.ndarray | None = None) -> float:
    """Pearson's r times 100; 0.0 where it has no value because one side is constant."""
    if np.ptp(left) == 0 or np.ptp(right) == 0:
        return 0.0
    sides = np.cov(left.astype(float), np.asarray(right, dtype=float), aweights=weights)
    return 100.0 * float(sides[0, 1] / (sides[0, 0] * sides[1, 1]) ** 0.5)
