"""The first act of training: what there is to reach, and where thresholds and scores begin."""

from __future__ import annotations

from collections.abc import Callable

from thresher.training.checkpoints import last_checkpoint
from thresher.training.fit import check_reachable, fit_budgets
from thresher.training.max_drop import keep_reachable
from thresher.training.saliency import enough, fit_scores
from thresher.training.translation import fit_translator
from thresher.training.work import Prepared, Work, objectives_of

NEAR = 0.02  # how far under the budget thresholds may start


def prepare(work: Work) -> Prepared:
    """Find the budgets, and unless a run is gone on with, start the pruner.

    Raises
    ------
    UserError
        If the pruner cannot reach the budget.
    """
    model, settings = work.model, work.settings
    pruner, sample = model.pruner, work.sample()

    def ratio() -> float:
        return sample.predict(model, work.encoder).flops_ratio or 1.0  # in full precision, as it will run

    work.stage("what can be pruned")
    if shortened := settings.max_drop is not None and pruner.ladder:
        keep_reachable(model, ratio)
    budgets = [float(budget) for budget in model.budgets]
    if not budgets and pruner.adjustable:
        budgets = settings.budgets
    prepared = Prepared(
        sample,
        budgets,
        settings.soft_epochs if pruner.learns else 0.0,
        settings.soft_epochs + settings.hard_epochs,  # without a soft stage, all of them are hard
        objectives_of(work.task, settings, work.examples.labels is not None),
        last_checkpoint(work.folder),
    )
    if prepared.checkpoint is None:
        if budgets and not shortened:
            check_reachable(pruner, ratio, min(budgets))
        _start(work, prepared, ratio)
    return prepared


def _start(work: Work, prepared: Prepared, ratio: Callable[[], float]) -> None:
    """Start translators and scores from data, and thresholds where the budget is met."""
    model, settings = work.model, work.settings
    if model.translator is not None:
        texts = enough(work.examples.rows)
        advance = work.stage("states of dropped tokens", len(texts["input_ids"]))
        fit_translator(model, work.encoder, texts, settings.autocast, advance)
    if settings.saliency and prepared.soft_epochs and model.pruner.fits:
        texts = enough(work.examples.rows)
        advance = work.stage("scores", len(texts["input_ids"]))
        fit_scores(model, work.encoder, texts, settings.seed, settings.autocast, advance)
    if not prepared.soft_epochs:
        fit_budgets(model, ratio, prepared.budgets, work.stage)
    elif prepared.budgets:
        model.pruner.start()
        fit_budgets(model, ratio, prepared.budgets, work.stage, tolerance=NEAR)
