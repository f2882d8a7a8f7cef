"""Peak memory of a contender, in a process of its own."""

from __future__ import annotations

import ctypes
import gc
import json
import logging
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from thresher.bench.contenders import Contender, load, prepare
from thresher.bench.rivals import Setup
from thresher.data import load_examples
from thresher.inference.load import open_model

log = logging.getLogger(__name__)


def peak_memory(
    contender: Contender,
    setup: Setup,
    source: str,
    columns: list[str],
    chosen: np.ndarray,
    batch: int,
    max_length: int,
) -> float | None:
    """Most resident megabytes above what stands after loading; None where that was not to be had."""
    task = {
        "contender": asdict(contender),
        "folder": setup.folder,
        "source": source,
        "columns": columns,
        "chosen": chosen.tolist(),
        "batch": batch,
        "max_length": max_length,
        "budget": setup.budget,
        "threads": setup.threads,
        "work": str(setup.work),
    }
    command = [sys.executable, "-m", "thresher.bench.memory"]
    done = subprocess.run(command, input=json.dumps(task), capture_output=True, text=True)
    try:
        return float(done.stdout.split()[-1])
    except (IndexError, ValueError):
        log.warning("No peak memory of %s: %s", contender.name, done.stderr.strip().rpartition("\n")[2])
        return None


def peak_above(run: Callable[[], object]) -> float:
    """Most resident megabytes while `run` runs, above what stands before it. Linux alone tells."""
    gc.collect()
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)  # freed memory that is kept for later would hide what is taken now
    standing = _resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    run()
    return _resident("VmHWM") - standing


@torch.inference_mode()
def _child(task: dict[str, Any]) -> None:
    torch.set_num_threads(task["threads"])
    contender = Contender(**task["contender"])
    _, encoder, _ = open_model(task["folder"], task["max_length"])
    examples = load_examples(task["source"], task["columns"], split="test")
    chosen, work = np.array(task["chosen"]), Path(task["work"])
    setup, texts = prepare(task["folder"], encoder, examples, chosen, task["batch"], work, task["budget"])
    print(peak_above(partial(texts.run, contender, load(contender, setup, encoder))))


def _resident(name: str) -> float:
    """Megabytes, by the kernel's own count."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024


if __name__ == "__main__":
    _child(json.load(sys.stdin))
