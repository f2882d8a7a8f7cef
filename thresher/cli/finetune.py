"""``thresher finetune``"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import typer

from thresher.cli.ends import show, working, wrote
from thresher.cli.options import Eval, Force, HeldOut, LabelMap, MaxLength, Model, Out, Resume, Text, Train
from thresher.cli.settings import COMMON
from thresher.cli.values import pairs
from thresher.training.settings import TrainingSettings

EPOCHS = 3.0  # more than the settings' own, which are for a model that has learned its task already


def finetune(
    model: Model,
    train: Train,
    out: Out,
    text: Text = None,
    label: Annotated[
        str | None, typer.Option(help="Label column: of labels, scores, tags or answers.")
    ] = None,
    eval_: Eval = None,
    held_out: HeldOut = None,
    task: Annotated[
        str | None,
        typer.Option(
            help="single-label, multi-label, regression, ranking, token-labels or spans. Default: ranking "
            "for a folder in BEIR's layout, token-labels for texts in words, spans for answers with their "
            "starts, multi-label for lists of labels, regression for numbers that are not all whole, else "
            "single-label."
        ),
    ] = None,
    label_map: LabelMap = None,
    epochs: Annotated[float, typer.Option(help="Passes over the training texts.")] = EPOCHS,
    *,
    settings: Annotated[TrainingSettings, ("learning_rate", *COMMON)],
    max_length: MaxLength = None,
    force: Force = False,
    resume: Resume = False,
) -> None:
    """Train a classifier, scorer, reranker, tagger or answerer from an encoder: the base model for prune."""
    with working() as stage:
        from thresher.show.tables import training_table
        from thresher.training import Data, Job
        from thresher.training.recipes import finetune as run

        settings = replace(settings, soft_epochs=0.0, hard_epochs=epochs)
        data = Data(train, text or [], eval_, label, held_out, pairs(label_map))
        report = run(Job(model, data, out, settings, max_length, force, resume), task, stage)
    show(training_table(report))
    wrote(out)
