"""Help, and the settings of training as options."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
from typer.main import get_command

from tests.cli.calling import call, train_arguments
from thresher import UserError
from thresher.cli import app
from thresher.cli.settings import COMMON
from thresher.training.settings import TrainingSettings

COMMANDS = get_command(app).commands


def test_help_names_every_command():
    code, said = call("--help")
    assert code == 0
    assert len(COMMANDS) == 8
    for command in COMMANDS:
        assert command in said
    assert re.fullmatch(
        r"thresher 0\.\d+\.\d+ \(attention: (native, [\w-]+|plain, by torch)\)", call("--version")[1]
    )


def test_help_is_there_before_torch():
    """Imports of seconds wait until a command works."""
    show_help = "from thresher.cli import app; app(['prune', '--help'], standalone_mode=False)"
    slow = {"torch", "numpy", "transformers", "datasets", "pyarrow", "matplotlib"}
    program = f"{show_help}; import sys; print({slow} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.splitlines()[-1] == "set()"


@pytest.mark.parametrize("command", ["finetune", "prune", "calibrate", "demo"])
def test_training_options_are_the_settings(command):
    """Their defaults and their help. What `prune` is to reach, and for how long `finetune` runs, differ."""
    options = {option.name: option for option in COMMANDS[command].params}
    settings = asdict(TrainingSettings())
    decided = {"budget", "max_drop", "regularizer"} if command == "prune" else set()
    shared = options.keys() & settings.keys() - decided
    assert {name: options[name].default for name in shared} == {name: settings[name] for name in shared}
    assert all(options[name].help for name in shared)
    assert shared >= ({"learning_rate", *COMMON} if command in ("finetune", "prune") else {"seed"})


@pytest.mark.parametrize("command", ["finetune", "prune"])
def test_training_options_reach_the_settings(command, monkeypatch):
    seen = []

    def stop(job, *rest):
        seen.append(job.settings)
        raise UserError("far enough")

    monkeypatch.setattr(f"thresher.training.recipes.{command}", stop)
    given = {"--metric": "macro_f1", "--evaluations": 3, "--warmup": 0.2, "--weight-decay": 0.3, "--seed": 7}
    code, said = call(command, "model", *train_arguments(Path(), Path("out"), **given))
    assert (code, "far enough" in said) == (2, True)
    named = {option.strip("-").replace("-", "_"): value for option, value in given.items()}
    assert {name: getattr(seen[0], name) for name in named} == named
