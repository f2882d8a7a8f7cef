"""Loading texts and labels, from files and from the hub."""

from __future__ import annotations

import json
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import datasets
import pytest

from tests.data.conftest import Make
from thresher.data import columns_of, load_examples, resolve_columns, text_of
from thresher.errors import UserError


def test_load_examples(make: Make) -> None:
    path = str(make("a.csv", 'x,y,z\n1,"b\nc",p\n2,d,q\n'))
    found = load_examples(path, ["x", "y"], "z")
    assert found.column_names == ["text", "text_pair", "label", "line"]
    assert found[:] == {"text": ["1", "2"], "text_pair": ["b\nc", "d"], "label": ["p", "q"], "line": [2, 4]}
    assert found.features["line"].dtype == "int64"
    assert load_examples(path, ["y"]).column_names == ["text", "line"]
    assert load_examples(path, "y")["text"][:] == ["b\nc", "d"]


@pytest.mark.parametrize(
    "labels",
    [[1, 2.5], [2.5, 1], [1, 2], [True, False], ["a", "b"], [["a"], []], [[], ["a", "b"]], [[1], [2]]],
)
def test_label_types(make: Make, labels: list) -> None:
    lines = [json.dumps({"t": i, "l": label}) for i, label in enumerate(labels)]
    found = load_examples(str(make("a.jsonl", "\n".join(lines))), ["t"], "l")
    assert found[:] == {"text": ["0", "1"], "label": labels, "line": [1, 2]}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (['{"t": null, "l": 1}'], ":2: column 't' has no text"),
        (['{"t": NaN, "l": 1}'], ":2: column 't' has no text"),
        (['{"t": [1], "l": 1}'], ":2: column 't' is a list, not a text"),
        (['{"t": {}, "l": 1}'], ":2: column 't' is a dict, not a text"),
        (['{"t": "a", "l": null}'], ":2: column 'l' has no label"),
        (['{"t": "a", "l": " "}'], ":2: column 'l' has no label"),
        (['{"t": "a", "l": NaN}'], ":2: column 'l' has no label"),
        (['{"t": "a"}'], ":2: no column 'l'; choose from: t"),
        (['{"t": "a", "l": 2}', '{"t": "a", "l": "b"}'], ":3: column 'l' holds 'b', of another type"),
        (['{"t": "a", "l": [1]}'], r":2: column 'l' holds \[1\], of another type"),
    ],
)
def test_examples_refused(make: Make, rows: list[str], message: str) -> None:
    path = make("a.jsonl", "\n".join(['{"t": "a", "l": 1}', *rows]))
    with pytest.raises(UserError, match=r"a\.jsonl" + message):
        load_examples(str(path), ["t"], "l")


def test_empty_label_refused(make: Make) -> None:
    with pytest.raises(UserError, match=r"a\.tsv:3: column 'y' has no label"):
        load_examples(str(make("a.tsv", "x\ty\na\tb\na\t\n")), ["x"], "y")


def test_blank_labels(make: Make) -> None:
    path = str(make("a.tsv", "x\ty\na\tb,c\na\t\na\t  \n"))
    assert load_examples(path, ["x"], "y", blank_labels=True)["label"][:] == ["b,c", "", ""]
    with pytest.raises(UserError, match=r"a\.tsv:3: .*an empty cell means none.*`kind` multi-label"):
        load_examples(path, ["x"], "y")
    for null in ("null", "NaN"):
        path = str(make("a.jsonl", f'{{"x": "a", "y": []}}\n{{"x": "a", "y": {null}}}\n'))
        with pytest.raises(
            UserError, match=r"a\.jsonl:2: column 'y' has no label; write \[\] or an empty cell"
        ):
            load_examples(path, ["x"], "y", blank_labels=True)
        with pytest.raises(UserError, match=r"has no label; remove the row or label it$"):
            load_examples(path, ["x"], "y")


@pytest.mark.parametrize(
    ("value", "text"),
    [("a", "a"), ("", ""), (1, "1"), (2.5, "2.5"), (True, "True"), (Decimal("1.50"), "1.50")],
)
def test_text_of(value: Any, text: str) -> None:
    assert text_of(value, "f:1") == text


@pytest.mark.parametrize(
    "value", [None, float("nan"), [], ["a"], {}, {"a": 1}, b"a", date(2020, 1, 1), ("a",)]
)
def test_no_text(value: Any) -> None:
    with pytest.raises(UserError, match=r"^f:1: column 'x' (has no text|is a \w+, not a text)"):
        text_of(value, "f:1: column 'x'")


@pytest.mark.parametrize("columns", [[], ["x", "y", "z"]])
def test_one_or_two_text_columns(make: Make, columns: list[str]) -> None:
    with pytest.raises(UserError, match="one text column or two are needed"):
        load_examples(str(make("a.tsv", "x\ty\tz\n1\t2\t3\n")), columns)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> list[tuple]:
    calls: list[tuple] = []
    rows = {"s": ["one", "two"], "n": [1, 2], "c": [1, 0], "m": [[0, 1], []], "h": [0, -1]}
    named = datasets.ClassLabel(names=["neg", "pos"])
    features = datasets.Features(
        {
            "s": datasets.Value("string"),
            "n": datasets.Value("int64"),
            "c": named,
            "m": datasets.List(named),
            "h": named,
        }
    )

    def load(name: str, config: str | None = None, *, split: str) -> datasets.Dataset:
        calls.append((name, config, split))
        if name == "missing":
            raise ConnectionError("offline\nand so on")
        return datasets.Dataset.from_dict(rows, features=features)

    monkeypatch.setattr("thresher.files.hub.refusal", lambda *_: None)  # the hub answers
    monkeypatch.setattr(datasets, "load_dataset", load)
    return calls


def test_hub(hub: list[tuple]) -> None:
    found = load_examples("imdb", ["s"], "c", split="test")
    assert found[:] == {"text": ["one", "two"], "label": ["pos", "neg"], "line": [1, 2]}
    assert load_examples("own-er/na.me:dev", ["s"], "m")["label"][:] == [["neg", "pos"], []]
    assert load_examples("glue:mrpc:validation", ["s", "n"], "n")["label"][:] == [1, 2]
    load_examples("imdb", ["s"])
    assert columns_of("imdb") == ["s", "n", "c", "m", "h"]
    assert resolve_columns("imdb", ["s,n", " c"], split="dev") == ["s", "n", "c"]
    assert hub.pop() == ("imdb", None, "dev")
    assert hub.pop() == ("imdb", None, "train")
    assert hub == [
        ("imdb", None, "test"),
        ("own-er/na.me", None, "dev"),
        ("glue", "mrpc", "validation"),
        ("imdb", None, "train"),
    ]


def test_a_hub_that_does_not_answer_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not by the library of data sets, which would try for 24 seconds."""
    monkeypatch.setattr("thresher.files.hub.refusal", lambda name, kind: f"no {kind} today")
    with pytest.raises(UserError, match=r"imdb: no such file, .* hub cannot be asked .*\(no dataset today\)"):
        load_examples("imdb", ["s"])


def test_hub_refused(hub: list[tuple], tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"missing:x: neither a file nor .*\(ConnectionError: offline and so on\)"
    ):
        load_examples("missing:x", ["s"])
    with pytest.raises(UserError, match="imdb: no column 'z'; choose from: s, n, c, m, h"):
        load_examples("imdb", ["z"])
    with pytest.raises(UserError, match="imdb:2: column 'h' has no label"):
        load_examples("imdb", ["s"], "h")
    hub.clear()
    for source in ("none.tsv", "a/b/c", "./none", "a:b:c:d", "a:", str(tmp_path / "none")):
        with pytest.raises(UserError, match="no such file"):
            load_examples(source, ["s"])
    assert not hub
