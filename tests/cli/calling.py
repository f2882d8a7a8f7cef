"""The command line, called from tests."""

from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner

from thresher.cli import app


def call(*arguments: object) -> tuple[int, str]:
    """Exit code, and what was printed, on one line."""
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, " ".join((result.stdout + result.stderr).split())


def train_arguments(world: Path, out: Path, **changes: object) -> list[object]:
    options = {"--train": world / "train.tsv", "--text": "text", "--label": "label", "--out": out} | changes
    return [part for option in options.items() for part in option]
