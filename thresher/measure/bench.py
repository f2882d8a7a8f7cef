"""Speed beside the dense engines that a user could run instead: one run, one table."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from thresher import native
from thresher.batches import spread
from thresher.data import load_examples
from thresher.engines import check_names
from thresher.errors import UserError, first_line
from thresher.measure.contenders import Contender, Texts, contenders, load, prepare
from thresher.measure.evaluate import open_model, text_columns
from thresher.measure.memory import peak_memory
from thresher.measure.predict import predict
from thresher.measure.profile import matmul_rate, parts
from thresher.measure.progress import silent
from thresher.measure.report import versions
from thresher.measure.rivals import Runner, as_numpy


@torch.inference_mode()
def bench(
    folder: str,
    source: str,
    text: list[str],
    label: str | None = None,
    *,
    precisions: Sequence[str] = ("fp32",),
    engines: Sequence[str] = ("torch", "openvino"),
    max_length: int | None = None,
    budget: float | None = None,
    batch: int = 32,
    texts: int = 512,
    repeats: int = 5,
    memory: bool = True,
    profile: bool = False,
    stage: Callable[[str, int], Callable[[int], None]] | None = None,
) -> dict[str, Any]:
    """Time a pruned model and its rivals, in turn, on the same texts.

    Parameters
    ----------
    folder : str
        What `PrunedModel.save_pretrained` wrote. Rivals run its weights dense.
    source, text, label
        File or hub data set, its columns, and the label column, if quality is wanted.
    precisions, engines : sequences of str
        Which rows there are. An engine that is not installed is named and skipped.
    max_length : int, optional
        Most tokens of a text. Default: as in training.
    budget : float, optional
        Of a model that holds several, the one to run at. Default: the first.
    batch : int
        Texts in a batch, of near lengths for all but one row.
    texts : int
        Most texts, spread evenly over the file.
    repeats : int
        Rounds; in each every contender runs all texts.
    memory : bool
        Measure peak memory, in a fresh process for each contender.
    profile : bool
        Split the time of our own engines into kinds of work.
    stage : callable, optional
        As of `thresher.measure.evaluate.evaluate`.

    Returns
    -------
    dict
        The report; ``rows`` is the table. After Ctrl-C it is of what was done (``stopped``), if that is one
        round at least.
    """
    start = time.time()
    for precision in precisions:
        for engine in engines:
            check_names(engine, precision)
    if min(batch, texts, repeats) < 1:
        raise UserError("Texts, batch size and repeats must be 1 or more.")
    begin = stage or silent
    model, encoder, task = open_model(folder, max_length, budget)
    columns = text_columns(model, text)
    examples = load_examples(source, columns, label, split="test")
    labels = None if label is None else np.array(task.encode_all(examples, source), dtype=object)
    chosen = spread(len(examples), texts)
    with tempfile.TemporaryDirectory() as temporary:
        setup, work = prepare(folder, encoder, examples, chosen, batch, Path(temporary), budget)
        entries, skipped = [], {}
        wanted = contenders(precisions, engines)
        advance = begin("loading", len(wanted))
        runners: list[tuple[Contender, Runner]] = []
        for contender in wanted:
            name = f"{contender.name}, {contender.precision}"
            if lacks := contender.lacks():
                skipped[name] = f"{lacks} is not installed"
            else:
                try:
                    run = load(contender, setup, encoder)
                    run(work.batches(contender)[0][1])
                    runners.append((contender, run))
                except Exception as error:  # of others' converters, which know not every model
                    skipped[name] = f"{type(error).__name__}: {first_line(error)}"
            advance(1)
        seconds, logits = _race(runners, work, repeats, begin("timing", (repeats + 1) * len(runners)))
        rounds = min((len(took) for took in seconds.values()), default=0)
        stopped = bool(runners) and rounds < repeats
        memory, profile = memory and not stopped, profile and not stopped
        advance = begin("memory", len(runners) if memory else 0)
        for contender, run in runners:
            entry = asdict(contender) | {"name": contender.name} | _figures(seconds[contender], work)
            try:
                if memory:
                    entry["peak_mb"] = peak_memory(
                        contender, setup, source, columns, chosen, batch, encoder.max_length
                    )
                    advance(1)
                if profile and contender.ours:
                    entry["profile"] = parts(partial(work.run, contender, run))
            except KeyboardInterrupt:
                stopped, memory, profile = True, False, False
            found = logits[contender]
            if labels is not None:
                entry["quality"] = task.quality(found, labels[chosen].tolist())
            entries.append(entry)
    ratio = predict(model.for_inference(), encoder, work.columns).flops_ratio
    _ratios(entries, seconds, [contender for contender, _ in runners], ratio or 1.0)
    return {
        "command": "bench",
        "model": str(folder),
        "data": {
            "eval": source,
            "text": columns,
            "label": label,
            "texts": len(chosen),
            "max_length": encoder.max_length,
        },
        "lengths": {
            "mean": float(work.lengths.mean()),
            "shortest": int(work.lengths.min()),
            "longest": int(work.lengths.max()),
        },
        "flops_ratio": ratio,
        "matmul_rate": {
            name: matmul_rate(dtype) for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16))
        },
        "rows": entries,
        "skipped": skipped,
        "calibration": {"texts": len(setup.examples), "also_timed": setup.also_timed},
        "attention": native.instructions or "torch",
        "batch": batch,
        "repeats": rounds,
        "stopped": stopped,
        "threads": torch.get_num_threads(),
        "versions": versions() | _versions(),
        "seconds": round(time.time() - start, 1),
    }


def _race(
    runners: list[tuple[Contender, Runner]], work: Texts, repeats: int, advance: Callable[[int], None]
) -> tuple[dict[Contender, np.ndarray], dict[Contender, np.ndarray]]:
    """Seconds ``[rounds, batches]`` of every contender, in turn after one uncounted round, and logits.

    Ctrl-C ends it after the last whole round, if there was one.
    """
    seconds: dict[Contender, list[list[float]]] = {contender: [] for contender, _ in runners}
    logits: dict[Contender, np.ndarray] = {}
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
                        found |= dict(zip(index, as_numpy(out), strict=True))
                if round_:
                    seconds[contender].append(took)
                else:
                    logits[contender] = np.stack([found[i] for i in range(len(found))])
                advance(1)
    except KeyboardInterrupt:
        if not all(seconds.values()):
            raise
    whole = min((len(took) for took in seconds.values()), default=0)
    return {contender: np.array(took[:whole]) for contender, took in seconds.items()}, logits


def _figures(seconds: np.ndarray, work: Texts) -> dict[str, Any]:
    """Rates over whole rounds, and latencies of single batches in milliseconds."""
    rounds, n, tokens = seconds.sum(1), len(work.lengths), int(work.lengths.sum())
    return {
        "texts_per_second": n / float(np.median(rounds)),
        "slowest": n / float(rounds.max()),
        "fastest": n / float(rounds.min()),
        "tokens_per_second": tokens / float(np.median(rounds)),
        "p50_ms": 1000 * float(np.percentile(seconds, 50)),
        "p95_ms": 1000 * float(np.percentile(seconds, 95)),
    }


def _ratios(
    entries: list[dict[str, Any]],
    seconds: dict[Contender, np.ndarray],
    order: list[Contender],
    flops_ratio: float,
) -> None:
    """How many times as fast as the fastest dense rival, of the same precision and of any: medians."""
    rounds = {contender: took.sum(1) for contender, took in seconds.items()}
    rivals = [contender for contender in order if not contender.ours]

    def over(contender: Contender, some: list[Contender]) -> float | None:
        if not some:
            return None
        best = min(some, key=lambda rival: float(np.median(rounds[rival])))
        return float(np.median(rounds[best] / rounds[contender]))

    for entry, contender in zip(entries, order, strict=True):
        entry["times_same_precision"] = over(
            contender, [rival for rival in rivals if rival.precision == contender.precision]
        )
        entry["times_any_precision"] = over(contender, rivals)
        packed = replace(contender, kind="packed")
        if contender.kind == "pruned" and packed in rounds:
            # What became of the FLOPs that were saved: 1 is all of it.
            entry["realised"] = float(np.median(rounds[packed] / rounds[contender])) * flops_ratio


def _versions() -> dict[str, str]:
    found = {}
    for package in ("onnxruntime", "onnx", "openvino", "nncf"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
