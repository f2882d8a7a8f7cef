"""The longest silence of every command: seconds in which nothing new is seen on a terminal.

Commands run on a pseudo-terminal, with the demonstration's encoder and a file of many rows, and train next
to nothing. What is written counts if it changes what is seen: a spinner that turns does, the same line again
does not.
"""

from __future__ import annotations

import argparse
import os
import pty
import re
import select
import subprocess
import sys
import time
from itertools import cycle, islice
from pathlib import Path

from thresher.data import RowWriter
from thresher.demo.corpus import docstrings, split
from thresher.demo.run import encoder_folder

SHORT = ["--max-length", "64", "--force"]
LITTLE = ["--soft-epochs", "0.01", "--hard-epochs", "0.01", *SHORT]


def commands(work: Path) -> dict[str, list[str]]:
    """Arguments of `thresher` by the name of the row, in the order in which they need each other."""
    train, held_out = str(work / "train.jsonl"), str(work / "held_out.jsonl")
    labelled = ["--train", train, "--eval", held_out, "--text", "text", "--label", "label"]
    base, pruned, within, free = (str(work / name) for name in ("base", "pruned", "within", "calibrated"))
    unlabelled = ["--data", train, "--text", "text", "--max-change", "5%"]
    answers = str(work / "answers.csv")
    return {
        "finetune": ["finetune", str(encoder_folder()), *labelled, "--epochs", "0.02", *SHORT, "--out", base],
        "prune": ["prune", base, *labelled, *LITTLE, "--out", pruned],
        "prune --max-drop": ["prune", base, *labelled, *LITTLE, "--max-drop", "5%", "--out", within],
        "calibrate": ["calibrate", base, *unlabelled, *SHORT, "--out", free],
        "evaluate": ["evaluate", pruned, "--eval", train, "--label", "label"],
        "predict": ["predict", pruned, "--input", train, "--output", answers, "--force"],
        "show": ["show", pruned, "Return the absolute value of the argument."],
        "bench": ["bench", pruned, "--eval", train, "--texts", "64", "--repeats", "2", "--out", str(work)],
    }


def silence(arguments: list[str]) -> tuple[float, str, float, int]:
    """Longest silence, the line that was seen last before it, seconds in all, and exit code of a command."""
    master, slave = pty.openpty()
    start = last = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "thresher", *arguments], stdout=slave, stderr=slave, stdin=subprocess.DEVNULL
    )
    os.close(slave)
    longest, before, during = 0.0, b"", ""
    while True:
        ready, _, _ = select.select([master], [], [], 0.1)
        try:
            said = os.read(master, 1 << 16) if ready else b""
        except OSError:  # the other side is closed: the command has ended
            break
        now = time.monotonic()
        if now - last > longest:
            longest, during = now - last, seen(before)
        if said and said != before:
            last, before = now, said
    os.close(master)
    return longest, during, time.monotonic() - start, process.wait()


def seen(written: bytes) -> str:
    """The last line of what was written, as it is seen."""
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|[^\x20-\x7e\n]", "", written.decode(errors="replace"))
    return " ".join((text.strip().splitlines() or [""])[-1].split())[:60]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder to write")
    parser.add_argument("--rows", type=int, default=20_000, help="rows of the file")
    parser.add_argument("--only", nargs="*", help="names of rows, default all")
    given = parser.parse_args()
    for name, rows in zip(("train", "held_out"), split(docstrings()), strict=True):
        with RowWriter(given.work / f"{name}.jsonl") as writer:
            for row in islice(cycle(rows), given.rows if name == "train" else 500):
                writer.write(row)
    print("| command | longest silence, s | after | in all, s | exit code |\n|---|---|---|---|---|")
    for name, arguments in commands(given.work).items():
        if not given.only or name in given.only:
            longest, during, seconds, code = silence(arguments)
            print(f"| {name} | {longest:.1f} | {during} | {seconds:.0f} | {code} |", flush=True)


if __name__ == "__main__":
    main()
