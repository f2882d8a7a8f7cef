"""Versions of everything that shapes a result, the processor, and how much of it was used."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from thresher.version import __version__

PACKAGES = ("torch", "transformers", "datasets", "numpy")


def versions(*others: str) -> dict[str, str]:
    """Versions by name; of `others`, those that are installed. ``instructions`` are those of our C++, or of
    PyTorch where that does not run; ``threads`` are PyTorch's, which all engines have."""
    import torch  # slow to import, and so is what needs it

    from thresher import native

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
        "instructions": native.instructions or f"torch, {torch.backends.cpu.get_cpu_capability()}",
        "threads": str(torch.get_num_threads()),
    }


def _processor() -> str:
    """Its name, family and model, where the system tells: a name alone may stand for several generations."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    told = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    if "model name" not in told:
        return platform.processor() or platform.machine()
    kind = {"cpu family": "family", "model": "model"}
    return ", ".join([told["model name"], *(f"{kind[key]} {told[key]}" for key in kind if key in told)])
