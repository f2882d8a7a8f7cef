"""A tag for each word of a text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
from torch import Tensor

from thresher.errors import UserError
from thresher.heads import TokenHead
from thresher.tasks import labels as raw
from thresher.tasks import metrics
from thresher.tasks.base import answers_of
from thresher.tasks.entities import OUTSIDE, entities, has_entities
from thresher.tasks.single_label import SingleLabel

ENTITY_METRICS = ("f1", "precision", "recall")


class TokenLabels(SingleLabel):
    """The tag of the largest logit. Of tags that mark entities, the main figure is the F1 of whole entities;
    of others it is the accuracy.

    Logits and labels are those of texts: arrays ``[words, tags]``, and lists of ids. A batch holds the words
    of all its texts, ``[words, tags]`` and ``[words]``.

    Examples
    --------
    >>> TokenLabels(("O", "B-Drug", "I-Drug")).encode(["O", "B-Drug"], "dev.jsonl:2")
    [0, 1]
    """

    kind = "token-labels"
    metrics = (*ENTITY_METRICS, "accuracy")
    head = TokenHead
    by_word = True

    def __post_init__(self) -> None:
        marks = has_entities(self.names)
        object.__setattr__(self, "metric", self.metric or (self.metrics[0] if marks else "accuracy"))
        super().__post_init__()
        if self.metric in ENTITY_METRICS and not marks:
            raise UserError(
                f"'{self.metric}' is a figure of entities, and these tags mark none: "
                f"{', '.join(self.names):.200}. Tags of entities are such as B-Drug and I-Drug, and O "
                "outside. Measure by accuracy."
            )

    # Labels ----------------------------------------------------------------------------------

    @classmethod
    def inferred(
        cls, labels: list[Any], places: Sequence[str], aliases: Mapping[str, str], score_name: str
    ) -> tuple[Self, int]:
        found: Counter[str] = Counter()
        for tags, where in zip(labels, places, strict=True):
            for tag in _tags(tags, where):
                found[aliases.get(raw.key(tag), raw.spelled(tag))] += 1
        names = sorted(found, key=lambda name: (name != OUTSIDE, name.partition("-")[::-1]))
        return cls(tuple(names), aliases=aliases), len(names)

    def _encode(self, labels: list[Any], places: Sequence[str], source: str) -> list[Any]:
        known: dict[str, int] = {}
        encoded = []
        for tags, where in zip(labels, places, strict=True):
            row = []
            for tag in _tags(tags, where):
                if (word := str(tag)) not in known:
                    known[word] = self._id(word, where)
                row.append(known[word])
            encoded.append(row)
        return encoded

    def _id(self, tag: str, where: str) -> int:
        (found,) = self.classes.encode([tag], [where], aliases=self.aliases)
        return int(found)

    def encode_all(self, examples: Any, source: str) -> list[Any]:
        encoded = super().encode_all(examples, source)
        for words, tags, line in zip(examples["words"][:], encoded, examples["line"][:], strict=True):
            if len(words) != len(tags):
                raise UserError(
                    f"{source}:{line}: there are {len(tags)} tags for {len(words)} words; give each word one"
                )
        return encoded

    def config_kwargs(self) -> dict[str, Any]:
        return {name: value for name, value in super().config_kwargs().items() if name != "problem_type"}

    # Training --------------------------------------------------------------------------------

    def loss(self, logits: Tensor, labels: Tensor, counts: Tensor | None = None) -> Tensor:
        return super().loss(logits, labels) if len(labels) else logits.sum() * 0

    def distance(self, logits: Tensor, base: Tensor, counts: Tensor | None = None) -> Tensor:
        return super().distance(logits, base) if len(base) else logits.sum() * 0

    def divergence(self, logits: np.ndarray, base: np.ndarray) -> float:
        return super().divergence(answers_of(logits), answers_of(base))

    # Figures ---------------------------------------------------------------------------------

    def quality(self, logits: np.ndarray, labels: Sequence[Any]) -> dict[str, float]:
        """The figures, and of entities the F1 of each kind after them."""
        if not has_entities(self.names):
            return {"accuracy": self.measured_by("accuracy").main_quality(logits, labels)}
        found = super().quality(logits, labels)
        hit, said, true = self._counts(logits, labels, None)
        return found | {f"f1 of {kind}": _f1(hit[kind], said[kind], true[kind]) for kind in sorted(true)}

    def main_quality(
        self, logits: np.ndarray, labels: Sequence[Any], weights: np.ndarray | None = None
    ) -> float:
        if self.metric == "accuracy":
            words = np.concatenate([np.asarray(row, dtype=int) for row in labels])
            right = self.decided(answers_of(logits)) == words
            return metrics.accuracy(right, _of_texts(weights, labels)) if len(words) else 0.0
        hit, said, true = (sum(counts.values()) for counts in self._counts(logits, labels, weights))
        if self.metric == "precision":
            return 100.0 * hit / said if said else 0.0
        return _f1(hit, said, true) if self.metric == "f1" else 100.0 * hit / true if true else 0.0

    def _counts(
        self, logits: np.ndarray, labels: Sequence[Any], weights: np.ndarray | None
    ) -> tuple[Counter[str], Counter[str], Counter[str]]:
        """Entities of each kind that are found, that are said, and that are there; by weight."""
        hit, said, true = Counter[str](), Counter[str](), Counter[str]()
        for row, (some, tags) in enumerate(zip(logits, labels, strict=True)):
            weight = 1.0 if weights is None else float(weights[row])
            found = set(entities([self.names[i] for i in self.decided(some)]))
            there = set(entities([self.names[i] for i in tags]))
            for counts, chosen in ((hit, found & there), (said, found), (true, there)):
                for kind, _, _ in chosen:
                    counts[kind] += weight  # type: ignore[assignment]
        return hit, said, true

    def grain(self, labels: Sequence[Any]) -> float:
        return 100 / len(labels)

    def agreement(self, logits: np.ndarray, base: np.ndarray, weights: np.ndarray | None = None) -> float:
        same = self.decided(answers_of(logits)) == self.decided(answers_of(base))
        return 100.0 * float(np.average(same, weights=_of_texts(weights, base))) if len(same) else 100.0

    def margins(self, logits: np.ndarray, base: np.ndarray) -> np.ndarray:
        return super().margins(answers_of(logits), answers_of(base))

    # Answers ---------------------------------------------------------------------------------

    def answer(self, logits: np.ndarray, texts: Sequence[Any] = ()) -> dict[str, float]:
        """Tags of the words, but for O, each with the probability of its surest word."""
        found: dict[str, float] = {}
        columns = self.columns(logits)
        for tag, sure in zip(columns["prediction"] or (), columns["score"] or (), strict=True):
            if tag != OUTSIDE:
                found[tag] = max(sure, found.get(tag, 0.0))
        return found

    def columns(self, logits: np.ndarray, texts: Sequence[Any] = ()) -> dict[str, Any]:
        """``prediction``: a tag for each word; ``score``: their probabilities."""
        if not np.isfinite(logits).all():
            return {"prediction": None, "score": None}
        if not len(logits):
            return {"prediction": [], "score": []}
        shifted = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
        best = logits.argmax(1)
        sure = shifted.max(1) / shifted.sum(1)
        return {"prediction": [self.names[i] for i in best], "score": sure.tolist()}


def _of_texts(weights: np.ndarray | None, rows: Any) -> np.ndarray | None:
    """Weights of texts as those of their words."""
    return None if weights is None else np.repeat(weights, [len(row) for row in rows])


def _tags(tags: Any, where: str) -> list[Any]:
    if isinstance(tags, (list, tuple)):
        return list(tags)
    raise UserError(f"{where}: the tags are {tags!r:.100}; give a list, a tag for each word")


def _f1(hit: float, said: float, true: float) -> float:
    return 100.0 * 2 * hit / (said + true) if hit else 0.0
