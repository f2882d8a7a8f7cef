"""One job at work: its data encoded, its model, and what is asked of them in turn."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from thresher.errors import UserError
from thresher.folders.fingerprint import fingerprint
from thresher.inference.load import encoder_for
from thresher.inference.predict import Predictions
from thresher.inference.progress import Stages
from thresher.inference.speed import speeds
from thresher.model import PrunedModel
from thresher.pruners import unpruned
from thresher.reports import Choice, Quality, Training, TrainingData, versions
from thresher.tasks import Task
from thresher.training.acts import train
from thresher.training.base import device, load_base
from thresher.training.examples import Examples, base_outputs
from thresher.training.job import Job, begin, finished, forget, noted
from thresher.training.max_drop import choose
from thresher.training.texts import HELD_OUT, Texts, split
from thresher.training.work import Work, objectives_of

log = logging.getLogger(__name__)


class Session:
    """One job with its data encoded: a part of train to learn from, a part to choose on, and eval."""

    def __init__(self, job: Job, model: PrunedModel, task: Task, texts: Texts, tokenizer: Any, stage: Stages):
        self.job, self.task, self.stage = job, task, stage
        self.model = model.to(device())
        self.encoder = encoder_for(task, tokenizer, model.family.length_limit(job.max_length))
        data = job.data
        stage("tokenizing")
        texts = texts.encoded(task, data)
        kept_apart, rest = split(job, texts, self.encoder.mean_length, task.together)
        self.held_out = self._examples(kept_apart, data.held_out or data.train)
        self.examples = self._examples(rest, data.train)
        if not task.teaches:
            self.examples.labels = None
        self.eval, self.texts = self.held_out, kept_apart
        if texts.eval is not None:
            self.texts = texts.eval
            self.eval = self._examples(self.texts, str(data.eval))
        self.wanted = self.eval.lengths() if data.eval or data.held_out else None
        if self.eval is not self.held_out:
            self.held_out = self.held_out.weigh(self.wanted)
        bound = job.settings.max_drop
        if bound is not None and (grain := self.held_out.grain(task)) > bound:
            raise UserError(
                f"{data.held_out or data.train}: of the rarest class, too few texts are held out to tell "
                f"whether {bound:g} points of {task.metric} are lost: one of them counts for {grain:.1f}. "
                "Name more texts in `held_out`, or allow more to be lost."
            )

    def _examples(self, examples: Any, source: str) -> Examples:
        labels = examples["label"][:] if "label" in examples.column_names else None
        return Examples.of(self.task, self.encoder.encode_examples(examples, source), labels)

    @property
    def chosen_on(self) -> Examples:
        """Held-out texts that choose the checkpoint: of many, some."""
        return self.held_out.select(range(min(HELD_OUT, self.held_out.texts)))

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
            advance = self.stage(f"the base model's outputs, {name}", len(part))
            file = self.job.checkpoints / f"base-{name.replace(' ', '-')}.npy"
            # What is measured against is exact; what is only learned from need not be.
            autocast = self.job.settings.autocast if name == "train" else None
            part.base = base_outputs(base, self.encoder, part.rows, file, autocast, advance)

    def warn_if_seen(self, bound: float) -> None:
        """Texts that base was fine-tuned on make it look better than it is, and pruning worse."""
        if not self.task.held_out_alike:
            return
        apart, base = self.held_out.base_level(self.task), self.eval.base_level(self.task)
        if self.job.data.held_out is None and apart - base > bound:
            log.warning(
                "The base model has %.2f on the part of `train` that is held out, and %.2f on `eval`. If the "
                "base model was fine-tuned on `train`, pruning looks worse there than it is, and less will "
                "be pruned: name others in `held_out`.",
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

    def fields(self, start: float, quality: dict[str, Quality]) -> dict[str, Any]:
        """What a report on this job says, as the fields of `Training`; the speed is measured for it.

        Parameters
        ----------
        start : float
            When the job began, as of `time.time`.
        quality : dict
            By the name of the model.
        """
        job, settings = self.job, self.job.settings
        data = TrainingData(
            **asdict(job.data),
            train_texts=self.examples.texts,
            held_out_texts=self.held_out.texts,
            eval_texts=self.eval.texts,
            max_length=self.encoder.max_length,
            truncated=self.encoder.truncated,
        )
        seconds = round(time.time() - start, 1)
        self.stage("timing")
        speed = speeds(self.model, self.model.model, self.encoder, self.texts, texts=128, repeats=3)
        return {
            "model": job.model,
            "out": str(job.out),
            "task": self.task.kind,
            "metric": self.metric,
            "data": data,
            "settings": asdict(settings)
            | {"computed_in": str(settings.autocast or torch.float32).removeprefix("torch.")}
            | {"threads": torch.get_num_threads()},
            "quality": quality,
            "versions": versions(),
            "seconds": seconds,
            "resumed": job.resume,
            "speed": speed,
            "job": noted(job),
        }

    @property
    def metric(self) -> str:
        """The main figure of eval."""
        return self.eval.figure(self.task)

    def finish(
        self, report: Training, model: Any, draw: Callable[[Path], None] = lambda folder: None
    ) -> None:
        """Write the finished folder in one step, with which the checkpoints go."""
        self.stage("writing the report")
        with finished(self.job) as folder:
            self.encoder.tokenizer.save_pretrained(folder)
            model.save_pretrained(folder)
            draw(folder)
            report.write(folder / "report.json")
        forget(self.job)
