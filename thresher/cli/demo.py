"""``thresher demo``"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from thresher.cli.ends import show, working
from thresher.cli.options import Out
from thresher.training.settings import TrainingSettings


def demo(out: Out = Path("demo"), *, settings: Annotated[TrainingSettings, ("seed",)]) -> None:
    """Fine-tune and prune a real encoder, on the docstrings of Python's own library."""
    from thresher.demo.run import run

    run(out, settings.seed, show, working)
