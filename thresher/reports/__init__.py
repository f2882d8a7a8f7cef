"""What a run came to: plain data with a JSON form, read by all that show it. One kind of run is one file.

Reports hold no tensors and need no model: a server or a notebook reads them where torch is not installed.
"""

from thresher.reports.base import Kept, Quality, Report, write_json
from thresher.reports.bench import Bench, BenchData, BenchRow, CalibratedOn, Lengths, Profile
from thresher.reports.calibration import Calibration, CalibrationData
from thresher.reports.evaluation import Evaluation, EvaluationData, Ran
from thresher.reports.speed import Rates, Speed
from thresher.reports.training import Choice, Finetuning, Pruning, Rung, Training, TrainingData
from thresher.reports.versions import versions

__all__ = [
    "Bench",
    "BenchData",
    "BenchRow",
    "CalibratedOn",
    "Calibration",
    "CalibrationData",
    "Choice",
    "Evaluation",
    "EvaluationData",
    "Finetuning",
    "Kept",
    "Lengths",
    "Profile",
    "Pruning",
    "Quality",
    "Ran",
    "Rates",
    "Report",
    "Rung",
    "Speed",
    "Training",
    "TrainingData",
    "versions",
    "write_json",
]
