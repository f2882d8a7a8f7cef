"""Results of finished runs: a JSON Lines file for each question, and a line for each run, by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from filelock import FileLock

from thresher.files.atomic import replacing

RESULTS = Path(__file__).parent / "results"
QUESTIONS = ("calibration", "length-shift", "operations", "search", "second_file", "what_is_pruned")
QUALITY = "quality_at_budget"  # the question of the other runs, whose names begin with a task

Report = dict[str, Any]


def file_of(folder: Path, run: str) -> Path:
    """The file that holds a run."""
    found = next((question for question in QUESTIONS if run.startswith(f"{question}-")), QUALITY)
    return folder / f"{found}.jsonl"


def load(folder: Path) -> dict[str, Report]:
    """The reports of all runs, by name."""
    reports: dict[str, Report] = {}
    for file in folder.glob("*.jsonl"):
        reports |= _read(file)
    return dict(sorted(reports.items()))


def get(folder: Path, run: str) -> Report | None:
    """The report of a run, if it has finished."""
    return _read(file_of(folder, run)).get(run)


def put(folder: Path, run: str, report: Report) -> None:
    """Write the report of a run, in the place of an older one. Runs that finish together lose nothing."""
    folder.mkdir(parents=True, exist_ok=True)
    file = file_of(folder, run)
    with FileLock(f"{file}.lock"):
        reports = _read(file) | {run: json.loads(json.dumps(report, default=str))}
        lines = [json.dumps({"run": name, "report": reports[name]}) for name in sorted(reports)]
        with replacing(file) as partial:
            partial.write_text("".join(f"{line}\n" for line in lines))


def _read(file: Path) -> dict[str, Report]:
    lines = file.read_text().splitlines() if file.exists() else []
    return {entry["run"]: entry["report"] for entry in map(json.loads, lines)}
