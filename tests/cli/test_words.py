"""The library names parameters, the command line options: in errors, in warnings, and under tables."""

from __future__ import annotations

import ast
import logging
import re
from pathlib import Path

import pytest
from rich.table import Table
from rich.text import Text
from typer.main import get_command

import thresher
from tests.cli.calling import call
from thresher.cli import app, ends
from thresher.cli.words import OTHERWISE, in_options, speaking
from thresher.errors import TrainingDiverged, UserError

SOURCE = Path(thresher.__file__).parent
LIBRARY = {
    file: file.read_text() for file in SOURCE.rglob("*.py") if file.relative_to(SOURCE).parts[0] != "cli"
}
OPTIONS = {
    name: {option for parameter in command.params for option in parameter.opts if option.startswith("--")}
    for name, command in get_command(app).commands.items()
}
LONG = ["--train", "t", "--text", "t", "--label", "l", "--out", "o"]
RUN = {  # what a command calls, how it is called, and a parameter with its option, and one without
    "finetune": ("training.recipes.finetune", ["m", *LONG], ("hard_epochs", "--epochs"), "max_drop"),
    "prune": ("training.recipes.prune", ["m", *LONG], ("budget", "--budget"), "kind"),
    "calibrate": (
        "training.calibrate.calibrate",
        ["m", "--data", "t", "--text", "t", "--out", "o"],
        ("train", "--data"),
        "resume",
    ),
    "evaluate": ("inference.evaluate.evaluate", ["m", "--eval", "t"], ("budget", "--at-budget"), "force"),
    "bench": ("bench.run.bench", ["m", "--eval", "t"], ("batch", "--batch-size"), "resume"),
    "predict": (
        "inference.stream.predict_file",
        ["m", "--input", "i", "--output", "o"],
        ("max_length", "--max-length"),
        "held_out",
    ),
    "show": ("inference.load.open_model", ["m", "t"], ("pair", "--pair"), "text"),
    "demo": ("demo.run.run", [], ("seed", "--seed"), "force"),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_a_parameter_is_called_by_the_option_that_the_command_has(name):
    known = {option[2:].replace("-", "_"): option for option in OPTIONS[name]}
    known = {parameter: option for parameter, option in OTHERWISE.items() if option in OPTIONS[name]} | known
    every = {option[2:].replace("-", "_") for options in OPTIONS.values() for option in options} | {
        *OTHERWISE
    }
    with speaking(OPTIONS[name]):
        for parameter, option in known.items():
            assert in_options(f"`{parameter}` is 3: set `{parameter}`.") == f"{option} is 3: set {option}."
        for parameter in every - known.keys():
            assert in_options(f"`{parameter}` is 3.") == f"`{parameter}` is 3."
    assert in_options("`seed` is 3.") == "`seed` is 3."  # no command runs


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("error", [UserError, TrainingDiverged])
def test_errors_and_warnings_name_options(name, error, tmp_path, monkeypatch):
    work, words, (parameter, option), lacking = RUN[name]

    def stop(*_, **__):
        logging.getLogger("thresher.somewhere").warning("Look at `%s` and at `%s`.", parameter, lacking)
        raise error(f"`{parameter}` is 3, `{lacking}` is 4.")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(f"thresher.{work}", stop)
    code, said = call(name, *words)
    assert code == (2 if error is UserError else 1), said
    assert f"{option} is 3, `{lacking}` is 4." in said
    assert f"Look at {option} and at `{lacking}`." in said


def test_advice_under_a_table_names_options(capsys):
    table = Table(caption=Text("Name more of them in `held_out`, not in `kind`.", "table.caption"))
    table.add_column("a column that is as wide as the advice is long")
    with speaking(OPTIONS["prune"]):
        ends.show(table)
    assert "Name more of them in --held-out, not in `kind`." in " ".join(capsys.readouterr().out.split())


def test_the_library_knows_no_option():
    moving = {SOURCE / "tasks" / "task.py"}
    found = {
        f"{file}: {line.strip()}"
        for file, text in LIBRARY.items()
        for line in text.splitlines()
        if re.search(r"--[a-z]", line) and file not in moving
    }
    assert not found


def test_what_messages_name_are_parameters():
    """Of a function, or attributes of a class, by that very name."""
    trees = [ast.parse(text) for text in LIBRARY.values()]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    known = {node.arg for node in nodes if isinstance(node, ast.arg)}
    known |= {n.target.id for n in nodes if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)}
    docstrings = {
        id(node.value)
        for node in nodes
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    said = [node.value for node in nodes if isinstance(node, ast.Constant) and id(node) not in docstrings]
    named = {name for text in said if isinstance(text, str) for name in re.findall(r"`(\w+)`", text)}
    assert {"force", "out", "held_out", "label_map", "kind"} <= named <= known
