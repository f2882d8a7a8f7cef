"""Quality, FLOPs and speed of a saved model."""

from __future__ import annotations

import logging
import time
from typing import Any

import numpy as np
import torch

from thresher.data import load_examples, resolve_columns
from thresher.engines import check_engine
from thresher.inference.load import (
    CALIBRATION,
    dense_model,
    make_ready,
    open_model,
    text_columns,
    warn_if_other_number,
)
from thresher.inference.predict import Predictions, predict, warn_if_bare
from thresher.inference.progress import Stages, silent
from thresher.inference.speed import calls, speeds
from thresher.reports import kept_report, versions

log = logging.getLogger(__name__)
COSTLY = 0.5  # points of quality that a precision may cost without a warning


def evaluate(
    folder: str,
    source: str,
    text: list[str],
    label: str | None,
    *,
    precision: str = "fp32",
    engine: str = "torch",
    max_length: int | None = None,
    budget: float | None = None,
    speed: bool = True,
    label_map: dict[str, str] | None = None,
    stage: Stages = silent,
) -> dict[str, Any]:
    """Measure a saved model on a file.

    Parameters
    ----------
    folder : str
        What `PrunedModel.save_pretrained` wrote.
    source : str
        File, or hub data set.
    text : list of str
        Text columns; empty for those the model was trained on.
    label : str or None
        None: quality is the agreement with the dense model.
    precision, engine : str
        As of `PrunedModel.for_inference`. What another than fp32 costs is reported.
    max_length : int, optional
        Most tokens of a text. Default: as in training.
    budget : float, optional
        Of a model that holds several, the one to run at. Default: the first.
    speed : bool
        Time transformers and the pruned model as well.
    label_map : dict of str to str, optional
        The class that a label of the file stands for, where it is called otherwise.
    stage : Stages
        Shows what is done.

    Returns
    -------
    dict
        The report.
    """
    start = time.time()
    check_engine(engine, precision)
    stage("loading the model")
    model, encoder, task = open_model(folder, max_length, budget)
    model.for_inference()
    stage("reading texts")
    text = resolve_columns(source, text_columns(model, text), "test")
    warn_if_other_number(model, text)
    examples = load_examples(source, text, label, split="test", blank_labels=task.blank_is_none)
    # Before the long part:
    labels = None if label is None else task.reading(label_map).encode_all(examples, source)
    stage("tokenizing")
    rows = encoder.encode_examples(examples)
    other = (precision, engine) != ("fp32", "torch")
    pruned = predict(model, encoder, rows, depths=other, advance=stage("pruned", len(rows)))
    warn_if_bare(model, pruned)
    with model.dense():
        dense = predict(model, encoder, rows, advance=stage("dense", len(rows)))

    def quality_of(found: Predictions) -> dict[str, float]:
        if labels is None:
            return {"agreement": task.agreement(found.logits, dense.logits)}
        return task.quality(found.logits, labels)

    quality = {
        "base": model.metadata.get("base_quality"),
        "dense": quality_of(dense),
        "pruned": quality_of(pruned),
    }
    if budget is None and model.budgets:
        budget = model.budgets[0]
    ran: dict[str, Any] = {
        "budget": budget,
        "precision": precision,
        "engine": engine,
        "threads": torch.get_num_threads(),
    }
    if other:
        exact, quality["pruned, fp32"] = pruned, quality["pruned"]
        some = np.random.default_rng(0).permutation(len(rows))[:CALIBRATION]
        columns = rows.select(some)[:]
        model = make_ready(open_model(folder, None, budget)[0], encoder, columns, precision, engine)
        pruned = predict(model, encoder, rows, depths=True, advance=stage(f"pruned, {precision}", len(rows)))
        quality["pruned"] = quality_of(pruned)
        ran |= _cost(exact, pruned, quality)
    report = {
        "command": "evaluate",
        "model": str(folder),
        "base": model.metadata.get("base"),
        "base_measured_on": model.metadata.get("base_measured_on"),
        "data": {
            "eval": source,
            "text": text,
            "label": label,
            "texts": len(rows),
            "max_length": encoder.max_length,
            "trained_length": model.family.length_limit(model.metadata.get("max_length")),
            "truncated": encoder.truncated,
        },
        "quality": quality,
        **kept_report(pruned, model),
        "settings": ran,
        "versions": versions(),
    }
    if speed:
        plain = dense_model(folder, "bf16" if precision == "bf16" else "fp32")
        report["speed"] = speeds(model, plain, encoder, examples, advance=stage("timing", calls()))
    report["seconds"] = round(time.time() - start, 1)
    return report


def _cost(exact: Predictions, found: Predictions, quality: dict[str, Any]) -> dict[str, Any]:
    """What a precision changed against fp32: points of quality, and the share of tokens dropped elsewhere."""
    metric, before = next(iter(quality["pruned, fp32"].items()))
    cost = before - quality["pruned"][metric]
    if cost > COSTLY:
        log.warning("This precision costs %.2f points of %s against fp32.", cost, metric)
    assert exact.depths is not None
    assert found.depths is not None
    changed = sum(int((a != b).sum()) for a, b in zip(exact.depths, found.depths, strict=True))
    return {"cost": cost, "tokens_dropped_elsewhere": changed / int(exact.lengths.sum())}
