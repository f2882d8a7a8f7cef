"""A small labelled corpus that every machine has: docstrings of Python's standard library.

The task is to tell from a docstring which package it belongs to. The texts come from the Python
that runs, so they differ a little between Python versions.
"""

from __future__ import annotations

import ast
import sysconfig
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from thresher.errors import UserError

if TYPE_CHECKING:
    import datasets

_SKIPPED = {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__"}
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def docstrings(root: Path | None = None, packages: int = 24, min_words: int = 5) -> datasets.Dataset:
    """Collect the docstrings of the largest packages under a folder; nothing is imported.

    Parameters
    ----------
    root : Path, optional
        Folder of Python packages and modules, by default the standard library that runs. Tests,
        installed packages and top-level names that begin with an underscore are left out.
    packages : int
        How many packages (or top-level modules) to keep: those with most texts.
    min_words : int
        Fewest words of a text.

    Returns
    -------
    datasets.Dataset
        Columns `text` (white space squeezed; no text twice) and `label` (name of the package), in
        the order of file paths. A text found in several packages is left out: its label is unclear.

    Raises
    ------
    UserError
        No docstrings under `root`.
    """
    import datasets  # slow to import

    root = Path(sysconfig.get_paths()["stdlib"]) if root is None else Path(root)
    labels: dict[str, set[str]] = defaultdict(set)  # of each text, in order of first sight
    for path in sorted(root.rglob("*.py"), key=lambda path: path.relative_to(root).parts):
        parts = path.relative_to(root).with_suffix("").parts
        if not _SKIPPED.intersection(parts) and not parts[0].startswith("_"):
            for text in _texts(path):
                if len(text.split()) >= min_words:
                    labels[text].add(parts[0])
    found = [(text, *names) for text, names in labels.items() if len(names) == 1]
    if not found:
        raise UserError(f"{root}: no docstrings in this folder; give one that holds Python source files")
    sizes = Counter(label for _, label in found)
    kept = sorted(sizes, key=lambda label: (-sizes[label], label))[:packages]
    rows = [(text, label) for text, label in found if label in kept]
    return datasets.Dataset.from_dict({"text": [row[0] for row in rows], "label": [row[1] for row in rows]})


def _texts(path: Path) -> Iterator[str]:
    """The docstrings of a file, white space squeezed; none if it does not parse."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about escapes in other people's strings
            tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, RecursionError, OSError):
        return
    for node in ast.walk(tree):
        if isinstance(node, _DOCUMENTED) and (text := ast.get_docstring(node, clean=False)):
            yield " ".join(text.encode("utf-8", "ignore").decode().split())  # no lone surrogates


def split(dataset: datasets.Dataset, seed: int = 0) -> tuple[datasets.Dataset, datasets.Dataset]:
    """Shuffle and split a corpus into texts to train on and texts held out.

    Parameters
    ----------
    dataset : datasets.Dataset
        Has a column `text`.
    seed : int
        Seed of the shuffle.

    Returns
    -------
    tuple of two datasets.Dataset
        For training, and held out: 1,000 texts of a corpus of 4,000 or more, else a fifth. Copies of
        a held-out text are left out of the training part.
    """
    order = np.random.default_rng(seed).permutation(len(dataset)).tolist()
    size = 1000 if len(dataset) >= 4000 else len(dataset) // 5
    texts = dataset["text"][:]
    held_out = {texts[i] for i in order[:size]}
    train = [i for i in order[size:] if texts[i] not in held_out]
    return dataset.select(train), dataset.select(order[:size])
