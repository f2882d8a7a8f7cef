"""Training: the soft stage learns thresholds, the hard stage recovers quality and holds the budget."""

from thresher.training.settings import TrainingSettings
from thresher.training.trainer import train

__all__ = ["TrainingSettings", "train"]
