"""The cheapest point of a trained ladder whose quality stays near that of the base model.

The rungs' thresholds make a path, from none over the mildest rung to the hardest, with straight lines between
them. Rungs are measured on held-out texts, the hardest first; from the first that keeps clear of the bound we
go on towards the one before it, by bisection, as far as the bound allows.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch
from torch import Tensor

from thresher.errors import UserError
from thresher.inference.predict import Predictions
from thresher.model import PrunedModel
from thresher.reports import Choice
from thresher.tasks import Task
from thresher.training.examples import Drop, Examples
from thresher.training.fit import least_ratio
from thresher.training.path import between

log = logging.getLogger(__name__)

BISECTIONS = 4
MARGIN = 1.0  # standard errors that the drop stays clear of the bound: what looks good is in part luck


def choose(
    model: PrunedModel,
    task: Task,
    held_out: Examples,
    measure: Callable[[], Predictions],
    bound: float,
) -> Choice:
    """Find the point, and make it the first rung of the model, whose others stay.

    Parameters
    ----------
    model : PrunedModel
        With learned thresholds for a ladder of budgets.
    task : Task
    held_out : Examples
        Texts that were not trained on, with the base model's outputs.
    measure : callable
        Gives the model's predictions for them, as it stands.
    bound : float
        Points of quality that may be lost against the base model.
    """
    pruner, first = model.pruner, _dials(model, 0)
    held = torch.stack([_dials(model, rung) for rung in range(len(pruner.budgets))])
    order = sorted(range(len(pruner.budgets)), key=lambda rung: -pruner.budgets[rung])
    path = torch.cat([torch.zeros_like(held[:1]), held[order]])
    found: dict[float, tuple[Drop, Predictions]] = {}

    def within(place: float) -> bool:
        first.copy_(between(path, place))
        predictions = measure()
        drop = held_out.estimate_drop(task, predictions.logits)
        found[place] = drop, predictions
        return drop.points + MARGIN * drop.error <= bound

    rungs = map(float, reversed(range(len(path))))
    kept = next((rung for rung in rungs if within(rung)), None)
    place, step = min(found, key=lambda rung: found[rung][0].points) if kept is None else kept, 0.5
    for _ in range(0 if kept is None or place == len(path) - 1 else BISECTIONS):
        place, step = (place + step if within(place + step) else place), step / 2
    drop, predictions = found[place]
    ratio = predictions.flops_ratio or 1.0
    table = torch.cat([between(path, place)[None], held])
    _hold(model, [round(ratio, 4), *pruner.budgets], table)
    return Choice(
        bound=bound,
        drop=drop.points,
        error=drop.error,
        metric=held_out.figure(task),
        interval=drop.interval,
        kept=drop.points <= bound,
        clear=kept is not None,
        flops_ratio=ratio,
        texts=held_out.texts,
        tried=[
            {"flops_ratio": p.flops_ratio or 1.0, "drop": d.points} for _, (d, p) in sorted(found.items())
        ],
    )


def keep_reachable(model: PrunedModel, measure: Callable[[], float]) -> None:
    """Take rungs that the model cannot prune down to off its ladder, before it is trained.

    Raises
    ------
    UserError
        If none is left.
    """
    pruner = model.pruner
    least = least_ratio(pruner, measure)
    budgets = [budget for budget in pruner.budgets if budget > least]
    if not budgets:
        raise UserError(
            f"Pruned as hard as can be, the model still has a FLOPs ratio of {least:.2f}: there is too "
            "little to save. Calibration costs nothing to try: `thresher calibrate`, or "
            "thresher.training.calibrate.calibrate."
        )
    if len(budgets) < len(pruner.budgets):
        log.warning("Pruned as hard as can be, the FLOPs ratio is %.2f: lower budgets are left out.", least)
    _hold(model, budgets, torch.stack([_dials(model, rung) for rung in range(len(budgets))]))


def _dials(model: PrunedModel, rung: int) -> Tensor:
    """The thresholds ``[layers]`` of a rung, to change in place."""
    dials = model.pruner.dials(rung)
    assert dials is not None
    return dials


def _hold(model: PrunedModel, budgets: list[float], table: Tensor) -> None:
    """Hold thresholds ``[budgets, layers]`` for other budgets than before, and note them to be saved."""
    model.pruner.hold(budgets, table)
    model.pruning.options["budgets"] = budgets
