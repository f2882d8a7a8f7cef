"""The two training jobs from files to a finished folder: fine-tune a dense model, prune a fine-tuned one."""

from __future__ import annotations

import logging
import math
import time
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import set_seed

from thresher.config import PruningConfig
from thresher.data import load_examples
from thresher.data.formats import same_file
from thresher.errors import UserError
from thresher.families import family_for
from thresher.measure.figures import kept_figure, training_figure
from thresher.measure.predict import Predictions, warn_if_bare
from thresher.measure.progress import progress_bar
from thresher.measure.report import kept_report, versions, write_json
from thresher.measure.speed import speeds
from thresher.model import PrunedModel
from thresher.pruners import PRUNERS
from thresher.store import load_config
from thresher.tasks import Task
from thresher.text import TextEncoder, load_tokenizer
from thresher.training.base import device, load_base, load_dense, pruning_of
from thresher.training.examples import Examples, base_outputs
from thresher.training.job import Job, begin, check_folder, clear, forget
from thresher.training.max_drop import Choice, choose
from thresher.training.settings import TrainingSettings
from thresher.training.trainer import last_checkpoint, train

log = logging.getLogger(__name__)

HELD_OUT, HELD_OUT_SHARE = 1000, 0.1  # texts that choose thresholds and checkpoint, at most
# Texts, or of short ones tokens, that a drop is measured on, at most. Where they are shorter than those in
# use, many count for little: 4,000 of SST-2's tell no more than 1,700 that all count alike.
MEASURED, MEASURED_TOKENS = 4000, 400_000


def finetune(job: Job, kind: str | None = None) -> dict[str, Any]:
    """Train a dense classifier or scorer, packed, and save it as a plain transformers folder.

    Parameters
    ----------
    job : Job
        With labels. Its settings of pruning do not count: of the epochs ``hard_epochs`` alone.
    kind : str, optional
        "single-label", "multi-label" or "regression". None: what the labels look like.

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
    examples = load_examples(job.data.train, job.data.text, job.data.label)
    task = Task.infer(examples["label"][:], kind, score_name=job.data.label)
    task = task.measured_by(job.settings.metric).in_order_of(config)
    model, missing = load_dense(job.model, ignore_mismatched_sizes=True, **task.config_kwargs())
    inside = f"{model.base_model_prefix}."
    if bad := [name for name in missing if name.startswith(inside) and "pooler" not in name]:
        raise UserError(f"{job.model} lacks weights of the encoder itself: {bad[0]} and {len(bad) - 1} more.")
    dense = PrunedModel(model, PruningConfig("none"))
    run = _Run(job, dense, task, examples, load_tokenizer(job.model))
    begin(job, {"kind": kind})
    run.train()
    clear(job)
    run.encoder.tokenizer.save_pretrained(job.out)
    model.save_pretrained(job.out)
    quality, found = run.quality()
    report = run.report("finetune", start, {"dense": quality}) | kept_report(found, dense)
    return run.finish(report)


def prune(job: Job, pruning: PruningConfig) -> dict[str, Any]:
    """Learn what to drop, and save a folder that `PrunedModel.from_pretrained` opens.

    Returns
    -------
    dict
        The report, also written to ``report.json``, with two figures beside it.
    """
    start = time.time()
    if job.settings.metric and job.data.label is None:
        raise UserError("A metric needs labels: name their column with --label.")
    check_folder(job)
    set_seed(job.settings.seed)
    model, task = load_base(job.model)
    task = task.measured_by(job.settings.metric)
    examples = load_examples(job.data.train, job.data.text, job.data.label)
    tokenizer = load_tokenizer(job.model)
    pruning = _with_budgets(pruning_of(model, tokenizer, pruning), job.settings.budgets)
    pruned = PrunedModel(model, pruning, {"base": job.model, "text": job.data.text})
    run = _Run(job, pruned, task, examples, tokenizer)
    pruned.metadata["max_length"] = run.encoder.max_length
    begin(job, pruning.to_dict())
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
    dense = None
    if job.extras:
        with pruned.dense():
            dense, _ = run.quality()
    ladder: list[dict[str, Any]] = []
    for budget in reversed(pruned.budgets):  # to end with the one that is in use
        pruned.set_budget(budget)
        best, found = run.quality()
        ladder.insert(0, {"budget": budget, "quality": best, **kept_report(found, pruned)})
    if not ladder:
        best, found = run.quality()
    warn_if_bare(pruned, found)
    quality = {"base": base} | ({"dense": dense} if dense else {}) | {"pruned": best}
    clear(job)
    run.encoder.tokenizer.save_pretrained(job.out)
    pruned.save_pretrained(job.out)
    report = run.report("prune", start, quality) | {"pruning": pruning.to_dict()}
    report |= kept_report(found, pruned) | {"ladder": ladder, "history": history}
    assert run.eval.base is not None
    report |= task.agreement(found.logits, run.eval.base)
    drop = run.eval.estimate_drop(task, found.logits)
    report |= {"drop": drop.points, "drop_interval": drop.interval}
    if choice is not None:
        report["max_drop"] = asdict(choice)
    level = run.chosen_on.base_level(task)
    training_figure(history, job.out / "training.png", level, f"{report['metric']}, held out")
    kept_figure(found.kept_share or [], job.out / "kept.png", report["thresholds"])
    return run.finish(report)


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

    def __init__(self, job: Job, model: PrunedModel, task: Task, examples: Any, tokenizer: Any):
        self.job, self.task = job, task
        self.model = model.to(device())
        self.encoder = TextEncoder(tokenizer, model.family.length_limit(job.max_length))
        data = job.data
        kept_apart, rest = self._split(examples)
        self.held_out = self._examples(kept_apart, data.held_out or data.train)
        self.examples = self._examples(rest, data.train)
        self.eval, self.texts = self.held_out, kept_apart
        if data.eval:
            if same_file(data.eval, data.train):
                log.warning("Quality is reported on texts that are learned from: name others with --eval.")
            self.texts = load_examples(data.eval, data.text, data.label, split="test")
            self.eval = self._examples(self.texts, data.eval)
        self.wanted = self.eval.lengths() if data.eval or data.held_out else None
        if self.eval is not self.held_out:
            self.held_out = self.held_out.weigh(self.wanted)
        bound = job.settings.max_drop
        if bound is not None and (grain := self.held_out.grain(task)) > bound:
            raise UserError(
                f"{data.held_out or data.train}: of the rarest class, too few texts are held out to tell "
                f"whether {bound:g} points of {task.metric} are lost: one of them counts for {grain:.1f}. "
                "Give more of them, or allow more to be lost."
            )

    def _split(self, examples: Any) -> tuple[Any, Any]:
        """Texts to choose on, and texts to learn from: two parts of train, where no file is named for the
        first."""
        data, bound = self.job.data, self.job.settings.max_drop
        texts, share = examples, HELD_OUT_SHARE
        if data.held_out is not None:
            if same_file(data.held_out, data.train):
                raise UserError("--held-out is the file of --train: name texts that are not learned from.")
            texts, share = load_examples(data.held_out, data.text, data.label, "validation"), 1.0
        random = np.random.default_rng(self.job.settings.seed)
        order = random.permutation(len(texts))
        most, least, what = HELD_OUT, 1, "which checkpoint is best"
        if bound is not None:  # one text has to count for less than the bound
            mean = self.encoder.mean_length(texts.select(order))
            most = max(MEASURED, round(MEASURED_TOKENS / mean))
            least, what = math.ceil(100 / bound), f"whether {bound:g} points are lost"
        cut = min(most, round(share * len(order)))
        if cut < least:
            raise UserError(
                f"{data.held_out or data.train} has {len(order)} rows: too few to tell on {share:.0%} of "
                f"them {what}; give {math.ceil(least / share)} at least."
            )
        learned = order[cut:] if texts is examples else random.permutation(len(examples))
        return texts.select(order[:cut]), examples.select(learned)

    def _examples(self, examples: Any, source: str) -> Examples:
        labels = self.task.encode_all(examples, source) if "label" in examples.column_names else None
        return Examples(self.encoder.encode_examples(examples), labels)

    @property
    def chosen_on(self) -> Examples:
        """Held-out texts that choose the checkpoint: of many, some."""
        return self.held_out.select(range(min(HELD_OUT, len(self.held_out))))

    def distil(self) -> None:
        """Ask base once for its outputs, on all that is learned or measured against them."""
        parts = {"held out": self.held_out}
        if self.eval is not self.held_out:
            parts["eval"] = self.eval
        if self.job.settings.distill or self.examples.labels is None:
            parts["train"] = self.examples
        with progress_bar() as bar:
            for name, part in parts.items():
                task = bar.add_task(f"base's outputs, {name}", total=len(part), note="")
                file = (self.job.outputs or self.job.checkpoints) / f"base-{name.replace(' ', '-')}.npy"
                # What is measured against is exact; what is only learned from need not be.
                autocast = self.job.settings.autocast if name == "train" else None
                advance = partial(bar.advance, task)
                part.base = base_outputs(self.model, self.encoder, part.rows, file, autocast, advance)

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
        return train(
            self.model,
            self.encoder,
            self.task,
            self.examples,
            self.chosen_on,
            self.job.settings,
            self.job.checkpoints,
            self.wanted,
            self.job.resume,
        )

    def quality(self) -> tuple[dict[str, float], Predictions]:
        """Quality of the model, as it stands, on eval."""
        found = self.eval.predict(self.model, self.encoder)
        return self.eval.quality(self.task, found.logits), found

    def within(self, drop: float) -> Choice:
        """The cheapest point of the trained ladder that loses no more points than `drop`."""
        with progress_bar() as bar:
            point = bar.add_task("points of the ladder", total=len(self.held_out), note="")

            def measure() -> Predictions:
                bar.reset(point)
                advance = partial(bar.advance, point)
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
        if self.job.extras:
            report["speed"] = speeds(
                self.model, self.model.model, self.encoder, self.texts, texts=128, repeats=3
            )
        return report

    def finish(self, report: dict[str, Any]) -> dict[str, Any]:
        """Everything is written: the folder is complete, and the checkpoints can go."""
        write_json(report, self.job.out / "report.json")
        forget(self.job)
        return report
