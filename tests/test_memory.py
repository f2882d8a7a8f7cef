"""What a process is said to hold, and what it gives back."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from thresher.memory import peak_above, resident, trim


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the system does not tell peak memory")
def test_peak_is_above_what_stands():
    standing = np.ones(20_000_000)  # 160 MB that do not count
    assert 70 < peak_above(lambda: np.ones(10_000_000).sum()) < 100
    assert peak_above(lambda: None) < 10
    assert len(standing)


def test_peak_on_a_gpu_is_by_its_counters(monkeypatch):
    allocated = iter([3 << 20, 10 << 20])
    told = []
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", told.append)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: next(allocated))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda _: next(allocated))
    assert peak_above(lambda: told.append("ran"), "cuda:1") == 7
    assert told == ["cuda:1", "ran"]


@pytest.mark.skipif(sys.platform != "linux", reason="memory is counted by Linux")
def test_freed_memory_goes_back_though_there_is_some_in_use_beside_it():
    kept = [bytearray(b"x") * 60_000 for _ in range(4000)]
    del kept[::2]
    before = resident()
    trim()
    assert resident() < before - 80  # of 120 MB
    assert len(kept) == 2000
