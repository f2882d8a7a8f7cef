"""Thresholds without training: from unlabelled text, as many tokens dropped as the outputs allow."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from thresher.config import PruningConfig
from thresher.data import load_examples
from thresher.errors import UserError
from thresher.measure.figures import kept_figure
from thresher.measure.predict import Predictions, predict, warn_if_bare
from thresher.measure.report import kept_report, versions, write_json
from thresher.model import PrunedModel
from thresher.tasks import Task
from thresher.text import TextEncoder, load_tokenizer
from thresher.training.base import load_base, pruning_of
from thresher.training.settings import TrainingSettings
from thresher.training.trainer import distillation_loss

log = logging.getLogger(__name__)

# Thresholds to try in each layer, in fair shares.
LEVELS = (0.2, 0.3, 0.45, 0.6, 0.8, 1.0, 1.3, 1.7, 2.2, 3.0)
# Tokens of the texts on which the order of the steps is found, how far to go is chosen, and that is checked.
SEARCH, FIT, CHECK = 16_000, 160_000, 160_000
BISECTIONS = 7
TOO_FEW = 50  # texts
SMALL = 1e-3  # of the FLOPs: a step that saves less is joined to the next


@dataclass(frozen=True)
class Point:
    """What thresholds do to some texts.

    Attributes
    ----------
    flops_ratio : float
    divergence : float
        Mean over the texts of how far outputs are from base's, as in distillation: smooth, 0 where equal.
    change : float
        Share of decisions that are not base's; for a score, 1 less Pearson's r.
    """

    flops_ratio: float
    divergence: float
    change: float


class Probe:
    """Some texts and base's outputs for them: measures what thresholds do.

    Parameters
    ----------
    model : PrunedModel
        Of pruner ``threshold``, whose thresholds are moved.
    encoder : TextEncoder
    task : Task
    rows : dict of lists
        Encoded texts.
    base : float32 array [n, labels], optional
        Base's outputs; asked for if not given.
    """

    def __init__(
        self, model: PrunedModel, encoder: TextEncoder, task: Task, rows: dict[str, list], base: Any = None
    ):
        self.model, self.encoder, self.task, self.rows = model, encoder, task, rows
        self.texts = len(rows["input_ids"])
        if base is None:
            with model.dense():
                base = predict(model, encoder, rows).logits
        self.base: np.ndarray = base
        self.found: Predictions | None = None

    def __call__(self, thresholds: Tensor) -> Point:
        """Measure thresholds ``[layers]``."""
        _set(self.model, thresholds)
        self.found = predict(self.model, self.encoder, self.rows)
        logits, base = torch.from_numpy(self.found.logits), torch.from_numpy(self.base)
        least = distillation_loss(self.task, base, base)  # not 0 where every label is a yes or no
        return Point(
            self.found.flops_ratio or 1.0,
            float(distillation_loss(self.task, logits, base) - least),
            1 - self.task.agreement(self.found.logits, self.base)["agreement"] / 100,
        )

    def doubt(self, change: float) -> float:
        """Standard error of a measured change, if it is `change` in truth."""
        if self.task.kind == "regression":
            return 2 * change / self.texts**0.5  # of a correlation 1 - change: about (1 - r * r) / sqrt(n)
        return (change * (1 - change) / (self.texts * self.base.shape[1] ** self.multi)) ** 0.5

    @property
    def multi(self) -> bool:
        """Every label is a decision of its own."""
        return self.task.kind == "multi-label"


def steps(probe: Callable[[Tensor], Point], layers: int) -> Iterator[tuple[Tensor, Point]]:
    """From no pruning to as much as there can be, one layer's threshold a step: greedily, the step that saves
    most FLOPs for the divergence it adds. Only those steps are measured again that still look best.

    Yields
    ------
    thresholds : float32 tensor [layers]
    point : Point
    """
    levels = torch.tensor((0.0, *LEVELS))
    level = torch.zeros(layers, dtype=torch.long)
    here = probe(levels[level])
    yield levels[level], here
    promise = dict.fromkeys(range(layers), float("inf"))  # FLOPs for divergence, when last measured
    while promise:
        fresh: dict[int, tuple[Tensor, Point]] = {}
        while promise and (best := max(promise, key=promise.__getitem__)) not in fresh:
            there, point = level.clone(), here
            while here.flops_ratio - point.flops_ratio < SMALL and there[best] < len(LEVELS):
                there[best] += 1
                point = probe(levels[there])
            if (saved := here.flops_ratio - point.flops_ratio) < SMALL:
                del promise[best]  # this layer has nothing left to give
            else:
                promise[best] = saved / (max(0.0, point.divergence - here.divergence) + 1e-6)
                fresh[best] = there, point
        if promise:
            level, here = fresh[best]
            yield levels[level], here


def between(path: list[Tensor], place: float) -> Tensor:
    """Thresholds at a place from 0 to ``len(path) - 1`` on a path, in a straight line between its points."""
    low = min(int(place), len(path) - 1)
    high = min(low + 1, len(path) - 1)
    return path[low] + (place - low) * (path[high] - path[low])


def calibrate(
    model: str,
    source: str,
    text: list[str],
    out: Path,
    *,
    max_change: float = 0.01,
    max_length: int | None = None,
    seed: int = 42,
    force: bool = False,
    stage: Callable[[str, int], Callable[[int], None]] | None = None,
) -> dict[str, Any]:
    """Prune a fine-tuned model without training it, and without labels.

    The order in which thresholds rise is found on a few texts; how far they rise is chosen on more, so that
    the change is within the bound by a standard error; and what comes out is checked on others.

    Parameters
    ----------
    model : str
        Folder or hub name of a transformers model with a trained head.
    source : str
        File, or hub data set, of texts like those that the model will meet.
    text : list of str
        One or two text columns.
    out : Path
        The finished folder, which `PrunedModel.from_pretrained` opens.
    max_change : float
        Largest share of decisions that may differ from base's; for a score, 1 less Pearson's r.
    max_length : int, optional
        Most tokens of a text. None: what the model allows.
    seed : int
        Which texts are for what.
    force : bool
        Write over a model in `out`.
    stage : callable, optional
        As of `thresher.measure.evaluate.evaluate`.

    Returns
    -------
    dict
        The report, also written to ``report.json``.

    Raises
    ------
    UserError
        For a bound that is none, or too few texts.
    """
    start = time.time()
    if not 0 < max_change < 1:
        raise UserError(f"max-change is {max_change}; it is a share: above 0, below 1. 1% is 0.01.")
    if (out / "config.json").exists() and not force:
        raise UserError(f"{out} already holds a model. Use --force to write over it, or another --out.")
    begin = stage or (lambda name, total: lambda done: None)
    (dense, task), tokenizer = load_base(model), load_tokenizer(model)
    pruning = pruning_of(dense, PruningConfig("threshold"))
    pruned = PrunedModel(dense, pruning, {"base": model, "text": text})
    encoder = TextEncoder(tokenizer, pruned.family.length_limit(max_length))
    fit_rows, check_rows = _split(encoder, load_examples(source, text), source, seed)

    # Converted to run, a model cannot be saved: copies run. Rounding is on both sides of the comparison.
    fast = "bf16" if TrainingSettings().autocast else "fp32"
    runner = PrunedModel(deepcopy(dense), pruning).for_inference(fast)
    advance = begin("base's outputs", 1)
    fit = Probe(runner, encoder, task, fit_rows)
    advance(1)
    count = max(20, _within(fit_rows, SEARCH))
    few = Probe(runner, encoder, task, {k: v[:count] for k, v in fit_rows.items()}, fit.base[:count])
    layers = pruned.family.layers - pruning.prefix_only_at_end  # the last one drops all it can for nothing
    rest = torch.zeros(pruned.family.layers - layers)
    advance, path = begin("order of the steps", layers * len(LEVELS)), []
    for thresholds, point in steps(lambda some: few(torch.cat([some, rest])), layers):
        path.append(torch.cat([thresholds, rest]))
        advance(1)
        if point.change > 3 * max_change + 2 / few.texts:
            break

    wanted = max_change - fit.doubt(max_change)
    if wanted < max_change / 2:
        log.warning("%d texts say little about a change of %.2g; give more.", fit.texts, max_change)
    advance, low, high = begin("how far to go", BISECTIONS), 0.0, float(len(path) - 1)
    place = high
    for _ in range(BISECTIONS):
        if fit(between(path, place)).change <= wanted:
            low = place
        else:
            high = place
        place = (low + high) / 2
        advance(1)

    exact = PrunedModel(deepcopy(dense), pruning).for_inference()
    advance = begin("check", 1)
    check = Probe(exact, encoder, task, check_rows)
    place = low
    while (point := check(between(path, place))).change > max_change:
        place = 0.85 * place if place > 0.1 else 0.0
    advance(1)
    assert check.found is not None
    warn_if_bare(pruned, check.found)

    _set(pruned, between(path, place))
    pruned.metadata["max_length"] = encoder.max_length
    tokenizer.save_pretrained(out)
    pruned.save_pretrained(out)
    report = {
        "command": "calibrate",
        "model": model,
        "out": str(out),
        "task": task.kind,
        "metric": "agreement",
        "data": {"train": source, "text": text, "seed": seed, "max_length": encoder.max_length}
        | {"searched_on": few.texts, "chosen_on": fit.texts, "checked_on": check.texts},
        "max_change": max_change,
        "change": point.change,
        "standard_error": check.doubt(max(point.change, 1 / check.texts)),
        "pruning": pruning.to_dict(),
        **kept_report(check.found, pruned),
        "versions": versions(),
        "seconds": round(time.time() - start, 1),
    }
    kept_figure(check.found.kept_share or [], out / "kept.png", report["thresholds"])
    write_json(report, out / "report.json")
    return report


def _set(model: PrunedModel, thresholds: Tensor) -> None:
    pruner: Any = model.pruner
    pruner.thresholds.copy_(thresholds)


def _split(
    encoder: TextEncoder, examples: Any, source: str, seed: int
) -> tuple[dict[str, list], dict[str, list]]:
    """Encoded texts to choose on and others to check on: no more than there is time for."""
    if len(examples) < 2 * TOO_FEW:
        raise UserError(f"{source} has {len(examples)} rows; give at least {2 * TOO_FEW}, better thousands.")
    order = np.random.default_rng(seed).permutation(len(examples))
    few = encoder.encode_columns(examples.select(order[:TOO_FEW]))["input_ids"]
    mean = sum(map(len, few)) / TOO_FEW
    columns = encoder.encode_columns(examples.select(order[: int(1.2 * (FIT + CHECK) / mean) + 1]))
    encoder.warn(encoder.truncated, encoder.seen)
    texts = len(columns["input_ids"])
    cut = min(_within(columns, FIT), texts // 2)
    rest = {key: values[cut:] for key, values in columns.items()}
    end = _within(rest, CHECK)
    return (
        {key: values[:cut] for key, values in columns.items()},
        {key: values[:end] for key, values in rest.items()},
    )


def _within(columns: dict[str, list], tokens: int) -> int:
    """How many of the first texts have no more than so many tokens together, at least one."""
    total = np.cumsum([len(ids) for ids in columns["input_ids"]])
    return max(1, int((total <= tokens).sum()))
