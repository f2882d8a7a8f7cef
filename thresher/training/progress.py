"""A progress bar with what matters, and Ctrl-C that leaves a checkpoint."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from transformers import TrainerCallback

from thresher.inference.progress import Stages


class Interrupted(KeyboardInterrupt):
    """Training was stopped by Ctrl-C after a checkpoint was written."""


class ShowProgress(TrainerCallback):
    """Shows stage, loss, FLOPs ratio and held-out quality while Trainer runs.

    Parameters
    ----------
    stage : Stages
        Begins the stage that shows them.
    """

    def __init__(self, stage: Stages) -> None:
        self.stage = stage
        self.notes: dict[str, str] = {}

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.shown = self.stage("training", state.max_steps)
        self.shown.show(completed=state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.shown.show(completed=state.global_step)

    def tick(self, done: int) -> None:
        """Something else than a step is done: texts were measured."""
        self.shown.show()

    def on_log(
        self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any
    ) -> None:
        names = {
            "loss": "loss {:.3f}",
            "flops_ratio": "FLOPs {:.2f}",
            "target": "target {:.2f}",
            "kept": "tokens {:.0%}",
            "eval_quality": "held out {:.1f}",
        }
        logs = logs or {}
        self.notes |= {key: text.format(logs[key]) for key, text in names.items() if key in logs}
        stage = f"training, {logs['stage']} stage" if "stage" in logs else None
        self.shown.show(name=stage, note=", ".join(self.notes.values()))


class InterruptHandler(TrainerCallback):
    """Turns the first Ctrl-C into: finish the step, write a checkpoint, stop. The second is immediate."""

    def __init__(self) -> None:
        self.raised = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Handle Ctrl-C inside the ``with`` block."""

        def handle(number: int, frame: Any) -> None:
            if self.raised:
                raise KeyboardInterrupt
            self.raised = True

        before = signal.signal(signal.SIGINT, handle)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.raised:
            control.should_save = control.should_training_stop = True
