"""Delimiters, quotes and headers of TSV and CSV."""

from __future__ import annotations

import pytest

from tests.data.conftest import Make
from thresher.data import columns_of, iter_rows, load_examples
from thresher.errors import UserError


@pytest.mark.parametrize(
    ("content", "wanted", "expected"),
    [
        ("text;label\ngood;1\nbad;0\n", ["text", "label"], [("good", "1"), ("bad", "0")]),
        ("text;label\na, b, c;1\nd;0\n", ["text", "label"], [("a, b, c", "1"), ("d", "0")]),
        ("text\tlabel\na, b; c\t1\n", ["text", "label"], [("a, b; c", "1")]),
        ("text|label\na, b|1\n", ["label", "text"], [("1", "a, b")]),
        ('text;label\n"a; ""b""\nc";1\n', ["text", "label"], [('a; "b"\nc', "1")]),
        ("Title, body;label\nHello, you;pos\n", ["Title, body", "label"], [("Hello, you", "pos")]),
        ("Title, body;label\nHello, you;pos\n", ["Title", "body;label"], [("Hello", " you;pos")]),
        ("text\na; b\nc; d\n", ["text"], [("a; b",), ("c; d",)]),
        ("text\na; b\nc; d\n", [], [(), ()]),
        ("what; in short\na; b\n", ["what; in short"], [("a; b",)]),
        ("text,label\na;b|c\td,1\n", ["text"], [("a;b|c\td",)]),
        ("text;score\ngood;0,5\nbad;1,5\n", ["text", "score"], [("good", "0,5"), ("bad", "1,5")]),
        ("sep=;\r\ntext;label\r\na, b;1\r\n", ["text"], [("a, b",)]),
        ("text;label,with comma\na;1\nb;2\n", ["text"], [("a",), ("b",)]),
        ("text;label\n" + '"' + "a;\n" * 30 + '";1\n', ["label"], [("1",)]),
        ("text;label\n" + '"' + "a;\n" * 30_000 + '";1\n', ["label"], [("1",)]),
    ],
)
def test_delimiters_of_csv(make: Make, content: str, wanted: list[str], expected: list[tuple]) -> None:
    assert [row.wanted for row in iter_rows(make("a.csv", content), wanted)] == expected


def test_delimiters_are_named_in_errors(make: Make) -> None:
    path = make("a.csv", "text;label\na;1\nb\n")
    with pytest.raises(
        UserError, match=r"a\.csv:3: expected 2 fields .*a text with semicolons in double quotes"
    ):
        list(iter_rows(path))
    with pytest.raises(
        UserError, match=r"no column 'lable'; choose from: text, label \(did you mean 'label'\?\)"
    ):
        iter_rows(path, ["lable"])
    with pytest.raises(UserError, match=r"a\.csv:2: expected 1 fields .*found 2"):
        iter_rows(make("a.csv", "text\na, b\n"), ["text"])


@pytest.mark.parametrize(
    ("content", "wanted", "expected"),
    [
        ("text,label\na,1\n", ["text", "label"], ("a", "1")),
        ('text,label\n"a, b",1\n', ["text"], ("a, b",)),
        ("text;label\na, b;1\n", ["text", "label"], ("a, b", "1")),
        ("text,other,,\na,1,,\n", ["text"], ("a",)),
    ],
)
def test_csv_named_tsv(
    make: Make, caplog: pytest.LogCaptureFixture, content: str, wanted: list[str], expected: tuple
) -> None:
    assert [row.wanted for row in iter_rows(make("a.tsv", content), wanted)] == [expected]
    assert caplog.text.count("not tabs: it is read as CSV") == 1


def test_tsv_of_one_column_stays_so(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    path = make("a.tsv", 'text, or so\na, "b"\n"\n')
    assert [row.wanted for row in iter_rows(path, ["text, or so"])] == [('a, "b"',), ('"',)]
    with pytest.raises(UserError, match="no column 'z'; choose from: text, or so"):
        iter_rows(path, ["z"])
    with pytest.raises(UserError, match=r"no column 'x'; choose from: $"):
        iter_rows(make("b.tsv", "\nx\ty\n1\t2\n"), ["x"])
    assert not caplog.text


@pytest.mark.parametrize(
    "content",
    [
        '"x"\t"y"\n"a ""b""\tc"\t"1"\n',
        '"x"\t"y"\r\n"a ""b""\tc"\t1\r\n',
        '\ufeff"x"\t"y"\n\n"a ""b""\tc"\t"1"',
    ],
)
def test_a_quoted_header_of_tsv(make: Make, caplog: pytest.LogCaptureFixture, content: str) -> None:
    assert [row.wanted for row in iter_rows(make("a.tsv", content), ["x", "y"])] == [('a "b"\tc', "1")]
    assert not caplog.text


def test_quotes_in_tsv_are_kept_with_one_warning(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    path = make("a.tsv", 'x\ty\n"a\t1\n"b"\t2\n"c"\t3\n')
    assert [row.wanted for row in iter_rows(path, ["x"])] == [('"a',), ('"b"',), ('"c"',)]
    assert [record.message[-150:] for record in caplog.records] == [caplog.messages[0][-150:]]
    assert "a.tsv:3: a field is enclosed in double quotes. TSV has no quoting" in caplog.text


@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("a,,\n1,2,3\n4\n5,\n6,,,,\n", [["1", "2", "3"], ["4", "", ""], ["5", "", ""], ["6", "", ""]]),
        ("a, \n1,\n", [["1", ""]]),
        (",a\n0,1\n", [["0", "1"]]),
        ("a,x,x,x (2)\n1,2,3,4\n", [["1", "2", "3", "4"]]),
        ("a,column 3,\n1,2,3\n", [["1", "2", "3"]]),
        ("a,b\n1,2,,\n", [["1", "2"]]),
    ],
)
def test_columns_nobody_asked_for(make: Make, name: str, content: str, expected: list[list[str]]) -> None:
    path = make(name, content if name == "a.csv" else content.replace(",", "\t"))
    rows = list(iter_rows(path, ["a"]))
    assert [list(row.values.values()) for row in rows] == expected
    assert load_examples(str(path), ["a"])["text"][:] == [row.values["a"] for row in rows]


@pytest.mark.parametrize(
    ("content", "names"),
    [
        ("a,,x,x\n1,2,3,4\n", ["a", "column 2", "x", "x (2)"]),
        ("a,,column 2,\n1,2,3,4\n", ["a", "column 2 (2)", "column 2", "column 4"]),
        ("a,x,x,x,x (2)\n1,2,3,4,5\n", ["a", "x", "x (3)", "x (4)", "x (2)"]),
    ],
)
def test_made_up_names(make: Make, caplog: pytest.LogCaptureFixture, content: str, names: list[str]) -> None:
    path = make("a.csv", content)
    assert list(next(iter_rows(path, ["a"])).values) == names
    made_up = [name for name in names if name not in content.split("\n")[0].split(",")]
    assert [record.message for record in caplog.records] == [
        f"{path}: columns without a name of their own are called {', '.join(map(repr, made_up))}."
    ]
    caplog.clear()
    load_examples(str(path), ["a"])
    assert not caplog.records
    assert "x" not in names or columns_of(str(path)).count("x") > 1


@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a,b\n1\n", ":2: expected 2 fields"),
        ("a,b,\n1\n", ":2: expected 3 fields"),
        ("a,,b\n1,,2,,3\n", ":2: expected 3 fields"),
        ("a,a,\n1,2,\n", ": two columns are named 'a'; rename one"),
        (",\n1,2\n", ": no column 'a'; choose from: "),
    ],
)
def test_still_refused(make: Make, name: str, content: str, message: str) -> None:
    path = make(name, content if name == "a.csv" else content.replace(",", "\t"))
    with pytest.raises(UserError, match=name + message):
        iter_rows(path, ["a"])
