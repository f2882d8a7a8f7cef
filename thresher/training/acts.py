"""Training in three acts: prepare, run, settle."""

from __future__ import annotations

import logging
from typing import Any

import torch

from thresher.training.fit import fit_budgets
from thresher.training.prepare import prepare
from thresher.training.run import run
from thresher.training.work import Prepared, Trained, Work

log = logging.getLogger(__name__)


def train(work: Work) -> list[dict[str, Any]]:
    """Train in place: thresholds and weights in the soft stage, weights in the hard stage.

    Returns
    -------
    list of dict
        The history: loss, FLOPs ratio, temperature and the like over the steps.

    Raises
    ------
    UserError
        If the pruner cannot reach the budget.
    TrainingDiverged
        If the loss is no number; the last checkpoint stays.
    Interrupted
        After Ctrl-C, with a checkpoint written.
    """
    torch.manual_seed(work.settings.seed)
    prepared = prepare(work)
    if not prepared.epochs:
        work.model.eval()
        return []
    trained = run(work, prepared)
    settle(work, prepared, trained)
    return trained.history


def settle(work: Work, prepared: Prepared, trained: Trained) -> None:
    """The third act: fit the best checkpoint to its budgets, in full precision, and leave it ready to run."""
    model = work.model
    model.rung, model.soft = 0, None
    model.eval()
    if prepared.budgets and not trained.within_budget:
        log.warning(
            "No checkpoint of the hard stage was within the budget, to which thresholds are now fitted; "
            "train longer for a better model."
        )

    def ratio() -> float:
        return prepared.sample.predict(model, work.encoder).flops_ratio or 1.0

    fit_budgets(model, ratio, prepared.budgets, work.stage)
