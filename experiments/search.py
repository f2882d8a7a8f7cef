"""A finished reranker, or embedder, on the test queries of a folder in BEIR's layout, beside its base.

    THRESHER_DATA=folder python experiments/search.py medquad --run medquad-ours-0.35-seed0

A reranker orders the 100 candidates that BM25 finds for a query; an embedder searches the whole corpus. Both
models run in one precision, because such files are large. Writes search-RUN to --results.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch

from bases import COMMIT, base
from results import get, put
from samples import data
from tasks import TASKS, arguments, script
from thresher.inference.load import make_ready, open_model
from thresher.inference.predict import predict
from thresher.model import PrunedModel
from thresher.pruners import unpruned
from thresher.reports import versions
from thresher.show.progress import stages
from thresher.training.base import load_base
from thresher.training.examples import Examples


def measure(folder: Path, start: Path, source: str, precision: str) -> dict[str, Any]:
    """Quality of both, FLOPs, and the seconds that each took."""
    pruned, encoder, task = open_model(folder, source=source)
    examples = task.load(source, [], None, "test")
    rows = encoder.encode_examples(examples)
    texts = Examples.of(task, rows, task.encode_all(examples, source))
    found, seconds = {}, {}
    with stages() as stage:
        for name in ("base", "pruned"):
            model = pruned if name == "pruned" else PrunedModel(load_base(str(start))[0], unpruned())
            make_ready(model, encoder, rows[:256], precision)
            begun = time.perf_counter()
            found[name] = predict(model, encoder, rows, advance=stage(name, len(rows)))
            seconds[name] = time.perf_counter() - begun
    texts.base = found["base"].logits
    drop = texts.estimate_drop(task, found["pruned"].logits)
    return {
        "texts": texts.texts,
        "rows": len(rows),
        "mean_tokens": float(found["base"].lengths.mean()),
        "quality": {name: texts.quality(task, some.logits) for name, some in found.items()},
        "lost": drop.points,
        "interval": drop.interval,
        "flops_ratio": found["pruned"].flops_ratio,
        "precision": precision,
        "seconds": seconds,
    }


def main(argv: list[str] | None = None) -> None:
    parser = arguments(__doc__)
    parser.add_argument("--run", required=True, help="name of the pruned model in --work")
    parser.add_argument("--precision", default="bf16")
    given = parser.parse_args(argv)
    if (task := TASKS[given.task]).queries is None:
        raise SystemExit(f"{given.task} has no queries.")
    name = f"search-{given.run}"
    if get(given.results, name) is not None:
        return
    seed = int(given.run.rpartition("seed")[2])
    start = base(given.task, seed, given.work, given.encoder)
    source = f"{data(given.task, given.work).train.rpartition(':')[0]}:test"
    report = measure(given.work / given.run, start, source, given.precision)
    how = {"task": given.task, "run": given.run, "max_length": task.max_length, "commit": COMMIT}
    put(given.results, name, how | report | {"threads": torch.get_num_threads(), "versions": versions()})
    print(name, report, flush=True)


if __name__ == "__main__":
    script(main)
