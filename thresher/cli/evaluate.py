"""``thresher evaluate``"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from thresher.cli.ends import say, show, working
from thresher.cli.options import (
    AtBudget,
    Engine,
    Folder,
    KnownText,
    LabelMap,
    Measured,
    RunLength,
    RunPrecision,
)
from thresher.cli.values import home, pairs


def evaluate(
    folder: Folder,
    eval_: Measured,
    text: KnownText = None,
    label: Annotated[
        str | None,
        typer.Option(help="Label column. Without labels, quality is the agreement with the dense model."),
    ] = None,
    label_map: LabelMap = None,
    json: Annotated[
        Path | None,
        typer.Option(dir_okay=False, help="File for the report. Default: FOLDER/evaluation.json."),
    ] = None,
    precision: RunPrecision = "fp32",
    engine: Engine = "auto",
    max_length: RunLength = None,
    at_budget: AtBudget = None,
    speed: Annotated[bool, typer.Option(help="Time transformers and the pruned model.")] = True,
) -> None:
    """Measure a pruned model: quality beside the dense and the base model, FLOPs, tokens kept, speed."""
    from thresher.files.lock import sole_writer

    with sole_writer(file := json or home(folder) / "evaluation.json"):
        with working() as stage:
            from thresher.inference.evaluate import evaluate as run
            from thresher.show.tables import evaluation_table

            report = run(
                folder,
                eval_,
                text or [],
                label,
                precision=precision,
                engine=engine,
                max_length=max_length,
                budget=at_budget,
                speed=speed,
                label_map=pairs(label_map),
                stage=stage,
            )
        show(evaluation_table(report))
        report.write(file)
    say(f"Report: {file}")
