"""How a long function tells how far it is: named stages, each with a length where that is known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


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
    """A stage that shows nothing: the default of long functions."""
    return _Silent()
