"""Speed beside the dense engines that a user could run instead: one run, one table."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from thresher import native
from thresher.batches import spread
from thresher.bench.contenders import Contender, Texts, contenders, load, prepare
from thresher.bench.memory import peak_memory
from thresher.bench.profile import matmul_rate, parts
from thresher.bench.race import race, rates, ratios
from thresher.bench.rivals import Runner, Setup
from thresher.data import load_examples
from thresher.engines import check_names
from thresher.errors import UserError, first_line
from thresher.inference.load import open_model, text_columns
from thresher.inference.predict import predict
from thresher.inference.progress import Stages, silent
from thresher.inputs.text import TextEncoder
from thresher.reports import versions

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}  # whose peak rate is measured


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
    label_map: dict[str, str] | None = None,
    stage: Stages = silent,
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
    label_map : dict of str to str, optional
        The class that a label of the file stands for, where it is called otherwise.
    stage : Stages
        Shows what is done.

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
    stage("loading the model")
    model, encoder, task = open_model(folder, max_length, budget)
    columns = text_columns(model, text)
    stage("reading texts")
    examples = load_examples(source, columns, label, split="test")
    labels = None if label is None else task.reading(label_map).encode_all(examples, source)
    chosen = spread(len(examples), texts)
    with tempfile.TemporaryDirectory() as temporary:
        setup, work = prepare(folder, encoder, examples, chosen, batch, Path(temporary), budget)
        # What needs no contender comes first, so that nothing is left to do after Ctrl-C.
        advance = stage("counting FLOPs", len(chosen))
        ratio = predict(model.for_inference(), encoder, work.columns, advance=advance).flops_ratio
        advance = stage("peak rate of this machine", len(DTYPES))
        matmul_rates = {}
        for name, dtype in DTYPES.items():
            matmul_rates[name] = matmul_rate(dtype)
            advance(1)
        wanted = contenders(precisions, engines)
        runners, skipped = _load(wanted, setup, encoder, work, stage("loading engines", len(wanted)))
        order = [contender for contender, _ in runners]
        seconds, logits = race(runners, work, repeats, stage("timing", (repeats + 1) * len(runners)))
        rounds = min((len(took) for took in seconds.values()), default=0)
        stopped = bool(runners) and rounds < repeats
        entries = [asdict(c) | {"name": c.name} | rates(seconds[c], work) for c in order]
        if labels is not None:
            for entry, contender in zip(entries, order, strict=True):
                entry["quality"] = task.quality(logits[contender], [labels[i] for i in chosen])
        try:
            if memory and not stopped:
                advance = stage("memory", len(order))
                for entry, contender in zip(entries, order, strict=True):
                    entry["peak_mb"] = peak_memory(
                        contender, setup, source, columns, chosen, batch, encoder.max_length
                    )
                    advance(1)
            if profile and not stopped:
                advance = stage("profile", sum(contender.ours for contender in order))
                for entry, (contender, run) in zip(entries, runners, strict=True):
                    if contender.ours:
                        entry["profile"] = parts(partial(work.run, contender, run))
                        advance(1)
        except KeyboardInterrupt:
            stopped = True
    ratios(entries, seconds, order, ratio or 1.0)
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
        "matmul_rate": matmul_rates,
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


def _load(
    wanted: list[Contender], setup: Setup, encoder: TextEncoder, work: Texts, advance: Callable[[int], None]
) -> tuple[list[tuple[Contender, Runner]], dict[str, str]]:
    """Contenders that have run a batch, and why each of the others was skipped."""
    runners: list[tuple[Contender, Runner]] = []
    skipped: dict[str, str] = {}
    for contender in wanted:
        name = f"{contender.name}, {contender.precision}"
        if lacks := contender.lacks():
            skipped[name] = f"not installed: {lacks} (pip install '.[{contender.extra}]')"
        else:
            try:
                run = load(contender, setup, encoder)
                run(work.batches(contender)[0][1])
                runners.append((contender, run))
            except Exception as error:  # of others' converters, which know not every model
                skipped[name] = f"{type(error).__name__}: {first_line(error)}"
        advance(1)
    return runners, skipped


def _versions() -> dict[str, str]:
    found = {}
    for package in ("onnxruntime", "onnx", "openvino", "nncf"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
