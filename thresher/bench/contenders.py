"""What a benchmark times: our own packed engines, dense and pruned, and their rivals."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from thresher import engines
from thresher.bench.rivals import Batch, Runner, Setup, logits_of, on, quiet
from thresher.inference.load import CALIBRATION, make_ready, open_model
from thresher.inputs.rows import ANSWERS, KEYS, ROW, has_parts, whole_texts
from thresher.inputs.text import TextEncoder

RIVALS = ("transformers", "ctranslate2", "onnxruntime", "openvino")
ANYWHERE = ("transformers", engines.TorchEngine.name)  # and the others on CPUs alone


@dataclass(frozen=True)
class Contender:
    """One row of the table.

    Attributes
    ----------
    engine : str
        A rival's name, or an engine of ours.
    precision : str
    kind : {"padded", "sorted", "packed", "pruned"}
        Dense on batches in the order given, or of near lengths; ours with nothing pruned, or as it is.
    """

    engine: str
    precision: str
    kind: str = "sorted"

    @property
    def ours(self) -> bool:
        return self.kind in ("packed", "pruned")

    @property
    def name(self) -> str:
        return f"thresher {self.engine}, {self.kind}" if self.ours else f"{self.engine}, {self.kind}"

    def lacks(self) -> str | None:
        """The package that is missing for it, if any."""
        if self.ours:
            return engines.lacks(self.engine, self.precision)
        return next((package for package in _rival(self.engine).NEEDS if find_spec(package) is None), None)

    @property
    def extra(self) -> str:
        """The extra of ours that installs what it needs."""
        return self.engine if self.ours else str(_rival(self.engine).EXTRA)


def _rival(name: str) -> Any:
    """The module of a rival."""
    return import_module(f"thresher.bench.rivals.{name}")


def contenders(
    precisions: Sequence[str], ours: Sequence[str] = engines.ENGINES, padded: str = "fp32"
) -> list[Contender]:
    """All rows for some precisions; transformers on padded batches, in `padded`, is always there."""
    found = [Contender("transformers", padded, "padded")]
    for precision in precisions:
        for rival in RIVALS:
            if precision in _rival(rival).PRECISIONS:
                found.append(Contender(rival, precision))
        found += [Contender(engine, precision, kind) for engine in ours for kind in ("packed", "pruned")]
    return found


class Texts:
    """The texts of a run, in batches as contenders get them."""

    def __init__(self, encoder: TextEncoder, examples: Any, batch: int):
        self.columns = encoder.encode_columns(examples)
        self.count = len(examples)
        self.lengths = np.array([len(ids) for ids in self.columns["input_ids"]])
        rows = len(self.lengths)
        self.sorted = list(encoder.batches(self.columns, tokens=batch * int(self.lengths.max()), rows=batch))
        tokens = {key: values for key, values in self.columns.items() if key in KEYS}
        self.given = [
            (index, encoder.pad({key: [values[i] for i in index] for key, values in tokens.items()}))
            for index in (list(range(i, min(i + batch, rows))) for i in range(0, rows, batch))
        ]

    def batches(self, contender: Contender) -> list[tuple[list[int], Batch]]:
        return self.given if contender.kind == "padded" else self.sorted

    def answers(self, logits: list[np.ndarray]) -> np.ndarray:
        """Logits of rows, of their real tokens where every token has an answer, as those of whole texts."""
        if ANSWERS not in self.columns:
            return whole_texts(np.stack(logits), self.columns)
        found = np.empty(len(logits), dtype=object)
        for row, places in enumerate(self.columns[ANSWERS]):
            found[row] = logits[row][places]
        return whole_texts(found, self.columns)

    def text_of(self, row: int) -> int:
        """The place of the text that a row is of."""
        return self.columns[ROW][row] if has_parts(self.columns) else row

    def run(self, contender: Contender, run: Runner) -> None:
        """Run all of them once."""
        for _, rows in self.batches(contender):
            run(rows)


def load(contender: Contender, setup: Setup, encoder: TextEncoder) -> Runner:
    """A contender, ready to run."""
    with quiet():
        if not contender.ours:
            runner: Runner = _rival(contender.engine).load(setup, contender.precision)
            return runner
        model, _, _ = open_model(setup.folder, None, setup.budget)
        model.to(setup.device)
        # What runs dense has to be calibrated dense: later layers would never have seen most tokens.
        with model.dense() if contender.kind == "packed" else nullcontext():
            make_ready(model, encoder, setup.columns, contender.precision, contender.engine)

    def run(batch: Batch) -> Any:
        return logits_of(model(**on(setup.device, batch))).cpu()

    def dense(batch: Batch) -> Any:
        with model.dense():
            return run(batch)

    return run if contender.kind == "pruned" else dense


def prepare(
    folder: str,
    encoder: TextEncoder,
    examples: Any,
    chosen: np.ndarray,
    batch: int,
    work: Path,
    budget: float | None = None,
    calibration: int = CALIBRATION,
    device: str = "cpu",
) -> tuple[Setup, Texts]:
    """What contenders are loaded from, and the `chosen` texts that they run on.

    Texts that are not timed calibrate int8 engines, and timed ones only where there are too few others.
    """
    random = np.random.default_rng(0)
    others = random.permutation(np.setdiff1d(np.arange(len(examples)), chosen))[:calibration]
    spare = random.permutation(chosen)[: calibration - len(others)]
    calibrating = Texts(encoder, examples.select(np.concatenate([others, spare]).astype(int)), 1)
    setup = Setup(
        folder,
        [rows for _, rows in calibrating.given],
        calibrating.columns,
        torch.get_num_threads(),
        work,
        len(spare),
        budget,
        device,
    )
    return setup, Texts(encoder, examples.select(chosen), batch)
