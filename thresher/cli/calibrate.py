"""``thresher calibrate``"""

from __future__ import annotations

from typing import Annotated

import typer

from thresher.cli.ends import show, working, wrote
from thresher.cli.options import Force, MaxLength, Model, Out, Text
from thresher.cli.values import share
from thresher.training.settings import TrainingSettings


def calibrate(
    model: Model,
    data: Annotated[
        str,
        typer.Option(help="Texts like those that the model will meet, but none that the model learned from."),
    ],
    out: Out,
    text: Text = None,
    max_change: Annotated[
        str, typer.Option(help="Most decisions that may change; for scores, 1 less Pearson's r.")
    ] = "1%",
    max_length: MaxLength = None,
    *,
    settings: Annotated[TrainingSettings, ("seed",)],
    force: Force = False,
) -> None:
    """Prune in minutes, without training: outputs stay within a bound of the base model's."""
    allowed = share(max_change)
    with working() as stage:
        from thresher.show.tables import calibration_table
        from thresher.training import Data, Job
        from thresher.training.calibrate import calibrate as run

        report = run(Job(model, Data(data, text or []), out, settings, max_length, force), allowed, stage)
    show(calibration_table(report))
    wrote(out)
