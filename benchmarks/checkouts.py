"""Two checkouts of Thresher on the same texts: does a change make an engine slower?

    python benchmarks/checkouts.py BEFORE AFTER MODEL --eval dev.tsv --text sentence

BEFORE and AFTER are folders of checkouts, each with its own environment in `.venv`. `thresher bench` runs in
one and then in the other, several times in turn, so that what else the machine does falls on both. For each
of our engines the table shows texts per second, and the median over the turns of after over before.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

Rates = dict[tuple[str, str], float]  # texts per second by engine and precision


def measure(checkout: Path, model: str, options: list[str], threads: str) -> Rates:
    """One run of `thresher bench` in a checkout."""
    with tempfile.TemporaryDirectory() as folder:
        command = [checkout / ".venv" / "bin" / "thresher", "bench", model, *options, "--out", folder]
        environment = {"OMP_NUM_THREADS": threads, "PATH": "/usr/bin:/bin", "HF_HUB_OFFLINE": "1"}
        done = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{checkout}: {done.stderr[-2000:]}")
        rows = json.loads((Path(folder) / "bench.json").read_text())["rows"]
    return {(row["name"], row["precision"]): row["texts_per_second"] for row in rows}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("model", help="folder of a pruned model, which both can open")
    parser.add_argument("--eval", required=True)
    parser.add_argument("--text", required=True)
    parser.add_argument("--precision", default="fp32,bf16,int8")
    parser.add_argument("--engine", default="torch,openvino")
    parser.add_argument("--texts", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--threads", default="2")
    given = parser.parse_args()
    options = ["--eval", str(Path(given.eval).resolve()), "--text", given.text, "--no-memory"]
    for name in ("precision", "engine", "texts", "repeats"):
        options += [f"--{name}", str(getattr(given, name))]
    model = str(Path(given.model).resolve())
    turns: list[tuple[Rates, Rates]] = []
    for turn in range(given.turns):
        pair = {}
        for checkout in (given.before, given.after) if turn % 2 == 0 else (given.after, given.before):
            pair[checkout] = measure(checkout.resolve(), model, options, given.threads)
        turns.append((pair[given.before], pair[given.after]))
    table = Table(title=f"After over before: median of {given.turns} turns, least and largest")
    for name in ("engine", "precision", "before, texts/s", "after, texts/s", "ratio", "spread"):
        table.add_column(name, justify="left" if name in ("engine", "precision") else "right")
    for row in turns[0][0]:
        if not row[0].startswith("thresher") or any(row not in rates for turn in turns for rates in turn):
            continue
        before, after = ([turn[place][row] for turn in turns] for place in (0, 1))
        ratios = [b / a for a, b in zip(before, after, strict=True)]
        cells = (f"{median(before):.1f}", f"{median(after):.1f}", f"{median(ratios):.3f}")
        table.add_row(*row, *cells, f"{min(ratios):.3f} to {max(ratios):.3f}")
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
