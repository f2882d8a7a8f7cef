"""What a training job is asked to do, and the folder it writes: refused, begun, or gone on with."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from thresher.data.formats import same_file
from thresher.errors import UserError
from thresher.measure.report import write_json
from thresher.training.settings import TrainingSettings


@dataclass
class Data:
    """Where the texts are.

    Attributes
    ----------
    train : str
        File, or hub data set.
    text : list of str
        One or two text columns.
    eval : str, optional
        What quality is reported on; a budget is meant for texts as long as these. None: the held-out texts.
    label : str, optional
        Label column. None: the pruned model learns to reproduce base's outputs.
    held_out : str, optional
        What checkpoint and thresholds are chosen on. None: a part of train, which is then not learned from.
        Base should not have been fine-tuned on these texts, or it looks better there than it is.
    label_map : dict of str to str, optional
        The class that a label of the files stands for, where they call classes otherwise than the model does.
    """

    train: str
    text: list[str]
    eval: str | None = None
    label: str | None = None
    held_out: str | None = None
    label_map: dict[str, str] | None = None


@dataclass
class Job:
    """What `finetune`, `prune` and `calibrate` share.

    Attributes
    ----------
    model : str
        Folder or hub name of the transformers model to start from.
    data : Data
    out : Path
        The finished folder; checkpoints are under it while the job runs.
    max_length : int, optional
        Most tokens of a text. None: what the model allows.
    force, resume : bool
        Write over what is there; go on where an interrupted run stopped.
    outputs : Path, optional
        Folder for base's outputs, which are kept there for other jobs with the same base, texts, seed and
        length; those of another model that is to be learned from may stand there. Default: they go with the
        checkpoints.
    extras : bool
        Measure the pruned model's weights with nothing dropped as well, and the speed.
    """

    model: str
    data: Data
    out: Path
    settings: TrainingSettings
    max_length: int | None = None
    force: bool = False
    resume: bool = False
    outputs: Path | None = None
    extras: bool = True

    @property
    def checkpoints(self) -> Path:
        return self.out / "checkpoints"

    def go_on(self) -> Job:
        """The same job, resumed if a run of it was interrupted, else from the start."""
        unfinished = note(self).exists()
        return replace(self, resume=unfinished, force=not unfinished)


def check_folder(job: Job) -> None:
    """Refuse a folder with a model in it, or with an unfinished run that nobody asked to go on with."""
    unfinished = note(job).exists()
    if job.out.is_file():
        raise UserError(f"{job.out} is a file; name a folder.")
    if job.out.is_dir() and same_file(str(job.out), str(Path(job.model).expanduser())):
        raise UserError(f"{job.out} is the model to start from: name another --out, or it would be lost.")
    if job.resume and not unfinished:
        raise UserError(f"There is no interrupted run in {job.out} to resume.")
    if job.resume or job.force:
        return
    config = job.out / "config.json"
    if config.exists() and config.stat().st_size:  # an empty one is what a full disk has left
        raise UserError(f"{job.out} already holds a model. Use --force to write over it, or another --out.")
    if unfinished:
        raise UserError(
            f"{job.out} holds an interrupted run. The command that began it goes on with --resume; --force "
            "starts anew."
        )


def begin(job: Job, how: dict[str, Any]) -> None:
    """Note what is being run, all input being well; a resumed run must be the same."""
    what = {"model": job.model, "data": asdict(job.data), "settings": asdict(job.settings), "how": how}
    what = json.loads(json.dumps(what | {"max_length": job.max_length}))
    if not job.resume:
        forget(job)
        write_json(what, note(job))
        return
    before = json.loads(note(job).read_text())
    was, now = _flat(before), _flat(what)
    if changed := [key for key in now if was.get(key) != now[key]]:
        raise UserError(
            f"The run in {job.out} was started with another {changed[0]}: {was.get(changed[0])}, now "
            f"{now[changed[0]]}. Resume with the same, or use --force to start anew."
        )


def _flat(what: dict[str, Any]) -> dict[str, Any]:
    """Settings within settings by their own names."""
    parts = (value if isinstance(value, dict) else {key: value} for key, value in what.items())
    return {name: value for part in parts for name, value in part.items()}


def forget(job: Job) -> None:
    """Remove checkpoints, so that nothing can be gone on with."""
    shutil.rmtree(job.checkpoints, ignore_errors=True)


def clear(job: Job) -> None:
    """Remove what was said of the model that is now to be written over."""
    for stale in ("report.json", "evaluation.json", "bench.json", "bench.png", "training.png", "kept.png"):
        (job.out / stale).unlink(missing_ok=True)


def note(job: Job) -> Path:
    return job.checkpoints / "job.json"
