"""Terms of a training loss. One term is one file, and says what it needs."""

from thresher.objectives.base import Batch, Need, Objective, Progress
from thresher.objectives.budget import Budget
from thresher.objectives.distil_hidden import DistilHidden
from thresher.objectives.distil_outputs import DistilOutputs
from thresher.objectives.labels import Labels

__all__ = ["Batch", "Budget", "DistilHidden", "DistilOutputs", "Labels", "Need", "Objective", "Progress"]
