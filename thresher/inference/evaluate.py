"""Quality, FLOPs and speed of a saved model."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from thresher.data import is_collection, resolve_columns
from thresher.engines import AUTO, check_engine, chosen
from thresher.inference.load import (
    CALIBRATION,
    make_ready,
    open_model,
    text_columns,
    warn_if_other_number,
)
from thresher.inference.predict import Predictions, kept_of, predict, warn_if_bare
from thresher.inference.progress import Stages, silent
from thresher.inference.speed import calls, speeds
from thresher.inputs.rows import whole_texts
from thresher.inputs.text import TextEncoder
from thresher.model import PrunedModel
from thresher.reports import Evaluation, EvaluationData, Quality, Ran, versions
from thresher.store import dense_model
from thresher.tasks import Task

log = logging.getLogger(__name__)
COSTLY = 0.5  # points of quality that a precision may cost without a warning


def evaluate(
    folder: str,
    source: str,
    text: list[str],
    label: str | None,
    *,
    precision: str = "fp32",
    engine: str = AUTO,
    max_length: int | None = None,
    budget: float | None = None,
    speed: bool = True,
    label_map: dict[str, str] | None = None,
    stage: Stages = silent,
) -> Evaluation:
    """Measure a saved model on a file.

    Parameters
    ----------
    folder : str
        What `PrunedModel.save_pretrained` wrote.
    source, text, label, label_map
        File or hub data set, and its columns; no text columns are those the model was trained on. Without
        labels, quality is the agreement with the dense model.
    precision, engine : str
        As of `PrunedModel.for_inference`. What another precision than fp32 costs is reported.
    max_length, budget : optional
        As of `open_model`.
    speed : bool
        Time transformers and the pruned model as well.
    stage : Stages
        Shows what is done.
    """
    start = time.time()
    engine = check_engine(engine, precision)
    stage("loading the model")
    model, encoder, task = open_model(folder, max_length, budget, source)
    model.for_inference()
    texts = _read(model, encoder, task, source, text, label, label_map, stage)
    rows, other = texts.rows, (precision, engine) != ("fp32", chosen(AUTO))
    pruned = predict(model, encoder, rows, depths=other, advance=stage("pruned", len(rows)))
    warn_if_bare(model, pruned)
    with model.dense():
        dense = predict(model, encoder, rows, advance=stage("dense", len(rows)))
    quality = {
        "base": model.metadata.get("base_quality"),
        "dense": texts.quality(dense, dense),
        "pruned": texts.quality(pruned, dense),
    }
    budget = model.budgets[0] if budget is None and model.budgets else budget
    cost: dict[str, float] = {}
    if other:
        model, found = _run_otherwise(folder, encoder, rows, budget, precision, engine, stage)
        quality |= {"pruned, fp32": quality["pruned"], "pruned": texts.quality(found, dense)}
        cost, pruned = _cost(pruned, found, quality), found
    timed = None
    if speed:
        plain = dense_model(folder, "bf16" if precision == "bf16" else "fp32")
        timed = speeds(model, plain, encoder, texts.examples, advance=stage("timing", calls()))
    return Evaluation(
        model=str(folder),
        base=model.metadata.get("base"),
        base_measured_on=model.metadata.get("base_measured_on"),
        data=EvaluationData(
            eval=source,
            text=texts.columns,
            label=label,
            texts=len(texts.examples),
            max_length=encoder.max_length,
            trained_length=model.family.length_limit(model.metadata.get("max_length")),
            truncated=texts.truncated,
        ),
        quality=quality,
        **kept_of(pruned, model),
        settings=Ran(
            budget=budget, precision=precision, engine=engine, threads=torch.get_num_threads(), **cost
        ),
        versions=versions(),
        speed=timed,
        seconds=round(time.time() - start, 1),
    )


@dataclass(frozen=True)
class _Texts:
    """The texts of a file, encoded, and what they are worth."""

    task: Task
    columns: list[str]
    examples: Any
    rows: Any
    labels: list[Any] | None
    truncated: int

    def quality(self, found: Predictions, dense: Predictions) -> Quality:
        """Against the labels, or without labels against the dense model."""
        said, base = (whole_texts(some.logits, self.rows) for some in (found, dense))
        if self.labels is None:
            return {"agreement": self.task.agreement(said, base)}
        return self.task.quality(said, self.labels)


def _read(
    model: PrunedModel,
    encoder: TextEncoder,
    task: Task,
    source: str,
    text: list[str],
    label: str | None,
    label_map: dict[str, str] | None,
    stage: Stages,
) -> _Texts:
    """Read a file, and find what is wrong with it before the long part."""
    stage("reading texts")
    columns = []
    if not is_collection(source):
        columns = resolve_columns(source, text_columns(model, text), "test")
        warn_if_other_number(model, columns)
    examples = task.load(source, columns, label, "test")
    task.check_texts(examples, source)
    labelled = "label" in examples.column_names
    labels = task.reading(label_map).encode_all(examples, source) if labelled else None
    stage("tokenizing")
    rows = encoder.encode_examples(examples)
    return _Texts(task, columns, examples, rows, labels, encoder.truncated)


def _run_otherwise(
    folder: str,
    encoder: TextEncoder,
    rows: Any,
    budget: float | None,
    precision: str,
    engine: str,
    stage: Stages,
) -> tuple[PrunedModel, Predictions]:
    """The model in another precision or engine, and what it says."""
    some = np.random.default_rng(0).permutation(len(rows))[:CALIBRATION]
    model, _, _ = open_model(folder, None, budget)
    make_ready(model, encoder, rows.select(some)[:], precision, engine)
    advance = stage(f"pruned, {precision}", len(rows))
    return model, predict(model, encoder, rows, depths=True, advance=advance)


def _cost(exact: Predictions, found: Predictions, quality: dict[str, Any]) -> dict[str, float]:
    """What a precision changed against fp32: points of quality, and the share of tokens dropped elsewhere."""
    metric, before = next(iter(quality["pruned, fp32"].items()))
    cost = before - quality["pruned"][metric]
    if cost > COSTLY:
        log.warning("This precision costs %.2f points of %s against fp32.", cost, metric)
    assert exact.depths is not None
    assert found.depths is not None
    changed = sum(int((a != b).sum()) for a, b in zip(exact.depths, found.depths, strict=True))
    return {"cost": cost, "tokens_dropped_elsewhere": changed / int(exact.lengths.sum())}
