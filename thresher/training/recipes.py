"""The two training jobs from files to a finished folder: fine-tune a dense model, prune a fine-tuned one."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from transformers import set_seed

from thresher.config import PruningConfig
from thresher.data import resolve_columns
from thresher.errors import UserError
from thresher.families import family_for, family_of
from thresher.folders.fingerprint import fingerprint
from thresher.inference.predict import Predictions, warn_if_bare
from thresher.inference.progress import Stages, silent
from thresher.inference.speed import speeds
from thresher.inputs.text import TextEncoder, load_tokenizer
from thresher.model import PrunedModel
from thresher.pruners import PRUNERS, unpruned
from thresher.reports import kept_report, versions, write_json
from thresher.show.figures import kept_figure, training_figure
from thresher.store import load_config
from thresher.tasks import Task, blank_is_none, infer, task_of
from thresher.training.acts import train
from thresher.training.base import device, load_base, load_dense, pruning_of
from thresher.training.checkpoints import last_checkpoint
from thresher.training.examples import Examples, base_outputs
from thresher.training.job import Job, alone, begin, check_folder, finished, forget, noted
from thresher.training.max_drop import Choice, choose
from thresher.training.settings import TrainingSettings
from thresher.training.texts import HELD_OUT, Texts, load_texts, split
from thresher.training.work import Work, objectives_of

log = logging.getLogger(__name__)


@alone
def finetune(job: Job, kind: str | None = None, stage: Stages = silent) -> dict[str, Any]:
    """Train a dense classifier or scorer, packed, and save it as a plain transformers folder.

    Parameters
    ----------
    job : Job
        With labels. Its settings of pruning do not count: of the epochs ``hard_epochs`` alone.
    kind : str, optional
        "single-label", "multi-label" or "regression". None: what the labels look like.
    stage : Stages
        Shows what is done.

    Returns
    -------
    dict
        The report, also written to ``report.json``.
    """
    start = time.time()
    job = replace(job, settings=_of_labels_alone(job.settings))
    if job.data.label is None:
        raise UserError("finetune needs labels: name their column with --label.")
    family_for(config := load_config(job.model))
    check_folder(job)
    set_seed(job.settings.seed)
    stage("reading texts")
    job = _with_columns(job)
    texts = load_texts(job, blank_labels=blank_is_none(kind))
    labels, places = texts.train["label"][:], [f"{job.data.train}:{line}" for line in texts.train["line"][:]]
    task = infer(labels, kind, job.data.label or "score", places, job.data.label_map)
    task = task.measured_by(job.settings.metric).in_order_of(config)
    stage("loading the model")
    model, missing = load_dense(job.model, new_head=True, **task.config_kwargs())
    inside = f"{model.base_model_prefix}."
    if bad := [name for name in missing if name.startswith(inside) and "pooler" not in name]:
        raise UserError(f"{job.model} lacks weights of the encoder itself: {bad[0]} and {len(bad) - 1} more.")
    dense = PrunedModel(model, unpruned())
    run = _Run(job, dense, task, texts, load_tokenizer(job.model, dense.family), stage)
    if (ended := run.begin({"kind": kind})) is not None:
        return ended
    run.train()
    quality, found = run.quality("fine-tuned")
    report = run.report("finetune", start, {"dense": quality}) | kept_report(found, dense)
    return run.finish(report, model)


@alone
def prune(job: Job, pruning: PruningConfig, stage: Stages = silent) -> dict[str, Any]:
    """Learn what to drop, and save a folder that `PrunedModel.from_pretrained` opens.

    Parameters
    ----------
    job : Job
    pruning : PruningConfig
    stage : Stages
        Shows what is done.

    Returns
    -------
    dict
        The report, also written to ``report.json``, with two figures beside it.
    """
    start = time.time()
    if job.settings.metric and job.data.label is None:
        raise UserError("A metric needs labels: name their column with --label.")
    check_folder(job)
    pruning = _with_budgets(pruning, job.settings.budgets)
    set_seed(job.settings.seed)
    family_for(config := load_config(job.model))
    task = task_of(config).measured_by(job.settings.metric).reading(job.data.label_map)
    stage("reading texts")
    job = _with_columns(job)
    texts = load_texts(job, blank_labels=task.blank_is_none)
    stage("loading the model")
    model, _ = load_base(job.model)
    tokenizer = load_tokenizer(job.model, family_of(model))
    pruning = pruning_of(model, tokenizer, pruning)
    pruned = PrunedModel(model, pruning, {"base": job.model, "text": job.data.text})
    run = _Run(job, pruned, task, texts, tokenizer, stage)
    pruned.metadata["max_length"] = run.encoder.max_length
    if (ended := run.begin(pruning.to_dict())) is not None:
        return ended
    run.distil()
    base = run.eval.base_quality(task)
    if job.settings.max_drop is not None:
        run.warn_if_seen(job.settings.max_drop)
    apart = job.data.held_out or "a held-out part of train"
    where = Path(job.data.eval or apart).name
    pruned.metadata |= {"base_quality": base, "base_measured_on": where, "metric": task.metric}
    try:
        history = run.train()
    except UserError:
        if last_checkpoint(job.checkpoints) is None:
            forget(job)  # nothing was begun that could be gone on with
        raise
    choice = None
    if job.settings.max_drop is not None:
        choice = run.within(job.settings.max_drop)
    with pruned.dense():
        dense, _ = run.quality("dense")
    ladder: list[dict[str, Any]] = []
    for budget in reversed(pruned.budgets):  # to end with the one that is in use
        pruned.set_budget(budget)
        best, found = run.quality(f"at budget {budget:g}")
        ladder.insert(0, {"budget": budget, "quality": best, **kept_report(found, pruned)})
    if not ladder:
        best, found = run.quality("pruned")
    warn_if_bare(pruned, found)
    quality = {"base": base, "dense": dense, "pruned": best}
    report = run.report("prune", start, quality) | {"pruning": pruning.to_dict()}
    report |= kept_report(found, pruned) | {"ladder": ladder, "history": history}
    assert run.eval.base is not None
    report |= {"agreement": task.agreement(found.logits, run.eval.base)}
    drop = run.eval.estimate_drop(task, found.logits)
    report |= {"drop": drop.points, "drop_interval": drop.interval}
    if choice is not None:
        report["max_drop"] = asdict(choice)

    def draw(folder: Path) -> None:
        level = run.chosen_on.base_level(task)
        training_figure(history, folder / "training.png", level, f"{report['metric']}, held out")
        kept_figure(found.kept_share or [], folder / "kept.png", report["thresholds"])

    return run.finish(report, pruned, draw)


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
        raise UserError("The option budgets follows from the settings: name them with --budget.")
    kind = PRUNERS.get(pruning.pruner)
    if kind is not None and kind.ladder:
        return replace(pruning, options=pruning.options | {"budgets": budgets})
    if len(budgets) > 1:
        raise UserError(
            f"Pruner '{pruning.pruner}' holds one budget; several are asked for (--max-drop does so, too). "
            "Take --pruner threshold, or name one --budget."
        )
    return pruning


class _Run:
    """One job with its data encoded: a part of train to learn from, a part to choose on, and eval."""

    def __init__(self, job: Job, model: PrunedModel, task: Task, texts: Texts, tokenizer: Any, stage: Stages):
        self.job, self.task, self.stage = job, task, stage
        self.model = model.to(device())
        self.encoder = TextEncoder(tokenizer, model.family.length_limit(job.max_length))
        data = job.data
        stage("tokenizing")
        texts = texts.encoded(task, data)
        kept_apart, rest = split(job, texts, self.encoder.mean_length)
        self.held_out, self.examples = self._examples(kept_apart), self._examples(rest)
        self.eval, self.texts = self.held_out, kept_apart
        if texts.eval is not None:
            self.texts = texts.eval
            self.eval = self._examples(self.texts)
        self.wanted = self.eval.lengths() if data.eval or data.held_out else None
        if self.eval is not self.held_out:
            self.held_out = self.held_out.weigh(self.wanted)
        bound = job.settings.max_drop
        if bound is not None and (grain := self.held_out.grain(task)) > bound:
            raise UserError(
                f"{data.held_out or data.train}: of the rarest class, too few texts are held out to tell "
                f"whether {bound:g} points of {task.metric} are lost: one of them counts for {grain:.1f}. "
                "Give more of them (--held-out), or allow more to be lost."
            )

    def _examples(self, examples: Any) -> Examples:
        labels = examples["label"][:] if "label" in examples.column_names else None
        return Examples(self.encoder.encode_examples(examples), labels)

    @property
    def chosen_on(self) -> Examples:
        """Held-out texts that choose the checkpoint: of many, some."""
        return self.held_out.select(range(min(HELD_OUT, len(self.held_out))))

    def begin(self, how: dict[str, Any]) -> dict[str, Any] | None:
        """Note what is run, and on what; the report, if it has been run to its end before and is resumed."""
        self.stage("comparing with what was begun" if self.job.resume else "noting what is begun")
        parts = {"training texts": self.examples, "held-out texts": self.held_out, "eval texts": self.eval}
        content = {f"content of the {name}": part.digest() for name, part in parts.items()}
        content["content of the model"] = fingerprint(self.model.model, self.encoder.tokenizer)
        return begin(self.job, how=how, **content)

    def distil(self) -> None:
        """Ask the base model once for its outputs, on all that is learned or measured against them."""
        base = self.model
        if self.job.teacher is not None:
            base = PrunedModel(load_base(self.job.teacher)[0], unpruned()).to(device())
        parts = {"held out": self.held_out}
        if self.eval is not self.held_out:
            parts["eval"] = self.eval
        terms = objectives_of(self.task, self.job.settings, self.examples.labels is not None)
        if any("base outputs" in term.needs for term in terms):
            parts["train"] = self.examples
        for name, part in parts.items():
            advance = self.stage(f"base's outputs, {name}", len(part))
            file = self.job.checkpoints / f"base-{name.replace(' ', '-')}.npy"
            # What is measured against is exact; what is only learned from need not be.
            autocast = self.job.settings.autocast if name == "train" else None
            part.base = base_outputs(base, self.encoder, part.rows, file, autocast, advance)

    def warn_if_seen(self, bound: float) -> None:
        """Texts that base was fine-tuned on make it look better than it is, and pruning worse."""
        apart, base = self.held_out.base_level(self.task), self.eval.base_level(self.task)
        if self.job.data.held_out is None and apart - base > bound:
            log.warning(
                "On the part of train that is held out, base has %.2f, on eval %.2f. If it was fine-tuned on "
                "these texts, pruning looks worse there than it is, and less will be pruned: name others "
                "with --held-out.",
                apart,
                base,
            )

    def train(self) -> list[dict[str, Any]]:
        job = self.job
        work = Work(
            self.model,
            self.encoder,
            self.task,
            self.examples,
            self.chosen_on,
            job.settings,
            job.checkpoints,
            self.wanted,
            self.stage,
        )
        return train(work)

    def quality(self, name: str) -> tuple[dict[str, float], Predictions]:
        """Quality of the model, as it stands, on eval; `name` says how that is."""
        advance = self.stage(f"quality, {name}", len(self.eval))
        found = self.eval.predict(self.model, self.encoder, advance=advance)
        return self.eval.quality(self.task, found.logits), found

    def within(self, drop: float) -> Choice:
        """The cheapest point of the trained ladder that loses no more points than `drop`."""

        def measure() -> Predictions:
            advance = self.stage("a point of the ladder", len(self.held_out))
            return self.held_out.predict(self.model, self.encoder, advance=advance)

        return choose(self.model, self.task, self.held_out, measure, drop)

    def report(self, command: str, start: float, quality: dict[str, Any]) -> dict[str, Any]:
        settings = self.job.settings
        report = {
            "command": command,
            "model": self.job.model,
            "out": str(self.job.out),
            "task": self.task.kind,
            "metric": self.task.metric if self.eval.labels is not None else "agreement",
            "data": asdict(self.job.data)
            | {
                "train_texts": len(self.examples),
                "held_out_texts": len(self.held_out),
                "eval_texts": len(self.eval),
            }
            | {"max_length": self.encoder.max_length, "truncated": self.encoder.truncated},
            "settings": asdict(settings)
            | {"computed_in": str(settings.autocast or torch.float32).removeprefix("torch.")}
            | {"threads": torch.get_num_threads()},
            "quality": quality,
            "versions": versions(),
            "seconds": round(time.time() - start, 1),
            "resumed": self.job.resume,
        }
        self.stage("timing")
        speed = speeds(self.model, self.model.model, self.encoder, self.texts, texts=128, repeats=3)
        return report | {"speed": speed}

    def finish(
        self, report: dict[str, Any], model: Any, draw: Callable[[Path], None] = lambda folder: None
    ) -> dict[str, Any]:
        """Write the finished folder in one step, with which the checkpoints go."""
        self.stage("writing the report")
        report["job"] = noted(self.job)
        with finished(self.job) as folder:
            self.encoder.tokenizer.save_pretrained(folder)
            model.save_pretrained(folder)
            draw(folder)
            write_json(report, folder / "report.json")
        forget(self.job)
        return report
