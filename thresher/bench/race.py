"""Contenders on the clock, in turn, and what their times come to."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from thresher.bench.contenders import Contender, Texts
from thresher.bench.rivals import Batch, Runner


def race(
    runners: list[tuple[Contender, Runner]], work: Texts, repeats: int, advance: Callable[[int], None]
) -> tuple[dict[Contender, np.ndarray], dict[Contender, list[np.ndarray]]]:
    """Seconds ``[rounds, batches]`` of every contender, in turn after one uncounted round, and the logits of
    each row, of its real tokens where every token has an answer.

    Ctrl-C ends it after the last whole round, if there was one.
    """
    seconds: dict[Contender, list[list[float]]] = {contender: [] for contender, _ in runners}
    logits: dict[Contender, list[np.ndarray]] = {}
    try:
        for round_ in range(repeats + 1):
            for contender, run in runners:
                took: list[float] = []
                found: dict[int, np.ndarray] = {}
                for index, rows in work.batches(contender):
                    begin = time.perf_counter()
                    out = run(rows)
                    took.append(time.perf_counter() - begin)
                    if not round_:
                        found |= dict(zip(index, by_row(as_numpy(out), rows), strict=True))
                if round_:
                    seconds[contender].append(took)
                else:
                    logits[contender] = [found[i] for i in range(len(found))]
                advance(1)
    except KeyboardInterrupt:
        if not all(seconds.values()):
            raise
    whole = min((len(took) for took in seconds.values()), default=0)
    return {contender: np.array(took[:whole]) for contender, took in seconds.items()}, logits


def as_numpy(logits: Any) -> Any:
    """float32 array of whatever a runner gave."""
    return logits.float().numpy() if isinstance(logits, torch.Tensor) else logits


def by_row(logits: np.ndarray, batch: Batch) -> list[np.ndarray]:
    """Logits of a padded batch ``[batch, ..., labels]``, without those of padding."""
    if logits.ndim < 3:
        return list(logits)
    mask = np.asarray(batch["attention_mask"], dtype=bool)
    return [row[real] for row, real in zip(logits, mask, strict=True)]


def rates(seconds: np.ndarray, work: Texts) -> dict[str, Any]:
    """Rates over whole rounds, and latencies of single batches in milliseconds."""
    rounds, n, tokens = seconds.sum(1), work.count, int(work.lengths.sum())
    return {
        "texts_per_second": n / float(np.median(rounds)),
        "slowest": n / float(rounds.max()),
        "fastest": n / float(rounds.min()),
        "tokens_per_second": tokens / float(np.median(rounds)),
        "p50_ms": 1000 * float(np.percentile(seconds, 50)),
        "p95_ms": 1000 * float(np.percentile(seconds, 95)),
    }


def ratios(contender: Contender, seconds: dict[Contender, np.ndarray], flops_ratio: float) -> dict[str, Any]:
    """How many times as fast as the fastest dense rival, of the same precision and of any: medians. Of a
    pruned model also what became of the FLOPs that were saved, where 1 is all of it."""
    rounds = {other: took.sum(1) for other, took in seconds.items()}
    rivals = [other for other in seconds if not other.ours]

    def over(some: list[Contender]) -> float | None:
        if not some:
            return None
        best = min(some, key=lambda rival: float(np.median(rounds[rival])))
        return float(np.median(rounds[best] / rounds[contender]))

    packed = replace(contender, kind="packed")
    realised = None
    if contender.kind == "pruned" and packed in rounds:
        realised = float(np.median(rounds[packed] / rounds[contender])) * flops_ratio
    return {
        "times_same_precision": over([rival for rival in rivals if rival.precision == contender.precision]),
        "times_any_precision": over(rivals),
        "realised": realised,
    }
