"""An answer that stands in a context: extractive question answering."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Integral
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from thresher.errors import UserError
from thresher.heads import SpanHead
from thresher.inputs.rows import NOWHERE, PLACES, first_rows
from thresher.tasks.base import Task, answers_of
from thresher.tasks.best_span import Found, best_span
from thresher.tasks.of_classes import TEMPERATURE
from thresher.tasks.squad import worth

log = logging.getLogger(__name__)
ENDS = ("start", "end")  # what the two logits of a token are of
STARTS, STOPS = 1, 2  # in what a token is taught
NEVER = -1e9  # logit of a token that is not there
NONE = "handle_impossible_answer"  # in a config, and in transformers' pipelines
LAYOUT = '{"text": ["..."], "answer_start": [0]}, with empty lists where there is no answer'


@dataclass(frozen=True)
class Spans(Task):
    """The best span of a context, or that there is no answer in it.

    Logits of texts are an object array ``[texts]`` of arrays ``[tokens, 4]``, which have the places of tokens
    as `best_span` takes them, and labels are dicts: "text", "answer_start", and the "context". A batch holds
    the tokens of all its rows, ``[tokens, 2]``, and its labels say of each whether it starts the answer
    (`STARTS`), ends it (`STOPS`) or both: the first token of a row does where the row has no answer.

    Attributes
    ----------
    none : bool
        Whether "no answer" is among the answers. A model says so in its config, as `finetune` writes it there
        if a question of the training data has none, and `prune` too. Others always give an answer, because a
        model that has never learned of questions without one has learned nothing of when to give none.

    Examples
    --------
    >>> Spans(ENDS).encode({"text": ["Paris"], "answer_start": [8]}, "dev.jsonl:2")
    {'text': ['Paris'], 'answer_start': [8]}
    """

    kind = "spans"
    problem = ""
    metrics = ("f1", "exact")
    head = SpanHead
    label_dtype = torch.long
    decides = False  # on classes, that is: spans are too many, and too much alike, to have margins
    within = True
    together = "text_pair"
    written: ClassVar[tuple[str, ...]] = ("prediction", "score", "start")

    none: bool = False

    # Labels ----------------------------------------------------------------------------------

    @classmethod
    def inferred(
        cls, labels: list[Any], places: Sequence[str], aliases: Mapping[str, str], score_name: str
    ) -> tuple[Self, int]:
        found = cls(ENDS)._encode(labels, places, "")
        different = {(*answer["text"], *answer["answer_start"]) for answer in found}
        return cls(ENDS, aliases=aliases).taught(labels), len(different)

    def taught(self, labels: Sequence[Any]) -> Self:
        return replace(
            self, none=self.none or any(_is_dict(answer) and not answer.get("text") for answer in labels)
        )

    @property
    def noted(self) -> dict[str, Any]:
        return {NONE: self.none}

    def config_kwargs(self) -> dict[str, Any]:
        kwargs = super().config_kwargs() | self.noted
        return {name: value for name, value in kwargs.items() if name != "problem_type"}

    def check_texts(self, examples: Any, source: str) -> None:
        super().check_texts(examples, source)
        if "text_pair" not in examples.column_names:
            raise UserError(
                f"{source}: answers stand in a context: name two columns in `text`, of the question and of "
                "the context"
            )

    def _encode(self, labels: list[Any], places: Sequence[str], source: str) -> list[Any]:
        return [answers_to(label, where) for label, where in zip(labels, places, strict=True)]

    def encode_all(self, examples: Any, source: str) -> list[Any]:
        self.check_texts(examples, source)
        encoded = super().encode_all(examples, source)
        rows = zip(examples["text"][:], examples["text_pair"][:], examples["line"][:], strict=True)
        for answers, (question, context, line) in zip(encoded, rows, strict=True):
            for text, start in zip(answers["text"], answers["answer_start"], strict=True):
                if start < 0 or context[start : start + len(text)] != text:
                    raise UserError(f"{source}:{line}: {_astray(text, start, question, context)}")
            answers["context"] = context
        if not self.none and (lost := sum(not answers["text"] for answers in encoded)):
            log.warning(
                "%s: %d of %d questions have no answer, but the model always gives one: its config.json has "
                "no `%s`.",
                *(source, lost, len(encoded), NONE),
            )
        return encoded

    def row_labels(self, rows: Any, labels: list[Any]) -> list[Any]:
        """Which token of each row starts the first answer, and which ends it: the first token, where the
        answer does not lie in the row as a whole."""
        starts = set(first_rows(rows).tolist())
        taught, text = [], -1
        for row, flat in enumerate(rows[PLACES][:]):
            text += row in starts
            places = np.asarray(flat).reshape(-1, 2)
            row_is = (row in starts, row + 1 in starts or row + 1 == len(rows))
            first, last = _ends(places, labels[text], *row_is)
            marks = np.zeros(len(places), dtype=int)
            marks[first] |= STARTS
            marks[last] |= STOPS
            taught.append(marks.tolist())
        return taught

    # Training --------------------------------------------------------------------------------

    def loss(self, logits: Tensor, labels: Tensor, counts: Tensor | None = None) -> Tensor:
        """Mean over rows of the cross entropies of start and end, as transformers has it."""
        if not len(logits):
            return logits.sum() * 0
        ends = torch.stack([labels & STARTS, labels & STOPS], -1).bool()
        chosen = _by_row(logits, counts).log_softmax(1)[_by_row(ends, counts, False)]
        return -chosen.mean()

    def distance(self, logits: Tensor, base: Tensor, counts: Tensor | None = None) -> Tensor:
        if not len(logits):
            return logits.sum() * 0
        given, wanted = ((_by_row(x, counts) / TEMPERATURE).log_softmax(1) for x in (logits, base))
        return (wanted.exp() * (wanted - given)).sum(1).mean() * TEMPERATURE**2

    def divergence(self, logits: np.ndarray, base: np.ndarray) -> float:
        found, wanted = answers_of(logits), answers_of(base)
        begins = np.flatnonzero(found[:, 2] == NOWHERE)
        counts = torch.from_numpy(np.diff([*begins, len(found)]))
        return float(self.distance(torch.from_numpy(found[:, :2]), torch.from_numpy(wanted[:, :2]), counts))

    # Figures ---------------------------------------------------------------------------------

    def quality(self, logits: np.ndarray, labels: Sequence[Any]) -> dict[str, float]:
        """The figures, and where some questions have an answer and others have none, those of each kind."""
        found = self._worth(logits, labels)
        names = sorted(self.metrics, key=lambda name: name != self.metric)
        figures = {name: float(found[name].mean()) for name in names}
        answerable = np.array([bool(answers["text"]) for answers in labels])
        if answerable.all() or not answerable.any():
            return figures
        kinds = {"answerable": answerable, "unanswerable": ~answerable}
        return figures | {
            f"{name} of {kind}": float(found[name][some].mean())
            for kind, some in kinds.items()
            for name in names
        }

    def main_quality(
        self, logits: np.ndarray, labels: Sequence[Any], weights: np.ndarray | None = None
    ) -> float:
        return float(np.average(self.values(logits, labels), weights=weights))

    def values(self, logits: np.ndarray, labels: Sequence[Any]) -> np.ndarray:
        return self._worth(logits, labels)[self.metric]

    def _worth(self, logits: np.ndarray, labels: Sequence[Any]) -> dict[str, np.ndarray]:
        """Each figure of each text ``[texts]``, in percent."""
        found = [
            worth(self._text(text, answers["context"])[0], answers["text"], self.none)
            for text, answers in zip(logits, labels, strict=True)
        ]
        return dict(zip(("f1", "exact"), 100 * np.array(found).reshape(-1, 2).T, strict=True))

    def agreement(self, logits: np.ndarray, base: np.ndarray, weights: np.ndarray | None = None) -> float:
        return float(np.average(self.agreements(logits, base), weights=weights))

    def agreements(self, logits: np.ndarray, base: np.ndarray) -> np.ndarray:
        found, wanted = ([best_span(text, self.none)[:2] for text in some] for some in (logits, base))
        return 100.0 * (np.array(found) == np.array(wanted)).all(1)

    def doubt(self, change: float, texts: int) -> float:
        change = max(change, 1 / texts) if change < 1 else change
        return (change * (1 - change) / texts) ** 0.5

    # Answers ---------------------------------------------------------------------------------

    def _text(self, logits: np.ndarray, context: str) -> tuple[str, Found]:
        found = best_span(logits, self.none)
        return (context[found.first : found.end] if found.first >= 0 else ""), found

    def answer(self, logits: np.ndarray, texts: Sequence[Any] = ()) -> dict[str, float]:
        text, found = self._text(logits, texts[1])
        return {text or "no answer": found.probability}

    def columns(self, logits: np.ndarray, texts: Sequence[Any] = ()) -> dict[str, Any]:
        """``prediction``: the answer, empty where there is none; ``score``: how probable its two ends are;
        ``start``: the character of the context where it starts, -1 where there is none."""
        if not np.isfinite(logits).all():
            return dict.fromkeys(self.written)
        text, found = self._text(logits, texts[1])
        return {"prediction": text, "score": found.probability, "start": found.first}


def answers_to(label: Any, where: str) -> dict[str, list[Any]]:
    """A label as answers.

    Raises
    ------
    UserError
        If it is no dict of texts and as many starts.
    """
    texts: Any = label.get("text") if _is_dict(label) else None
    starts: Any = label.get("answer_start") if _is_dict(label) else None
    sound = isinstance(texts, (list, tuple)) and isinstance(starts, (list, tuple))
    if not sound or len(texts) != len(starts):
        raise UserError(f"{where}: the answers are {label!r:.100}; write {LAYOUT}")
    for text, start in zip(texts, starts, strict=True):
        if not isinstance(text, str) or not text.strip():
            raise UserError(f"{where}: the answer {text!r:.60} is no text; write {LAYOUT}")
        if not isinstance(start, Integral) or isinstance(start, bool):
            raise UserError(
                f"{where}: the answer {text!r:.60} starts at {start!r:.60}; name a character, 0 on"
            )
    return {"text": list(texts), "answer_start": [int(start) for start in starts]}


def _is_dict(label: Any) -> bool:
    return isinstance(label, dict)


def _astray(text: str, start: int, question: str, context: str) -> str:
    """What is wrong with an answer that does not stand where it is said to."""
    here = context[max(start, 0) : max(start, 0) + len(text)]
    said = f"the answer {text!r:.60} is said to stand at character {start} of the context, where "
    said += f"{here!r:.60} stands" if here and start >= 0 else "there is none"
    if (place := context.find(text)) >= 0:
        return f"{said}; write {place}, where it stands"
    if text in question:
        return f"{said}. It stands in the other text: name the column of the question first in `text`"
    return f"{said}, and it stands nowhere else; write an answer as it stands in the context"


def _ends(places: np.ndarray, answers: Mapping[str, Any], first: bool, last: bool) -> tuple[int, int]:
    """The tokens of a row that start and end the first answer; 0 and 0 where it is not whole in the row.

    Parameters
    ----------
    places : array [tokens, 2]
        First and end characters, of the first token `NOWHERE`.
    answers : mapping
    first, last : bool
        Whether the row is the first of its text, and the last.
    """
    if not answers["text"] or len(places) < 2:
        return 0, 0
    start = answers["answer_start"][0]
    end = start + len(answers["text"][0])
    if (places[1, 0] > start and not first) or (places[-1, 1] < end and not last):
        return 0, 0
    inside = np.flatnonzero((places[:, 0] < end) & (places[:, 1] > start))
    return (int(inside[0]), int(inside[-1])) if len(inside) else (0, 0)


def _by_row(values: Tensor, counts: Tensor | None, fill: float = NEVER) -> Tensor:
    """Values of tokens ``[tokens, 2]`` as those of rows ``[rows, longest, 2]``."""
    parts = values.split([len(values)] if counts is None else counts.tolist())
    return pad_sequence(list(parts), batch_first=True, padding_value=fill)
