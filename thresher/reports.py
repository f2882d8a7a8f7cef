"""report.json: what was run, with which versions, and what came out."""

from __future__ import annotations

import json
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

from thresher.files.atomic import replacing
from thresher.inference.predict import Predictions
from thresher.model import PrunedModel
from thresher.version import __version__

PACKAGES = ("torch", "transformers", "datasets", "numpy")


def versions() -> dict[str, str]:
    """Versions of everything that shapes a result, and the processor."""
    found = {name: version(name) for name in PACKAGES}
    return {
        "thresher": __version__,
        "python": platform.python_version(),
        **found,
        "machine": platform.machine(),
        "processor": _processor(),
    }


def _processor() -> str:
    """Its name, where the system tells."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def kept_report(predictions: Predictions, model: PrunedModel) -> dict[str, Any]:
    """FLOPs ratio, tokens kept per layer (share of all, and mean number), and thresholds if there are any."""
    thresholds = model.pruner.dials(model.plan().rung) if model.pruner.ladder else None
    kept = None if predictions.kept is None else predictions.kept.mean(1).round(2).tolist()
    return {
        "flops_ratio": predictions.flops_ratio,
        "kept_share": predictions.kept_share,
        "kept_tokens": kept,
        "mean_tokens": float(predictions.lengths.mean()),
        "thresholds": None if thresholds is None else thresholds.tolist(),
    }


def write_json(values: dict[str, Any], path: Path) -> Path:
    """Write a report, whole or not at all."""
    with replacing(path) as partial:
        partial.write_text(json.dumps(values, indent=2, default=str) + "\n")
    return path
