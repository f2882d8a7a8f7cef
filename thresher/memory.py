"""How much memory this process holds and takes, by the kernel's count on Linux."""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Callable
from pathlib import Path


def peak_above(run: Callable[[], object], device: str = "cpu") -> float:
    """Most megabytes while `run` runs, above what stands before it: resident, which Linux alone tells, or on
    a CUDA device."""
    gc.collect()
    if device != "cpu":
        from torch import cuda

        cuda.reset_peak_memory_stats(device)
        before = cuda.memory_allocated(device)
        run()
        return (cuda.max_memory_allocated(device) - before) / (1 << 20)
    trim()  # freed memory that is kept for later would hide what is taken now
    standing = resident()
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    run()
    return resident("VmHWM") - standing


def trim() -> None:
    """Give freed memory back to the system: glibc keeps it, and batches of many sizes leave it in pieces.
    Where there is no glibc, nothing is done."""
    if sys.platform == "linux" and (give_back := getattr(ctypes.CDLL(None), "malloc_trim", None)):
        give_back(0)


def resident(name: str = "VmRSS") -> float:
    """MiB in memory; for ``VmHWM``, the most there were."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024
