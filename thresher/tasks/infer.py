"""Which task raw labels, or a model's config, stand for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from thresher.data import is_collection
from thresher.errors import UserError
from thresher.folders.weights import head_named
from thresher.heads import EmbeddingHead, SpanHead, TokenHead
from thresher.tasks import labels as raw
from thresher.tasks.base import Task, read_aliases
from thresher.tasks.embedding import Embedding
from thresher.tasks.multi_label import MultiLabel
from thresher.tasks.ranking import RANKS, Ranking
from thresher.tasks.regression import Regression
from thresher.tasks.retrieval import Retrieval
from thresher.tasks.single_label import SingleLabel
from thresher.tasks.spans import ENDS, NONE, Spans
from thresher.tasks.token_labels import TokenLabels

TASKS: dict[str, type[Task]] = {
    task.kind: task
    for task in (SingleLabel, MultiLabel, Regression, TokenLabels, Spans, Embedding, Ranking, Retrieval)
}


def infer(
    labels: Iterable[Any],
    kind: str | None = None,
    score_name: str = "score",
    places: Sequence[str] | None = None,
    label_map: Mapping[str, str] | None = None,
    by_word: bool = False,
) -> Task:
    """Find the task that raw training labels stand for; sort names by value if all are integers.

    Parameters
    ----------
    labels : iterable
        Strings, numbers, bools, or lists of them. Lists of one length that hold nothing but 0 and 1 are
        vectors with an entry a class; their classes are called 0, 1, 2 and so on.
    kind : str, optional
        One of `TASKS`. By default lists are multi-label, numbers that are not all whole are regression, dicts
        are answers that stand in a context, and all else is single-label. If "multi-label", strings hold
        names with commas between.
    score_name : str
        Name of the score in regression.
    places : sequence of str, optional
        File and line of each label, for messages.
    label_map : mapping of str to str, optional
        The classes that labels stand for, where they are not called so.
    by_word : bool
        Whether the texts come in words, each of which has a label.

    Raises
    ------
    UserError
        Unknown kind; no labels; fewer than two different ones; labels that do not fit the kind.
    """
    aliases = read_aliases(label_map)
    labels = [raw.plain(label) for label in labels]
    places = places or [f"label {i}" for i in range(1, len(labels) + 1)]
    if not labels:
        raise UserError("there are no labels; give at least one labelled row")
    if kind is None:
        kind = TokenLabels.kind if by_word else _guess(labels)
    if kind not in TASKS:
        raise UserError(f"unknown kind of task {kind!r}; choose from: {', '.join(TASKS)}")
    if TASKS[kind].by_word != by_word:
        wanted = "lists of words" if TASKS[kind].by_word else "texts as strings"
        raise UserError(f"{kind} tasks are of {wanted}; name a column of such in `text`")
    task, different = TASKS[kind].inferred(labels, places, aliases, score_name)
    if different < 2:
        raise UserError(
            f"every label is {labels[0]!r}: there is nothing to learn; give rows with other labels"
        )
    return task


def task_of(config: Any) -> Task:
    """Read the task from a transformers config. One output is regression, unless its problem type says that
    it is a yes or no, or a mark of ours that it ranks.

    Raises
    ------
    UserError
        Regression with several outputs, or a model that answers with a text.
    """
    if (head := head_named(config)).decodes:
        raise UserError(
            "the model answers with a text: prune it and train it in Python, by thresher.prune, and call "
            "PrunedModel.generate"
        )
    count, problem = config.num_labels, getattr(config, "problem_type", None)
    by_id = {int(key): str(name) for key, name in config.id2label.items()}
    names = tuple(by_id.get(i, f"LABEL_{i}") for i in range(count))
    if head is TokenHead:
        return TokenLabels(names)
    if head is SpanHead:
        return Spans(ENDS, none=bool(getattr(config, NONE, False)))
    if head is EmbeddingHead:
        return Embedding(())
    if problem == MultiLabel.problem:
        return MultiLabel(names)
    if count == 1:
        kind = Ranking if getattr(config, RANKS, False) is True else Regression
        return kind(("score",) if names == ("LABEL_0",) else names)
    if problem == Regression.problem:
        raise UserError(f"the model predicts {count} scores; only regression with one is supported")
    return SingleLabel(names)


def task_on(
    config: Any,
    measured: str | None = None,
    learned: Iterable[str | None] = (),
    metric: str | None = None,
    remembered: str | None = None,
) -> Task:
    """The task of a model on some data: a score ranks, and vectors search, where the data are a folder in
    BEIR's layout. A score ranks as well where the metric is one of rankings.

    Parameters
    ----------
    config : transformers config
    measured : str, optional
        What quality is measured on.
    learned : iterable of str or None
        Other data.
    metric : str, optional
        The main figure that is asked for.
    remembered : str, optional
        The main figure when the model was pruned. Left aside where it is one of other data, as nDCG is on a
        table of scores.

    Raises
    ------
    UserError
        As `task_of`, or if there is no such metric.
    """
    task, asked = task_of(config), metric or remembered
    collections = is_collection(measured), any(map(is_collection, learned))
    if isinstance(task, Regression):
        ranks = any(collections) or asked in Ranking.metrics
        ranks |= isinstance(task, Ranking) and asked not in Regression.metrics
        task = (Ranking if ranks else Regression)(task.names)
    elif isinstance(task, Embedding) and collections[0]:
        task = Retrieval(task.names)
    elsewhere = {name for kind in _kin(task) for name in kind.metrics} - {*task.metrics}
    return task.measured_by(metric or (None if remembered in elsewhere else remembered))


def _kin(task: Task) -> list[type[Task]]:
    """The kinds of task that a model of this one may have on other data: what it is made of, or what is made
    of it."""
    return [kind for kind in TASKS.values() if issubclass(kind, type(task)) or isinstance(task, kind)]


def kind_on(kind: str | None, sources: Iterable[str | None], metric: str | None) -> str | None:
    """The kind of task to fine-tune for, where none is given and the data or the metric tell."""
    ranks = any(map(is_collection, sources)) or metric in Ranking.metrics
    return Ranking.kind if kind is None and ranks else kind


def _guess(labels: list[Any]) -> str:
    """Lists are multi-label, as values or in cells; numbers that are not all whole are scores; dicts hold
    answers and where they stand."""
    if any(isinstance(label, dict) and {"text", "answer_start"} <= label.keys() for label in labels):
        return Spans.kind
    cells = [label for label in labels if isinstance(label, str) and label.strip()]
    parsed = [raw.parse_list(cell) for cell in cells]
    written = any(found and any(isinstance(item, str) for item in found) for found in parsed)
    if any(isinstance(label, (list, tuple)) for label in labels) or written:
        return MultiLabel.kind
    if cells and all(found is not None for found in parsed):
        return MultiLabel.kind
    numbers = [raw.number(label) for label in labels]
    scores = all(n is not None for n in numbers) and not all(n.is_integer() for n in numbers if n is not None)
    return Regression.kind if scores else SingleLabel.kind
