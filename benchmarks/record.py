"""The tables of record of this processor: every case is measured, and its section of README.md written anew.

    THRESHER_DATA=folder python benchmarks/record.py --work runs/record

Models have random weights, because speed does not ask what they say, and thresholds for half of the FLOPs,
or for 0.193 of them, where `prune --max-drop 1%` ends on IMDB. A case whose report lies in the work folder is
not measured again.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from thresher.reports import Bench, BenchRow

HERE = Path(__file__).parent
IMDB, SST2 = ("imdb/test.jsonl.gz", "text"), ("sst2/dev.tsv", "sentence")
PRECISIONS = "fp32,bf16,int8"


@dataclass(frozen=True)
class Case:
    """One table.

    Attributes
    ----------
    name, title : str
    layers, width, max_length : int
        Of the model.
    data : tuple of str
        A file below THRESHER_DATA, and its text column.
    texts, batch, repeats : int
    precisions : str
    budget : float
        FLOPs ratio.
    fresh : bool
        Whether cold start and memory are measured.
    """

    name: str
    title: str
    layers: int
    width: int
    data: tuple[str, str]
    max_length: int
    texts: int
    batch: int = 32
    repeats: int = 5
    precisions: str = PRECISIONS
    budget: float = 0.5
    fresh: bool = False

    def report(self, work: Path) -> Path:
        return work / self.name / "bench.json"

    def measured(self, work: Path, data: Path) -> Bench:
        """The report, of an earlier run or of one now."""
        report = self.report(work)
        if not report.exists():
            file, text = self.data
            source = ["--eval", str(data / file), "--text", text]
            shape = f"{self.layers}x{self.width}-{Path(file).parent}-{self.max_length}-{self.budget}"
            model = work / shape
            if not model.exists():
                sizes = ["--layers", self.layers, "--width", self.width, "--max-length", self.max_length]
                sizes += ["--budget", self.budget]
                run([sys.executable, HERE / "random_model.py", *sizes, *source, "--out", model])
            options = ["--texts", self.texts, "--batch-size", self.batch, "--repeats", self.repeats]
            options += ["--precision", self.precisions, "--engine", "auto", "--profile"]
            options += ["--memory" if self.fresh else "--no-memory"]
            command = [sys.executable, "-m", "thresher", "bench", model, *source, *options]
            run([*command, "--max-length", self.max_length, "--out", report.parent])
        return Bench.from_json(json.loads(report.read_text()))


CASES = (
    Case("long", "MiniLM's shape (6 x 384), long texts", 6, 384, IMDB, 256, 128, fresh=True),
    Case("short", "MiniLM's shape, short texts", 6, 384, SST2, 128, 400),
    Case("one-short", "MiniLM's shape, one short text at a time", 6, 384, SST2, 128, 60, batch=1),
    Case("one-long", "MiniLM's shape, one long text at a time", 6, 384, IMDB, 256, 30, batch=1),
    Case(
        "fewer",
        "MiniLM's shape, long texts, a fifth",
        6,
        384,
        IMDB,
        256,
        128,
        precisions="int8",
        budget=0.193,
    ),
    Case("base", "BERT-base's shape (12 x 768), long texts", 12, 768, IMDB, 384, 64, 32, 3, "bf16,int8"),
)


def run(command: list[object]) -> None:
    """Run a command, and show what it prints."""
    print(" ".join(map(str, command)), flush=True)
    subprocess.run(list(map(str, command)), check=True)


def table_of(report: Bench) -> list[str]:
    """What was run, and the rates."""
    lengths = report.lengths
    what = (
        f"{report.data.texts} texts of {lengths.shortest} to {lengths.longest} tokens, "
        f"mean {lengths.mean:.0f}, in batches of {report.batch}; FLOPs ratio {report.flops_ratio:.3f}, "
        f"{report.repeats} rounds."
    )
    head = "| engine | in | texts/s (rounds) | p50 of a batch, ms | x of the same | x of any | realised |"
    return [what, "", head, "|---|---|---|---|---|---|---|", *map(row_of, report.rows)]


def row_of(row: BenchRow) -> str:
    """A line of the table."""
    cells = [
        row.name,
        row.precision,
        f"{row.texts_per_second:,.4g} ({row.slowest:,.4g}-{row.fastest:,.4g})",
        f"{row.p50_ms:,.4g}",
        *("" if x is None else f"{x:.2f}" for x in (row.times_same_precision, row.times_any_precision)),
        "" if row.realised is None else f"{row.realised:.2f}",
    ]
    return f"| {' | '.join(cells)} |"


def profiles_of(report: Bench) -> list[str]:
    """Where the time of the packed and the pruned model goes, and how near the peak they multiply."""
    told = []
    for row in report.rows:
        if (profile := row.profile) is None or not row.name.startswith("thresher"):
            continue
        shares = ", ".join(f"{part} {share:.0%}" for part, share in profile.shares.items() if share >= 0.05)
        peak = report.peak_rate.get(row.precision)
        rate = f"; {profile.linear_rate / peak:.0%} of the peak" if profile.linear_rate and peak else ""
        told.append(f"{row.kind} in {row.precision}: {shares}{rate}")
    return [f"Where the time goes: {'. '.join(told)}.", ""] if told else []


def fresh_of(report: Bench) -> list[str]:
    """Cold start and memory, where they were measured."""
    rows = [row for row in report.rows if row.cold_seconds is not None]
    head = ["In a fresh process:", "", "| engine | in | first answer, s | resident, MiB | peak above, MiB |"]
    lines = []
    for row in rows:
        found = (row.cold_seconds, ".1f"), (row.resident_mb, ",.0f"), (row.peak_mb, ",.0f")
        cells = ["" if x is None else format(x, form) for x, form in found]
        lines.append(f"| {' | '.join([row.name, row.precision, *cells])} |")
    return [*head, "|---|---|---|---|---|", *lines, ""] if rows else []


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True, help="folder for models and reports")
    every = ",".join(case.name for case in CASES)
    parser.add_argument("--cases", default=every, help="which to measure, with commas")
    parser.add_argument("--readme", type=Path, default=HERE / "README.md")
    given = parser.parse_args()
    if (folder := os.environ.get("THRESHER_DATA")) is None:
        raise SystemExit("Name the folder of the data sets in THRESHER_DATA.")
    if unknown := set(given.cases.split(",")) - {case.name for case in CASES}:
        raise SystemExit(f"There is no case {', '.join(sorted(unknown))}.")
    # Tables of cases that were measured before stay.
    chosen = [x for x in CASES if x.name in given.cases.split(",") or x.report(given.work).exists()]
    reports = [case.measured(given.work, Path(folder)) for case in chosen]
    kind, first = reports[0].versions["processor"], reports[0]
    marks = f"<!-- record.py: {kind} -->", "<!-- until here -->"
    told = ", ".join(f"{x} {rate / 1e9:,.0f}" for x, rate in first.peak_rate.items())
    packages = ("torch", "openvino", "onnxruntime", "ctranslate2")
    versions = ", ".join(f"{x} {first.versions[x]}" for x in packages if x in first.versions)
    section = [
        marks[0],
        f"## {kind}: {first.attention}",
        "",
        f"{first.threads} threads; {versions}. Peak of multiply-adds in registers, GFLOP/s: {told}.",
        "",
    ]
    for case, report in zip(chosen, reports, strict=True):
        section += [f"### {case.title}", "", *table_of(report), "", *profiles_of(report), *fresh_of(report)]
    section.append(marks[1])
    text = given.readme.read_text()
    before, found, rest = text.partition(marks[0])
    after = rest.partition(marks[1])[2] if found else "\n"
    before = before if found else before.rstrip() + "\n\n"
    given.readme.write_text(before + "\n".join(section) + after)
    print(f"{given.readme}: the section of {kind}")


if __name__ == "__main__":
    main()
