"""Peak memory of `thresher predict` on files whose rows are long, many, or packed: each in its own process.

The files are made in `--work`: 160 rows of 1 MB in every format; a gzipped line of 1.5 GB and a CSV field of
99 MB, which are refused; 300 texts of 1.8 MB that take 600 bytes of Parquet; and 500,000 short rows.
"""

from __future__ import annotations

import argparse
import gzip
import random
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from thresher.data import RowWriter

WORDS = ["the", "film", "was", "good", "bad", "and", "a", "story", "of", "people"]


def texts(count: int, characters: int) -> Iterator[str]:
    """Texts of words drawn at random."""
    draw = random.Random(0)
    for _ in range(count):
        yield " ".join(draw.choices(WORDS, k=characters // 3))[:characters]


def rows(count: int, characters: int) -> Callable[[Path], None]:
    """What writes so many rows in the format that a file's name says."""

    def write(path: Path) -> None:
        with RowWriter(path) as writer:
            for text in texts(count, characters):
                writer.write({"text": text})

    return write


def packed_line(path: Path) -> None:
    with gzip.open(path, "wb") as file:
        file.write(b'{"text": "')
        for _ in range(1500):
            file.write(b"a" * 1_000_000)
        file.write(b'"}\n')


def long_field(path: Path) -> None:
    path.write_text('text,other\na,b\n"' + "word word\n" * 9_900_000 + '",b\n')


def same_texts(path: Path) -> None:
    pq.write_table(pa.table({"text": ["good film " * 180_000] * 300}), path, compression="zstd")


FILES: dict[str, Callable[[Path], None]] = {
    "long.tsv": rows(160, 1 << 20),
    "long.csv": rows(160, 1 << 20),
    "long.jsonl": rows(160, 1 << 20),
    "long.parquet": rows(160, 1 << 20),
    "packed.jsonl.gz": packed_line,
    "field.csv": long_field,
    "same.parquet": same_texts,
    "short.tsv": rows(500_000, 60),
    "short.jsonl": rows(500_000, 60),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="a folder that `thresher prune` or `calibrate` wrote")
    parser.add_argument("--work", type=Path, required=True, help="folder to write")
    parser.add_argument("--only", nargs="*", help="names of files, default all")
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    print("| file | peak, MB | seconds | exit code |\n|---|---|---|---|")
    for name in given.only or FILES:
        source = given.work / name
        if not source.exists():
            FILES[name](source)
        # a process that starts another, so that only this one's peak is counted
        command = [sys.executable, __file__, given.model, str(source), str(given.work / "answers.jsonl")]
        print(
            f"| {name} | " + subprocess.run(command, capture_output=True, text=True).stdout.strip(),
            flush=True,
        )


def measured(model: str, source: str, output: str) -> None:
    command = ["predict", model, "--input", source, "--output", output, "--text", "text", "--force"]
    start = time.monotonic()
    code = subprocess.run([sys.executable, "-m", "thresher", *command], stdout=subprocess.DEVNULL).returncode
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(f"{peak:.0f} | {time.monotonic() - start:.0f} | {code} |")


if __name__ == "__main__":
    measured(*sys.argv[1:]) if len(sys.argv) == 4 and "--work" not in sys.argv else main()
