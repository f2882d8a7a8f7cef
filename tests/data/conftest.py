"""A fixture that writes a file for a test to read."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import pytest

Make = Callable[[str, "str | bytes"], Path]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def write(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        data = content.encode() if isinstance(content, str) else content
        path.write_bytes(gzip.compress(data) if name.lower().endswith(".gz") else data)
        return path

    return write
