"""Speed beside the dense engines that a user could run instead: one run, one table."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from thresher import native
from thresher.bench.contenders import ANYWHERE, Contender, Texts, contenders, load, prepare
from thresher.bench.device import check_device, device_name
from thresher.bench.extent import Extent, extent
from thresher.bench.fresh import in_fresh_process
from thresher.bench.profile import matmul_rate, parts
from thresher.bench.race import race, rates, ratios
from thresher.bench.rivals import Runner, Setup
from thresher.data import load_examples
from thresher.engines import PRECISIONS, check_names
from thresher.errors import UserError, first_line
from thresher.inference.load import open_model, text_columns
from thresher.inference.predict import predict
from thresher.inference.progress import Stages, silent
from thresher.inputs.text import TextEncoder
from thresher.model import PrunedModel
from thresher.reports import Bench, BenchData, BenchRow, CalibratedOn, Lengths, versions
from thresher.tasks import Task

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}  # whose peak rate is measured
RIVAL_PACKAGES = ("ctranslate2", "onnxruntime", "onnx", "openvino", "nncf")
Runners = list[tuple[Contender, Runner]]


@torch.inference_mode()
def bench(
    folder: str,
    source: str,
    text: list[str],
    label: str | None = None,
    *,
    precisions: Sequence[str] = ("fp32",),
    engines: Sequence[str] | None = None,
    max_length: int | None = None,
    budget: float | None = None,
    batch: int = 32,
    texts: int | None = None,
    repeats: int | None = None,
    memory: bool | None = None,
    profile: bool = False,
    quick: bool = False,
    device: str = "cpu",
    label_map: dict[str, str] | None = None,
    stage: Stages = silent,
) -> Bench:
    """Time a pruned model and its rivals, in turn, on the same texts.

    After Ctrl-C, the report is of what was done (``stopped``), if that is one round at least.

    Parameters
    ----------
    folder : str
        What `PrunedModel.save_pretrained` wrote. Rivals run its weights dense.
    source, text, label, label_map
        File or hub data set, and its columns. With a label column, quality is measured as well.
    precisions, engines : sequences of str
        Which rows there are. An engine that is not installed is named and skipped. Default of `engines`, and
        of what else is None: that of `Extent`, or of `QUICK`.
    max_length, budget : optional
        As of `open_model`.
    batch, texts, repeats : int
        Texts in a batch; most texts, spread evenly over the file; rounds, in each of which every contender
        runs all texts.
    memory, profile : bool
        Measure cold start and memory, in a fresh process for each contender. Split the time of our own
        engines into kinds of work, on CPUs.
    quick : bool
        Measure as much as takes two minutes for a small model.
    device : str
        Where models run, as PyTorch calls it. On others than the CPU, transformers and the engine torch do.
    stage : Stages
        Shows what is done.
    """
    start = time.time()
    check_device(device, profile)
    much = extent(quick, device, engines=engines, texts=texts, repeats=repeats, memory=memory)
    for precision in precisions:
        for engine in much.engines:
            check_names(engine, precision)
    if batch < 1:
        raise UserError("`batch` must be 1 or more.")
    asked = _open(
        folder, source, text, label, label_map, max_length, budget, batch, much.texts, device, stage
    )
    with tempfile.TemporaryDirectory() as temporary:
        found = _run(asked, Path(temporary), precisions, much, profile, stage)
    return Bench(
        model=str(folder),
        data=BenchData(
            eval=source,
            text=asked.columns,
            label=label,
            texts=len(asked.chosen),
            max_length=asked.encoder.max_length,
        ),
        **found,
        attention=(device == "cpu" and native.instructions) or "torch",
        device=device_name(device),
        batch=batch,
        threads=torch.get_num_threads(),
        versions=versions(*RIVAL_PACKAGES),
        seconds=round(time.time() - start, 1),
    )


@dataclass(frozen=True)
class _Asked:
    """The model, and the texts that are run."""

    folder: str
    source: str
    columns: list[str]
    labels: list[Any] | None  # of the chosen texts
    examples: Any
    chosen: np.ndarray
    batch: int
    budget: float | None
    device: str
    model: PrunedModel
    encoder: TextEncoder
    task: Task


def _open(
    folder: str,
    source: str,
    text: list[str],
    label: str | None,
    label_map: dict[str, str] | None,
    max_length: int | None,
    budget: float | None,
    batch: int,
    texts: int,
    device: str,
    stage: Stages,
) -> _Asked:
    stage("loading the model")
    model, encoder, task = open_model(folder, max_length, budget)
    columns = text_columns(model, text)
    stage("reading texts")
    examples = load_examples(source, columns, label, split="test")
    labels = None if label is None else task.reading(label_map).encode_all(examples, source)
    chosen = task.sample(examples, texts)
    labels = None if labels is None else [labels[i] for i in chosen]
    model.to(device)
    return _Asked(
        folder, source, columns, labels, examples, chosen, batch, budget, device, model, encoder, task
    )


def _run(
    asked: _Asked,
    work_folder: Path,
    precisions: Sequence[str],
    much: Extent,
    profile: bool,
    stage: Stages,
) -> dict[str, Any]:
    """Time all contenders; what came out, as fields of `Bench`."""
    encoder, chosen = asked.encoder, asked.chosen
    setup, work = prepare(
        *(asked.folder, encoder, asked.examples, chosen, asked.batch, work_folder),
        budget=asked.budget,
        calibration=much.calibration,
        device=asked.device,
    )
    # What needs no contender comes first, so that nothing is left to do after Ctrl-C.
    advance = stage("counting FLOPs", len(chosen))
    asked.model.for_inference()
    ratio = predict(asked.model, encoder, work.columns, advance=advance).flops_ratio or 1.0
    matmul_rates = _matmul_rates(asked.device, stage("peak rate of this machine", len(DTYPES)))
    vectors = PRECISIONS if asked.device == "cpu" else ()
    peak_rates = {x: rate for x in vectors if (rate := native.peak(x)) is not None}
    # In fp32 on CPUs, as users run it who do nothing for speed; nobody does on a GPU.
    wanted = contenders(precisions, much.engines, "bf16" if asked.device != "cpu" else "fp32")
    runners, skipped = _load(
        wanted, setup, encoder, work, much.without, stage("loading engines", len(wanted))
    )
    seconds, logits = race(runners, work, much.repeats, stage("timing", (much.repeats + 1) * len(runners)))
    rounds = min((len(took) for took in seconds.values()), default=0)
    stopped = bool(runners) and rounds < much.repeats
    more: dict[Contender, dict[str, Any]] = {contender: {} for contender, _ in runners}
    if asked.labels is not None:
        for contender, found in more.items():
            found["quality"] = asked.task.quality(work.answers(logits[contender]), asked.labels)
    try:
        if much.memory and not stopped:
            _run_afresh(more, setup, asked, work, stage("fresh processes", len(more)))
        if profile and not stopped:
            ours = [(contender, run) for contender, run in runners if contender.ours]
            _split_time(more, ours, work, stage("profile", len(ours)))
    except KeyboardInterrupt:
        stopped = True
    lengths = work.lengths
    return {
        "lengths": Lengths(
            mean=float(lengths.mean()), shortest=int(lengths.min()), longest=int(lengths.max())
        ),
        "flops_ratio": ratio,
        "matmul_rate": matmul_rates,
        "peak_rate": peak_rates,
        "rows": [
            BenchRow(
                **asdict(contender),
                name=contender.name,
                **rates(seconds[contender], work),
                **ratios(contender, seconds, ratio),
                **found,
            )
            for contender, found in more.items()
        ],
        "skipped": skipped,
        "calibration": CalibratedOn(texts=len(setup.examples), also_timed=setup.also_timed),
        "repeats": rounds,
        "stopped": stopped,
    }


def _matmul_rates(device: str, advance: Callable[[int], None]) -> dict[str, float]:
    found = {}
    for name, dtype in DTYPES.items():
        found[name] = matmul_rate(dtype, 2048 if device == "cpu" else 8192, device=device)
        advance(1)
    return found


def _run_afresh(
    more: dict[Contender, dict[str, Any]],
    setup: Setup,
    asked: _Asked,
    work: Texts,
    advance: Callable[[int], None],
) -> None:
    """Note what a fresh process tells of each contender, as far as it goes until Ctrl-C."""
    middle = work.text_of(int(np.argsort(work.lengths)[len(work.lengths) // 2]))
    first = asked.examples[int(asked.chosen[middle])]
    texts = {
        "columns": asked.columns,
        "chosen": asked.chosen.tolist(),
        "first": [first[name] for name in ("text", "text_pair") if name in first]
        or [" ".join(first["words"])],
        "batch": asked.batch,
        "max_length": asked.encoder.max_length,
    }
    for contender, found in more.items():
        found.update(in_fresh_process(contender, setup, asked.source, texts))
        advance(1)


def _split_time(
    more: dict[Contender, dict[str, Any]], ours: Runners, work: Texts, advance: Callable[[int], None]
) -> None:
    """Note where the time of our own engines goes, as far as it goes until Ctrl-C."""
    for contender, run in ours:
        more[contender]["profile"] = parts(partial(work.run, contender, run))
        advance(1)


def _load(
    wanted: list[Contender],
    setup: Setup,
    encoder: TextEncoder,
    work: Texts,
    without: Sequence[str],
    advance: Callable[[int], None],
) -> tuple[Runners, dict[str, str]]:
    """Contenders that have run a batch, and why each of the others was skipped."""
    runners: Runners = []
    skipped: dict[str, str] = {}
    for contender in wanted:
        name = f"{contender.name}, {contender.precision}"
        if setup.device != "cpu" and contender.engine not in ANYWHERE:
            skipped[name] = "runs on CPUs alone"
        elif contender.engine in without and not contender.ours:
            skipped[name] = "left out of a quick run"
        elif lacks := contender.lacks():
            skipped[name] = f"not installed: {lacks} (pip install '.[{contender.extra}]')"
        else:
            try:
                run = load(contender, setup, encoder)
                run(work.batches(contender)[0][1])
                runners.append((contender, run))
            except UserError as error:  # which says why in a sentence
                skipped[name] = str(error).removesuffix(".")
            except Exception as error:  # of others' converters, which know not every model
                skipped[name] = f"{type(error).__name__}: {first_line(error)}"
        advance(1)
    return runners, skipped
