"""What a long command shows while it works: named stages, each with a bar where its length is known."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

EVERY = 30.0  # seconds between lines, where there is no terminal to draw a bar on

# The one console of the error stream: warnings that are written while a bar is drawn must know of the bar.
# What users named is printed as it is, not as markup.
err = Console(stderr=True, markup=False, emoji=False, highlight=False)


class Stage(Protocol):
    """A part of a long work, told how far it is."""

    def __call__(self, done: int = 1) -> None:
        """So much more is done."""

    def show(self, completed: int | None = None, name: str | None = None, note: str | None = None) -> None:
        """How far it is in all, another name, and what else there is to say."""


Stages = Callable[..., Stage]  # (name, total=None) -> Stage; a stage ends where the next begins


class _Silent:
    def __call__(self, done: int = 1) -> None: ...

    def show(
        self, completed: int | None = None, name: str | None = None, note: str | None = None
    ) -> None: ...


def silent(name: str, total: int | None = None) -> Stage:
    """A stage that tells nobody: where a long function was given none to tell."""
    return _Silent()


@contextmanager
def stages() -> Iterator[Stages]:
    """Show stages on the error stream inside the ``with`` block: bars on a terminal, else a line at the start
    of each and then every `EVERY` seconds.

    Examples
    --------
    >>> with stages() as stage:
    ...     advance = stage("counting", 3)
    ...     for _ in range(3):
    ...         advance(1)
    """
    if not err.is_terminal:
        yield lambda name, total=None: _Lines(name, total)
        return
    bars = Progress(
        _Working(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        _Count(),
        TimeElapsedColumn(),
        TimeRemainingColumn(elapsed_when_finished=False),
        TextColumn("{task.fields[note]}", markup=False),
        console=err,
    )
    with bars:
        yield lambda name, total=None: _Bar(bars, name, total)
        _end(bars)


def _end(bars: Progress) -> None:
    """The stages so far are over."""
    for task in bars.tasks:
        bars.update(task.id, total=task.total if task.finished else task.completed, working=False)


class _Bar:
    """A stage as a bar."""

    def __init__(self, bars: Progress, name: str, total: int | None):
        _end(bars)
        self.bars, self.id = bars, bars.add_task(name, total=total, note="", working=True)

    def __call__(self, done: int = 1) -> None:
        self.bars.advance(self.id, done)

    def show(self, completed: int | None = None, name: str | None = None, note: str | None = None) -> None:
        said = {"completed": completed, "description": name, "note": note}
        self.bars.update(self.id, **{key: value for key, value in said.items() if value is not None})  # type: ignore[arg-type]


class _Working(SpinnerColumn):
    """Turns beside the stage that is at work, which is the last one, also where its count is full."""

    def render(self, task: Task) -> RenderableType:
        return self.spinner.render(task.get_time()) if task.fields["working"] else Text(" ")


class _Count(MofNCompleteColumn):
    """How many of how many, where that is known."""

    def render(self, task: Task) -> Text:
        return super().render(task) if task.total else Text("")


class _Lines:
    """A stage as lines of a log."""

    def __init__(self, name: str, total: int | None):
        self.name, self.total, self.completed, self.note = name, total, 0, ""
        self.last = time.monotonic()
        err.print(f"{name} ..." if total is None else f"{name}: {total} to do", soft_wrap=True)

    def __call__(self, done: int = 1) -> None:
        self.show(self.completed + done)

    def show(self, completed: int | None = None, name: str | None = None, note: str | None = None) -> None:
        self.completed = self.completed if completed is None else completed
        self.name, self.note = name or self.name, self.note if note is None else note
        if time.monotonic() - self.last >= EVERY:
            self.last = time.monotonic()
            of = "" if self.total is None else f" of {self.total}"
            err.print(f"{self.name}: {self.completed}{of} {self.note}".rstrip(), soft_wrap=True)
