"""The words of the library on the command line: what it calls a parameter is called by its option."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from rich.logging import RichHandler

from thresher.show.progress import err

OTHERWISE = {
    "batch": "--batch-size",
    "budget": "--at-budget",  # of a model that holds several; `prune` has --budget
    "hard_epochs": "--epochs",  # of `finetune`; `prune` has --hard-epochs
    "kind": "--task",
    "options": "--option",
    "train": "--data",
}
"""Options that are not called as the parameter is, of commands that have no option of its name."""

_options: frozenset[str] = frozenset()


@contextmanager
def speaking(options: Iterable[str]) -> Iterator[None]:
    """Show warnings inside the ``with`` block, and speak of these options there, those of one command."""
    global _options
    before, _options = _options, frozenset(options)
    handler = RichHandler(console=err, show_path=False, show_time=False, markup=False)
    handler.setFormatter(_Formatter("%(message)s"))
    logging.getLogger().addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)
        _options = before


def in_options(message: str) -> str:
    """The message with each parameter in backticks called by its option, where the command has one.

    Examples
    --------
    >>> with speaking(["--max-length", "--task"]):
    ...     in_options("`max_length` is 600; `kind` is 'x'; `force` is unknown here.")
    "--max-length is 600; --task is 'x'; `force` is unknown here."
    """

    def option(parameter: re.Match[str]) -> str:
        name = parameter[1]
        called = (f"--{name.replace('_', '-')}", OTHERWISE.get(name, ""))
        return next((option for option in called if option in _options), parameter[0])

    return re.sub(r"`(\w+)`", option, message)


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return in_options(super().format(record))
