"""``thresher predict``"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from thresher.cli.ends import CannotPrint, say, working
from thresher.cli.options import AtBudget, Engine, Folder, Force, KnownText, Resume, RunLength, RunPrecision
from thresher.show.progress import err


def predict(
    folder: Folder,
    input_: Annotated[Path, typer.Option("--input", help="File to read.")],
    output: Annotated[
        Path,
        typer.Option(help="File to write; its suffix says the format. A single - is the standard output."),
    ],
    text: KnownText = None,
    precision: RunPrecision = "fp32",
    engine: Engine = "auto",
    max_length: RunLength = None,
    at_budget: AtBudget = None,
    force: Force = False,
    resume: Resume = False,
) -> None:
    """Answer each row of a file of any size, in columns `prediction` and, but for scores, `score`."""
    with working() as stage:
        from thresher.data.formats import is_stream
        from thresher.inference.stream import predict_file

        try:
            rows = predict_file(
                folder,
                input_,
                output,
                text or [],
                precision=precision,
                engine=engine,
                max_length=max_length,
                budget=at_budget,
                force=force,
                resume=resume,
                stage=stage,
            )
        except KeyboardInterrupt as error:
            if is_stream(output):
                raise
            raise KeyboardInterrupt(
                f"The answers so far are kept beside {output}. Run the same command with --resume to go on."
            ) from error
        except BrokenPipeError as error:  # as where `head` has read enough
            raise CannotPrint(error.errno, error.strerror) from error
    if is_stream(output):
        err.print(f"{rows} rows")
    else:
        say(f"{rows} rows in {output}")
