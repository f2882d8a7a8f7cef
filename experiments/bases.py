"""The fine-tuned models that experiments start from, and what is noted of a run."""

from __future__ import annotations

import json
import subprocess
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from filelock import FileLock

from samples import data
from tasks import TASKS, Task
from thresher.config import PruningConfig
from thresher.data import load_examples
from thresher.demo.run import encoder_folder
from thresher.inference.load import open_model
from thresher.model import PrunedModel
from thresher.reports import Calibration, Training
from thresher.show.progress import stages
from thresher.training import Data, Job, TrainingSettings
from thresher.training.base import load_base
from thresher.training.examples import Examples, base_outputs
from thresher.training.recipes import finetune

COMMIT = subprocess.run(  # of the code as it is when a run begins
    ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
    cwd=Path(__file__).parent,
    capture_output=True,
    text=True,
    check=False,
).stdout.strip()


def base(name: str, seed: int, work: Path, encoder: str | None = None, part: str | None = None) -> Path:
    """The folder of a model fine-tuned for a task, or on a file with a part of its texts; made if it is not
    there."""
    task, files = TASKS[name], data(name, work)
    if task.bare:
        return Path(encoder or encoder_folder())
    folder = work / f"{name}-{task.max_length}-base-{seed}"
    if part is not None:
        files, folder = replace(files, train=part), work / f"{Path(part).stem}-base-{seed}"
    settings = TrainingSettings(
        soft_epochs=0.0,
        hard_epochs=task.base_epochs,
        learning_rate=task.base_rate,
        distill=0.0,
        distill_hidden=0.0,
        saliency=False,
        seed=seed,
        metric=task.metric,
        evaluations=3,
        dropout=False,  # which halves the time on CPUs
    )
    with FileLock(f"{folder}.lock"):  # methods share it, and may run beside each other
        report = folder / "report.json"
        if not done(json.loads(report.read_text()) if report.exists() else None, str(report), settings):
            model = encoder or str(encoder_folder())
            job = Job(model, files, folder, settings, task.max_length)
            with stages() as stage:
                finetune(job.go_on(), stage=stage)
    return folder


def beside_base(
    start: Path, folder: Path, file: str, columns: Task | Data
) -> tuple[PrunedModel, Any, Any, Examples]:
    """A finished model, its encoder and its task, and a file's texts with labels and with the outputs of the
    base that it comes from."""
    model, encoder, labels = open_model(str(folder))
    texts = load_examples(file, columns.text, columns.label)
    rows = encoder.encode_examples(texts)
    dense = PrunedModel(load_base(str(start))[0], PruningConfig("none"))
    outputs = base_outputs(dense, encoder, rows, start / "outputs" / "base-eval.npy")
    return (
        model,
        encoder,
        labels,
        replace(Examples.of(labels, rows, labels.encode_all(texts, file)), base=outputs),
    )


def done(report: dict[str, Any] | None, name: str, settings: TrainingSettings) -> bool:
    """Whether a run has its report already; refuses one that was made with other settings."""
    if report is None:
        return False
    if settings.soft_epochs + settings.hard_epochs == 0:
        return True  # nothing was trained
    stored = report["settings"]
    if other := [name for name, value in asdict(settings).items() if stored.get(name) != value]:
        raise SystemExit(
            f"{name} was made with another {other[0]}: {stored.get(other[0])}. Delete it to run again."
        )
    return True


def portable(report: Training | Calibration) -> dict[str, Any]:
    """The JSON form without the paths of the machine that ran it; with the commit of the code."""
    values = report.to_json()
    files = ("train", "held_out", "eval", "texts")
    data = {
        key: Path(value).name if value and key in files else value for key, value in values["data"].items()
    }
    return values | {
        "commit": COMMIT,
        "model": Path(report.model).name,
        "out": Path(report.out).name,
        "data": data,
    }
