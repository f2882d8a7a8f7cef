"""Thresholds without training: from unlabelled text, as many tokens dropped as the outputs allow."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from thresher.config import PruningConfig
from thresher.data import load_examples, resolve_columns
from thresher.errors import UserError
from thresher.families import family_for, family_of
from thresher.inference.predict import KEYS, Predictions, predict, warn_if_bare
from thresher.inference.progress import Stages, silent
from thresher.inputs.text import TextEncoder, load_tokenizer
from thresher.model import PrunedModel
from thresher.reports import kept_report, versions, write_json
from thresher.show.figures import kept_figure
from thresher.store import load_config
from thresher.tasks import Task, task_of
from thresher.training.base import device, load_base, pruning_of
from thresher.training.job import Job, alone, check_folder, finished, forget
from thresher.training.path import between
from thresher.training.saliency import fit_scores
from thresher.training.settings import TrainingSettings

log = logging.getLogger(__name__)

# Thresholds to try in each layer, in fair shares.
LEVELS = (0.1, 0.2, 0.35, 0.55, 0.8, 1.0, 1.5, 2.2)
# Tokens of the texts on which the order of the steps is found, and of those on which it is chosen how far to
# go; as many others check that.
SEARCH, FIT = 16_000, 200_000
MOST = 6_000  # texts that choose
NEAR = 15  # times as many texts as may change are measured, to choose: those of which base is least sure
LEAST = 200  # texts, of those
WINDOW = 51  # decisions of like margin whose drifts are pooled
MARGIN = 0.5  # standard errors between the change on the texts that choose and the bound: a check follows
POOLED = 0.8  # of a plain count's standard error is left where drifts are pooled
BISECTIONS = 6
BACK = 0.02  # of the way, at least, is gone back after a check that failed; each time twice as much
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
    """

    def __init__(self, model: PrunedModel, encoder: TextEncoder, task: Task, rows: dict[str, list]):
        self.model, self.encoder, self.task, self.rows = model, encoder, task, rows
        self.texts = len(rows["input_ids"])
        with model.dense():
            self.base = predict(model, encoder, rows).logits
        self.found: Predictions | None = None

    def __call__(self, thresholds: Tensor) -> Point:
        """Measure thresholds ``[layers]``."""
        _set(self.model, thresholds)
        self.found = predict(self.model, self.encoder, self.rows)
        return Point(
            self.found.flops_ratio or 1.0,
            self.task.divergence(self.found.logits, self.base),
            1 - self.task.agreement(self.found.logits, self.base) / 100,
        )


class Doubtful(Probe):
    """The texts on which base is least sure: decisions change there and hardly anywhere else.

    Parameters
    ----------
    model, encoder, task, rows
        As of `Probe`.
    max_change : float
        The bound that is sought.

    Attributes
    ----------
    doubt : float
        Standard error of `change` near the bound.
    offset : list of float, or None
        What brings the mean logits of these texts back to base's, for the thresholds measured last: evidence
        that is dropped is not missing on all sides alike. None for scores, whose r does not see it.
    """

    def __init__(
        self,
        model: PrunedModel,
        encoder: TextEncoder,
        task: Task,
        rows: dict[str, list],
        max_change: float,
    ):
        super().__init__(model, encoder, task, rows)
        self.doubt = task.doubt(max_change, self.texts)
        self.offset: list[float] | None = None
        if not task.decides:
            return  # every score counts
        self.doubt *= POOLED
        margins = task.margins(self.base, self.base)
        self.decisions = margins.size
        order = margins.min(1).argsort()
        near = order[: max(LEAST, round(NEAR * max_change * self.decisions))]
        self.rows = {key: [values[i] for i in near] for key, values in rows.items()}
        self.base = self.base[near]

    def change(self, thresholds: Tensor) -> float:
        """Expected share of decisions that change, of all, with `offset`; for scores, 1 less Pearson's r.

        Each decision's margin is held against the drifts of those whose margins are like its own, so that it
        is not chance alone whether a text on the edge has changed.
        """
        point = self(thresholds)
        if not self.task.decides:
            return point.change
        assert self.found is not None
        offset = (self.base - self.found.logits).mean(0)
        self.offset = offset.tolist()
        margin = self.task.margins(self.base, self.base).ravel()
        drift = margin - self.task.margins(self.found.logits + offset, self.base).ravel()
        return float(pooled(margin, drift).sum() / self.decisions)


def pooled(margin: np.ndarray, drift: np.ndarray) -> np.ndarray:
    """How likely decisions are to change, from least to largest margin: the share that is larger than the
    margin of the drifts of those next to it in rank, `WINDOW` of them. All are ``[n]``."""
    order = margin.argsort()
    margin, drift = margin[order], drift[order]
    window = min(WINDOW, len(drift))
    windows = np.lib.stride_tricks.sliding_window_view(drift, window)
    place = np.clip(np.arange(len(drift)) - window // 2, 0, len(windows) - 1)
    return (windows[place] > margin[:, None]).mean(1)


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


@alone
def calibrate(
    job: Job,
    max_change: float = 0.01,
    stage: Stages = silent,
) -> dict[str, Any]:
    """Prune a fine-tuned model without training it, and without labels.

    What foretells the gradient of the model's outputs is learned from a few texts (`fit_scores`), and on them
    the order in which thresholds rise is found; how far they rise is chosen on more, so that
    the change stays clear of the bound; and what comes out is checked on others. Where the check fails,
    thresholds go back until it holds, and the report says so.

    Parameters
    ----------
    job : Job
        Its `train` are texts like those that the model will meet. Better not those that it was fine-tuned on:
        of them it is surer than of others, and less changes. Of its settings only the seed counts: which
        texts are for what.
    max_change : float
        Largest share of decisions that may differ from base's; for a score, 1 less Pearson's r.
    stage : Stages
        Shows what is done.

    Returns
    -------
    dict
        The report, also written to ``report.json``.

    Raises
    ------
    UserError
        For a bound that is none, too few texts to tell whether it is kept, or outputs that are no numbers.
    """
    start = time.time()
    if not 0 < max_change < 1:
        raise UserError(f"max-change is {max_change}; it is a share: above 0, below 1. 1% is 0.01.")
    check_folder(job)
    family_for(config := load_config(job.model))
    task = task_of(config)
    stage("reading texts")
    text = resolve_columns(job.data.train, job.data.text)
    examples = load_examples(job.data.train, text)
    enough = _enough(job, task, max_change, len(examples))
    stage("loading the model")
    dense, _ = load_base(job.model)
    tokenizer = load_tokenizer(job.model, family_of(dense))
    pruning = pruning_of(dense, tokenizer, PruningConfig("threshold"))
    pruned = PrunedModel(dense, pruning, {"base": job.model, "text": text}).to(device())
    encoder = TextEncoder(tokenizer, pruned.family.length_limit(job.max_length))
    stage("tokenizing")
    search_rows, fit_rows, check_rows = _parts(job, examples, encoder, enough)

    def runner(precision: str) -> PrunedModel:
        # Converted to run, a model cannot be saved: copies run.
        copy = PrunedModel(deepcopy(dense), replace(pruning))
        copy.pruner.load_state_dict(pruned.pruner.state_dict())
        return copy.to(device()).for_inference(precision)

    autocast = TrainingSettings().autocast
    advance = stage("scores", len(search_rows["input_ids"]))
    fit_scores(pruned, encoder, search_rows, job.settings.seed, autocast, advance)
    fast = runner("bf16" if autocast else "fp32")  # rounding is on both sides of the comparison
    advance = stage("base's outputs", 2)
    few = Probe(fast, encoder, task, search_rows)
    advance(1)
    fit = Doubtful(fast, encoder, task, fit_rows, max_change)
    advance(1)
    layers = pruned.family.layers - pruning.prefix_only_at_end  # the last one drops all it can for nothing
    rest = torch.zeros(pruned.family.layers - layers)
    advance, path = stage("order of the steps", layers * len(LEVELS)), []
    for thresholds, point in steps(lambda some: few(torch.cat([some, rest])), layers):
        path.append(torch.cat([thresholds, rest]))
        advance(1)
        if point.change > 3 * max_change + 2 / few.texts:
            break
    advance(layers * len(LEVELS) - len(path))

    wanted = max_change - MARGIN * fit.doubt
    advance, low, high = stage("how far to go", BISECTIONS), 0.0, float(len(path) - 1)
    place = high
    for _ in range(BISECTIONS):
        if low < high:
            if fit.change(between(path, place)) <= wanted:
                low = place
            else:
                high = place
            place = (low + high) / 2
        advance(1)

    advance = stage("check", 1)
    check = Probe(runner("fp32"), encoder, task, check_rows)
    place, back = low, 0
    while True:
        fit.change(between(path, place))
        check.model.pruning.offset = fit.offset
        point = check(between(path, place))
        if point.change <= max_change + 1e-9 or place == 0:
            break
        place *= max(0.0, min(1 - BACK * 2**back, max_change / point.change)) if place > 0.1 else 0.0
        back += 1
    advance(1)
    assert check.found is not None
    warn_if_bare(pruned, check.found)
    if place == 0:
        log.warning(
            "No threshold above 0 keeps the bound: nothing is pruned but what changes no output. Allow a "
            "larger change, or train by `thresher prune`."
        )

    _set(pruned, between(path, place))
    pruned.pruning.offset = fit.offset
    pruned.metadata["max_length"] = encoder.max_length
    least = 1 / check.texts if task.decides else 0.0
    report = {
        "command": "calibrate",
        "model": job.model,
        "out": str(job.out),
        "task": task.kind,
        "metric": "agreement",
        "data": {"texts": job.data.train, "text": text, "max_length": encoder.max_length}
        | {"searched_on": few.texts, "chosen_on": fit.texts, "checked_on": check.texts},
        "seed": job.settings.seed,
        "max_change": max_change,
        "change": point.change,
        "standard_error": task.doubt(max(point.change, least), check.texts),
        "stepped_back": back,
        "pruning": pruning.to_dict(),
        **kept_report(check.found, pruned),
        "versions": versions(),
        "seconds": round(time.time() - start, 1),
    }
    with finished(job) as folder:
        tokenizer.save_pretrained(folder)
        pruned.save_pretrained(folder)
        kept_figure(check.found.kept_share or [], folder / "kept.png", report["thresholds"])
        write_json(report, folder / "report.json")
    forget(job)
    return report


def _set(model: PrunedModel, thresholds: Tensor) -> None:
    dials = model.pruner.dials()
    assert dials is not None
    dials.copy_(thresholds)


def _enough(job: Job, task: Task, max_change: float, rows: int) -> int:
    """How many texts must choose, and as many check, to tell whether the bound is kept; refused where there
    cannot be so many."""
    enough = math.ceil((2.5 * task.doubt(max_change, 1) / max_change) ** 2)
    if (rows - 1) // 2 < enough:
        raise _too_few(job, rows, enough)
    return enough


def _too_few(job: Job, rows: int, enough: int) -> UserError:
    return UserError(
        f"{job.data.train} has {rows} rows, too few to tell whether so few decisions change: give "
        f"{3 * enough} or more (no labels are needed), or allow a larger change."
    )


def _parts(job: Job, examples: Any, encoder: TextEncoder, enough: int) -> list[dict[str, list]]:
    """Encoded texts to search, to choose and to check on: no more than there is time for, and `enough` to
    choose."""
    order = np.random.default_rng(job.settings.seed).permutation(len(examples))
    mean = encoder.mean_length(examples.select(order))
    search, fit = round(SEARCH / mean) + 1, max(min(round(FIT / mean), MOST), enough)
    if search + 2 * fit > len(examples):
        search = min(search, len(examples) // 5)
        fit = (len(examples) - search) // 2
    if fit < enough:
        raise _too_few(job, len(examples), enough)
    columns = encoder.encode_columns(examples.select(order[: search + 2 * fit]))
    encoder.warn(encoder.truncated, encoder.seen)
    ends = (0, search, search + fit, search + 2 * fit)
    return [{key: columns[key][a:b] for key in KEYS if key in columns} for a, b in pairwise(ends)]
