"""Versions of everything that shapes a result, and the processor."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from thresher.version import __version__

PACKAGES = ("torch", "transformers", "datasets", "numpy")


def versions(*others: str) -> dict[str, str]:
    """Versions by name; of `others`, those that are installed."""
    found = {name: version(name) for name in PACKAGES}
    for name in others:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
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
