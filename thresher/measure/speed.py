"""Engines side by side on the clock: interleaved repeats, medians, spread."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from statistics import median
from typing import Any

import datasets
import torch
from torch import nn

from thresher.batches import spread
from thresher.model import PrunedModel
from thresher.text import TextEncoder


def side_by_side(
    runs: Mapping[str, Callable[[], Any]], repeats: int = 5, advance: Callable[[int], None] | None = None
) -> dict[str, list[float]]:
    """Seconds of each run, `repeats` times in turn (A B A B ...), after one uncounted round."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for round_ in range(repeats + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            if round_:
                seconds[name].append(time.perf_counter() - start)
            if advance:
                advance(1)
    return seconds


@torch.inference_mode()
def speeds(
    model: PrunedModel,
    dense: nn.Module,
    encoder: TextEncoder,
    examples: datasets.Dataset,
    *,
    texts: int = 512,
    batch: int = 32,
    repeats: int = 5,
    advance: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Texts per second of transformers (padded, sorted by length) and of the pruned model.

    Measured on at most `texts` of the examples, spread evenly over them. Both get the same batches
    of texts sorted by length. `dense` is what transformers runs, with its own attention; bf16 is compared
    with bf16, and int8, which transformers lacks, with fp32.

    Returns
    -------
    dict
        ``texts_per_second`` (median), ``slowest`` and ``fastest`` per engine; ``with_tokenizing``,
        texts per second from text to answer; ``ratio``, the median of the paired ratios; and under
        which conditions.
    """

    some = examples.select(spread(len(examples), texts))

    def run(engine: Any, batches: list[Any]) -> None:
        for _, rows in batches:
            engine(**{key: value.to(model.device) for key, value in rows.items()})
        if model.device.type == "cuda":
            torch.cuda.synchronize()

    def batches() -> list[Any]:
        # Room for any length: batches of a fixed number of texts, as people run them.
        return list(
            encoder.batches(encoder.encode_columns(some), tokens=batch * encoder.max_length, rows=batch)
        )

    model.eval()
    engines = {"transformers": dense.eval(), "thresher": model}
    ready = batches()
    runs = {name: partial(run, engine, ready) for name, engine in engines.items()}
    seconds = side_by_side(runs, repeats, advance)
    start = time.perf_counter()
    batches()
    tokenizing = time.perf_counter() - start
    n, found = len(some), {}
    for name, times in seconds.items():
        found[name] = {
            "texts_per_second": n / median(times),
            "slowest": n / max(times),
            "fastest": n / min(times),
            "with_tokenizing": n / (median(times) + tokenizing),
        }
    paired = [a / b for a, b in zip(seconds["transformers"], seconds["thresher"], strict=True)]
    return {
        **found,
        "ratio": median(paired),
        "ratio_spread": [min(paired), max(paired)],
        "texts": n,
        "batch": batch,
        "repeats": repeats,
        "threads": torch.get_num_threads(),
        "device": str(model.device),
        "dtype": str(next(dense.parameters()).dtype).removeprefix("torch."),
        "precision": model.precision or "fp32",
    }
