"""Peak memory of a contender, in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from thresher.data import load_examples
from thresher.measure.contenders import Contender, load, prepared
from thresher.measure.evaluate import open_model
from thresher.measure.rivals import Setup


def peak_memory(
    contender: Contender, setup: Setup, source: str, columns: list[str], chosen: np.ndarray, batch: int
) -> float | None:
    """Most resident megabytes above what stands after loading; None where the system does not tell."""
    task = {
        "contender": asdict(contender),
        "folder": setup.folder,
        "source": source,
        "columns": columns,
        "chosen": chosen.tolist(),
        "batch": batch,
        "threads": setup.threads,
    }
    command = [sys.executable, "-m", "thresher.measure.memory"]
    done = subprocess.run(command, input=json.dumps(task), capture_output=True, text=True)
    try:
        return float(done.stdout.split()[-1])
    except (IndexError, ValueError):
        return None


@torch.inference_mode()
def _child(task: dict[str, Any]) -> None:
    torch.set_num_threads(task["threads"])
    contender = Contender(**task["contender"])
    _, encoder, _ = open_model(task["folder"])
    examples = load_examples(task["source"], task["columns"], split="test")
    with prepared(task["folder"], encoder, examples, np.array(task["chosen"]), task["batch"]) as (
        setup,
        work,
    ):
        run = load(contender, setup, encoder)
        standing = _resident("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
        for _, rows in work.batches(contender):
            run(rows)
        print(_resident("VmHWM") - standing)


def _resident(name: str) -> float:
    """Megabytes, by the kernel's own count."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024


if __name__ == "__main__":
    _child(json.load(sys.stdin))
