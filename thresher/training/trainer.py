"""transformers' Trainer with our loss, our checkpoints and our evaluation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import Trainer, TrainerState
from transformers.utils import SAFE_WEIGHTS_NAME

from thresher.errors import TrainingDiverged, UserError
from thresher.files.atomic import replacing
from thresher.inference.predict import NotFinite
from thresher.inputs.rows import ANSWERS, COUNTS, first_rows, has_parts
from thresher.memory import trim
from thresher.objectives import Batch, Objective
from thresher.training.budget import BudgetController
from thresher.training.checkpoints import STATE, check_complete, keep_only, new_checkpoint, undamaged
from thresher.training.examples import Examples
from thresher.training.lengths import LengthWeights
from thresher.training.sampler import TextSampler
from thresher.training.teacher import Teacher
from thresher.training.work import Work


class PruningTrainer(Trainer):
    """Trainer whose loss is a list of objectives.

    Parameters
    ----------
    work : Work
    objectives : list of Objective
    advance : callable
        Told the number of held-out texts done.
    **kwargs
        Keyword arguments of Trainer.
    """

    def __init__(
        self, *, work: Work, objectives: list[Objective], advance: Callable[[int], None], **kwargs: Any
    ):
        super().__init__(**kwargs)
        self.work, self.objectives, self.advance = work, objectives, advance
        self.lengths = LengthWeights(Examples(kwargs["train_dataset"]).lengths(), work.wanted)
        self.beside: Path | None = None  # where a checkpoint is being written
        taught = any("base states" in term.needs for term in objectives)
        self.teacher = Teacher(work.model, work.settings.autocast) if taught else None

    def go_on(self, checkpoint: Path | None) -> None:
        """Train, from a checkpoint if there is one; after the last step only the best is to be taken."""
        if checkpoint is not None:
            with undamaged(checkpoint):
                state = TrainerState.load_from_json(str(checkpoint / STATE))
            if state.best_model_checkpoint:  # the folder may have been moved
                best = checkpoint.parent / Path(state.best_model_checkpoint).name
                if not (best / SAFE_WEIGHTS_NAME).is_file():
                    raise UserError(
                        f"{best} is gone, which was the best checkpoint: set `force` to start anew."
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

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        rows: Any = self.train_dataset if train_dataset is None else train_dataset
        labelled = any("labels" in term.needs for term in self.objectives)
        if labelled and self.work.task.compares and has_parts(rows):
            return TextSampler(first_rows(rows), len(rows), self.args.seed)
        return super()._get_train_sampler(train_dataset)

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
        pruner, settings = self.work.model.pruner, self.work.settings
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
        answers, counts = inputs.pop(ANSWERS, None), inputs.pop(COUNTS, None)
        terms = [term for term in self.objectives if self.controller.stage in term.stages]
        teacher = self.teacher if any("base states" in term.needs for term in terms) else None
        autocast = self.work.settings.autocast
        with torch.autocast(model.device.type, autocast, enabled=autocast is not None):
            output = model(**inputs, output_hidden_states=teacher is not None)
        head = getattr(model, "module", model).head  # of what runs it on several processes
        logits = head.read(output, inputs).float()
        output.logits = logits if answers is None else logits[answers]
        trace = output.trace
        weights = torch.from_numpy(self.lengths(trace.start.lengths.cpu().numpy())).to(output.logits.device)
        states = None if teacher is None else teacher.states(inputs)
        batch = Batch(labels, base, states, weights, counts)
        loss = sum((term(batch, output, trace, self.controller) for term in terms), start=0.0)
        loss = torch.as_tensor(loss)
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
        work, controller, qualities, flops = self.work, self.controller, {}, {}
        held_out, task = work.held_out, work.task
        for rung in controller.live:
            try:
                with work.model.at(rung):
                    found = held_out.predict(
                        work.model, work.encoder, autocast=work.settings.autocast, advance=self.advance
                    )
            except NotFinite as error:
                raise self._diverged("Answers to held-out texts became NaN or infinite") from error
            qualities[rung] = held_out.main_quality(task, found.logits)
            flops[rung] = found.flops_ratio or 1.0
        if (bound := work.settings.max_drop) is not None:
            whole = held_out.base_level(task)
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
        pruner, losses = self.work.model.pruner, self.controller.losses
        if "loss" in logs:  # Trainer's own begins anew where a run is gone on with
            logs = logs | {"loss": sum(losses) / len(losses)}
            losses.clear()
            trim()
            if pruner.adjustable:
                logs |= self.controller.log()
        super().log(logs, *args, **kwargs)
