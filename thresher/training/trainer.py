"""One training run on transformers.Trainer: soft stage, hard stage, checkpoints, resume."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import ProgressCallback, Trainer, TrainerState, TrainingArguments
from transformers.trainer_callback import PrinterCallback
from transformers.utils import SAFE_WEIGHTS_NAME

from thresher.errors import TrainingDiverged, UserError
from thresher.files.atomic import replacing
from thresher.inference.predict import NotFinite
from thresher.inference.progress import Stages, silent
from thresher.inputs.text import TextEncoder
from thresher.model import PrunedModel
from thresher.plan import Plan
from thresher.tasks import Task
from thresher.training.budget import FITS, OVER, BudgetController, check_reachable, fit_budget
from thresher.training.checkpoints import (
    STATE,
    check_complete,
    keep_only,
    last_checkpoint,
    new_checkpoint,
    undamaged,
)
from thresher.training.examples import Collator, Examples
from thresher.training.hidden import Teacher, hidden_loss
from thresher.training.lengths import LengthWeights
from thresher.training.max_drop import keep_reachable
from thresher.training.progress import Interrupted, InterruptHandler, ShowProgress
from thresher.training.saliency import enough, fit_scores
from thresher.training.settings import TrainingSettings

log = logging.getLogger(__name__)

TEMPERATURE = 2.0  # of distillation: softens both sides, so that more than the top class teaches
FIT_TEXTS = 512  # on which thresholds are fitted to the budget


def train(
    model: PrunedModel,
    encoder: TextEncoder,
    task: Task,
    examples: Examples,
    held_out: Examples,
    settings: TrainingSettings,
    folder: Path,
    wanted: np.ndarray | None,
    stage: Stages = silent,
) -> list[dict[str, Any]]:
    """Train in place: thresholds and weights in the soft stage, weights in the hard stage.

    Parameters
    ----------
    model : PrunedModel
    encoder : TextEncoder
    task : Task
    examples, held_out : Examples
        To learn from, and those on which checkpoint and thresholds are chosen.
    settings : TrainingSettings
    folder : Path
        Checkpoints are written under it; from the newest there, if there is one, training goes on.
    wanted : array of int, optional
        Tokens of texts that the budget is meant for. None: as long as those at hand.
    stage : Stages
        Shows what is done.

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
    torch.manual_seed(settings.seed)
    few = range(min(len(examples), max(0, FIT_TEXTS - len(held_out))))
    rows = datasets.concatenate_datasets([held_out.rows, examples.rows.select(few)])
    sample = Examples(rows.select(range(min(len(rows), FIT_TEXTS)))).weigh(wanted)

    def ratio() -> float:
        return sample.predict(model, encoder).flops_ratio or 1.0  # in full precision, as it will run

    def fit(**how: Any) -> None:
        for rung, budget in enumerate(budgets):
            advance = stage(f"thresholds for budget {budget:g}", FITS)

            def measure(advance: Any = advance) -> float:
                advance(1)
                return ratio()

            with model.at(rung):
                fit_budget(model.pruner, measure, budget, rung=rung, **how)

    stage("what can be pruned")
    if shortened := settings.max_drop is not None and model.pruner.ladder:
        keep_reachable(model, ratio)
    budgets = [float(budget) for budget in model.budgets]
    if not budgets and model.pruner.adjustable:
        budgets = settings.budgets

    soft_epochs = settings.soft_epochs if model.pruner.learns else 0.0
    epochs = settings.soft_epochs + settings.hard_epochs  # without a soft stage, all of them are hard
    checkpoint = last_checkpoint(folder)

    if checkpoint is None:
        if budgets and not shortened:
            check_reachable(model.pruner, ratio, min(budgets))
        if settings.saliency and soft_epochs and model.pruner.fits:
            texts = enough(examples.rows)
            advance = stage("scores", len(texts["input_ids"]))
            fit_scores(model, encoder, texts, settings.seed, settings.autocast, advance)
        if not soft_epochs:
            fit()
        elif budgets:
            model.pruner.start()
            fit(tolerance=0.02)
    if not epochs:
        model.eval()
        return []
    steps = math.ceil(math.ceil(len(examples) / settings.batch_size) / settings.accumulation * epochs)
    every = max(1, math.ceil(steps / settings.evaluations))
    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=settings.batch_size,
        gradient_accumulation_steps=settings.accumulation,
        max_steps=steps,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        warmup_steps=round(settings.warmup * steps),
        lr_scheduler_type="linear",
        eval_strategy="steps",
        eval_steps=every,
        save_strategy="steps",
        save_steps=every,
        load_best_model_at_end=True,
        metric_for_best_model="eval_score",
        greater_is_better=True,
        logging_steps=max(1, min(20, steps // 20)),
        logging_nan_inf_filter=False,
        restore_callback_states_from_checkpoint=True,
        seed=settings.seed,
        remove_unused_columns=False,
        dataloader_pin_memory=torch.cuda.is_available(),
        report_to="none",
        disable_tqdm=True,
    )
    arguments._n_gpu = min(1, arguments.n_gpu)  # copies of the model on other GPUs would lose their traces
    shown = ShowProgress(stage)
    trainer = PruningTrainer(
        model=model,
        args=arguments,
        train_dataset=examples.table(),
        eval_dataset=held_out.rows,
        data_collator=Collator(encoder, task),
        encoder=encoder,
        task=task,
        settings=settings,
        held_out=held_out,
        wanted=wanted,
        advance=shown.tick,
        callbacks=[
            BudgetController(
                soft_share=soft_epochs / epochs,
                budgets=budgets,
                regularizer=settings.regularizer,
                temperatures=(settings.temperature_start, settings.temperature_end),
            ),
            shown,
            interrupts := InterruptHandler(),
        ],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    dropout = nullcontext() if settings.dropout else model.without_dropout()
    # Gates that are nearly shut make numbers that CPUs take a hundred times as long over.
    torch.set_flush_denormal(True)
    try:
        with interrupts.listening(), dropout:
            trainer.go_on(checkpoint)
    finally:
        torch.set_flush_denormal(False)
    if interrupts.raised:
        raise Interrupted(
            f"Stopped at step {trainer.state.global_step} of {steps}; a checkpoint is in {folder}."
        )
    model.default = Plan()
    model.eval()
    if budgets and (trainer.state.best_metric or 0) <= OVER:
        log.warning(
            "No checkpoint of the hard stage was within the budget, to which thresholds are now fitted; "
            "train longer for a better model."
        )
    fit()
    history = trainer.state.log_history  # of a resumed run, what a checkpoint kept has sorted keys
    return [dict(sorted(entry.items())) for entry in history if "train_runtime" not in entry]


class PruningTrainer(Trainer):
    """Trainer whose loss asks for labels, base's outputs and the budget."""

    def __init__(
        self,
        *,
        encoder: TextEncoder,
        task: Task,
        settings: TrainingSettings,
        held_out: Examples,
        wanted: np.ndarray | None,
        advance: Callable[[int], None],
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.lengths = LengthWeights(Examples(kwargs["train_dataset"]).lengths(), wanted)
        self.pruned: PrunedModel = kwargs["model"]
        self.encoder, self.task, self.settings = encoder, task, settings
        self.held_out, self.advance = held_out, advance
        self.beside: Path | None = None  # where a checkpoint is being written
        self.teacher = Teacher(self.pruned, settings.autocast) if settings.distill_hidden else None

    def go_on(self, checkpoint: Path | None) -> None:
        """Train, from a checkpoint if there is one; behind the last step only the best is to be taken."""
        if checkpoint is not None:
            with undamaged(checkpoint):
                state = TrainerState.load_from_json(str(checkpoint / STATE))
            if state.best_model_checkpoint:  # the folder may have been moved
                best = checkpoint.parent / Path(state.best_model_checkpoint).name
                if not (best / SAFE_WEIGHTS_NAME).is_file():
                    raise UserError(
                        f"{best} is gone, which was the best checkpoint: use --force to start anew."
                    )
                state.best_model_checkpoint = str(best)
                with replacing(checkpoint / STATE) as partial:
                    state.save_to_json(str(partial))
            if state.global_step >= self.args.max_steps:
                self.state = state
                with undamaged(state.best_model_checkpoint):
                    return self._load_best_model()
            check_complete(checkpoint)
        self.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)

    @property
    def controller(self) -> BudgetController:
        # Looked up each time: Trainer replaces the callback by a restored one when it resumes.
        return next(c for c in self.callback_handler.callbacks if isinstance(c, BudgetController))

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        """Write a checkpoint beside the others, rename it, and only then remove those that are of no more
        use: all but this one and the best."""
        folder, name = Path(self.args.output_dir or ""), f"checkpoint-{self.state.global_step}"
        best = f"checkpoint-{self.state.best_global_step}"
        try:
            with new_checkpoint(folder / name) as self.beside:
                super()._save_checkpoint(*args, **kwargs)
                if best == name or (folder / best).is_dir():
                    self.state.best_model_checkpoint = str(folder / best)
                self.state.save_to_json(str(self.beside / name / STATE))
        finally:
            self.beside = None
        keep_only(folder, {name, best})

    def _get_output_dir(self, *args: Any, **kwargs: Any) -> str:
        return super()._get_output_dir(*args, **kwargs) if self.beside is None else str(self.beside)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        with undamaged(resume_from_checkpoint):
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        with undamaged(checkpoint):
            super()._load_optimizer_and_scheduler(checkpoint)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        with undamaged(checkpoint):
            super()._load_rng_state(checkpoint)

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """Thresholds and scores get groups of their own: their own learning rates, no weight decay."""
        optimizer = super().create_optimizer(model)
        pruner, settings = self.pruned.pruner, self.settings
        own = {id(p) for p in pruner.parameters()}
        if own and not any(group.get("pruner") for group in optimizer.param_groups):
            for group in optimizer.param_groups:
                group["params"] = [p for p in group["params"] if id(p) not in own]
            scores = pruner.score_parameters()
            thresholds = [p for p in pruner.parameters() if all(p is not score for score in scores)]
            for some, rate in (
                (thresholds, settings.threshold_learning_rate),
                (scores, settings.score_learning_rate),
            ):
                if some:
                    group = {"params": some, "lr": rate, "weight_decay": 0.0, "pruner": True}
                    optimizer.add_param_group(group)
        return optimizer

    def compute_loss(self, model: Any, inputs: dict[str, Tensor], *args: Any, **kwargs: Any) -> Tensor:
        labels, base = inputs.pop("labels", None), inputs.pop("base", None)
        teacher = None if self.pruned.plan().soft else self.teacher
        with torch.autocast(
            model.device.type, self.settings.autocast, enabled=self.settings.autocast is not None
        ):
            output = model(**inputs, output_hidden_states=teacher is not None)
        logits = output.logits.float()
        loss = distillation_loss(self.task, logits, base) if base is not None else logits.new_zeros(())
        if labels is not None:
            share = self.settings.distill if base is not None else 0.0
            loss = share * loss + (1 - share) * label_loss(self.task, logits, labels)
        if teacher is not None:
            far = hidden_loss(output.trace, output.hidden_states, teacher.states(inputs))
            loss = loss + self.settings.distill_hidden * far
        weights = torch.from_numpy(self.lengths(output.trace.start.lengths.cpu().numpy())).to(logits.device)
        loss = loss + self.controller.penalty(output.trace, weights)
        if not torch.isfinite(loss):
            raise self._diverged(f"The loss became {float(loss.detach())}")
        self.controller.losses.append(float(loss.detach()))
        return loss

    def _diverged(self, what: str) -> TrainingDiverged:
        if not self.state.global_step:
            return TrainingDiverged(
                f"{what} before the first step: the model that you started from has weights, or the labels "
                "have numbers, that are too large. Take another checkpoint, or scale the labels."
            )
        return TrainingDiverged(
            f"{what} at step {self.state.global_step}. Try a lower learning rate. The last good checkpoint, "
            f"if there is one yet, stays in {self.args.output_dir}."
        )

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Measure on the held-out texts."""
        controller, qualities, flops = self.controller, {}, {}
        for rung in controller.live:
            autocast = self.settings.autocast
            try:
                with self.pruned.at(rung):
                    found = self.held_out.predict(
                        self.pruned, self.encoder, autocast=autocast, advance=self.advance
                    )
            except NotFinite as error:
                raise self._diverged("Answers to held-out texts became NaN or infinite") from error
            qualities[rung] = self.held_out.main_quality(self.task, found.logits)
            flops[rung] = found.flops_ratio or 1.0
        if (bound := self.settings.max_drop) is not None:
            whole = self.held_out.base_level(self.task)
            controller.narrow({rung: whole - quality for rung, quality in qualities.items()}, bound)
        ratios = [flops[rung] for rung in controller.live]
        quality = sum(qualities[rung] for rung in controller.live) / len(ratios)
        metrics = {
            "eval_score": controller.score(quality, ratios, self.state.global_step),
            "eval_quality": round(quality, 3),
            "eval_flops_ratio": round(sum(ratios) / len(ratios), 4),
        }
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        pruner, losses = self.pruned.pruner, self.controller.losses
        if "loss" in logs:  # Trainer's own begins anew where a run is gone on with
            logs = logs | {"loss": sum(losses) / len(losses)}
            losses.clear()
            if pruner.adjustable:
                logs |= self.controller.log()
        super().log(logs, *args, **kwargs)


def label_loss(task: Task, logits: Tensor, labels: Tensor) -> Tensor:
    """Loss of logits ``[batch, names]`` on encoded labels, by the task: transformers' own goes by the problem
    type in the config, which may say another, or nothing, where there is one output."""
    if task.kind == "regression":
        return F.mse_loss(logits.squeeze(-1), labels)
    if task.kind == "multi-label":
        return F.binary_cross_entropy_with_logits(logits, labels)
    return F.cross_entropy(logits, labels)


def distillation_loss(task: Task, logits: Tensor, base: Tensor) -> Tensor:
    """How far outputs ``[batch, labels]`` are from base's: divergence of classes, squared error of scores."""
    if task.kind == "regression":
        return F.mse_loss(logits, base)
    if task.kind == "multi-label":
        return F.binary_cross_entropy_with_logits(logits, base.sigmoid())
    wanted = (base / TEMPERATURE).log_softmax(-1)
    given = (logits / TEMPERATURE).log_softmax(-1)
    return F.kl_div(given, wanted, reduction="batchmean", log_target=True) * TEMPERATURE**2
