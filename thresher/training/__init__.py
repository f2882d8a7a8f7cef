"""Training: the soft stage learns thresholds, the hard stage recovers quality and holds the budget."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from thresher.training.acts import train
    from thresher.training.job import Data, Job
    from thresher.training.recipes import finetune, prune
    from thresher.training.settings import TrainingSettings
    from thresher.training.work import Work

__all__ = ["Data", "Job", "TrainingSettings", "Work", "finetune", "prune", "train"]

_HOMES = {
    "Data": "job",
    "Job": "job",
    "TrainingSettings": "settings",
    "Work": "work",
    "finetune": "recipes",
    "prune": "recipes",
    "train": "acts",
}


def __getattr__(name: str) -> Any:
    # Loaded when asked for, so that the command line reads the settings before torch is there.
    if name not in _HOMES:
        raise AttributeError(f"module 'thresher.training' has no attribute '{name}'")
    return getattr(import_module(f"thresher.training.{_HOMES[name]}"), name)
