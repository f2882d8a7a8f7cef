"""Fitting dials to a FLOPs budget, by measuring."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from thresher.errors import UserError
from thresher.inference.progress import Stages
from thresher.model import PrunedModel
from thresher.pruners import Pruner

FITS = 24  # measurements, at most, to fit a budget: half of them find where to bisect from afar


def fit_budgets(
    model: PrunedModel, measure: Callable[[], float], budgets: list[float], stage: Stages, **how: Any
) -> None:
    """Fit each rung of a model to its budget; further arguments as of `fit_budget`."""
    for rung, budget in enumerate(budgets):
        advance = stage(f"thresholds for budget {budget:g}", FITS)

        def counted(advance: Any = advance) -> float:
            advance(1)
            return measure()

        with model.at(rung):
            fit_budget(model.pruner, counted, budget, rung=rung, **how)


def check_reachable(pruner: Pruner, measure: Callable[[], float], budget: float) -> None:
    """Refuse a budget below what the pruner can reach, before anything is trained.

    Parameters as of `fit_budget`.

    Raises
    ------
    UserError
        If pruning as hard as can be leaves more FLOPs than the budget.
    """
    if (least := least_ratio(pruner, measure)) > budget:
        raise _out_of_reach(pruner, budget, least)


def least_ratio(pruner: Pruner, measure: Callable[[], float]) -> float:
    """The FLOPs ratio of the model if it is pruned as hard as can be. Parameters as of `fit_budget`."""
    start = {name: tensor.clone() for name, tensor in pruner.state_dict().items()}
    pruner.rescale(1e6)
    least = measure()
    pruner.load_state_dict(start)
    return least


def _out_of_reach(pruner: Pruner, budget: float, least: float) -> UserError:
    return UserError(
        f"The budget {budget:.2f} is out of reach: as hard as this pruner prunes, the FLOPs ratio is "
        f"{least:.2f}. Ask for a larger budget{pruner.advice}."
    )


def fit_budget(
    pruner: Pruner,
    measure: Callable[[], float],
    budget: float,
    tolerance: float = 0.004,
    rung: int = 0,
) -> float:
    """Rescale a pruner so that the measured FLOPs ratio is at the budget, or a little under it.

    Parameters
    ----------
    pruner : Pruner
        Adjustable. Changed in place.
    measure : callable
        Gives the FLOPs ratio of the model as it stands.
    budget : float
    tolerance : float
        How far under the budget is near enough.
    rung : int
        Place of the dials that are rescaled.

    Returns
    -------
    float
        The ratio reached.

    Raises
    ------
    UserError
        If the pruner cannot prune that much.
    """
    start = {name: tensor.clone() for name, tensor in pruner.state_dict().items()}

    def at(factor: float) -> float:
        pruner.load_state_dict(start)
        pruner.rescale(factor, rung)
        return measure()

    low, high, factor, ratio = 0.0, math.inf, 1.0, measure()
    for _ in range(FITS):
        if budget - tolerance <= ratio <= budget:
            return ratio
        if ratio > budget:
            low = factor
        else:
            high = factor
        # Double or halve until the budget is bracketed, then bisect.
        factor = 2 * low if high == math.inf else high / 2 if low == 0 else (low + high) / 2
        ratio = at(factor)
    if ratio > budget and high < math.inf:
        ratio = at(high)
    if ratio > budget:
        raise _out_of_reach(pruner, budget, ratio)
    return ratio
