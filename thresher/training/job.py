"""What a training job is asked to do, and the folder it writes: refused, begun, or gone on with."""

from __future__ import annotations

import functools
import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from thresher.data.beir import is_collection
from thresher.data.formats import same_file
from thresher.errors import UserError
from thresher.files.atomic import GOING, PARTIAL, check_utf8, discard
from thresher.files.lock import sole_writer
from thresher.files.swap import replacing_folder, sweep
from thresher.reports import write_json
from thresher.store import WEIGHTS
from thresher.training.settings import TrainingSettings

More = ParamSpec("More")
Result = TypeVar("Result")

OF_A_MODEL = re.compile(
    r"(report|evaluation|bench|modules)\.json|(bench|training|kept)\.png"
    r"|pytorch_model[-.].*|adapter_(config\.json|model\..*)"
    r"|(tokenizer|tokenizer_config|special_tokens_map|added_tokens|vocab)\.json|vocab\.txt|merges\.txt"
    r"|(spiece|tokenizer|sentencepiece(\.bpe)?)\.model|chat_template\..*"
)
"""What belongs to a model, besides `WEIGHTS`, so that it must not outlive the model: what was said of it, its
tokenizer, and weights that transformers would take for its own."""

OF_A_RUN = re.compile(
    rf"job\.json|base-.*\.npy|checkpoint-\d+|({re.escape(PARTIAL)}|{re.escape(GOING)}).*", re.DOTALL
)
"""What a run writes among its checkpoints."""

WRITE_OVER = "Set `force` to write over it, or name another `out`."


@dataclass
class Data:
    """Where the texts are.

    Attributes
    ----------
    train : str
        File, or hub data set.
    text : list of str
        One or two text columns; none where all data are folders in BEIR's layout.
    eval : str, optional
        What quality is reported on; a budget is meant for texts as long as these. None: the held-out texts.
    label : str, optional
        Label column; a folder in BEIR's layout needs none. None: the pruned model learns to reproduce the
        base model's outputs.
    held_out : str, optional
        What checkpoint and thresholds are chosen on. None: a part of train, which is then not learned from.
        The base model should not have been fine-tuned on these texts, or it looks better there than it is.
    label_map : dict of str to str, optional
        The class that a label of the files stands for, where the files name classes otherwise than the model.
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
        Write over what is there; go on where an interrupted run of the same job stopped, or begin if none was
        begun. With both, what is there of another job is written over.
    teacher : str, optional
        Folder or hub name of another model with the same labels and tokenizer, which stands in for the base
        model: its outputs are learned from, and quality is measured against them. None: `model` itself.
    """

    model: str
    data: Data
    out: Path
    settings: TrainingSettings
    max_length: int | None = None
    force: bool = False
    resume: bool = False
    teacher: str | None = None

    @property
    def labelled(self) -> bool:
        """Whether there are labels, or judgements."""
        data = self.data
        return data.label is not None or any(map(is_collection, (data.train, data.held_out, data.eval)))

    @property
    def checkpoints(self) -> Path:
        return self.out / "checkpoints"

    def go_on(self) -> Job:
        """The same job, gone on with if a run of it was interrupted, left alone if one has ended, and else
        from the start, whatever is there."""
        return replace(self, resume=True, force=True)


def alone(
    function: Callable[Concatenate[Job, More], Result],
) -> Callable[Concatenate[Job, More], Result]:
    """A function that nobody else runs at the same time for a job with the same folder."""

    @functools.wraps(function)
    def run(job: Job, *args: More.args, **kwargs: More.kwargs) -> Result:
        with sole_writer(job.out):
            return function(job, *args, **kwargs)

    return run


def check_folder(job: Job) -> None:
    """Refuse a folder with a model in it, with an unfinished run that nobody asked to go on with, or with
    what would be lost though no run of ours wrote it."""
    check_utf8(job.out)
    if job.out.exists() and not job.out.is_dir():
        raise UserError(f"{job.out} is a file; name a folder.")
    start = Path(job.model).expanduser()
    if job.out.is_dir() and same_file(str(job.out), str(start)):
        raise UserError(f"{job.out} is the model to start from, and would be lost: name another `out`.")
    if start.resolve().is_relative_to(job.checkpoints.resolve()):
        raise UserError(
            f"{start} would go with the checkpoints of {job.out}: copy it, or name another `out`."
        )
    if job.force:
        return
    if _holds_model(job.out):
        if not job.resume:
            raise UserError(f"{job.out} already holds a model. {WRITE_OVER}")
    elif _begun(job) is None:
        _check_files(job.out)
    elif not job.resume:
        raise UserError(
            f"{job.out} holds an interrupted run. Repeat that run with `resume` to go on, or set `force` to "
            "start anew."
        )


def begin(job: Job, **what: Any) -> dict[str, Any] | None:
    """Note what is being run, all input being well.

    Parameters
    ----------
    job : Job
    **what
        What else shapes the outcome, as JSON values; of a model and of texts their fingerprints.

    Returns
    -------
    dict or None
        The report, where a run is to be gone on with that has ended.

    Raises
    ------
    UserError
        If what is to be gone on with was another job.
    """
    what = {"model": job.model, "data": asdict(job.data), "settings": asdict(job.settings)} | what
    what = json.loads(json.dumps(what | {"max_length": job.max_length, "teacher": job.teacher}))
    if job.resume and (before := _begun(job)) is not None:
        if (other := _other(before, what)) is None:
            return None
        if not job.force:
            raise UserError(
                f"The run in {job.out} was started with another {other}. Resume with the same, or set "
                "`force` to start anew."
            )
    elif job.resume and _holds_model(job.out):
        report = _read(job.out / "report.json") or {}
        other = _other(report["job"], what) if isinstance(report.get("job"), dict) else "command"
        if other is None:
            forget(job)
            return report
        if not job.force:
            raise UserError(
                f"There is no interrupted run in {job.out} to resume, but a model that was made with another "
                f"{other}. {WRITE_OVER}"
            )
    forget(job)
    write_json(what, note(job))
    return None


@contextmanager
def finished(job: Job) -> Iterator[Path]:
    """The folder for all that a job leaves; it takes the place of the old one, and of the checkpoints."""

    def keep(name: str) -> bool:
        if name == job.checkpoints.name:
            return any(not OF_A_RUN.fullmatch(entry.name) for entry in _inside(job.checkpoints))
        return not (_of_a_model(name) or name.startswith(PARTIAL))

    sweep(job.out)
    with replacing_folder(job.out, keep=keep) as folder:
        yield folder


def forget(job: Job) -> None:
    """Remove checkpoints, so that nothing can be gone on with, and what a killed run left half removed; files
    of others among them stay. The note goes last: without one, nobody can tell whose the rest is."""
    if not job.checkpoints.is_dir():
        discard(job.checkpoints)
    for entry in sorted(_inside(job.checkpoints), key=note(job).__eq__):
        if OF_A_RUN.fullmatch(entry.name):
            discard(entry)
    with suppress(OSError):  # files of others are there, or none
        job.checkpoints.rmdir()
    sweep(job.out)


def note(job: Job) -> Path:
    return job.checkpoints / "job.json"


def noted(job: Job) -> dict[str, Any]:
    """What `begin` noted, for the report."""
    return _read(note(job)) or {}


def _begun(job: Job) -> dict[str, Any] | None:
    """What the interrupted run noted that is to be gone on with; None where nothing was begun.

    Raises
    ------
    UserError
        If nobody can tell what the checkpoints are of, and they are not to be written over.
    """
    found = _read(note(job)) or {}
    if {"model", "settings"} <= found.keys():
        return found
    if job.force or all(entry.name.startswith((PARTIAL, GOING)) for entry in _inside(job.checkpoints)):
        return None
    raise UserError(
        f"{note(job)} is missing or damaged, so that nobody can tell what {job.checkpoints} holds. "
        + WRITE_OVER
    )


def _check_files(folder: Path) -> None:
    """Refuse a folder without a model, but with files that would go as those of an old model do."""
    if lost := sorted(entry.name for entry in _inside(folder) if _of_a_model(entry.name)):
        raise UserError(f"{folder / lost[0]} would be lost, as part of an old model. {WRITE_OVER}")


def _of_a_model(name: str) -> bool:
    return bool(OF_A_MODEL.fullmatch(name) or WEIGHTS.fullmatch(name))


def _inside(folder: Path) -> list[Path]:
    """What is in a folder; what is no folder, though it has its name, is all that is there."""
    if folder.is_dir():
        return list(folder.iterdir())
    return [folder] if os.path.lexists(folder) else []


def _holds_model(folder: Path) -> bool:
    config = folder / "config.json"
    return config.exists() and config.stat().st_size > 0  # an empty one is what a full disk has left


def _read(file: Path) -> dict[str, Any] | None:
    """A JSON object, or None where there is none."""
    try:
        found = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _other(before: dict[str, Any], what: dict[str, Any]) -> str | None:
    """The first thing that is not as it was before, if there is one."""
    was, now = _flat(before), _flat(what)
    changed = next((key for key in now if was.get(key) != now[key]), None)
    if changed is None or changed.startswith("content"):
        return changed
    return f"`{changed}`: {was.get(changed)}, now {now[changed]}"


def _flat(what: dict[str, Any]) -> dict[str, Any]:
    """Settings within settings by their own names."""
    parts = (value if isinstance(value, dict) else {key: value} for key, value in what.items())
    return {name: value for part in parts for name, value in part.items()}
