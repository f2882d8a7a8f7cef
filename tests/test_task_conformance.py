"""Every task through one suite: what is in `TASKS` takes part at once."""

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch.autograd import gradcheck
from transformers import PreTrainedConfig

from thresher import UserError
from thresher.tasks import TASKS, infer, task_of

NAMES = {"regression": ("score",), "token-labels": ("O", "B-a", "I-a"), "embedding": ()}  # or three classes
NAMES |= {"ranking": ("relevance",), "retrieval": (), "spans": ("start", "end")}
ANSWERS = {
    "token-labels": [3, 1, 2, 4, 0, 2],
    "embedding": [2] * 6,
    "ranking": [3, 1, 2, 4, 5, 2],
    "spans": [3, 2, 5, 4, 2, 9],
}  # of six texts
CONTEXT = "a1 b2 c3 d4 e5 f6 g7 h8"  # of spans: a token for each word
LABELS = {
    "single-label": [0, 2, 1, 1, 0, 2],
    "multi-label": [[1.0, 0.0, 1.0], [0.0, 0.0, 0.0], [1.0, 1.0, 0.0]] * 2,
    "regression": [0.5, -1.25, 3.0, 0.0, 2.0, 1.0],
    "token-labels": [[1, 2, 0], [0], [1, 1], [0, 2, 0, 1], [], [0, 0]],
    "embedding": [0.5, -1.25, 3.0, 0.0, 2.0, 1.0],
    "ranking": [
        [0, 1.0, 0],
        [2.0],
        [0, 0],
        [0, 1.0, 2.0, 0],
        [1.0, 0, 0, 0, 0],
        [0, 0, 1.0],
    ],  # one is missed
    "retrieval": [[], [], [], [], [(0, 1.0), (2, 0.0)], [(1, 1.0), (3, 2.0)]],  # four documents, two queries
    "spans": [
        {"context": CONTEXT, "text": [CONTEXT[a:b]], "answer_start": [a]}
        for a, b in [(0, 5), (0, 2), (3, 8), (6, 8), (0, 2), (12, 20)]
    ],
}
TAUGHT = {"spans": [[0, 1, 2], [0, 3], [0, 0, 1, 2, 0], [0, 0, 0, 3], [0, 3], [0, 0, 0, 0, 0, 1, 0, 2, 0]]}
every_task = pytest.mark.parametrize("kind", TASKS)
every_taught = pytest.mark.parametrize("kind", [kind for kind in TASKS if TASKS[kind].teaches])


def made(kind, seed=0):
    """A task, logits for six texts, others, and labels."""
    task = TASKS[kind](NAMES.get(kind, ("a", "b", "c")))
    counts = ANSWERS.get(kind)
    answers = sum(counts) if counts else 6
    logits, others = np.random.default_rng(seed).normal(size=(2, answers, len(task.names) or 5))
    if task.within:
        logits, others = (np.hstack([x, places(counts)]) for x in (logits, others))
    if counts:
        logits, others = (by_text(x, counts) for x in (logits, others))
    return task, logits, others, LABELS[kind]


def places(counts):
    """The first token of a text stands nowhere, and the others for words of two letters."""
    return np.concatenate([[(-1, -1), *((3 * i, 3 * i + 2) for i in range(n - 1))] for n in counts])


def by_text(logits, counts):
    """Logits of answers, as those of texts."""
    texts = np.empty(6, dtype=object)
    for i, part in enumerate(np.split(logits, np.cumsum(counts)[:-1])):
        texts[i] = part
    return texts


def batch(task, *parts):
    """Of texts, as a batch has it: one answer after the other."""
    if task.kind not in ANSWERS:
        return parts
    if task.within:  # places are for texts
        parts = [by_text(np.concatenate(x)[:, :2], ANSWERS[task.kind]) for x in parts]
    return [np.concatenate(x) for x in parts]


def flat(kind, labels):
    """What a batch is taught, one answer after the other."""
    if kind not in ANSWERS:
        return [labels]
    rows = zip(TAUGHT.get(kind, labels), ANSWERS[kind], strict=True)
    return [[one for row, count in rows for one in row[:count]]]


def counts(kind):
    """How many answers there are in each row of a batch."""
    return torch.tensor(ANSWERS[kind]) if kind in ANSWERS else None


def in_float64(kind, logits, labels):
    """The mean loss from its definition."""
    if kind == "regression":
        return ((logits[:, 0] - np.array(labels)) ** 2).mean()
    if kind == "spans":
        rows = np.split(logits, np.cumsum(ANSWERS[kind])[:-1])
        marks = np.split(np.array(labels), np.cumsum(ANSWERS[kind])[:-1])
        ends = [
            (row, mark & (1 << end) > 0, end) for row, mark in zip(rows, marks, strict=True) for end in (0, 1)
        ]
        return np.mean([np.log(np.exp(row[:, e]).sum()) - float(row[on, e][0]) for row, on, e in ends])
    if kind in ("single-label", "token-labels"):
        sums = np.log(np.exp(logits).sum(1))
        return (sums - logits[np.arange(len(labels)), labels]).mean()
    lists = 0.0
    if kind == "ranking":
        logits, cuts = logits[:, 0], np.cumsum(ANSWERS[kind])[:-1]
        parts = zip(np.split(logits, cuts), np.split(np.array(labels), cuts), strict=True)
        lists = sum(
            len(some) * (np.log(np.exp(some).sum()) - (some * true).sum() / true.sum())
            for some, true in parts
            if len(some) > 1 and true.any()
        ) / len(logits)
        labels = np.clip(labels, 0, 1)
    return (np.log1p(np.exp(logits)) - np.array(labels) * logits).mean() + lists


@every_taught
def test_the_loss_is_its_definition_with_its_gradient(kind):
    task, logits, _, labels = made(kind)
    (logits,), (labels,) = batch(task, logits), flat(kind, labels)
    wanted = torch.tensor(labels, dtype=task.label_dtype)
    wanted = wanted.double() if wanted.is_floating_point() else wanted
    found = torch.tensor(logits, requires_grad=True)
    loss = task.loss(found, wanted, counts(kind))
    assert float(loss.detach()) == pytest.approx(in_float64(kind, logits, labels))
    assert gradcheck(lambda some: task.loss(some, wanted, counts(kind)), found)
    none = torch.tensor(logits[:0])
    if task.by_word or task.within:  # rows without answers
        assert task.loss(none, wanted[:0], torch.tensor([], dtype=torch.long)) == 0


@every_task
def test_the_distance_is_least_where_outputs_are_equal(kind):
    task, logits, others, _ = made(kind)
    found, base = (torch.tensor(x) for x in batch(task, logits, others))
    found.requires_grad_()
    assert gradcheck(lambda some: task.distance(some, base, counts(kind)), found)
    same = base.clone().requires_grad_()
    least = task.distance(same, base, counts(kind))
    assert torch.autograd.grad(least, same)[0].abs().max() < 1e-12
    assert float(task.distance(found, base, counts(kind)).detach()) > float(least.detach())
    assert task.divergence(others, others) == pytest.approx(0, abs=1e-12)
    assert task.divergence(logits, others) > 0


@every_task
def test_figures(kind):
    """In percent; the main one first; texts that count alike count as without weights."""
    task, logits, others, labels = made(kind)
    found = task.quality(logits, labels)
    assert list(found)[: len(task.metrics)] == list(task.metrics)
    assert all(-100 <= value <= 100 for value in found.values())
    for metric in task.metrics:
        other = task.measured_by(metric)
        assert next(iter(other.quality(logits, labels).items())) == (metric, found[metric])
        assert other.main_quality(logits, labels, np.full(6, 2.5)) == pytest.approx(found[metric])
        assert 0 < other.grain(labels) <= 100
    assert task.agreement(logits, logits) == pytest.approx(100, abs=1e-9)
    assert task.agreement(logits, others, np.ones(6)) == pytest.approx(task.agreement(logits, others))
    if (values := task.values(logits, labels)) is not None:
        assert np.nanmean(values) == pytest.approx(found[task.metric])
    if (values := task.agreements(logits, others)) is not None:
        assert values.mean() == pytest.approx(task.agreement(logits, others))
    assert task.doubt(0.02, 400) < task.doubt(0.02, 100) < task.doubt(0.04, 100)


@every_task
def test_decisions_and_their_margins(kind):
    task, logits, others, _ = made(kind)
    if not task.decides:
        with pytest.raises(NotImplementedError):
            task.margins(logits, others)
        return
    margins = task.margins(logits, others)
    assert len(margins) == sum(ANSWERS.get(kind, [1] * 6))
    assert 100 * (margins > 0).mean() == pytest.approx(task.agreement(logits, others))


@every_task
def test_answers_are_of_its_names(kind):
    task, logits, *_ = made(kind)
    texts = ("which", CONTEXT)
    for row in np.concatenate(logits) if kind == "ranking" else logits:
        assert task.within or set(task.answer(row, texts)) <= set(task.names or ["norm", "cosine"])
        columns = task.columns(row, texts)
        assert columns.keys() <= set(task.written)
        if len(row):
            assert task.columns(np.where(row == row[0], np.nan, row), texts) == dict.fromkeys(columns)


@every_task
def test_a_config_tells_the_task_again(kind):
    task, *_ = made(kind)
    settings = task.config_kwargs() | {"architectures": [f"Some{task.head.suffix}"]}
    if kind != "retrieval":  # which the data tell
        assert task_of(PreTrainedConfig(**settings)) == task


@every_taught
def test_labels_tell_the_task(kind):
    raw = {"single-label": ["a", "c", "b"], "multi-label": [["a", "c"], [], ["b"]], "regression": [0.5, 1, 2]}
    raw["token-labels"] = [["B-a", "I-a", "O"], [], ["O"]]
    raw["ranking"] = [[1, "0", False], [2]]
    raw["spans"] = [{"text": ["a1"], "answer_start": [0]}, {"text": ["b2"], "answer_start": [3]}]
    by_word = TASKS[kind].by_word
    assert infer(raw[kind], kind if kind == "ranking" else None, by_word=by_word) == made(kind)[0]
    with pytest.raises(UserError, match=r"lists of words|texts as strings"):
        infer(raw[kind], kind, by_word=not by_word)
    assert (
        infer(raw[kind], kind, by_word=by_word).encode(raw[kind][0], "f:1")
        == {
            "single-label": 0,
            "multi-label": [1.0, 0.0, 1.0],
            "regression": 0.5,
            "token-labels": [1, 2, 0],
            "ranking": [1.0, 0.0, 0.0],
            "spans": raw["spans"][0],
        }[kind]
    )


def test_embedders_learn_from_no_label():
    with pytest.raises(UserError, match="with sentence-transformers"):
        infer([0.5, 1.0], "embedding")
    with pytest.raises(UserError, match="from the base model's vectors alone"):
        TASKS["embedding"](()).loss(torch.zeros(1, 2), torch.zeros(1))
    with pytest.raises(UserError, match="name two text columns"):
        TASKS["embedding"](()).quality(np.zeros((1, 2)), [0.5])


def test_a_pair_is_as_near_as_the_cosine():
    """By hand, and by SciPy's rank correlation."""
    task, logits, *_ = made("embedding")
    near = [float(a @ b / np.sqrt((a @ a) * (b @ b))) for a, b in logits]
    assert [task.columns(pair)["prediction"] for pair in logits] == pytest.approx(near)
    labels = LABELS["embedding"]
    assert task.main_quality(logits, labels) == pytest.approx(100 * spearmanr(near, labels).statistic)
    assert task.columns(logits[0][0])["prediction"] == logits[0][0].tolist()
