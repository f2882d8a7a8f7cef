"""Predictions of a model for many encoded texts, in the order given."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from thresher.errors import UserError
from thresher.folders.read import first_bad_weight
from thresher.inputs.rows import ANSWERS, KEYS, ragged
from thresher.inputs.text import TextEncoder
from thresher.model import PrunedModel
from thresher.reports import Kept

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Predictions:
    """What a model said of n texts.

    Attributes
    ----------
    logits : float32 array [n, names], or object array [n] of arrays [answers, names]
        One answer for each row, or one for each of the tokens that answer in it.
    lengths : int64 array [n]
        Tokens of each text.
    flops, dense_flops : float64 arrays [n], or None
        With and without pruning; None for a plain transformers model.
    kept : int64 array [layers, n], or None
        Tokens alive after each layer.
    depths : list of n int64 arrays [tokens], or None
        How many layers' drops each token survives, where that was asked for.
    weights : float64 array [n], or None
        How much each text counts in the FLOPs ratio; None: all the same.
    """

    logits: np.ndarray
    lengths: np.ndarray
    flops: np.ndarray | None = None
    dense_flops: np.ndarray | None = None
    kept: np.ndarray | None = None
    depths: list[np.ndarray] | None = None
    weights: np.ndarray | None = None

    @property
    def flops_ratio(self) -> float | None:
        """FLOPs over dense FLOPs, sum over sum."""
        if self.flops is None or self.dense_flops is None:
            return None
        weights = np.ones(len(self.flops)) if self.weights is None else self.weights
        return float((weights * self.flops).sum() / (weights * self.dense_flops).sum())

    @property
    def kept_share(self) -> list[float] | None:
        """Share of all tokens alive after each layer."""
        return None if self.kept is None else (self.kept.sum(1) / self.lengths.sum()).tolist()


def kept_of(predictions: Predictions, model: PrunedModel) -> dict[str, Any]:
    """What a model keeps, as the fields of `Kept`."""
    kept, share = predictions.kept, predictions.kept_share
    assert kept is not None
    assert share is not None
    thresholds = model.pruner.dials(model.plan().rung) if model.pruner.ladder else None
    return vars(
        Kept(
            flops_ratio=predictions.flops_ratio or 1.0,
            kept_share=share,
            kept_tokens=kept.mean(1).round(2).tolist(),
            mean_tokens=float(predictions.lengths.mean()),
            thresholds=None if thresholds is None else thresholds.tolist(),
        )
    )


@torch.inference_mode()
def predict(
    model: Any,
    encoder: TextEncoder,
    rows: Any,
    *,
    autocast: torch.dtype | None = None,
    depths: bool = False,
    finite: bool = True,
    advance: Callable[[int], None] | None = None,
) -> Predictions:
    """Run `model` in evaluation mode.

    Parameters
    ----------
    model : PrunedModel or transformers model
    encoder : TextEncoder
    rows : dict of lists, or datasets.Dataset
        Encoded texts.
    autocast : torch.dtype, optional
        Run under autocast to this dtype.
    depths : bool
        Note how deep each token gets, which takes time.
    finite : bool
        Refuse outputs that are no finite numbers.
    advance : callable, optional
        Told the number of texts done, after every batch: for a progress bar.

    Raises
    ------
    NotFinite
        A UserError: an output is no finite number; the message names the first weight that is none.
    """
    given = getattr(rows, "column_names", None) or rows
    columns = {key: rows[key][:] for key in KEYS if key in given}
    places = rows[ANSWERS][:] if ANSWERS in given else None
    n = len(columns["input_ids"])
    found_depths: dict[int, np.ndarray] = {}
    found: dict[str, np.ndarray] = {}

    def put(name: str, index: list[int], array: np.ndarray) -> None:
        found.setdefault(name, np.zeros((n, *array.shape[1:]), array.dtype))[index] = array

    head = getattr(model, "head", None)
    with _evaluating(model):
        for index, batch in encoder.batches(columns):
            batch = {key: value.to(model.device) for key, value in batch.items()}
            with torch.autocast(model.device.type, autocast, enabled=autocast is not None):
                output = model(**batch)
            logits = output.logits if head is None else head.read(output, batch)
            if head is not None and head.by_token:
                put(
                    "logits",
                    index,
                    by_row(logits, batch, None if places is None else [places[i] for i in index]),
                )
            else:
                put("logits", index, logits.float().cpu().numpy())
            if (trace := getattr(output, "trace", None)) is not None:
                put("flops", index, trace.flops.cpu().numpy())
                put("dense_flops", index, trace.dense_flops.cpu().numpy())
                put("kept", index, trace.kept.T.cpu().numpy())
                if depths:
                    found_depths |= {
                        i: depth.cpu().numpy() for i, depth in zip(index, trace.depths, strict=True)
                    }
            if advance:
                advance(len(index))
    if finite:
        check_finite(model, found["logits"])
    lengths = np.array([len(ids) for ids in columns["input_ids"]])
    kept = found.pop("kept").T if "kept" in found else None
    in_order = [found_depths[i] for i in range(n)] if found_depths else None
    return Predictions(lengths=lengths, kept=kept, depths=in_order, **found)


def by_row(
    logits: torch.Tensor, batch: dict[str, torch.Tensor], places: list[list[int]] | None
) -> np.ndarray:
    """Logits ``[tokens, names]`` of a batch's tokens, as of `Predictions`: those at `places` of each row."""
    parts = ragged(logits.float().cpu().numpy(), batch["attention_mask"].sum(1).tolist())
    for row, answering in enumerate(places or ()):
        parts[row] = parts[row][np.asarray(answering, dtype=int)]
    return parts


@contextmanager
def _evaluating(model: Any) -> Iterator[None]:
    """Evaluation mode, of a model of any kind."""
    if hasattr(model, "evaluating"):  # which keeps other threads from changing it
        with model.evaluating():
            yield
        return
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


class NotFinite(UserError):
    """A model's answers are no numbers."""


def check_finite(model: Any, logits: np.ndarray) -> None:
    """Refuse outputs ``[n, labels]`` that are no numbers: every figure made of them would be wrong."""
    finite = np.array([np.isfinite(some).all() for some in logits])
    if finite.all():
        return
    if (bad := first_bad_weight(model)) is not None:
        raise NotFinite(
            f"The weight '{bad}' has become NaN or infinite, so what the model answers means nothing. Load "
            "the model again, or an earlier checkpoint."
        )
    low = getattr(model, "precision", None) in ("bf16", "int8")
    advice = "Run it in fp32." if low else "Its weights are too large: take another checkpoint."
    wrong = int((~finite).sum())
    raise NotFinite(
        f"The model's answers to {wrong} of {len(logits)} texts are no finite numbers, though all weights "
        f"are: numbers on the way become too large. {advice}"
    )


def warn_if_bare(model: Any, predictions: Predictions) -> None:
    """Warn where the first layer drops everything that it may: it works, but hardly by intent."""
    kept, lengths = predictions.kept, predictions.lengths
    ends = sum(model.pruning.ends)
    if kept is not None and len(kept) > 1 and lengths.max() > 1 + ends and (kept[0] <= ends).all():
        log.warning("Nothing but the prefix is left after the first layer: its threshold is very high.")
