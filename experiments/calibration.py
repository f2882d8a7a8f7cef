"""What `thresher calibrate` finds without training and without labels, beside what is free.

    THRESHER_DATA=folder python experiments/calibration.py sst2

Base is fine-tuned on some of the training texts; thresholds are chosen and checked on others, which it has
not seen, as where a model is in use; and the model is measured on the test file. One JSON per run goes to
--results; a run whose line is there is not run again. Leave the machine alone if the seconds shall count.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bases import base, portable
from results import get, put
from samples import data, parts
from tasks import TASKS, arguments, script
from thresher.config import PruningConfig
from thresher.data import load_examples
from thresher.inference.load import open_model
from thresher.inference.predict import predict
from thresher.model import PrunedModel
from thresher.training import Data, Job, TrainingSettings
from thresher.training.base import load_base
from thresher.training.calibrate import calibrate


def measure(start: Path, folder: Path, files: Data, max_change: float) -> dict[str, Any]:
    """The calibrated model on the test file, beside base with everything but [CLS] dropped at the end, which
    changes no output."""
    model, encoder, task = open_model(folder)
    texts = load_examples(files.eval, files.text, files.label)
    rows = encoder.encode_examples(texts)
    found = predict(model, encoder, rows)
    baseline = PrunedModel(load_base(str(start))[0], PruningConfig("none", prefix_only_at_end=True))
    free = predict(baseline, encoder, rows)
    labels = task.encode_all(texts, files.eval)
    return {
        "texts": len(rows),
        "change": 1 - task.agreement(found.logits, free.logits) / 100,
        "standard_error": task.doubt(max_change, len(rows)),
        "quality": {"base": task.quality(free.logits, labels), "pruned": task.quality(found.logits, labels)},
        "flops_ratio": found.flops_ratio,
        "last_layer": free.flops_ratio,
    }


def main(argv: list[str] | None = None) -> None:
    parser = arguments(__doc__)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--max-change", type=float, default=0.01)
    given = parser.parse_args(argv)
    task, work = TASKS[given.task], given.work
    for seed in given.seeds:
        name = f"calibration-{given.task}-{given.max_change:g}-seed{seed}"
        if get(given.results, name) is not None:
            continue
        files = data(given.task, work)
        part, unseen = parts(given.task, work)
        start = base(given.task, seed, work, given.encoder, part)
        texts = Data(unseen, task.text)
        job = Job(str(start), texts, work / name, TrainingSettings(seed=seed), task.max_length, force=True)
        report = calibrate(job, given.max_change)
        test = measure(start, job.out, files, given.max_change)
        what = {"calibration": {"task": given.task, "seed": seed}, "test": test}
        put(given.results, name, portable(report) | what)
        print(
            f"{name}: {report.change:.2%} of {report.data.checked_on} texts changed, "
            f"{test['change']:.2%} of the test file, at {test['flops_ratio']:.3f} "
            f"(last-layer {test['last_layer']:.3f}); {report.seconds:.0f} s"
        )


if __name__ == "__main__":
    script(main)
