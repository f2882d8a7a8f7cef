"""Thresholds without training: from unlabelled text, as many tokens dropped as the outputs allow."""

from __future__ import annotations

import logging
import math
import time
from copy import deepcopy
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from thresher.config import PruningConfig
from thresher.data import is_collection, resolve_columns
from thresher.data.candidates import pairs_of
from thresher.errors import UserError
from thresher.families import family_for, family_of
from thresher.inference.load import encoder_for
from thresher.inference.predict import kept_of, warn_if_bare
from thresher.inference.progress import Stages, silent
from thresher.inputs.rows import ANSWERS, KEYS, PLACES, ROW, rows_of
from thresher.inputs.text import TextEncoder, load_tokenizer
from thresher.model import PrunedModel
from thresher.reports import Calibration, CalibrationData, versions
from thresher.show.figures import kept_figure, save
from thresher.store import load_config
from thresher.tasks import Task, task_on
from thresher.training.base import device, load_base, pruning_of
from thresher.training.greedy import LEVELS, steps
from thresher.training.job import Job, alone, check_folder, finished, forget
from thresher.training.path import between
from thresher.training.prepare import fit_to_base
from thresher.training.probe import Doubtful, Point, Probe, set_dials
from thresher.training.settings import TrainingSettings

log = logging.getLogger(__name__)

# Tokens of the texts on which the order of the steps is found, and of those on which it is chosen how far to
# go; as many others check that.
SEARCH, FIT = 16_000, 200_000
MOST = 6_000  # texts that choose
MARGIN = 0.5  # standard errors between the change on the texts that choose and the bound: a check follows
BISECTIONS = 6
BACK = 0.02  # of the way, at least, is gone back after a check that failed; each time twice as much


@alone
def calibrate(
    job: Job, max_change: float = 0.01, stage: Stages = silent, pruning: PruningConfig | None = None
) -> Calibration:
    """Prune a fine-tuned model without training it, and without labels.

    The pruner's scores are fitted to a few texts, where they can be (`fit_to_base`), and on these texts the
    order in which thresholds rise is found. How far the thresholds rise is chosen on more texts, so that the
    change stays clear of the bound. Other texts check the outcome. Where the check fails, thresholds go back
    until it holds, and the report says so.

    Parameters
    ----------
    job : Job
        Its `train` are texts like those that the model will meet. Better not those that it was fine-tuned on:
        of them it is surer than of others, and less changes. Of its settings only the seed counts: which
        texts are for what.
    max_change : float
        Largest share of decisions that may differ from the base model's; for a score, 1 less Pearson's r.
    stage : Stages
        Shows what is done.
    pruning : PruningConfig, optional
        Of a pruner with a threshold for each layer. Default: learned scores.

    Returns
    -------
    Calibration
        The report, also written to ``report.json``.

    Raises
    ------
    UserError
        For a bound that is none, too few texts to tell whether it is kept, a pruner without thresholds, or
        outputs that are no numbers.
    """
    start = time.time()
    if not 0 < max_change < 1:
        raise UserError(f"`max_change` is {max_change}; it is a share: above 0, below 1. 1% is 0.01.")
    check_folder(job)
    subject, parts = _open(job, max_change, stage, pruning or PruningConfig())
    few, fit = _probes(subject, parts, max_change, stage)
    path = _search(subject, few, max_change, stage)
    place = _choose(fit, path, max_change, stage)
    check = Probe(subject.runner("fp32"), subject.encoder, subject.task, parts[2])
    point, place, back = _check(fit, check, path, place, max_change, stage)
    _settle(subject, fit, check, between(path, place))
    least = 1 / check.texts if subject.task.decides else 0.0
    assert check.found is not None
    report = Calibration(
        model=job.model,
        out=str(job.out),
        task=subject.task.kind,
        metric="agreement",
        data=CalibrationData(
            texts=job.data.train,
            text=subject.text,
            max_length=subject.encoder.max_length,
            searched_on=few.texts,
            chosen_on=fit.texts,
            checked_on=check.texts,
        ),
        seed=job.settings.seed,
        max_change=max_change,
        change=point.change,
        standard_error=subject.task.doubt(max(point.change, least), check.texts),
        stepped_back=back,
        pruning=subject.pruned.pruning.to_dict(),
        **kept_of(check.found, subject.pruned),
        versions=versions(),
        seconds=round(time.time() - start, 1),
    )
    with finished(job) as folder:
        subject.tokenizer.save_pretrained(folder)
        subject.pruned.save_pretrained(folder)
        save(kept_figure(report.kept_share, report.thresholds), folder / "kept.png")
        report.write(folder / "report.json")
    forget(job)
    return report


@dataclass(frozen=True)
class _Subject:
    """The model that is calibrated, with what belongs to it."""

    pruned: PrunedModel
    tokenizer: Any
    encoder: TextEncoder
    task: Task
    text: list[str]
    seed: int

    def runner(self, precision: str) -> PrunedModel:
        """A copy that runs: converted to run, a model cannot be saved."""
        copy = PrunedModel(deepcopy(self.pruned.model), replace(self.pruned.pruning))
        copy.load_learned(self.pruned.learned())
        return copy.to(device()).for_inference(precision)


Rows = dict[str, list]  # encoded texts


def _open(job: Job, max_change: float, stage: Stages, pruning: PruningConfig) -> tuple[_Subject, list[Rows]]:
    """The model, and encoded texts to search, to choose and to check on."""
    family_for(config := load_config(job.model))
    source = job.data.train
    task = task_on(config, learned=[source])
    stage("reading texts")
    if not (job.data.text or is_collection(source)):
        raise UserError(f"{source}: name the column of texts in `text`.")
    text = resolve_columns(source, job.data.text)
    if (examples := task.load_apart(source)) is None:
        examples = task.load(source, text, None, "train", job.settings.seed)
    examples = pairs_of(examples)
    enough = _enough(job, task, max_change, len(examples))
    stage("loading the model")
    dense, _ = load_base(job.model)
    tokenizer = load_tokenizer(job.model, family_of(dense))
    pruning = pruning_of(dense, tokenizer, pruning)
    metadata = {"base": job.model, "metric": task.metric} | ({"text": text} if text else {})
    pruned = PrunedModel(dense, pruning, metadata).to(device())
    if not pruned.pruner.ladder:
        raise UserError(f"Pruner '{pruning.pruner}' has no threshold for each layer to calibrate.")
    encoder = encoder_for(task, tokenizer, pruned.family.length_limit(job.max_length))
    stage("tokenizing")
    parts = _parts(job, examples, encoder, enough)
    return _Subject(pruned, tokenizer, encoder, task, text, job.settings.seed), parts


def _probes(subject: _Subject, parts: list[Rows], max_change: float, stage: Stages) -> tuple[Probe, Doubtful]:
    """Texts to search and to choose on, with what the base model answers, after the scores are fitted."""
    search, choose, _ = parts
    settings = TrainingSettings(seed=subject.seed)
    fit_to_base(subject.pruned, subject.encoder, search, settings, stage)
    precision = "bf16" if settings.autocast else "fp32"  # rounding is on both sides of the comparison
    fast = subject.runner(precision)
    advance = stage("the base model's outputs", 2)
    few = Probe(fast, subject.encoder, subject.task, search)
    advance(1)
    fit = Doubtful(fast, subject.encoder, subject.task, choose, max_change)
    advance(1)
    return few, fit


def _search(subject: _Subject, few: Probe, max_change: float, stage: Stages) -> list[Tensor]:
    """Thresholds ``[layers]`` in the order in which they rise, as far as there can be any question of it."""
    pruned = subject.pruned
    # The last layer drops all it can for nothing, where the head reads the prefix alone.
    layers = pruned.family.layers - pruned.pruning.prefix_only_at_end
    rest = torch.zeros(pruned.family.layers - layers)
    advance, path = stage("order of the steps", layers * len(LEVELS)), []
    for thresholds, point in steps(lambda some: few(torch.cat([some, rest])), layers):
        path.append(torch.cat([thresholds, rest]))
        advance(1)
        if point.change > 3 * max_change + 2 / few.texts:
            break
    advance(layers * len(LEVELS) - len(path))
    return path


def _choose(fit: Doubtful, path: list[Tensor], max_change: float, stage: Stages) -> float:
    """The place on the path that stays clear of the bound, by bisection."""
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
    return low


def _check(
    fit: Doubtful, check: Probe, path: list[Tensor], place: float, max_change: float, stage: Stages
) -> tuple[Point, float, int]:
    """Go back on the path until other texts keep the bound: what is measured there, where that is, and how
    often it was gone back."""
    advance, back = stage("check", 1), 0
    while True:
        fit.change(between(path, place))
        check.model.pruning.offset = fit.offset
        point = check(between(path, place))
        if point.change <= max_change + 1e-9 or place == 0:
            break
        place *= max(0.0, min(1 - BACK * 2**back, max_change / point.change)) if place > 0.1 else 0.0
        back += 1
    advance(1)
    if place == 0:
        log.warning(
            "No threshold above 0 keeps the bound: nothing is pruned but what changes no output. Allow a "
            "larger change, or train: `thresher prune`, or thresher.training.prune."
        )
    return point, place, back


def _settle(subject: _Subject, fit: Doubtful, check: Probe, thresholds: Tensor) -> None:
    """Give the model what was found."""
    pruned = subject.pruned
    assert check.found is not None
    warn_if_bare(pruned, check.found)
    set_dials(pruned, thresholds)
    pruned.pruning.offset = fit.offset
    pruned.metadata["max_length"] = subject.encoder.max_length


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
    columns = encoder.encode_columns(examples.select(order[: search + 2 * fit]), job.data.train)
    encoder.warn(encoder.truncated, encoder.seen)
    ends = (0, search, search + fit, search + 2 * fit)
    parts = [rows_of(columns, range(a, b)) for a, b in pairwise(ends)]
    known = [key for key in (*KEYS, ANSWERS, PLACES, ROW) if key in columns]
    return [{key: [columns[key][row] for row in rows] for key in known} for rows in parts]
