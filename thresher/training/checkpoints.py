"""Checkpoints that are whole, or are not there."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from thresher.errors import UserError, first_line, writing
from thresher.files.atomic import discard, partial_of, settle

STATE = "trainer_state.json"
REST = ("optimizer.pt", "scheduler.pt", "rng_state*.pth")  # that transformers does without, in silence


def last_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint under a folder."""
    found = []
    for state in folder.glob(f"checkpoint-*/{STATE}"):
        try:
            found.append((int(json.loads(state.read_bytes())["global_step"]), state.parent))
        except (OSError, ValueError, KeyError, TypeError):
            continue  # a folder of somebody else, or a damaged one
    return max(found)[1] if found else None


@contextmanager
def new_checkpoint(path: Path) -> Iterator[Path]:
    """Write a checkpoint, which takes its place at the end of the ``with`` block.

    Yields
    ------
    Path
        A folder in which it is to be written, as a folder of the same name as `path`.

    Raises
    ------
    UserError
        If it cannot be written; older ones stay.
    """
    partial = partial_of(path)
    with writing(path):
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        try:
            yield partial
            discard(path)
            settle(partial / path.name, path)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def keep_only(folder: Path, names: set[str]) -> None:
    """Remove the other checkpoints under a folder."""
    for path in folder.glob("checkpoint-*"):
        if path.name not in names:
            discard(path)


def check_complete(checkpoint: Path) -> None:
    """Refuse a checkpoint from which training would go on otherwise than it began, as a file is missing."""
    with undamaged(checkpoint):
        for name in REST:
            if not any(checkpoint.glob(name)):
                raise FileNotFoundError(f"{name} is missing")


@contextmanager
def undamaged(checkpoint: str | Path | None) -> Iterator[None]:
    """Read a checkpoint in the ``with`` block.

    Raises
    ------
    UserError
        If it cannot be read, whatever the exception: they come from several libraries.
    """
    try:
        yield
    except Exception as error:
        if checkpoint is None:
            raise
        raise UserError(
            f"{checkpoint} is damaged ({first_line(error)}). Remove it to go on from the one before, if "
            "there is one, or set `force` to start anew."
        ) from error
