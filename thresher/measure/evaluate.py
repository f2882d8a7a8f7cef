"""Quality, FLOPs and speed of a saved model."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from thresher.data import load_examples
from thresher.errors import UserError
from thresher.measure.predict import predict, warn_if_bare
from thresher.measure.report import kept_report, versions
from thresher.measure.speed import speeds
from thresher.model import PrunedModel
from thresher.tasks import Task
from thresher.text import TextEncoder, load_tokenizer


def open_model(folder: str | Path) -> tuple[PrunedModel, TextEncoder, Task]:
    """A saved pruned model with its tokenizer and task."""
    model = PrunedModel.from_pretrained(folder)
    limit = model.metadata.get("max_length") or model.family.max_length
    return model, TextEncoder(load_tokenizer(folder), limit), Task.of(model.config)


def text_columns(model: PrunedModel, given: list[str]) -> list[str]:
    """The columns asked for, else those the model was trained on."""
    columns = list(given or model.metadata.get("text") or [])
    if not columns:
        raise UserError("This folder does not say which column holds the text: name it with --text.")
    if len(columns) > 2:
        raise UserError(
            f"{len(columns)} text columns are given ({', '.join(columns)}); a model takes one or two."
        )
    return columns


def evaluate(
    folder: str,
    source: str,
    text: list[str],
    label: str | None,
    *,
    speed: bool = True,
    stage: Callable[[str, int], Callable[[int], None]] | None = None,
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
    speed : bool
        Time transformers and the pruned model as well.
    stage : callable, optional
        Told what begins and how many texts it has; gives what to call as they are done.

    Returns
    -------
    dict
        The report.
    """
    start = time.time()
    model, encoder, task = open_model(folder)
    text = text_columns(model, text)
    examples = load_examples(source, text, label, split="test")
    labels = None if label is None else task.encode_all(examples, source)  # before the long part
    rows = encoder.encode_examples(examples)
    begin = stage or (lambda name, total: lambda done: None)
    pruned = predict(model, encoder, rows, advance=begin("pruned", len(rows)))
    warn_if_bare(model, pruned)
    with model.dense():
        dense = predict(model, encoder, rows, advance=begin("dense", len(rows)))
    quality: dict[str, Any] = {"base": model.metadata.get("base_quality")}
    if labels is None:
        quality |= {"dense": {"agreement": 100.0}, "pruned": task.agreement(pruned.logits, dense.logits)}
    else:
        quality |= {
            name: task.quality(p.logits, labels) for name, p in (("dense", dense), ("pruned", pruned))
        }
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
            "truncated": encoder.truncated,
        },
        "quality": quality,
        **kept_report(pruned, model),
        "settings": {
            "computed_in": str(model.dtype).removeprefix("torch."),
            "threads": torch.get_num_threads(),
        },
        "versions": versions(),
    }
    if speed:
        report["speed"] = speeds(model, encoder, examples, advance=begin("timing", 12))
    report["seconds"] = round(time.time() - start, 1)
    return report
