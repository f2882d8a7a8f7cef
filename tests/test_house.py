"""The house as it is meant to be: floors, rooms and sizes. CONTRIBUTING.md says what each floor does."""

import ast
import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import pytest

from thresher.families import FAMILIES
from thresher.tasks import TASKS

ROOT = Path(__file__).parent.parent
HOUSE = ROOT / "thresher"
FLOORS = (
    # 0: ground
    {"errors", "version", "config", "packed", "plan", "batches", "memory", "native", "files", "data"},
    # 1: the model
    {
        "attention",
        "auto",
        "carried",
        "conventions",
        "distributed",
        "engines",
        "families",
        "folders",
        "generating",
        "saving",
    }
    | {"heads", "loop", "model", "modes", "pruners", "store", "trace"},
    # 2: work
    {"inference", "inputs", "objectives", "reports", "show", "tasks", "training"},
    # 3: outside
    {"__main__", "bench", "cli", "demo"},
)
LONGEST_FILE, LONGEST_FUNCTION = 350, 80
SOURCES = sorted(HOUSE.rglob("*.py"))


def room(file: Path) -> str:
    """The room of a file, or its own name where it has none."""
    return file.relative_to(HOUSE).parts[0].removesuffix(".py")


def floor(name: str) -> int:
    return next(place for place, rooms in enumerate(FLOORS) if name in rooms)


def tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text())


def imported(file: Path) -> Iterator[str]:
    """Modules of ours that a file imports, wherever it does so: ``thresher.packed``."""
    for node in ast.walk(tree(file)):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names if name.name.startswith("thresher."))
        elif isinstance(node, ast.ImportFrom) and node.module:
            if node.module == "thresher":
                yield from (f"thresher.{name.name}" for name in node.names)
            elif node.module.startswith("thresher."):
                yield node.module


def strings(file: Path) -> Iterator[tuple[int, str]]:
    """Lines and values of all string constants, docstrings too."""
    for node in ast.walk(tree(file)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value


def test_every_room_has_a_floor():
    rooms = {room(file) for file in SOURCES} - {"__init__"}
    assert rooms == set().union(*FLOORS)
    assert sum(map(len, FLOORS)) == len(rooms)


APART = {
    "attention": {"pruners", "engines", "heads"},
    "pruners": {"attention", "engines", "families", "heads"},
}
"""Rooms of one floor that know nothing of each other: the loop brings them together."""


def test_rooms_that_the_loop_brings_together_are_apart():
    for file in SOURCES:
        met = {module.split(".")[1] for module in imported(file)}
        assert not met & APART.get(room(file), set()), file


@pytest.mark.parametrize("file", [file for file in SOURCES if room(file) != "__init__"], ids=str)
def test_imports_go_down_only(file):
    for module in imported(file):
        name = module.split(".")[1]
        assert floor(name) <= floor(room(file)), f"{module} is above {room(file)}"


def test_methods_are_known_by_their_list_alone():
    """A pruner, a family or a task of its own is imported by its own room alone."""
    for where in ("pruners", "families", "tasks"):
        methods = {
            f"thresher.{where}.{file.stem}"
            for file in (HOUSE / where).glob("*.py")
            if file.stem not in ("__init__", "base")
        }
        outside = [file for file in SOURCES if room(file) != where]
        found = {(file.name, module) for file in outside for module in imported(file) if module in methods}
        assert not found


@pytest.mark.parametrize(
    ("where", "names"),
    [
        ("families", set(chain(*(family.model_types for family in FAMILIES)))),
        ("tasks", set(TASKS)),
    ],
)
def test_names_stay_in_their_room(where, names):
    """The names of architectures and tasks, as values. The exceptions are in `EXCEPTIONS`."""
    found = {
        (str(file.relative_to(HOUSE)), value)
        for file in SOURCES
        if room(file) not in (where, "cli")
        for _, value in strings(file)
        if value in names
    }
    assert found == EXCEPTIONS[where]


def test_no_pruner_is_asked_for_by_name():
    """Their names are common words, so that calls are looked at."""
    found = [
        f"{file.relative_to(HOUSE)}:{node.lineno}"
        for file in SOURCES
        if room(file) != "pruners"
        for node in ast.walk(tree(file))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "PruningConfig" and node.args
        if isinstance(node.args[0], ast.Constant)
    ]
    assert not found


EXCEPTIONS = {
    "families": {("bench/rivals/onnxruntime.py", "bert")},  # a kind of graph, as ONNX Runtime calls it
    "tasks": {("folders/model_config.py", "regression")},  # a problem type, as transformers calls it
}


def test_no_error_speaks_of_options():
    """The library names parameters, as `max_length`; the command line makes options of them."""
    found = [
        f"{file.relative_to(HOUSE)}:{line}: {value[:60]}"
        for file in SOURCES
        if room(file) != "cli"
        for line, value in strings(file)
        if re.search(r"(?<![\w-])--[a-z]", value)
    ]
    assert not found


LONG: dict[str, str] = {}
"""Files and functions that may be longer than the bounds, and why."""


def test_files_are_read_in_one_sitting():
    files = [*SOURCES, *HOUSE.rglob("*.cpp"), *HOUSE.rglob("*.h")]
    lengths = {str(file.relative_to(HOUSE)): len(file.read_text().splitlines()) for file in files}
    assert {name for name, lines in lengths.items() if lines > LONGEST_FILE} == {
        name for name in LONG if "::" not in name
    }


def test_functions_are_on_one_screen():
    lengths = {
        f"{file.relative_to(HOUSE)}::{node.name}": node.end_lineno - node.lineno + 1
        for file in SOURCES
        for node in ast.walk(tree(file))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert {name for name, lines in lengths.items() if lines > LONGEST_FUNCTION} == {
        name for name in LONG if "::" in name
    }
    assert sorted(lengths.values())[len(lengths) // 2] < 40
