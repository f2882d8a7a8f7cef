"""What a long command shows while it works: named stages, each with a bar where its length is known."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta

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

from thresher.inference.progress import Stages

TOLD = 1.0  # seconds that a stage takes of which a line is left
DRAW = 0.2  # seconds
EVERY = 30.0  # seconds between lines, where there is no terminal to draw a bar on

# The one console of the error stream: warnings that are written while a bar is drawn must know of the bar.
# What users named is printed as it is, not as markup.
err = Console(stderr=True, markup=False, emoji=False, highlight=False)


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
    bars = _OneStage(
        _Working(),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        _Count(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=err,
        transient=True,
    )
    with bars:
        yield lambda name, total=None: _Bar(bars, name, total)
        _end(bars)


def _end(bars: Progress) -> None:
    """Leave a line of the stage that ends, and take it off the live display, which has to fit the screen."""
    for task in bars.tasks:
        took = task.elapsed or 0.0
        if took >= TOLD:
            count = f", {task.completed:g} of {task.total:g}" if task.total else ""
            note = f", {task.fields['note']}" if task.fields["note"] else ""
            err.print(f"{task.description}: {timedelta(seconds=round(took))}{count}{note}", soft_wrap=True)
        bars.remove_task(task.id)


class _Bar:
    """A stage as a bar."""

    def __init__(self, bars: Progress, name: str, total: int | None):
        _end(bars)
        self.bars, self.id = bars, bars.add_task(name, total=total, note="")
        self.drawn = time.monotonic()

    def __call__(self, done: int = 1) -> None:
        if self.id in self.bars.task_ids:  # else it has ended
            self.bars.advance(self.id, done)
            self._draw()

    def show(self, completed: int | None = None, name: str | None = None, note: str | None = None) -> None:
        said = {"completed": completed, "description": name, "note": note}
        if self.id in self.bars.task_ids:
            self.bars.update(self.id, **{key: value for key, value in said.items() if value is not None})  # type: ignore[arg-type]
            self._draw()

    def _draw(self) -> None:
        """Draw now and then, because the thread that draws gets little time where all cores compute."""
        if time.monotonic() - self.drawn >= DRAW:
            self.drawn = time.monotonic()
            self.bars.refresh()


class _OneStage(Progress):
    """The stage in a line that fits a terminal of 80 columns, and under it what there is to say of it. In one
    line with it, the rest would be squeezed until nothing is seen to turn."""

    def get_renderables(self) -> Iterable[RenderableType]:
        yield self.make_tasks_table(self.tasks)
        for task in self.tasks:
            if task.fields["note"]:
                yield Text(f"  {task.fields['note']}", no_wrap=True, overflow="ellipsis")


class _Working(SpinnerColumn):
    """Turns as long as the stage is shown, also where its count is full."""

    def render(self, task: Task) -> RenderableType:
        return self.spinner.render(task.get_time())


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
