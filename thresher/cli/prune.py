"""``thresher prune``"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import typer

from thresher.cli.ends import show, working, wrote
from thresher.cli.options import (
    METHODS,
    Eval,
    Force,
    HeldOut,
    LabelMap,
    MaxLength,
    Model,
    Out,
    Resume,
    Text,
    Train,
)
from thresher.cli.settings import COMMON
from thresher.cli.values import budgets, options, pairs, points
from thresher.errors import UserError
from thresher.training.settings import TrainingSettings

BUDGET = "0.5"  # where neither a budget nor anything in its place is asked for
OWN = (
    "soft_epochs",
    "hard_epochs",
    "learning_rate",
    "threshold_learning_rate",
    "score_learning_rate",
    "distill",
    "distill_hidden",
    "saliency",
)


def prune(
    model: Model,
    train: Train,
    out: Out,
    text: Text = None,
    eval_: Eval = None,
    held_out: HeldOut = None,
    label: Annotated[
        str | None,
        typer.Option(help="Label column. Without labels, the base model's own outputs are learned alone."),
    ] = None,
    label_map: LabelMap = None,
    budget: Annotated[
        str | None,
        typer.Option(
            help="Wanted FLOPs, as a share of the base model's. Several with commas between them make one "
            f"model that runs at each. Default: {BUDGET}."
        ),
    ] = None,
    max_drop: Annotated[
        str | None,
        typer.Option(
            help="In place of a budget: the quality that may be lost, as 1%. The cheapest model within it is "
            "found."
        ),
    ] = None,
    regularizer: Annotated[
        float | None,
        typer.Option(
            help="In place of a budget: the paper's lambda, the weight of the mean gate in the loss. A "
            "larger weight prunes more."
        ),
    ] = None,
    pruner: Annotated[str, typer.Option(help=f"Method, one of: {METHODS}.")] = "threshold",
    option: Annotated[
        list[str] | None,
        typer.Option(
            help="Option of the method, NAME=VALUE. May be repeated. threshold has score, gate, "
            "normalization and learned; topk and random have dense_layers and slope."
        ),
    ] = None,
    dropped: Annotated[
        str | None,
        typer.Option(
            help="What stands for a dropped token where each token counts (tags, spans, embeddings): carry, "
            "the state in which it was dropped; translate, that state times a learned matrix; mean, the mean "
            "over the survivors. Default: translate."
        ),
    ] = None,
    *,
    settings: Annotated[TrainingSettings, (*OWN, *COMMON)],
    max_length: MaxLength = None,
    force: Force = False,
    resume: Resume = False,
) -> None:
    """Learn which tokens a fine-tuned model can drop."""
    goals = {"--budget": budget, "--max-drop": max_drop, "--regularizer": regularizer}
    if len(given := [goal for goal, value in goals.items() if value is not None]) > 1:
        raise UserError(f"{' and '.join(given)} exclude each other: name one of them.")
    with working() as stage:
        from thresher.config import PruningConfig
        from thresher.pruners import PRUNERS
        from thresher.show.tables import training_table
        from thresher.training import Data, Job
        from thresher.training.recipes import prune as run

        if budget is not None and pruner in PRUNERS and not PRUNERS[pruner].adjustable:
            raise UserError(f"Pruner '{pruner}' always prunes the same: it takes no --budget.")
        steered = max_drop is None and regularizer is None
        settings = replace(
            settings,
            budget=budgets(BUDGET if budget is None else budget) if steered else None,
            max_drop=None if max_drop is None else points(max_drop),
            regularizer=regularizer or 0.0,
        )
        data = Data(train, text or [], eval_, label, held_out, pairs(label_map))
        job = Job(model, data, out, settings, max_length, force, resume)
        report = run(job, PruningConfig(pruner, options(option), dropped=dropped), stage)
    show(training_table(report))
    wrote(out)
