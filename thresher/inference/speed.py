"""Engines side by side on the clock: interleaved repeats, medians, spread."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from statistics import mean, median
from typing import Any

import datasets
import torch
from torch import nn

from thresher.batches import spread
from thresher.data.candidates import pairs_of
from thresher.inputs.text import TextEncoder
from thresher.model import PrunedModel
from thresher.reports import Rates, Speed

REPEATS = 5  # rounds that count
CANDIDATES = 100  # passages of a query, whose time is told
ENGINES = ("transformers", "packed", "thresher")  # in the order of each round


def calls(repeats: int = REPEATS) -> int:
    """How often `speeds` calls `advance`."""
    return (repeats + 1) * len(ENGINES)


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
    repeats: int = REPEATS,
    advance: Callable[[int], None] | None = None,
) -> Speed:
    """Texts per second of transformers, of our engine with nothing dropped, and of the pruned model.

    Measured on at most `texts` of the examples, spread evenly over them. All get the same batches of texts
    sorted by length. `dense` is what transformers runs, padded and with its own attention; bf16 is compared
    with bf16, and int8, which transformers lacks, with fp32. Where examples are queries with their passages,
    texts are the pairs, and the batches those of one query.

    Parameters
    ----------
    model : PrunedModel
    dense : transformers model
    encoder : TextEncoder
    examples : datasets.Dataset
    texts, batch, repeats : int
        Most texts, texts in a batch, and rounds that count.
    advance : callable, optional
        Called ``calls(repeats)`` times with 1, after every run of all texts.

    Returns
    -------
    Speed
    """
    ranks = "passages" in examples.column_names
    parts = _queries(examples, texts) if ranks else [examples.select(spread(len(examples), texts))]
    count = sum(map(len, parts))

    def run(engine: Callable[..., Any], batches: list[Any]) -> None:
        for _, rows in batches:
            engine(**{key: value.to(model.device) for key, value in rows.items()})
        if model.device.type == "cuda":
            torch.cuda.synchronize()

    def packed(**rows: Any) -> Any:
        with model.dense():
            return model(**rows)

    def batches() -> list[Any]:
        # Room for any length: batches of a fixed number of texts, as people run them.
        room = {"tokens": batch * encoder.max_length, "rows": batch}
        return [rows for some in parts for rows in encoder.batches(encoder.encode_columns(some), **room)]

    model.eval()
    ready = batches()
    engines: dict[str, Callable[..., Any]] = dict(zip(ENGINES, (dense.eval(), packed, model), strict=True))
    runs = {name: partial(run, engine, ready) for name, engine in engines.items()}
    seconds = side_by_side(runs, repeats, advance)
    start = time.perf_counter()
    batches()
    tokenizing = time.perf_counter() - start
    rates = {name: _rates(times, count, tokenizing, ranks) for name, times in seconds.items()}
    return Speed(
        transformers=rates["transformers"],
        packed=rates["packed"],
        thresher=rates["thresher"],
        **_ratios(seconds),
        texts=count,
        batch=batch,
        repeats=repeats,
        threads=torch.get_num_threads(),
        device=str(model.device),
        dtype=str(next(dense.parameters()).dtype).removeprefix("torch."),
        precision=model.precision or "fp32",
    )


def _queries(examples: datasets.Dataset, pairs: int) -> list[datasets.Dataset]:
    """About so many pairs of whole queries, spread evenly over them: those of each query."""
    each = round(mean(len(passages) for passages in examples["passages"][:]))
    some = examples.select(spread(len(examples), max(1, pairs // max(1, each))))
    return [pairs_of(some.select([row])) for row in range(len(some))]


def _rates(times: list[float], texts: int, tokenizing: float, ranks: bool) -> Rates:
    with_tokenizing = texts / (median(times) + tokenizing)
    return Rates(
        texts_per_second=texts / median(times),
        slowest=texts / max(times),
        fastest=texts / min(times),
        with_tokenizing=with_tokenizing,
        query_ms=1000 * CANDIDATES / with_tokenizing if ranks else None,
    )


def _ratios(seconds: dict[str, list[float]]) -> dict[str, Any]:
    """What each step gives: medians over the rounds, each of which compares runs that were neighbours."""

    def paired(slower: str, faster: str) -> list[float]:
        return [a / b for a, b in zip(seconds[slower], seconds[faster], strict=True)]

    whole = paired("transformers", "thresher")
    return {
        "ratio": median(whole),
        "ratio_spread": [min(whole), max(whole)],
        "packed_ratio": median(paired("transformers", "packed")),
        "pruning_ratio": median(paired("packed", "thresher")),
    }
