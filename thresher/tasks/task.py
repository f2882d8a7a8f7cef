"""What labels mean: one class of several, any number of classes, or a score."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, cast

import numpy as np

from thresher.errors import UserError
from thresher.tasks import labels as raw
from thresher.tasks.classes import Classes, read_classes

log = logging.getLogger(__name__)

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
    aliases : mapping of str to str
        The class that a label of the data stands for, by the label's normal form (`labels.key`).
    vectors : bool, optional
        Whether lists are vectors of 0 and 1 with an entry a class, where that is known.

    Raises
    ------
    UserError
        If there is no such metric for this kind.
    """

    kind: Kind
    names: tuple[str, ...]
    metric: str = ""
    aliases: Mapping[str, str] = field(default_factory=dict, compare=False)
    vectors: bool | None = field(default=None, compare=False)

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

    def reading(self, label_map: Mapping[str, str] | None) -> Task:
        """The same task, with labels of the data that stand for others: ``{"0": "neg", "1": "pos"}``.

        Raises
        ------
        UserError
            If one label is to stand for two classes, or for a class that is not there.
        """
        aliases: dict[str, str] = {}
        for label, name in (label_map or {}).items():
            if aliases.setdefault(raw.key(label), name) != name:
                raise UserError(f"--label-map says twice, and not alike, what {label!r} is; say it once")
            if self.kind != "regression" and self.names and self.classes.find(name)[0] < 0:
                raise UserError(f"--label-map says that {label!r} is {name!r}, but {self.classes.known()}")
        return replace(self, aliases=aliases)

    def in_order_of(self, config: Any) -> Task:
        """The same task with its names as a model has them, if they mean the same, so that a head keeps its
        meaning: the same names, or where labels are vectors as many."""
        theirs = replace(self, names=tuple(str(config.id2label[id_]) for id_ in sorted(config.id2label)))
        return theirs if theirs.classes.mean_the_same(self.names, by_id=bool(self.vectors)) else self

    @staticmethod
    def infer(
        labels: Iterable[Any],
        kind: str | None = None,
        score_name: str = "score",
        places: Sequence[str] | None = None,
        label_map: Mapping[str, str] | None = None,
    ) -> Task:
        """Find the task that raw training labels stand for; sort names by value if all are integers.

        Parameters
        ----------
        labels : iterable
            Strings, numbers, bools, or lists of them. Lists of one length that hold nothing but 0 and 1 are
            vectors with an entry a class; their classes are called 0, 1, 2 and so on.
        kind : str, optional
            By default lists are multi-label, numbers that are not all whole are regression, and all
            else is single-label. If "multi-label", strings hold names with commas between.
        score_name : str
            Name of the score in regression.
        places : sequence of str, optional
            File and line of each label, for messages.
        label_map : mapping of str to str, optional
            The classes that labels stand for, where they are not called so.

        Raises
        ------
        UserError
            Unknown kind; no labels; fewer than two different ones; labels that do not fit the kind.
        """
        aliases = Task("single-label", ()).reading(label_map).aliases
        labels = [raw.plain(label) for label in labels]
        places = places or [f"label {i}" for i in range(1, len(labels) + 1)]
        if not labels:
            raise UserError("there are no labels; give at least one labelled row")
        kind = _guess(labels) if kind is None else kind
        if kind not in METRICS:
            raise UserError(f"unknown kind of task {kind!r}; choose from: {', '.join(METRICS)}")
        vectors = None
        if kind == "regression":
            found: set[Any] = {_score(label, where) for label, where in zip(labels, places, strict=True)}
            names = [score_name]
        else:
            many = kind == "multi-label"
            read = [read_classes(label, many, where) for label, where in zip(labels, places, strict=True)]
            hot = raw.as_vectors(read, places)
            vectors = hot is not None
            if hot is not None:
                found, names = set(map(tuple, hot)), [str(i) for i in range(len(hot[0]))]
            else:
                meant = [[aliases.get(raw.key(item), item) for item in some] for some in read]
                called: dict[str, str] = {}
                for item in (item for some in meant for item in some):
                    called.setdefault(raw.key(item), raw.spelled(item))
                found = {frozenset(map(raw.key, some)) for some in meant}
                names = sorted(called.values())
                if all(re.fullmatch(r"[+-]?\d+", name) for name in names):
                    names.sort(key=int)
            for doubt in raw.doubts(names, kind):
                log.warning(doubt)
        if len(found) < 2:
            raise UserError(
                f"every label is {labels[0]!r}: there is nothing to learn; give rows with other labels"
            )
        return Task(cast(Kind, kind), tuple(names), aliases=aliases, vectors=vectors)

    @staticmethod
    def of(config: Any) -> Task:
        """Read the task from a transformers config. One output is regression, unless its problem type says
        that it is a yes or no.

        Raises
        ------
        UserError
            Regression with several outputs.
        """
        count, problem = config.num_labels, getattr(config, "problem_type", None)
        by_id = {int(key): str(name) for key, name in config.id2label.items()}
        names = tuple(by_id.get(i, f"LABEL_{i}") for i in range(count))
        if count == 1 and problem != "multi_label_classification":
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
    def classes(self) -> Classes:
        """The classes, which know how data may call them."""
        return Classes(self.names, self.kind == "multi-label")

    def encode(self, label: Any, where: str) -> int | list[float] | float:
        """Turn a raw label into its id, a list of 0.0 or 1.0 for each name (multi-label), or a number.

        3, 3.0 and "3" all mean the label "3", or id 3 where no name is a number. `where` is the label's file
        and line, for the error message. Whether a list of 0 and 1 is a vector with an entry a class, a whole
        column tells better: see `encode_all`.

        Examples
        --------
        >>> Task("single-label", ("neg", "pos")).encode("POS", "dev.tsv:2")
        1
        >>> Task("multi-label", ("bug", "account", "other")).encode("other, bug", "dev.tsv:2")
        [1.0, 0.0, 1.0]

        Raises
        ------
        UserError
            Unknown label; in regression, not a finite number.
        """
        return self._encode([label], [where])[0]

    def encode_all(self, examples: Any, source: str) -> list[Any]:
        """Encode the column "label" of a data set that was read from the file `source`.

        Labels that are called otherwise than the model's classes are read by case, as bools or by id where
        that can mean one thing alone, and a warning says so.

        Raises
        ------
        UserError
            As `encode`; or some labels are names and others ids.
        """
        return self._encode(
            examples["label"][:], [f"{source}:{line}" for line in examples["line"][:]], source
        )

    def _encode(self, labels: Sequence[Any], places: Sequence[str], source: str = "") -> list[Any]:
        labels = [raw.plain(label) for label in labels]
        if self.kind == "regression":
            return [_score(label, where) for label, where in zip(labels, places, strict=True)]
        return self.classes.encode(labels, places, source, self.aliases, self.vectors)

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


def _score(label: Any, where: str) -> float:
    if (number := raw.number(label)) is None:
        raise UserError(f"{where}: label {label!r} is not a finite number, as regression needs; mend it")
    return number


def _guess(labels: list[Any]) -> str:
    """Lists are multi-label, as values or in cells; numbers that are not all whole are scores."""
    cells = [label for label in labels if isinstance(label, str) and label.strip()]
    parsed = [raw.parse_list(cell) for cell in cells]
    written = any(found and any(isinstance(item, str) for item in found) for found in parsed)
    if any(isinstance(label, (list, tuple)) for label in labels) or written:
        return "multi-label"
    if cells and all(found is not None for found in parsed):
        return "multi-label"
    numbers = [raw.number(label) for label in labels]
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
