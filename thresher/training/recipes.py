"""The two training jobs from files to a finished folder: fine-tune a dense model, prune a fine-tuned one."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers import set_seed

from thresher.config import PruningConfig
from thresher.data import is_collection, resolve_columns
from thresher.errors import UserError
from thresher.families import family_for, family_of
from thresher.inference.predict import Predictions, kept_of, warn_if_bare
from thresher.inference.progress import Stages, silent
from thresher.inputs.text import load_tokenizer
from thresher.model import PrunedModel
from thresher.pruners import PRUNERS, unpruned
from thresher.reports import Choice, Finetuning, Pruning, Rung
from thresher.show.figures import kept_figure, save, training_figure
from thresher.store import load_config
from thresher.tasks import TASKS, Task, infer, kind_on, task_on
from thresher.training.base import load_base, load_dense, pruning_of
from thresher.training.checkpoints import last_checkpoint
from thresher.training.job import Job, alone, check_folder, forget
from thresher.training.session import Session
from thresher.training.settings import TrainingSettings
from thresher.training.texts import load_texts


@alone
def finetune(job: Job, kind: str | None = None, stage: Stages = silent) -> Finetuning:
    """Train a dense classifier or scorer, packed, and save it as a plain transformers folder.

    Parameters
    ----------
    job : Job
        With labels. Its settings of pruning do not count: of the epochs ``hard_epochs`` alone.
    kind : str, optional
        One of `thresher.tasks.TASKS`. None: what the labels look like.
    stage : Stages
        Shows what is done.

    Returns
    -------
    Finetuning
        The report, also written to ``report.json``.
    """
    start = time.time()
    job = replace(job, settings=_of_labels_alone(job.settings))
    if job.data.label is None and not is_collection(job.data.train):
        raise UserError("finetune needs labels: name the column of labels in `label`.")
    kind = kind_on(kind, (job.data.train, job.data.held_out, job.data.eval), job.settings.metric)
    family_for(config := load_config(job.model))
    check_folder(job)
    set_seed(job.settings.seed)
    stage("reading texts")
    job = _with_columns(job)
    texts = load_texts(job, TASKS.get(kind or "", Task))
    labels, places = texts.train["label"][:], [f"{job.data.train}:{line}" for line in texts.train["line"][:]]
    by_word = "words" in texts.train.column_names
    task = infer(labels, kind, job.data.label or "score", places, job.data.label_map, by_word)
    task = task.measured_by(job.settings.metric).in_order_of(config)
    stage("loading the model")
    model, missing = load_dense(job.model, task.head, new_head=True, **task.config_kwargs())
    inside = f"{model.base_model_prefix}."
    if bad := [name for name in missing if name.startswith(inside) and "pooler" not in name]:
        raise UserError(f"{job.model} lacks weights of the encoder itself: {bad[0]} and {len(bad) - 1} more.")
    dense = PrunedModel(model, unpruned())
    session = Session(job, dense, task, texts, load_tokenizer(job.model, dense.family), stage)
    if (ended := session.begin({"kind": kind})) is not None:
        return Finetuning.from_json(ended)
    session.train()
    quality, found = session.quality("fine-tuned")
    report = Finetuning(**session.fields(start, {"dense": quality}), **kept_of(found, dense))
    session.finish(report, model)
    return report


@alone
def prune(job: Job, pruning: PruningConfig, stage: Stages = silent) -> Pruning:
    """Learn what to drop, and save a folder that `PrunedModel.from_pretrained` opens.

    Parameters
    ----------
    job : Job
    pruning : PruningConfig
    stage : Stages
        Shows what is done.

    Returns
    -------
    Pruning
        The report, also written to ``report.json``, with two figures beside it.
    """
    start = time.time()
    if job.settings.metric and not job.labelled:
        raise UserError("A metric needs labels: name the column of labels in `label`.")
    check_folder(job)
    pruning = _with_budgets(pruning, job.settings.budgets)
    set_seed(job.settings.seed)
    family_for(config := load_config(job.model))
    data = job.data
    task = task_on(config, data.eval, (data.train, data.held_out), job.settings.metric)
    task = task.reading(data.label_map)
    stage("reading texts")
    job = _with_columns(job)
    texts = load_texts(job, task)
    task.check_texts(texts.train, job.data.train)
    if "label" in texts.train.column_names:
        task = task.taught(texts.train["label"][:])
    stage("loading the model")
    model, _ = load_base(job.model)
    model.config.update(task.noted)
    tokenizer = load_tokenizer(job.model, family_of(model))
    pruning = pruning_of(model, tokenizer, pruning)
    columns = {"text": job.data.text} if job.data.text else {}
    pruned = PrunedModel(model, pruning, {"base": job.model} | columns)
    session = Session(job, pruned, task, texts, tokenizer, stage)
    pruned.metadata["max_length"] = session.encoder.max_length
    if (ended := session.begin(pruning.to_dict())) is not None:
        return Pruning.from_json(ended)
    choice, history = _trained(session)
    report, found = _measured(session, start, history, choice)
    warn_if_bare(pruned, found)

    def draw(folder: Path) -> None:
        level = session.chosen_on.base_level(task)
        figure = f"{session.held_out.figure(task)}, held out"
        save(training_figure(history, level, figure), folder / "training.png")
        save(kept_figure(report.kept_share, report.thresholds), folder / "kept.png")

    session.finish(report, pruned, draw)
    return report


def _trained(session: Session) -> tuple[Choice | None, list[dict[str, Any]]]:
    """Train; what came of a tolerated drop, if there is one, and the history."""
    job, bound = session.job, session.job.settings.max_drop
    session.distil()
    if bound is not None:
        session.warn_if_seen(bound)
    apart = job.data.held_out or "a held-out part of train"
    session.model.metadata |= {
        "base_quality": session.eval.base_quality(session.task),
        "base_measured_on": Path(job.data.eval or apart).name,
        "metric": session.task.metric,
    }
    try:
        history = session.train()
    except UserError:
        if last_checkpoint(job.checkpoints) is None:
            forget(job)  # nothing was begun that could be gone on with
        raise
    return None if bound is None else session.within(bound), history


def _measured(
    session: Session, start: float, history: list[dict[str, Any]], choice: Choice | None
) -> tuple[Pruning, Predictions]:
    """Measure the model dense, and at each of its budgets; the report, and what is said at the first."""
    pruned, task, examples = session.model, session.task, session.eval
    with pruned.dense():
        dense, _ = session.quality("dense")
    ladder: list[Rung] = []
    for budget in reversed(pruned.budgets):  # to end with the one that is in use
        pruned.set_budget(budget)
        best, found = session.quality(f"at budget {budget:g}")
        ladder.insert(0, Rung(budget=budget, quality=best, **kept_of(found, pruned)))
    if not ladder:
        best, found = session.quality("pruned")
    assert examples.base is not None
    drop = examples.estimate_drop(task, found.logits)
    quality = {"base": examples.base_quality(task), "dense": dense, "pruned": best}
    report = Pruning(
        **session.fields(start, quality),
        **kept_of(found, pruned),
        pruning=pruned.pruning.to_dict(),
        ladder=ladder,
        history=history,
        agreement=examples.agreement(task, found.logits),
        drop=drop.points,
        drop_interval=drop.interval,
        max_drop=choice,
    )
    return report, found


def _with_columns(job: Job) -> Job:
    """The same job, with its text columns called as in the training file."""
    return replace(job, data=replace(job.data, text=resolve_columns(job.data.train, job.data.text)))


def _of_labels_alone(settings: TrainingSettings) -> TrainingSettings:
    """As for a dense model: nothing to learn from but labels, and with dropout."""
    return replace(
        settings,
        soft_epochs=0.0,
        budget=None,
        max_drop=None,
        dropout=settings.dropout is not False,
        distill=0.0,
        distill_hidden=0.0,
    )


def _with_budgets(pruning: PruningConfig, budgets: list[float]) -> PruningConfig:
    """The model notes what it was trained for."""
    if "budgets" in pruning.options:
        raise UserError("`options` holds 'budgets', which follow from the settings: name them in `budget`.")
    kind = PRUNERS.get(pruning.pruner)
    if kind is not None and kind.ladder:
        return replace(pruning, options=pruning.options | {"budgets": budgets})
    if len(budgets) > 1:
        raise UserError(
            f"Pruner '{pruning.pruner}' holds one budget, but `budget` or `max_drop` asks for several. Set "
            "`pruner` to threshold, or name one number in `budget`."
        )
    return pruning
