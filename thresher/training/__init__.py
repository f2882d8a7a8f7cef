"""Training: the soft stage learns thresholds, the hard stage recovers quality and holds the budget."""

from thresher.training.acts import train
from thresher.training.job import Data, Job
from thresher.training.recipes import finetune, prune
from thresher.training.settings import TrainingSettings
from thresher.training.work import Work

__all__ = ["Data", "Job", "TrainingSettings", "Work", "finetune", "prune", "train"]
