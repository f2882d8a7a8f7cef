"""The program: its commands, and its last moments."""

from __future__ import annotations

import errno
import os
import sys
from typing import Annotated, Any

import typer

from thresher.cli.bench import bench
from thresher.cli.calibrate import calibrate
from thresher.cli.demo import demo
from thresher.cli.ends import Command, ends, printing, say
from thresher.cli.evaluate import evaluate
from thresher.cli.finetune import finetune
from thresher.cli.predict import predict
from thresher.cli.prune import prune
from thresher.cli.settings import collecting
from thresher.cli.show import show
from thresher.errors import UserError, one_line
from thresher.version import __version__

app = typer.Typer(
    help="Make transformer encoders faster: learn which tokens can be dropped, and run without them.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    add_completion=False,
)
for command in (finetune, prune, calibrate, evaluate, bench, predict, show, demo):
    app.command(cls=Command)(collecting(command))


def _version(wanted: bool) -> None:
    if wanted:
        try:
            from thresher import native
        except UserError as error:
            raise ends("Error:", "red", error, 2) from error

        route = f"native, {native.instructions}" if native.instructions else "plain, by torch"
        say(f"thresher {__version__} (attention: {route})")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_version, is_eager=True, help="Print the version, and how attention runs."
        ),
    ] = False,
) -> None:
    pass


def main() -> None:
    """Entry point."""
    code: Any = 0
    try:
        try:
            app()
        except SystemExit as end:
            code = end.code
        with printing():
            pass
        sys.stderr.flush()
        os._exit(
            code if isinstance(code, int) else int(code is not None)
        )  # to take PyTorch down takes seconds
    except OSError as error:  # a command sees to its own: this is of printing
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python tries again at its end
        if error.errno == errno.EPIPE:  # as where `head` has read enough
            sys.exit(1)
        what = f"What is printed could not be written ({one_line(error)}). Free space, or send it elsewhere."
        sys.exit(ends("Error:", "red", what, 2).exit_code)
