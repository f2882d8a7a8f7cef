"""Dense engines that a user could run instead of ours. One rival is one file.

Each has a function ``load(setup, precision)`` that gives a callable from a padded batch to logits
``[batch, labels]``, or ``[batch, length, labels]`` where every token has an answer, on the CPU both: so a
clock that is read after a call has waited for the device. It is set up as well as its own documentation
knows. ``NEEDS`` are its packages, ``EXTRA`` is the extra of ours that installs them, ``PRECISIONS`` is what
it runs in. What it converts is left in the work folder, and opened from there another time: by a fresh
process too, which then imports what the rival needs alone.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Batch = dict[str, Any]  # tensors or arrays [batch, length]
Runner = Callable[[Batch], Any]


@dataclass
class Setup:
    """What a rival is loaded from.

    Attributes
    ----------
    folder : str
        A saved pruned model: rivals run its weights dense.
    examples : list of dict
        Batches of one real text each, to trace and to calibrate with.
    columns : dict
        The same texts as lists of token ids.
    threads : int
    work : Path
        Folder for what is converted: with that in it, no texts are needed.
    also_timed : int
        How many of the texts are timed as well.
    budget : float, optional
        At which ours run, of a model that holds several.
    device : str
        Where models run, as PyTorch calls it.
    """

    folder: str
    examples: list[Batch]
    columns: dict[str, list]
    threads: int
    work: Path
    also_timed: int = 0
    budget: float | None = None
    device: str = "cpu"


@contextmanager
def quiet() -> Iterator[None]:
    """No advice from converters: nobody who reads a benchmark can follow it."""
    manager = logging.root.manager
    before = manager.disable
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(max(logging.WARNING, manager.disable))
        try:
            yield
        finally:
            manager.disable = before


def logits_of(output: Any) -> Any:
    """The logits of what a model gives back; those of starts and ends side by side."""
    if "start_logits" not in output:
        return output.logits
    import torch  # which not every rival needs

    return torch.stack([output.start_logits, output.end_logits], -1)


def on(device: str, batch: Batch) -> Batch:
    """A batch as tensors where the model is."""
    import torch  # which not every rival needs

    return {name: torch.as_tensor(values, device=device) for name, values in batch.items()}
