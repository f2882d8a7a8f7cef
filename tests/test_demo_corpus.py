"""The docstring corpus, on a small tree and on a part of the real library."""

from __future__ import annotations

import json
from pathlib import Path

import datasets
import pytest

from thresher.demo.corpus import docstrings, split
from thresher.errors import UserError


def _texts(count: int) -> datasets.Dataset:
    return datasets.Dataset.from_dict({"text": [f"text {i}" for i in range(count)], "label": ["a"] * count})


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    long = "words " * 5
    files = {
        "big/__init__.py": f'"""Module:\n\n    {long}"""\nclass A:\n    """Class: {long}"""\n'
        f'    def f(self):\n        """Method: {long}"""\n'
        f'    async def g(self):\n        """Async: {long}"""\n',
        "big/more.py": f'"""Module: {long}"""\ndef f():\n    """Too short."""\n'
        f'def g():\n    "\\d Both: {long}"\n',
        "middle.py": f'"""Middle: {long}"""\ndef f():\n    """\\ud800 Odd: {long}"""\n'
        f'def g():\n    r"""\\d Both: {long}"""\n',
        "small.py": f'"""Small: {long}"""',
        "big/broken.py": f'"""Broken: {long}"""\ndef (',
        "big/null.py": f'"""Null: {long}"""\0',
        "_private.py": f'"""Private: {long}"""\n',
        "big/test/test_it.py": f'"""Test: {long}"""\n',
        "site-packages/other.py": f'"""Other: {long}"""\n',
    }
    for name, content in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    return tmp_path


def test_docstrings(tree: Path) -> None:
    found = docstrings(tree, packages=2)
    tail = " words" * 5
    assert list(zip(found["text"], found["label"], strict=True)) == [
        (f"Module:{tail}", "big"),
        (f"Class:{tail}", "big"),
        (f"Method:{tail}", "big"),
        (f"Async:{tail}", "big"),
        (f"Middle:{tail}", "middle"),
        (f"Odd:{tail}", "middle"),
    ]
    assert docstrings(tree)["label"][-1] == "small"
    assert "Too short." in docstrings(tree, min_words=2)["text"]


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no docstrings in this folder"):
        docstrings(tmp_path)


def test_real_package() -> None:
    found = docstrings(Path(json.__file__).parent)
    assert found.column_names == ["text", "label"]
    assert {"decoder", "encoder"} < set(found["label"])
    assert len(set(found["text"])) == len(found) > 10


@pytest.mark.parametrize(("count", "held"), [(5200, 1000), (4000, 1000), (3999, 799), (100, 20)])
def test_split(count: int, held: int) -> None:
    train, held_out = split(_texts(count))
    assert (len(train), len(held_out)) == (count - held, held)
    assert not set(train["text"]) & set(held_out["text"])
    assert split(_texts(count))[1]["text"][:] == held_out["text"][:]
    assert split(_texts(count), seed=1)[1]["text"][:] != held_out["text"][:]


def test_split_keeps_copies_apart() -> None:
    corpus = datasets.concatenate_datasets([_texts(50), _texts(50)])
    train, held_out = split(corpus)
    assert len(held_out) == 20
    assert not set(train["text"]) & set(held_out["text"])
