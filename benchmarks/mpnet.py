"""A real encoder of base size, all-mpnet-base-v2: what it answers through Thresher with nothing dropped, and
how long a batch of texts takes.

    python benchmarks/mpnet.py "$(python -m thresher.demo.mpnet)" --texts corpus.jsonl

Times are those of the processor, with one thread, so that other work on the machine hardly counts. MPNet has
no other attention in transformers than the eager one.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
import transformers
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoModel, AutoTokenizer

from thresher import PruningConfig, native, prune

LENGTH, SMALL = 384, 8  # tokens that the model was trained for; texts of a batch once they are sorted
SORTED = "transformers, sorted, fp32"
PRECISIONS = ("fp32", "bf16", "int8")


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--texts", type=Path, required=True, help='JSON Lines with "text"')
    parser.add_argument("--count", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    transformers.logging.disable_progress_bar()
    with asked.texts.open() as file:
        texts = [json.loads(line)["text"] for line, _ in zip(file, range(asked.count), strict=False)]
    tokenizer = AutoTokenizer.from_pretrained(asked.folder)

    def encoded(some: list[str]) -> dict[str, Tensor]:
        return dict(tokenizer(some, padding=True, truncation=True, max_length=LENGTH, return_tensors="pt"))

    check(asked.folder, encoded(texts[:3]))
    batch = encoded(texts)
    lengths = batch["attention_mask"].sum(1)
    print(
        f"{len(texts)} texts of {lengths.min()} to {lengths.max()} tokens, mean {lengths.float().mean():.0f}"
    )
    order = lengths.argsort().tolist()
    small = [encoded([texts[i] for i in order[at : at + SMALL]]) for at in range(0, len(texts), SMALL)]
    dense, half = (AutoModel.from_pretrained(asked.folder, dtype=x) for x in (torch.float32, torch.bfloat16))
    runs: dict[str, Callable[[], Any]] = {
        "transformers, padded, fp32": lambda: dense(**batch),
        SORTED: lambda: [dense(**some) for some in small],
        "transformers, sorted, bf16": lambda: [half(**some) for some in small],
    }
    wanted = averaged(dense(**batch).last_hidden_state, batch)
    likeness = {}
    for precision in PRECISIONS:
        model = prune(AutoModel.from_pretrained(asked.folder), PruningConfig("none")).for_inference(precision)
        name = f"Thresher, packed, {precision}"
        runs[name] = lambda model=model: model(**batch)
        likeness[name] = F.cosine_similarity(model.head.read(model(**batch), batch).float(), wanted).min()
    table = Table("in", "ms of a batch (rounds)", "x of sorted, fp32", "least cosine to fp32")
    found = timed(runs, asked.rounds)
    for name, taken in found.items():
        ratio = median(a / b for a, b in zip(found[SORTED], taken, strict=True))
        cells = f"{median(taken):,.0f} ({min(taken):,.0f}-{max(taken):,.0f})", f"{ratio:.2f}"
        table.add_row(name, *cells, f"{likeness[name]:.5f}" if name in likeness else "")
    print(f"{native.instructions}, 1 thread, torch {torch.__version__}")
    Console(width=110).print(table)


def averaged(states: Tensor, batch: dict[str, Tensor]) -> Tensor:
    """The mean over each text's tokens, by hand."""
    mask = batch["attention_mask"][..., None]
    return (states * mask).sum(1) / mask.sum(1)


def check(folder: Path, batch: dict[str, Tensor]) -> None:
    """Say how far states and means are from those of transformers, with nothing dropped, in float64."""
    model = AutoModel.from_pretrained(folder, dtype=torch.float64)
    pruned, mask = prune(model), batch["attention_mask"].bool()
    ours, theirs = pruned(**batch), model(**batch)
    states = (ours.last_hidden_state - theirs.last_hidden_state)[mask].abs().max()
    packed, values = pruned.family.pack(batch)
    pooled = pruned.head.pooled(pruned.run(packed, values)[0].last_hidden_state, packed)
    means = (pooled - averaged(theirs.last_hidden_state, batch)).abs().max()
    print(f"in float64, states differ by {states:.1e} at most, and their means by {means:.1e}")


def timed(runs: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of the processor of each run, in rounds."""
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for at in range(rounds + 1):  # the first is not counted
        for name, run in runs.items():
            start = time.process_time()
            run()
            taken[name] += [1e3 * (time.process_time() - start)] if at else []
    return taken


if __name__ == "__main__":
    main()
