"""Two checkouts of Thresher on the same texts: does a change make an engine slower?

    python benchmarks/checkouts.py BEFORE AFTER MODEL --eval dev.tsv --text sentence

BEFORE and AFTER are folders of checkouts, each with its own environment in `.venv`. Each has a process of its
own, which holds the model once in every precision, dense and pruned. The two processes run all texts in turn,
so that what else the machine does falls on both. The table shows texts per second, and the median over the
turns of after over before.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

KINDS = ("packed", "pruned")
Row = tuple[str, str]  # kind and precision


class Checkout:
    """A process of one checkout, which runs texts when told to."""

    def __init__(self, folder: Path, given: argparse.Namespace, texts: str):
        command = [folder / ".venv" / "bin" / "python", __file__, "--work", given.model, texts]
        environment = {"OMP_NUM_THREADS": given.threads, "PATH": "/usr/bin:/bin", "HF_HUB_OFFLINE": "1"}
        self._process = subprocess.Popen(
            [*command, given.precision, given.engine],
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.said()

    def said(self) -> Any:
        """The next line that it writes."""
        assert self._process.stdout is not None
        if not (line := self._process.stdout.readline()):
            raise SystemExit("A checkout's process ended; what it wrote stands above.")
        return json.loads(line)

    def seconds(self, row: Row) -> float:
        """How long all texts take."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(row) + "\n")
        self._process.stdin.flush()
        return float(self.said())


def work(model: str, texts: str, precisions: str, engine: str) -> None:
    """The process of a checkout: only what every version of Thresher has is called here."""
    import torch
    from transformers import AutoTokenizer

    from thresher import PrunedModel

    tokenizer = AutoTokenizer.from_pretrained(model)
    batches = [
        tokenizer(**batch, truncation=True, padding=True, return_tensors="pt")
        for batch in json.loads(Path(texts).read_text())
    ]
    models = {x: PrunedModel.from_pretrained(model, x, engine) for x in precisions.split(",")}
    print(json.dumps("ready"), flush=True)
    with torch.inference_mode():
        for line in sys.stdin:
            kind, precision = json.loads(line)
            chosen = models[precision]
            start = time.perf_counter()
            for batch in batches:
                if kind == "pruned":
                    chosen(**batch)
                else:
                    with chosen.dense():
                        chosen(**batch)
            print(json.dumps(time.perf_counter() - start), flush=True)


def batches_of(given: argparse.Namespace) -> list[dict[str, Any]]:
    """Texts in batches of near lengths, as arguments of a tokenizer."""
    from thresher.batches import spread
    from thresher.data import load_examples

    examples = load_examples(given.eval, [given.text], None, split="test")
    texts = sorted(examples.select(spread(len(examples), given.texts))["text"], key=len)
    steps = range(0, len(texts), given.batch)
    return [{"text": texts[i : i + given.batch], "max_length": given.max_length} for i in steps]


def main() -> None:
    from rich.console import Console
    from rich.table import Table

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("model", help="folder of a pruned model, which both can open")
    parser.add_argument("--eval", required=True)
    parser.add_argument("--text", required=True)
    parser.add_argument("--precision", default="fp32,bf16,int8")
    parser.add_argument("--engine", default="torch")
    parser.add_argument("--texts", type=int, default=256)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--max-length", type=int, default=256)
    parser.add_argument("--turns", type=int, default=11)
    parser.add_argument("--threads", default="2")
    given = parser.parse_args()
    given.model = str(Path(given.model).resolve())
    batches = batches_of(given)
    with tempfile.NamedTemporaryFile("w", suffix=".json") as texts:
        json.dump(batches, texts)
        texts.flush()
        checkouts = [Checkout(folder.resolve(), given, texts.name) for folder in (given.before, given.after)]
    count = sum(len(batch["text"]) for batch in batches)
    table = Table(title=f"After over before: median of {given.turns} turns, and the middle half of them")
    for name in ("kind", "precision", "before, texts/s", "after, texts/s", "ratio", "spread"):
        table.add_column(name, justify="left" if name in ("kind", "precision") else "right")
    for row in [(kind, precision) for precision in given.precision.split(",") for kind in KINDS]:
        turns = [[checkout.seconds(row) for checkout in checkouts] for _ in range(given.turns + 1)][1:]
        ratios = sorted(before / after for before, after in turns)
        before, after = (count / median(turn[place] for turn in turns) for place in (0, 1))
        quarter = len(ratios) // 4
        cells = (f"{before:.1f}", f"{after:.1f}", f"{median(ratios):.3f}")
        table.add_row(*row, *cells, f"{ratios[quarter]:.3f} to {ratios[-1 - quarter]:.3f}")
    Console(width=110).print(table)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--work"]:
        work(*sys.argv[2:])
    else:
        main()
