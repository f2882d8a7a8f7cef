"""The contract of a task: what labels mean, and what answers to them are worth."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from thresher.batches import spread
from thresher.data import load_examples
from thresher.errors import UserError
from thresher.heads import Head, SequenceHead
from thresher.inputs.rows import ANSWERS, has_parts
from thresher.tasks import labels as raw


@dataclass(frozen=True)
class Task(ABC):
    """What a model predicts, and how that is scored.

    Attributes
    ----------
    kind : str
        Its name, in reports and on the command line.
    problem : str
        What transformers calls it.
    head : type of Head
        Which kind of output answers it.
    metrics : tuple of str
        Names of its figures; the first is the main one unless another is asked for.
    label_dtype : torch.dtype
        Type of a batch of encoded labels.
    blank_is_none : bool
        Whether a text without a label is one of none of the classes, rather than a mistake.
    by_word : bool
        Whether texts come in words, each of which has an answer.
    apart : bool
        Whether the two texts of a pair are two inputs, with an answer each.
    within : bool
        Whether the answer to the first text of a pair is found in the second.
    teaches : bool
        Whether labels are learned from.
    compares : bool
        Whether the loss compares the answers to the rows of a text, which batches have side by side.
    held_out_alike : bool
        Whether texts that are held out of those to learn from are measured as those of ``eval`` are.
    together : str, optional
        Column of what several texts share, which are held out together.
    decides : bool
        Whether an answer is a decision, or one of several: see `margins`.
    written : tuple of str
        Names of the columns that answers may have in a file.
    names : tuple of str
        Label names in the order of their ids, or the one name of a score.
    metric : str
        The main figure in `quality`, in which losses are measured.
    aliases : mapping of str to str
        The class that a label of the data stands for, by the label's normal form (`labels.key`).
    vectors : bool, optional
        Whether lists are vectors of 0 and 1 with an entry a class, where that is known.

    Raises
    ------
    UserError
        If there is no such metric for this task.
    """

    kind: ClassVar[str]
    problem: ClassVar[str]
    head: ClassVar[type[Head]] = SequenceHead
    metrics: ClassVar[tuple[str, ...]]
    label_dtype: ClassVar[torch.dtype] = torch.float32
    blank_is_none: ClassVar[bool] = False
    by_word: ClassVar[bool] = False
    apart: ClassVar[bool] = False
    within: ClassVar[bool] = False
    teaches: ClassVar[bool] = True
    compares: ClassVar[bool] = False
    decides: ClassVar[bool] = True
    held_out_alike: ClassVar[bool] = True
    together: ClassVar[str | None] = None
    written: ClassVar[tuple[str, ...]] = ("prediction", "score")

    names: tuple[str, ...]
    metric: str = ""
    aliases: Mapping[str, str] = field(default_factory=dict, compare=False)
    vectors: bool | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "metric", self.metric or self.metrics[0])
        if self.metric not in self.metrics:
            raise UserError(
                f"There is no metric '{self.metric}' for {self.kind} tasks; choose from: "
                f"{', '.join(self.metrics)}."
            )

    # Labels ----------------------------------------------------------------------------------

    @classmethod
    def load(cls, source: str, text: Sequence[str], label: str | None, split: str, seed: int = 0) -> Any:
        """Read the texts of a source, as `thresher.data.load_examples` does.

        Parameters
        ----------
        source, text, label
            As of `load_examples`.
        split : {"train", "validation", "test"}
            What the texts are for, to learn from, to choose on, or to measure on, and the split of a source
            that names none.
        seed : int
            Of what is drawn, where something is.
        """
        return load_examples(source, text, label, split, blank_labels=cls.blank_is_none)

    @classmethod
    def load_apart(cls, source: str) -> Any:
        """The texts that are learned from `source` as they are measured, with the same ``line`` each; None
        where that is how they are learned from."""
        return None

    def measured_by(self, metric: str | None) -> Self:
        """The same task with another main figure; None: with the default."""
        return replace(self, metric=metric or "")

    def reading(self, label_map: Mapping[str, str] | None) -> Self:
        """The same task, with labels of the data that stand for others: ``{"0": "neg", "1": "pos"}``.

        Raises
        ------
        UserError
            If one label is to stand for two classes, or for a class that is not there.
        """
        return replace(self, aliases=read_aliases(label_map))

    def in_order_of(self, config: Any) -> Self:
        """The same task with its names as a model has them, if they mean the same, so that a head keeps its
        meaning: the same names, or where labels are vectors as many."""
        return self

    def taught(self, labels: Sequence[Any]) -> Self:
        """The same task, with what raw training labels tell of it and a config may not."""
        return self

    @property
    def noted(self) -> dict[str, Any]:
        """What a config says of it that transformers does not ask for."""
        return {}

    def config_kwargs(self) -> dict[str, Any]:
        """The keyword arguments that make `from_pretrained` build a model for this task."""
        return {
            "num_labels": len(self.names),
            "id2label": dict(enumerate(self.names)),
            "label2id": {name: i for i, name in enumerate(self.names)},
            "problem_type": self.problem,
        }

    def encode(self, label: Any, where: str) -> Any:
        """Turn a raw label into what `loss` and `quality` take: an id, a list of 0.0 or 1.0 for each name, or
        a number.

        3, 3.0 and "3" all mean the label "3", or id 3 where no name is a number. `where` is the label's file
        and line, for the error message. Whether a list of 0 and 1 is a vector with an entry a class, a whole
        column tells better: see `encode_all`.

        Raises
        ------
        UserError
            For an unknown label, or a score that is not a finite number.
        """
        return self._encode([raw.plain(label)], [where], "")[0]

    def encode_all(self, examples: Any, source: str) -> list[Any]:
        """Encode the column "label" of a data set that was read from the file `source`.

        Labels that are called otherwise than the model's classes are read by case, as bools or by id where
        that can mean one thing alone, and a warning says so.

        Raises
        ------
        UserError
            As `encode`; or some labels are names and others ids.
        """
        places = [f"{source}:{line}" for line in examples["line"][:]]
        return self._encode([raw.plain(label) for label in examples["label"][:]], places, source)

    def sample(self, examples: Any, count: int) -> np.ndarray:
        """Places of about so many texts, spread evenly over a table's, on which figures can be measured."""
        return spread(len(examples), count)

    def row_labels(self, rows: Any, labels: list[Any]) -> list[Any]:
        """What encoded rows are taught, by the encoded labels of their texts: where a text has several rows,
        each gets the labels of the tokens that answer in it.

        Parameters
        ----------
        rows : datasets.Dataset
            As of `TextEncoder.encode_examples`.
        labels : list
            One for each text.
        """
        if not has_parts(rows):
            return labels
        whole = iter([label for text in labels for label in text])
        return [[next(whole) for _ in places] for places in rows[ANSWERS][:]]

    def check_texts(self, examples: Any, source: str) -> None:
        """Refuse texts in words where a text has one answer, and texts as strings where each word has.

        Raises
        ------
        UserError
            With the file.
        """
        if self.by_word == ("words" in examples.column_names):
            return
        if self.by_word:
            raise UserError(
                f"{source}: the model answers for each word; name a column of lists of words in `text`"
            )
        raise UserError(f"{source}: the texts are lists of words, and the model has one answer for a text")

    @classmethod
    @abstractmethod
    def inferred(
        cls, labels: list[Any], places: Sequence[str], aliases: Mapping[str, str], score_name: str
    ) -> tuple[Self, int]:
        """The task that plain labels, each from its place, stand for, and how many different ones there are.
        Parameters as of `thresher.tasks.infer`."""

    @abstractmethod
    def _encode(self, labels: list[Any], places: Sequence[str], source: str) -> list[Any]:
        """Encode plain labels, each from its place."""

    # Training --------------------------------------------------------------------------------

    @abstractmethod
    def loss(self, logits: Tensor, labels: Tensor, counts: Tensor | None = None) -> Tensor:
        """Mean loss of logits ``[batch, names]`` on encoded labels.

        By the task: transformers' own goes by the problem type in the config, which may say another, or
        nothing, where there is one output.

        Parameters
        ----------
        logits, labels : tensors [batch, names] and [batch, ...]
        counts : int64 tensor [rows or texts], optional
            How many of the answers are of each row, where a row may have any number, or of each text, where
            a task `compares` its rows: for tasks in which these answers compete. None: all are of one.
        """

    @abstractmethod
    def distance(self, logits: Tensor, base: Tensor, counts: Tensor | None = None) -> Tensor:
        """How far logits ``[batch, names]`` are from those of the base model: least where they are equal.
        `counts` as of `loss`."""

    def divergence(self, logits: np.ndarray, base: np.ndarray) -> float:
        """`distance` of two arrays ``[n, names]``, less what it is where they are equal."""
        found, wanted = torch.from_numpy(logits), torch.from_numpy(base)
        return float(self.distance(found, wanted) - self.distance(wanted, wanted))

    # Figures ---------------------------------------------------------------------------------

    def quality(self, logits: np.ndarray, labels: Sequence[Any]) -> dict[str, float]:
        """Score logits ``[n, names]`` against what `encode` gave for each text.

        Returns
        -------
        dict of str to float
            The main figure, and then the others of `metrics`, in percent; correlations times 100.
        """
        names = sorted(self.metrics, key=lambda name: name != self.metric)
        return {name: self.measured_by(name).main_quality(logits, labels) for name in names}

    @abstractmethod
    def main_quality(
        self, logits: np.ndarray, labels: Sequence[Any], weights: np.ndarray | None = None
    ) -> float:
        """The main figure of `quality` alone; texts may count by `weights` ``[n]``."""

    def values(self, logits: np.ndarray, labels: Sequence[Any]) -> np.ndarray | None:
        """The main figure of each text ``[texts]``, where that of all is the mean of these; NaN for a text
        that does not count. None for other figures."""
        return None

    def grain(self, labels: Sequence[Any]) -> float:
        """Points of the main figure that one text may cost, about."""
        return 100 / len(labels)

    @abstractmethod
    def agreement(self, logits: np.ndarray, base: np.ndarray, weights: np.ndarray | None = None) -> float:
        """Percent in which the answers ``[n, names]`` of two models to the same texts agree; texts may count
        by `weights`."""

    def agreements(self, logits: np.ndarray, base: np.ndarray) -> np.ndarray | None:
        """The agreement of each text ``[texts]``, where `agreement` is the mean of these. None where it is
        another figure, or as soon computed."""
        return None

    @abstractmethod
    def doubt(self, change: float, texts: int) -> float:
        """Standard error of 1 less the agreement, as a share, measured on so many texts, if it is `change` in
        truth."""

    def margins(self, logits: np.ndarray, base: np.ndarray) -> np.ndarray:
        """How far logits ``[n, names]`` are from another decision than that of the base model, negative where
        they have made it: ``[n, decisions]``. Only where the task `decides`."""
        raise NotImplementedError

    # Answers ---------------------------------------------------------------------------------

    @abstractmethod
    def answer(self, logits: np.ndarray, texts: Sequence[Any] = ()) -> dict[str, float]:
        """What one text's outputs ``[names]`` mean: label names with their probabilities, or the score.

        `texts` are the text itself, or both of a pair: of tasks whose answers are parts of them.
        """

    @abstractmethod
    def columns(self, logits: np.ndarray, texts: Sequence[Any] = ()) -> dict[str, Any]:
        """One text's outputs ``[names]`` as columns of a file, `written`: ``prediction``, and of classes
        ``score``. They are None where an output is no finite number. `texts` as of `answer`."""


def read_aliases(label_map: Mapping[str, str] | None) -> dict[str, str]:
    """A label map by the normal forms of its labels.

    Raises
    ------
    UserError
        If one label is to stand for two classes.
    """
    aliases: dict[str, str] = {}
    for label, name in (label_map or {}).items():
        if aliases.setdefault(raw.key(label), name) != name:
            raise UserError(f"`label_map` says twice, and not alike, what {label!r} is; say it once")
    return aliases


def answers_of(logits: np.ndarray) -> np.ndarray:
    """Logits of rows with many answers each, an object array ``[rows]``, as those of all answers ``[answers,
    names]``. Those of one answer a row stay as they are."""
    return np.concatenate(list(logits)) if logits.dtype == object else logits
