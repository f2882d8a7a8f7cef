"""The second act of training: soft stage, hard stage, checkpoints."""

from __future__ import annotations

import math
from contextlib import nullcontext

import torch
from transformers import ProgressCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from thresher.training.budget import OVER, BudgetController
from thresher.training.examples import Collator
from thresher.training.progress import Interrupted, InterruptHandler, ShowProgress
from thresher.training.trainer import PruningTrainer
from thresher.training.work import Prepared, Trained, Work


def run(work: Work, prepared: Prepared) -> Trained:
    """Train to the last step, and load the best checkpoint.

    Raises
    ------
    TrainingDiverged
        If the loss is no number; the last checkpoint stays.
    Interrupted
        After Ctrl-C, with a checkpoint written.
    """
    settings, steps = work.settings, _steps(work, prepared.epochs)
    shown, interrupts = ShowProgress(work.stage), InterruptHandler()
    controller = BudgetController(
        soft_share=prepared.soft_epochs / prepared.epochs,
        budgets=prepared.budgets,
        regularizer=settings.regularizer,
        temperatures=(settings.temperature_start, settings.temperature_end),
    )
    trainer = PruningTrainer(
        work=work,
        objectives=prepared.objectives,
        advance=shown.tick,
        model=work.model,
        args=_arguments(work, steps),
        train_dataset=work.examples.table(),
        eval_dataset=work.held_out.rows,
        data_collator=Collator(work.encoder, work.task),
        callbacks=[controller, shown, interrupts],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    dropout = nullcontext() if settings.dropout else work.model.without_dropout()
    # Gates that are nearly shut make numbers that CPUs take a hundred times as long over.
    torch.set_flush_denormal(True)
    try:
        with interrupts.listening(), dropout:
            trainer.go_on(prepared.checkpoint)
    finally:
        torch.set_flush_denormal(False)
    if interrupts.raised:
        raise Interrupted(
            f"Stopped at step {trainer.state.global_step} of {steps}; a checkpoint is in {work.folder}."
        )
    history = trainer.state.log_history  # of a resumed run, what a checkpoint kept has sorted keys
    return Trained(
        [dict(sorted(entry.items())) for entry in history if "train_runtime" not in entry],
        (trainer.state.best_metric or 0) > OVER,
    )


def _steps(work: Work, epochs: float) -> int:
    batches = math.ceil(len(work.examples) / work.settings.batch_size)
    return math.ceil(batches / work.settings.accumulation * epochs)


def _arguments(work: Work, steps: int) -> TrainingArguments:
    settings = work.settings
    every = max(1, math.ceil(steps / settings.evaluations))
    arguments = TrainingArguments(
        output_dir=str(work.folder),
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
    return arguments
