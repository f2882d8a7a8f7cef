"""How commands print, and how they end: messages instead of tracebacks, and exit codes."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text as Styled
from typer.core import TyperCommand

from thresher.cli.words import in_options, speaking
from thresher.errors import TrainingDiverged, UserError, one_line
from thresher.inference.progress import Stages
from thresher.show.progress import err, stages
from thresher.show.wording import printable

WIDE = 120  # columns that the widest tables need
# What users named is printed as it is, not as markup.
console = Console(markup=False, emoji=False)
if not console.is_terminal and "COLUMNS" not in os.environ:
    console.width = WIDE  # a log or a pipe

_RESUME = "Run the same command with --resume to go on from the last checkpoint."
GO_ON = {"finetune": _RESUME, "prune": _RESUME, "demo": "Run the demo again to go on."}
"""What to do after Ctrl-C, by the name of the command."""


class Command(TyperCommand):
    """A command whose errors end in a message and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        with speaking(option for parameter in self.params for option in parameter.opts):
            try:
                _prepare()
                return super().invoke(ctx)
            except UserError as error:
                raise ends("Error:", "red", error, 2) from error
            except KeyboardInterrupt as error:
                raise ends(
                    "Interrupted.", "yellow", f"{error} {GO_ON.get(self.name or '', '')}", 130
                ) from error
            except TrainingDiverged as error:
                raise ends("Failed:", "red", error, 1) from error
            except CannotPrint:
                raise
            except OSError as error:
                where = "" if error.filename is None else f"{error.filename}: "
                full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)
                hint = " Make room, or write elsewhere; what was finished before is there." if full else ""
                raise ends("Error:", "red", f"{where}{one_line(error)}.{hint}", 2) from error


def ends(what: str, colour: str, message: object, code: int) -> typer.Exit:
    """Say why a command ends."""
    said = printable(in_options(str(message)))
    err.print(Styled.assemble((what, f"bold {colour}"), f" {said}"), soft_wrap=True)
    return typer.Exit(code)


def _prepare() -> None:
    """Our own words only, in what the terminal can show: transformers' load reports and bars say nothing that
    a user can act on."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")
    # Read where the libraries are imported, which takes seconds: they need not be imported for this.
    for name in ("HF_HUB_DISABLE_PROGRESS_BARS", "HF_DATASETS_DISABLE_PROGRESS_BARS"):
        os.environ.setdefault(name, "1")
    for name in ("TRANSFORMERS_VERBOSITY", "HF_HUB_VERBOSITY", "DATASETS_VERBOSITY"):
        os.environ.setdefault(name, "error")


@contextmanager
def working() -> Iterator[Stages]:
    """What a command does while it works: first it imports, which takes seconds."""
    with stages() as stage:
        stage("starting")
        yield stage


class CannotPrint(OSError):
    """The output stream is full, or its reader is gone."""


@contextmanager
def printing() -> Iterator[None]:
    """Print inside the ``with`` block: an error there is one of the output stream.

    Raises
    ------
    CannotPrint
    """
    try:
        yield
        sys.stdout.flush()
    except OSError as error:
        raise CannotPrint(error.errno, error.strerror) from error


def show(renderable: Any, width: int | None = None) -> None:
    """Print a table or a view."""
    if isinstance(renderable, Table) and isinstance(caption := renderable.caption, Styled):
        renderable.caption = Styled(in_options(caption.plain), caption.style)
    with printing():
        console.print(renderable, width=width)


def say(line: str) -> None:
    """Print a line that is not wrapped."""
    with printing():
        console.print(line, highlight=False, soft_wrap=True)


def wrote(folder: Path) -> None:
    """Say where the model is that a command made."""
    say(f"Model and report: {folder}")
