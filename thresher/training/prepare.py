"""The first act of training: what there is to reach, and where thresholds and scores begin."""

from __future__ import annotations

from collections.abc import Callable

from thresher.inference.progress import Stages
from thresher.inputs.text import TextEncoder
from thresher.model import PrunedModel
from thresher.training.checkpoints import last_checkpoint
from thresher.training.fit import check_reachable, fit_budgets
from thresher.training.max_drop import keep_reachable
from thresher.training.saliency import enough, fit_scores
from thresher.training.settings import TrainingSettings
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


def fit_to_base(
    model: PrunedModel,
    encoder: TextEncoder,
    texts: dict[str, list],
    settings: TrainingSettings,
    stage: Stages,
    scores: bool = True,
) -> None:
    """Start what begins from the base model's states and gradients on a few texts: the translators of dropped
    tokens, and the scores, where the model has them."""
    count = len(texts["input_ids"])
    if model.translator is not None:
        fit_translator(model, encoder, texts, settings.autocast, stage("states of dropped tokens", count))
    if scores and model.pruner.fits:
        fit_scores(model, encoder, texts, settings.seed, settings.autocast, stage("scores", count))


def _start(work: Work, prepared: Prepared, ratio: Callable[[], float]) -> None:
    """Start translators and scores from data, and thresholds where the budget is met."""
    model, settings = work.model, work.settings
    scores = settings.saliency and prepared.soft_epochs > 0
    fit_to_base(model, work.encoder, enough(work.examples.rows), settings, work.stage, scores)
    if not prepared.soft_epochs:
        fit_budgets(model, ratio, prepared.budgets, work.stage)
    elif prepared.budgets:
        model.pruner.start()
        fit_budgets(model, ratio, prepared.budgets, work.stage, tolerance=NEAR)
