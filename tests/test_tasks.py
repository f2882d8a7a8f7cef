"""Tasks: inferred from labels or a config, and their scores."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import f1_score
from transformers import PreTrainedConfig

from thresher.errors import UserError
from thresher.tasks import TASKS, Task, infer, task_of, task_on
from thresher.tasks.multi_label import MultiLabel
from thresher.tasks.regression import Regression
from thresher.tasks.single_label import SingleLabel

CLASSES = SingleLabel(("a", "b", "c"))
TAGS = MultiLabel(("a", "b", "c"))
YES = MultiLabel(("LABEL_0",))  # one output
SCORE = Regression(("score",))
UNNAMED = SingleLabel(("LABEL_0", "LABEL_1", "LABEL_2"))


@pytest.mark.parametrize(
    ("labels", "kind", "names"),
    [
        (["b", "a", "b"], "single-label", ("a", "b")),
        (["10", "9", "-1"], "single-label", ("-1", "9", "10")),
        ([10, 9.0, 2], "single-label", ("2", "9", "10")),
        (["1.0", "2.0"], "single-label", ("1", "2")),
        (["007", "7"], "single-label", ("007", "7")),
        (["pos", "neg", "pos "], "single-label", ("neg", "pos")),
        (["true", "FALSE", "True"], "single-label", ("FALSE", "true")),
        (["caf\u00e9", "cafe\u0301", "tea"], "single-label", ("café", "tea")),
        (["1", "b", "10"], "single-label", ("1", "10", "b")),
        (["nan", "0.5"], "single-label", ("0.5", "nan")),
        ([True, False], "single-label", ("False", "True")),
        ([np.int64(1), np.int64(0)], "single-label", ("0", "1")),
        ([0.5, 1], "regression", ("score",)),
        (["0.5", "1"], "regression", ("score",)),
        ([["b", "a"], []], "multi-label", ("a", "b")),
        ([[10], [9, 1]], "multi-label", ("1", "9", "10")),
        ([np.array([1, 0]), np.array([], int)], "multi-label", ("0", "1")),
        ([[1, 0], [0, 1]], "multi-label", ("0", "1")),
        ([[1.0, 0.0, 0.0], [0.0, 1.0, 1.0]], "multi-label", ("0", "1", "2")),
        ([[True, False, True], [False, False, True]], "multi-label", ("0", "1", "2")),
        ([np.array([1, 0, 1]), np.array([0, 0, 1])], "multi-label", ("0", "1", "2")),
        (["[1, 0, 1]", "[0 0 1]", "[1. 1. 1.]"], "multi-label", ("0", "1", "2")),
        (["['a', 'b']", "['c']", "[]"], "multi-label", ("a", "b", "c")),
        (["['a' 'b']", "['c']", ""], "multi-label", ("a", "b", "c")),
        ([["a"], ["a"], []], "multi-label", ("a",)),  # one yes or no
    ],
)
def test_infer(labels: list, kind: str, names: tuple[str, ...]) -> None:
    assert infer(iter(labels)) == TASKS[kind](names)


def test_infer_forced() -> None:
    assert infer(["a, b", "", "c"], "multi-label").names == ("a", "b", "c")
    assert infer(['["x, y"]', "['z', \"it's\"]", "(odd)"], "multi-label").names == (
        "(odd)",
        "it's",
        "x, y",
        "z",
    )
    assert infer(["array(['a', 'b'], dtype=object)", "{'c'}", "[np.str_('d')]"], "multi-label").names == (
        "a",
        "b",
        "c",
        "d",
    )
    assert infer([[1, 0], [0, 1]], "single-label").names == ("0", "1")
    assert infer([3, 4], "multi-label").names == ("3", "4")
    assert infer([1, 2], "regression", score_name="stars") == Regression(("stars",))
    assert infer([0.5, 1.0], "single-label").names == ("0.5", "1")
    mapped = infer(["0", "1", "x"], label_map={"0.0": "neg", "1": "pos", "x": "pos"})
    assert mapped.names == ("neg", "pos")
    assert mapped.encode("0.0", "f:1") == 0


@pytest.mark.parametrize(
    ("labels", "kind", "message"),
    [
        ([], None, "no labels"),
        (["a", "a"], None, "every label is 'a'.*nothing to learn"),
        ([0.5, 0.5], None, "nothing to learn"),
        ([["a"], ["a"]], None, "nothing to learn"),
        ([[1, 0], [1, 0]], None, "nothing to learn"),
        (["1.0", "1 "], None, "nothing to learn"),
        (["", ""], "multi-label", "every label is ''"),
        (["['a', 'b'", "['c']"], "multi-label", r"label 1: the label .* begins as a list does, but is none"),
        (["c", "[a, b]"], "multi-label", r"label 2: the label '\[a, b\]' begins as a list"),
        (["c", "['a'... 'b']"], "multi-label", "label 2: the label .* begins as a list"),
        (["c", "{'a': 1, 'b': 0}"], "multi-label", "label 2: the label .* begins as a list"),
        (["c", "Index(['a', 'b'], dtype='object')"], "multi-label", "label 2: commas .* inside brackets"),
        (["c", 'c("a", "b")'], "multi-label", "label 2: commas .* inside brackets"),
        (["c", "WrappedArray(a, b)"], "multi-label", "label 2: commas .* inside brackets"),
        (["c", "smith (j, k)"], "multi-label", "label 2: commas .* inside brackets"),
        ([["a", None], ["b"]], None, "None is no class"),
        (["[nan]", "['a']"], "multi-label", "label 1: the label .* begins as a list"),
        (["a", "b"], "sorting", "unknown kind of task 'sorting'; choose from: single-label, multi-label"),
        (["1", "b"], "regression", "'b' is not a finite number"),
        ([["a"], ["b"]], "single-label", r"\['a'\] is no class"),
        ([{"a": 1}, {"b": 1}], None, "is no class"),
        ([None, "a"], None, "is no class"),
        ([float("nan"), "a"], None, "is no class"),
    ],
)
def test_infer_refuses(labels: list, kind: str | None, message: str) -> None:
    with pytest.raises(UserError, match=message):
        infer(labels, kind)


def test_encode() -> None:
    assert [CLASSES.encode(name, "f:1") for name in "cab"] == [2, 0, 1]
    assert TAGS.encode(["c", "a"], "f:1") == [1.0, 0.0, 1.0]
    assert TAGS.encode("b, c", "f:1") == [0.0, 1.0, 1.0]
    assert TAGS.encode("", "f:1") == TAGS.encode([], "f:1") == [0.0, 0.0, 0.0]
    assert SCORE.encode("-1.5e1", "f:1") == -15.0
    assert SCORE.encode(np.float32(0.5), "f:1") == 0.5


@pytest.mark.parametrize("label", ["2", 2, 2.0, "2.0", "LABEL_2", np.int64(2), " 2 "])
def test_encode_ids(label: object) -> None:
    assert UNNAMED.encode(label, "f:1") == 2
    assert CLASSES.encode(label, "f:1") == 2
    assert SingleLabel(("0", "LABEL_2", "2")).encode(label, "f:1") in (1, 2)


def test_encode_bools() -> None:
    assert infer([True, False]).encode(True, "f:1") == 1
    assert UNNAMED.encode(True, "f:1") == 1


@pytest.mark.parametrize("one", [["1.0", "0.0"], ["1", "0"], [1, 0], [1.0, 0.0], [" 1", "0 "], [True, False]])
@pytest.mark.parametrize(
    "other", [["1.0", "0.0"], ["1", "0"], [1, 0], [1.0, 0.0], ["true", "FALSE"], [True, False]]
)
def test_spellings_agree_both_ways(one: list, other: list) -> None:
    assert [infer(one).encode(label, "f:1") for label in other] == [1, 0]
    assert [infer(other).encode(label, "f:1") for label in one] == [1, 0]


class Table(dict):
    """The columns of a data set, as `encode_all` reads them."""

    def __init__(self, *labels: object):
        super().__init__(label=list(labels), line=list(range(2, 2 + len(labels))))


SENTIMENT = SingleLabel(("neg", "pos"))


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (["neg", "pos"], None),
        ([" neg", "pos "], None),
        (["NEG", "Pos"], "'NEG' is 'neg' (by case), 'Pos' is 'pos' (by case)"),
        (["0", "1"], "'0' is 'neg' (by id), '1' is 'pos' (by id)"),
        ([0.0, 1.0], "0.0 is 'neg' (by id)"),
        (["LABEL_0", "LABEL_1"], "'LABEL_1' is 'pos' (by id)"),
        ([[1, 0], [0, 1]], None),
    ],
)
def test_labels_that_are_called_otherwise_are_read_and_said(labels: list, said: str | None, caplog) -> None:
    assert SENTIMENT.encode_all(Table(*labels), "dev.tsv") == [0, 1]
    assert (said in caplog.text and "dev.tsv" in caplog.text) if said else not caplog.text


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["neg", "1"], "dev.tsv:3: label '1' beside 'neg': one is a name and the other an id"),
        ([False, True], "dev.tsv:2: unknown label False"),  # which of the two is true?
        (["1", "2"], "dev.tsv:3: unknown label '2'"),  # counted from 1: no id
        ([[1, 0], [1, 1]], "dev.tsv:3: .* marks 2 classes"),
    ],
)
def test_labels_that_may_mean_two_things_are_refused(labels: list, message: str) -> None:
    with pytest.raises(UserError, match=message):
        SENTIMENT.encode_all(Table(*labels), "dev.tsv")


def test_a_label_map_says_what_labels_mean(caplog) -> None:
    task = SENTIMENT.reading({"1": "neg", "2.0": "pos", "good": "pos"})
    assert task.encode_all(Table(1, "2", "neg", "good", 2.0), "dev.tsv") == [0, 1, 0, 1, 1]
    assert not caplog.text
    assert TAGS.reading({"x": "a"}).encode(["x", "c"], "f:1") == [1.0, 0.0, 1.0]
    assert TAGS.reading({"x": "a"}).encode("x, c", "f:1") == [1.0, 0.0, 1.0]
    assert TAGS.reading({"x": "a"}).encode('["x", "c"]', "f:1") == [1.0, 0.0, 1.0]
    with pytest.raises(UserError, match="'1' is 'negativ', but the model knows 'neg', 'pos'"):
        SENTIMENT.reading({"1": "negativ"})
    with pytest.raises(UserError, match="says twice"):
        SENTIMENT.reading({"1": "neg", "1.0": "pos"})


def test_a_label_map_goes_with_ids_and_leaves_vectors_alone(caplog) -> None:
    three = SingleLabel(("neg", "neu", "pos")).reading({"2": "neg", "0": "pos"})
    assert three.encode_all(Table("2", "0", "1"), "f") == [0, 2, 1]
    vectors = MultiLabel(("neg", "pos")).reading({"0": "neg", "1": "pos"})
    assert vectors.encode_all(Table([1, 0], [0, 1]), "f") == [[1, 0], [0, 1]]
    caplog.clear()
    SENTIMENT.reading({"psoitive": "pos"}).encode_all(Table("neg", "pos"), "dev.tsv")
    assert "In dev.tsv, no label is 'psoitive'" in caplog.text
    inferred = infer(["bug, acct", "account", "other"], "multi-label", label_map={"acct": "account"})
    assert inferred.names == ("account", "bug", "other")
    assert inferred.encode("bug, acct", "f:1") == [1.0, 1.0, 0.0]


def test_vectors_stand_for_classes_in_their_order() -> None:
    vectors = [[int(bit) for bit in f"{i:03b}"] for i in range(8)]
    for task in (TAGS, MultiLabel(UNNAMED.names), MultiLabel(("0", "1", "2"))):
        for column in (vectors, np.array(vectors, float).tolist(), [str(v) for v in vectors]):
            assert task.encode_all(Table(*column), "f") == vectors  # eight targets, not one
    assert MultiLabel(("a", "b")).encode_all(Table([1, 0], [1, 1]), "f") == [[1.0, 0.0], [1.0, 1.0]]
    blank = Table([1, 0, 0], [], [0, 1, 1])
    assert TAGS.encode_all(blank, "f") == [[1, 0, 0], [0, 0, 0], [0, 1, 1]]
    assert TAGS.encode_all(Table("1,0,0", "", "0,1,1"), "f") == [[1, 0, 0], [0, 0, 0], [0, 1, 1]]
    for hot in (
        ["[1, 0, 0]", "[0, 1, 1]", ""],
        ["1,0,0", "0,1,1", ""],
        [["1", "0", "0"], ["0", "1", "1"], []],
    ):
        task = infer(hot, "multi-label")
        assert task.names == ("0", "1", "2")
        assert task.encode_all(Table(*hot), "f") == [[1, 0, 0], [0, 1, 1], [0, 0, 0]]
    # What was found in all rows holds for a few of them.
    ids = infer([[0, 1], [0], [1]])
    assert ids.encode_all(Table([0, 1]), "f") == [[1, 1]]
    # Not of one length, or of another than there are classes: ids.
    ids = MultiLabel(tuple(f"LABEL_{i}" for i in range(4)))
    assert ids.encode_all(Table([1, 0], [1]), "f") == [[1, 1, 0, 0], [0, 1, 0, 0]]
    assert ids.encode_all(Table([1, 0], [0, 1]), "f") == [[1, 1, 0, 0]] * 2


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([[1, 0, 0], [0, 1]], r"label 2: the label \[0, 1\] has 2 entries, where others have 3"),
        ([[0.9, 0.1], [0.2, 0.8]], "label 1: .* neither a list of classes nor a vector"),
        ([[1, 0, 0], [0, 1, -1]], "label 1: .* neither a list of classes nor a vector"),
    ],
)
def test_lists_that_are_neither_classes_nor_vectors(labels: list, message: str) -> None:
    with pytest.raises(UserError, match=message):
        infer(labels)


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (["['x', 'y']", "y"], ("x", "y")),
        ([["p", ""], ["n"]], ("n", "p")),
        (["+1", "-1", "1"], ("-1", "1")),
        (["-0.0", "0", "1.0"], ("0", "1")),
        (["pos", "pos\u200b", "\ufeffpos", "neg"], ("neg", "pos")),
        (["very good", "very\u00a0good", "very  good", "bad"], ("bad", "very good")),
    ],
)
def test_classes_that_are_written_in_several_ways(labels: list, names: tuple) -> None:
    assert infer(labels).names == names


def test_a_cell_that_is_a_class_is_that_class() -> None:
    task = MultiLabel(("bug, ui", "bug", "ui", "[a]"))
    assert task.encode_all(Table("bug, ui", "ui, bug", "[a]", '"bug, ui", bug'), "f") == [
        [1, 0, 0, 0],
        [0, 1, 1, 0],
        [0, 0, 0, 1],
        [1, 1, 0, 0],
    ]


def test_many_classes_are_read_in_time() -> None:
    """A count for each of them would take minutes."""
    task = SingleLabel(tuple(f"class {chr(97 + i % 26)}{i}" for i in range(20_000)))
    assert task.encode_all(Table(*task.names), "f") == list(range(20_000))


def test_ids_are_none_where_names_have_numbers() -> None:
    stars = SingleLabel(("1 star", "2 stars", "3 stars"))
    with pytest.raises(UserError, match="unknown label 1"):  # not "2 stars"
        stars.encode_all(Table(1, 2), "f")


@pytest.mark.parametrize(
    ("names", "theirs", "found"),
    [
        (("neg", "pos"), ("pos", "neg"), ("pos", "neg")),
        (("NEG", "POS"), ("pos", "neg"), ("pos", "neg")),
        (("0", "1", "2"), ("entailment", "neutral", "contradiction"), ("0", "1", "2")),
        (("0", "1"), ("LABEL_0", "LABEL_1"), ("0", "1")),
        (("a", "b"), ("pos", "neg"), ("a", "b")),
        (("1", "2"), ("neg", "pos"), ("1", "2")),
        (("0", "1", "2"), ("neg", "pos"), ("0", "1", "2")),
    ],
)
def test_a_model_gives_the_order_of_its_names(names: tuple, theirs: tuple, found: tuple) -> None:
    config = SimpleNamespace(id2label=dict(enumerate(theirs)))
    assert MultiLabel(names).in_order_of(config).names == found


def test_a_model_gives_the_names_of_vectors() -> None:
    config = SimpleNamespace(id2label={0: "toxic", 1: "threat", 2: "insult"})
    task = infer([[1, 0, 0], [0, 1, 1]]).in_order_of(config)
    assert task.names == ("toxic", "threat", "insult")
    assert task.encode_all(Table([0, 1, 1]), "f") == [[0.0, 1.0, 1.0]]


@pytest.mark.parametrize(
    ("labels", "kind", "said"),
    [
        (["bug", "Bug", "other"], None, "differ in case alone: 'Bug', 'bug'"),
        (["bug", "NaN"], None, "look like missing labels: 'NaN'"),
        ([["bug"], ["None"]], None, "look like missing labels: 'None'"),
        (["bug", "account", "bug;account"], "multi-label", "look like several: 'bug;account'"),
        (["bug", "account", "bug,account"], None, "set `kind` to multi-label"),
        (["0,5", "1,0", "2,25"], None, "decimal commas"),
        ([str(i) for i in range(0, 300, 7)], None, "read as 43 classes. If they are scores"),
        (["[x, y]", "[y]"], None, "look like lists"),
        (["pos", "neg", "#N/A"], None, "look like missing labels: '#N/A'"),
        (["1.5", "n/a", "2.5"], None, "look like scores, but not these: 'n/a'"),
        ([-1, 0, 1], None, "-1 often marks a text without a label"),
        (["neg", "pos", "so-so, maybe"], None, None),
        ([["a"], ["b", "c/d"]], None, None),
    ],
)
def test_odd_classes_are_not_made_without_a_word(labels: list, kind: str | None, said: str, caplog) -> None:
    infer(labels, kind)
    assert said in caplog.text if said else not caplog.text


@pytest.mark.parametrize("task", [YES, MultiLabel(("toxic",))])
def test_one_output_may_be_a_yes_or_no(task: Task) -> None:
    for labels in (
        [1, 0],
        [1.0, 0.0],
        ["1", "0"],
        [True, False],
        ["true", "False"],
        [[1], [0]],
        ["[1]", "[0]"],
    ):
        assert task.encode_all(Table(*labels), "f") == [[1.0], [0.0]]
    name = task.names[0]
    assert task.encode_all(Table(name, ""), "f") == task.encode_all(Table([name], []), "f") == [[1.0], [0.0]]
    assert task.quality(np.array([[2.0], [-1.0]]), [[1.0], [0.0]])["micro_f1"] == 100
    with pytest.raises(UserError, match=r"unknown label 0\.5"):
        task.encode(0.5, "f:1")


@pytest.mark.parametrize(
    ("task", "label", "message"),
    [
        (CLASSES, "d", "dev.tsv:17: unknown label 'd'; the model knows 'a', 'b', 'c': mend"),
        (CLASSES, 3, "unknown label 3"),
        (CLASSES, "0.5", "unknown label '0.5'"),
        (CLASSES, ["a"], "is no class"),
        (CLASSES, [1, 1, 0], "marks 2 classes"),
        (CLASSES, [1, 1], r"vector of 2 entries, but the model has 3 classes"),
        (TAGS, [1, 1], r"vector of 2 entries, but the model has 3 classes"),
        (TAGS, "[a, b]", "dev.tsv:17: .* begins as a list"),
        (TAGS, "b, 1", "'1' beside 'b'|'b' beside '1'"),
        (SingleLabel(("Bug", "bug")), "BUG", "unknown label 'BUG'"),
        (SingleLabel(("1 star", "2 stars")), "2", "unknown label '2'.*`label_map`"),
        (SingleLabel(("2", "b")), "1", "unknown label '1'"),  # an id, where a name is a number?
        (TAGS, ["a", "d"], "dev.tsv:17: unknown label 'd'"),
        (UNNAMED, 3, "unknown label 3"),
        (UNNAMED, -1, "unknown label -1"),
        (UNNAMED, 0.5, "unknown label 0.5"),
        (SingleLabel(tuple(map(str, range(30)))), "x", "'19' and 10 more"),
        *[
            (SCORE, label, "dev.tsv:17: .* not a finite number")
            for label in ("x", "nan", "inf", "", None, [1], True)
        ],
        (SCORE, 10**400, "not a finite number"),
    ],
)
def test_encode_refuses(task: Task, label: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        task.encode(label, "dev.tsv:17")


@pytest.mark.parametrize("task", [CLASSES, TAGS, SCORE, Regression(("stars",)), YES])
def test_config_round_trip(task: Task) -> None:
    assert task_of(PreTrainedConfig(**task.config_kwargs())) == task


def test_of_config() -> None:
    def config(count: int, problem: str | None = None, **names: str) -> SimpleNamespace:
        id2label = names or {str(i): f"LABEL_{i}" for i in range(count)}
        return SimpleNamespace(num_labels=count, id2label=id2label, problem_type=problem)

    assert task_of(config(3)) == UNNAMED
    assert task_of(config(3, "multi_label_classification")).kind == "multi-label"
    assert task_of(config(2, None, **{"1": "b", "0": "a"})).names == ("a", "b")
    for problem in (None, "regression", "single_label_classification"):
        assert task_of(config(1, problem)) == SCORE
    assert task_of(config(1, "multi_label_classification")) == YES
    assert task_of(config(1, None, **{"0": "relevance"})).names == ("relevance",)
    with pytest.raises(UserError, match="predicts 3 scores; only regression with one"):
        task_of(config(3, "regression"))


@pytest.mark.filterwarnings("error")
def test_quality_of_classes() -> None:
    logits = np.eye(3)[[0, 1, 1, 0]]
    found = CLASSES.quality(logits, [0, 1, 0, 0])
    assert found == {"accuracy": 75.0, "macro_f1": pytest.approx(100 * (0.8 + 2 / 3) / 2)}
    assert CLASSES.metric in found


@pytest.mark.filterwarnings("error")
def test_quality_of_tags() -> None:
    logits = np.array([[1.0, -1.0, -1.0], [1.0, 1.0, -1.0]])
    found = TAGS.quality(logits, [[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    assert found == {
        "micro_f1": pytest.approx(80.0),
        "macro_f1": pytest.approx(100 / 3),
        "exact_match": 50.0,
    }
    assert TAGS.metric in found


@pytest.mark.filterwarnings("error")
def test_quality_of_scores() -> None:
    found = SCORE.quality(np.array([[1.0], [2.0], [9.0]]), [1.0, 2.0, 3.0])
    assert found == {
        "pearson": pytest.approx(100 * np.corrcoef([1, 2, 9], [1, 2, 3])[0, 1]),
        "spearman": pytest.approx(100.0),
    }
    assert SCORE.metric in found
    assert SCORE.quality(np.ones((3, 1)), [1.0, 2.0, 3.0]) == {"pearson": 0.0, "spearman": 0.0}
    assert SCORE.quality(np.ones((1, 1)), [1.0]) == {"pearson": 0.0, "spearman": 0.0}


@pytest.mark.parametrize("task", [CLASSES, TAGS])
def test_margins_are_negative_where_decisions_differ(task) -> None:
    logits, other = np.random.default_rng(0).normal(size=(2, 50, len(task.names)))
    margins = task.margins(logits, other)
    assert margins.shape == ((50, 1) if task is CLASSES else logits.shape)
    assert (task.margins(other, other) > 0).all()
    assert 100 * (margins > 0).mean() == pytest.approx(task.agreement(logits, other))
    if task is CLASSES:  # the least that its own label must lose to another
        top = np.sort(other, axis=1)
        assert task.margins(other, other)[:, 0] == pytest.approx(top[:, -1] - top[:, -2])


def by_hand(metric: str, logits: np.ndarray, labels: np.ndarray) -> float:
    """A metric from its definition, or from another library."""
    if metric in ("pearson", "spearman"):
        return 100 * getattr(stats, f"{metric}r")(logits[:, 0], labels).statistic
    if labels.ndim == 1:
        labels, logits = np.eye(3)[labels], np.where(logits == logits.max(1, keepdims=True), 1, -1)
    said = logits > 0
    if metric == "micro_f1":
        return 100 * f1_score(labels, said, average="micro")
    if metric == "macro_f1":
        both, either = (said * labels).sum(0), said.sum(0) + labels.sum(0)
        return 100 * (2 * both / either).mean()
    return 100 * (said == labels).all(1).mean()  # accuracy, exact_match


SIMPLE = ("single-label", "multi-label", "regression")  # one answer a text


@pytest.mark.parametrize(
    ("kind", "metric"),
    [(kind, name) for kind, task in TASKS.items() for name in task.metrics if kind in SIMPLE],
)
def test_the_main_figure_alone(kind, metric) -> None:
    draw = np.random.default_rng(0)
    task = TASKS[kind](("a", "b", "c")).measured_by(metric)
    logits = draw.normal(size=(60, 1 if kind == "regression" else 3))
    if kind == "regression":
        logits, labels = logits.round(1), draw.normal(size=60).round(1)  # some are equal
    else:
        labels = draw.integers(3, size=60) if kind == "single-label" else draw.integers(2, size=(60, 3))
    assert task.main_quality(logits, labels) == pytest.approx(by_hand(metric, logits, labels))
    found = task.quality(logits, labels)
    assert next(iter(found.items())) == (metric, task.main_quality(logits, labels))
    assert sorted(found) == sorted(TASKS[kind].metrics)
    assert task.measured_by(None) == TASKS[kind](("a", "b", "c"))
    times = draw.integers(1, 4, size=60)
    more, again = np.repeat(logits, times, axis=0), np.repeat(labels, times, axis=0)
    # A covariance of weighed numbers has another number of degrees of freedom, a correlation has not.
    assert task.main_quality(logits, labels, times) == pytest.approx(task.main_quality(more, again))
    other = draw.normal(size=logits.shape)
    alike = task.agreement(more, np.repeat(other, times, axis=0))
    assert task.agreement(logits, other, times) == pytest.approx(alike)
    if metric == "micro_f1":
        assert task.main_quality(-np.ones((4, 3)), np.zeros((4, 3))) == 0


def test_macro_f1_is_over_the_classes_that_labels_have() -> None:
    task, labels = CLASSES.measured_by("macro_f1"), [0] * 50 + [1] * 50
    right = np.eye(3)[labels]
    odd = right.copy()
    odd[0] = [0, 0, 1]  # a class that no text is of
    assert task.main_quality(right, labels) == 100
    assert task.main_quality(odd, labels) == pytest.approx(100 * (98 / 99 + 1) / 2)
    assert task.main_quality(right[:50], labels[:50]) == 100


def test_what_one_text_may_cost() -> None:
    labels = [0] * 2 + [1] * 398
    assert CLASSES.grain(labels) == TAGS.grain(labels) == SCORE.grain(labels) == 0.25
    macro = CLASSES.measured_by("macro_f1")
    right = np.eye(3)[labels]
    wrong = right.copy()
    wrong[0] = [0, 1, 0]
    lost = macro.main_quality(right, labels) - macro.main_quality(wrong, labels)
    assert macro.grain(labels) == 25
    assert lost == pytest.approx(16.7, abs=0.1)
    assert macro.grain([0, 1] * 100) == 0.5
    tags = [[1.0, 0.0, 1.0]] * 2 + [[0.0, 0.0, 1.0]] * 398
    assert TAGS.measured_by("macro_f1").grain(tags) == 25


def test_metrics_that_there_are() -> None:
    with pytest.raises(UserError, match="'pearson' for single-label tasks; choose from: accuracy, macro_f1"):
        CLASSES.measured_by("pearson")


def test_agreement() -> None:
    logits = np.array([[2.0, 1.0, -1.0], [0.0, 3.0, -1.0]])
    other = np.array([[1.0, 2.0, -1.0], [1.0, 3.0, -1.0]])
    assert CLASSES.agreement(logits, other) == 50.0
    assert TAGS.agreement(logits, other) == pytest.approx(500 / 6)
    scores = np.array([[1.0], [2.0], [3.0]])
    assert SCORE.agreement(scores, 5 - scores) == pytest.approx(-100.0)
    assert SCORE.agreement(np.ones((2, 1)), np.ones((2, 1))) == 100.0
    assert SCORE.agreement(np.ones((2, 1)), np.array([[1.0], [2.0]])) == 0.0


def test_a_figure_is_remembered_where_there_is_one() -> None:
    scores, classes = PreTrainedConfig(num_labels=1), PreTrainedConfig(num_labels=3)
    assert task_on(scores, remembered="spearman").metric == "spearman"
    ranks = task_on(scores, remembered="mrr@10")
    assert (ranks.kind, ranks.metric) == ("ranking", "mrr@10")
    assert task_on(classes, metric="macro_f1", remembered="accuracy").metric == "macro_f1"
    for config, name in ((scores, "accuracy"), (classes, "spearman"), (classes, "x")):
        with pytest.raises(UserError, match=f"no metric '{name}'"):
            task_on(config, remembered=name)


def test_a_figure_of_other_data_is_forgotten(tmp_path) -> None:
    (tmp_path / "corpus.jsonl").touch()
    (tmp_path / "queries.jsonl").touch()
    task = task_on(PreTrainedConfig(num_labels=1), str(tmp_path), remembered="spearman")
    assert (task.kind, task.metric) == ("ranking", "ndcg@10")
