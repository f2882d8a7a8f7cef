"""Runs that are stopped: by Ctrl-C, or by a loss that is no number."""

from __future__ import annotations

import errno
import json
import math
import os
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file
from transformers import Trainer
from typer.testing import CliRunner

from tests import toy
from thresher import PrunedModel, UserError
from thresher.cli import app
from thresher.files.lock import sole_writer
from thresher.tasks.single_label import SingleLabel
from thresher.training import Data, Job, TrainingSettings, session, trainer
from thresher.training.checkpoints import check_complete, last_checkpoint
from thresher.training.examples import base_outputs
from thresher.training.job import alone, begin, check_folder, finished, forget


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    """All that a folder holds, the model's and the pruner's."""
    return load_file(folder / "model.safetensors") | load_file(folder / "token_pruning.safetensors")


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    toy.write_tsv(folder / "train.tsv", 500)
    toy.save_model(folder / "base")
    return folder


def command(files: Path, out: Path, *more: str) -> list[str]:
    fixed = (
        f"prune {files}/base --train {files}/train.tsv --text text --label label --out {out} --batch-size 16"
    )
    return [sys.executable, "-m", "thresher", *fixed.split(), "--precision", "fp32", *more]


def start(arguments: list[str]) -> subprocess.Popen[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    )


def at_once(arguments: list[str]) -> tuple[int, str]:
    """The same command in this process, for what ends soon: starting another takes longer."""
    result = CliRunner().invoke(app, arguments[3:])
    return result.exit_code, " ".join((result.stdout + result.stderr).split())


def wait_for_checkpoint(process: subprocess.Popen[str], out: Path) -> None:
    for _ in range(2400):
        if list(out.glob("checkpoints/checkpoint-*/trainer_state.json")):
            return
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.05)
    raise AssertionError("no checkpoint in two minutes")


def test_stopped_runs_end_where_the_uninterrupted_run_ends(files, tmp_path):
    """Ctrl-C: exit code 130, with a checkpoint. Then to the end, bit for bit; test_crashes.py kills."""
    code, said = at_once(command(files, tmp_path / "whole"))
    assert code == 0, said

    out = tmp_path / "stopped"
    process = start(command(files, out))
    wait_for_checkpoint(process, out)
    process.send_signal(signal.SIGINT)
    said = " ".join(process.communicate(timeout=120)[0].split())
    assert process.returncode == 130, said
    assert "--resume" in said
    assert "Traceback" not in said

    code, said = at_once(command(files, out))
    assert code == 2, said
    assert "interrupted run" in said
    code, said = at_once(command(files, out, "--resume", "--seed", "7"))
    assert code == 2, said
    assert "another --seed: 42, now 7." in said

    code, said = at_once(command(files, out, "--resume"))
    assert code == 0, said
    whole, stopped = tensors(tmp_path / "whole"), tensors(out)
    assert whole.keys() == stopped.keys()
    assert whole["table"].max() > 0
    for name, tensor in whole.items():
        assert torch.equal(tensor, stopped[name]), name


@pytest.mark.parametrize("wanted", [("--budget", "0.7,0.5"), ("--max-drop", "5%")], ids=["ladder", "drop"])
def test_ladders_end_where_the_uninterrupted_run_ends(wanted, files, tmp_path, monkeypatch):
    asked = (*wanted, "--soft-epochs", "0.5", "--hard-epochs", "0.5", "--no-saliency")
    code, said = at_once(command(files, tmp_path / "whole", *asked))
    assert code == 0, said
    original, steps = SingleLabel.distance, []

    def interrupted(*args):
        steps.append(1)
        if len(steps) == 24:
            signal.raise_signal(signal.SIGINT)
        return original(*args)

    with monkeypatch.context() as patch:
        patch.setattr(SingleLabel, "distance", interrupted)
        code, said = at_once(command(files, out := tmp_path / "stopped", *asked))
    assert code == 130, said
    code, said = at_once(command(files, out, *asked, "--resume"))
    assert code == 0, said
    whole, stopped = (
        json.loads((folder / "report.json").read_text()) for folder in (tmp_path / "whole", out)
    )
    for name in whole.keys() - {"out", "seconds", "resumed", "speed"}:
        assert whole[name] == stopped[name], name
    whole, stopped = tensors(tmp_path / "whole"), tensors(out)
    assert len(whole["table"]) >= 2
    for name, tensor in whole.items():
        assert torch.equal(tensor, stopped[name]), name


def test_what_was_stopped_behind_its_last_step_is_not_trained_again(files, tmp_path, monkeypatch):
    asked = ("--max-drop", "5%", "--soft-epochs", "0.5", "--hard-epochs", "0.5", "--no-saliency")
    code, said = at_once(command(files, tmp_path / "whole", *asked))
    assert code == 0, said

    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    for name, where in (("choose", session), ("distance", SingleLabel)):
        with monkeypatch.context() as patch:
            patch.setattr(where, name, stop)
            again = ("--resume",) if where is SingleLabel else ()
            if again:
                (tmp_path / "first").rename(tmp_path / "stopped")  # checkpoints are found where they are
            out = tmp_path / ("stopped" if again else "first")
            code, said = at_once(command(files, out, *asked, *again))
        assert code == (0 if again else 130), said
    whole, stopped = (load_file(folder / "model.safetensors") for folder in (tmp_path / "whole", out))
    for name, tensor in whole.items():
        assert torch.equal(tensor, stopped[name]), name


def test_a_loss_that_is_no_number_stops_with_the_last_checkpoint(files, tmp_path, monkeypatch):
    original, steps = SingleLabel.distance, []

    def poisoned(*args):
        steps.append(1)
        return original(*args) * (math.nan if len(steps) == 30 else 1.0)

    monkeypatch.setattr(SingleLabel, "distance", poisoned)
    code, said = at_once(command(files, tmp_path / "out"))
    assert code == 1, said
    assert "loss became nan at step 29" in said
    assert "Traceback" not in said
    assert not (tmp_path / "out" / "config.json").exists()
    checkpoint = last_checkpoint(tmp_path / "out" / "checkpoints")
    assert checkpoint is not None
    assert all(tensor.isfinite().all() for tensor in load_file(checkpoint / "model.safetensors").values())


def job(out: Path, **changes: object) -> Job:
    return Job("base", Data("train.tsv", ["text"]), out, TrainingSettings(), **changes)


def fill(folder: Path, *names: str, content: str = "{}") -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("note", [None, b"", b'{"model": ', b"[1]", b"{}", b'{"model": 1}', b"\xff"])
def test_a_note_that_says_nothing(tmp_path, note):
    """Nobody can tell of what, or whose, that is which lies beside it."""
    out = tmp_path / "out"
    fill(out, "checkpoints/base-train-01234567.npy", "checkpoints/checkpoint-9/model.safetensors")
    if note is not None:
        (out / "checkpoints" / "job.json").write_bytes(note)
    before = names(out)
    for asked in (job(out), job(out, resume=True)):
        with pytest.raises(UserError, match=r"job.json is missing or damaged.*`force`"):
            check_folder(asked)
    assert names(out) == before
    check_folder(job(out, force=True))
    assert begin(job(out).go_on(), how={}) is None
    assert names(out) == {"checkpoints/job.json"}


@pytest.mark.parametrize(
    "name",
    [
        "checkpoints/epoch=3.ckpt",
        "checkpoints/checkpoint-5/model.safetensors",
        "checkpoints",
        "pytorch_model.bin",
        "vocab.txt",
        "report.json",
        "model.safetensors",
    ],
)
def test_files_of_the_user_are_not_lost_unasked(tmp_path, name):
    fill(tmp_path, name, "train.tsv")
    for asked in (job(tmp_path), job(tmp_path, resume=True)):
        with pytest.raises(UserError, match="`force`"):
            check_folder(asked)
    check_folder(job(tmp_path, force=True))
    assert names(tmp_path) == {name, "train.tsv"}


def test_a_run_takes_along_no_more_than_it_wrote(tmp_path):
    own = {"checkpoints/epoch=3.ckpt", "checkpoints/runs/job.json", "checkpoints/checkpoint-best/a"}
    fill(tmp_path, *own, "checkpoints/checkpoint-5/a", "checkpoints/base-train-0.npy")
    fill(tmp_path, "checkpoints/.removed-checkpoint-4/a", "checkpoints/.partial-job.json")
    begin(job(tmp_path, force=True), how={})
    assert names(tmp_path) == {*own, "checkpoints/job.json"}
    with finished(job(tmp_path)) as folder:
        fill(folder, "config.json")
    forget(job(tmp_path))
    assert names(tmp_path) == {*own, "config.json"}


def test_a_crash_while_a_folder_is_filled_is_gone_on_from(tmp_path):
    begin(job(tmp_path), how={})
    fill(tmp_path, "model.safetensors", "vocab.txt")  # all but config.json, which is the last
    check_folder(job(tmp_path, resume=True))
    assert begin(job(tmp_path, resume=True), how={}) is None


@pytest.mark.parametrize("kind", ["device", "pipe", "file"])
def test_an_output_that_is_no_folder(tmp_path, kind):
    out = Path(os.devnull) if kind == "device" else tmp_path / "out"
    if kind != "device":
        (os.mkfifo if kind == "pipe" else Path.touch)(out)
    with pytest.raises(UserError, match="is a file; name a folder"):
        check_folder(job(out, force=True))


@pytest.mark.parametrize("name", ["finetune", "prune", "calibrate", "bench", "demo"])
def test_an_output_without_a_name(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    words = [] if name == "demo" else ["base"]
    for flag in {"finetune": ("--train", "--text", "--label"), "prune": ("--train", "--text")}.get(name, ()):
        words += [flag, "x"]
    words += {"calibrate": ["--data", "x", "--text", "x"], "bench": ["--eval", "x"]}.get(name, [])
    code, said = at_once(["python", "-m", "thresher", name, *words, "--out", ""])
    assert code == 2, said
    assert "it is empty; name a folder" in said
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("gone", ["optimizer.pt", "scheduler.pt", "rng_state.pth"])
def test_a_checkpoint_that_lacks_a_file(tmp_path, gone):
    given = {"optimizer.pt", "scheduler.pt", "rng_state.pth"}
    fill(tmp_path, *given)
    check_complete(tmp_path)
    (tmp_path / gone).unlink()
    with pytest.raises(UserError, match=r"is damaged.*missing.*`force`"):
        check_complete(tmp_path)


def test_what_a_resumed_run_must_have_in_common(tmp_path):
    begin(job(tmp_path), how={"pruner": "threshold"}, **{"content of the model": "a"})
    again = job(tmp_path, resume=True)
    assert begin(again, how={"pruner": "threshold"}, **{"content of the model": "a"}) is None
    for other, said in (
        ({"how": {"pruner": "topk"}, "content of the model": "a"}, "another `pruner`: threshold, now topk"),
        ({"how": {"pruner": "threshold"}, "content of the model": "b"}, "another content of the model. Res"),
    ):
        with pytest.raises(UserError, match=said):
            begin(again, **other)
    fill(tmp_path, "checkpoints/checkpoint-8/trainer_state.json", content='{"global_step": 8}')
    begin(again.go_on(), how={"pruner": "topk"})
    assert names(tmp_path) == {"checkpoints/job.json"}  # nothing of the other run is left to go on with


def test_to_resume_what_has_ended_gives_its_report(tmp_path):
    begin(job(tmp_path), how={})
    report = {"job": json.loads((tmp_path / "checkpoints" / "job.json").read_text()), "quality": 1}
    with finished(job(tmp_path)) as folder:
        fill(folder, "config.json", "model.safetensors")
        fill(folder, "report.json", content=json.dumps(report))
    forget(job(tmp_path))
    before = names(tmp_path)
    for asked in (job(tmp_path, resume=True), job(tmp_path).go_on()):
        check_folder(asked)
        assert begin(asked, how={}) == report
    with pytest.raises(UserError, match="already holds a model"):
        check_folder(job(tmp_path))
    with pytest.raises(
        UserError, match=r"no interrupted run.*made with another `kind`: None, now 1\. Set `force`"
    ):
        begin(job(tmp_path, resume=True), how={"kind": 1})
    (tmp_path / "report.json").write_text("{}")
    with pytest.raises(UserError, match=r"no interrupted run.*another command\. Set `force`"):
        begin(job(tmp_path, resume=True), how={})
    assert names(tmp_path) == before
    assert begin(job(tmp_path).go_on(), how={}) is None
    assert names(tmp_path) == before | {"checkpoints/job.json"}  # there until something new is


def test_of_an_older_model_nothing_is_left_and_of_the_user_all(tmp_path):
    old = (
        "report.json",
        "evaluation.json",
        "bench.json",
        "bench.png",
        "training.png",
        "kept.png",
        "vocab.txt",
    )
    old += ("model-00001-of-00002.safetensors", "model.safetensors.index.json", "added_tokens.json")
    old += ("pytorch_model.bin", "adapter_config.json", "token_pruning.safetensors", "checkpoints/job.json")
    own = ("README.md", "notes/report.json", "train.tsv", "model.onnx", "predictions.json")
    fill(tmp_path / "out", *old, *own, "config.json")
    with finished(job(tmp_path / "out")) as folder:
        fill(folder, "config.json", "model.safetensors", "report.json")
        assert names(tmp_path / "out") == {*old, *own, "config.json"}
    assert names(tmp_path / "out") == {*own, "config.json", "model.safetensors", "report.json"}


def test_a_model_that_would_go_with_the_checkpoints(tmp_path):
    asked = job(tmp_path)
    asked.model = str(tmp_path / "checkpoints" / "checkpoint-8")
    with pytest.raises(UserError, match="name another `out`"):
        check_folder(asked)


def test_one_job_at_a_time_writes_a_folder(tmp_path):
    @alone
    def work(asked: Job, deeper: bool) -> str:
        if deeper:
            with pytest.raises(UserError, match=f"out is being written by process {os.getpid()}"):
                work(asked, False)
        return "done"

    assert work(job(tmp_path / "out"), True) == "done"
    assert work(job(tmp_path / "out"), deeper=False) == "done"


@pytest.mark.parametrize("name", ["finetune", "prune", "calibrate", "evaluate", "bench"])
def test_an_output_that_another_run_holds(files, tmp_path, monkeypatch, name):
    texts = ["--train" if name in ("finetune", "prune") else "--data", f"{files}/train.tsv"]
    words = {"bench": ["--eval", f"{files}/train.tsv", "--out", str(tmp_path)]}.get(name)
    words = words or [*texts, "--text", "text", "--out", str(tmp_path / "out")]
    words += ["--label", "label"] if name == "finetune" else []
    held = {"bench": tmp_path / "bench.json"}.get(name, tmp_path / "out")
    if name == "evaluate":
        monkeypatch.setattr("thresher.inference.evaluate.evaluate", None)  # no work is done in vain
        held = tmp_path / "evaluation.json"
        words = ["--eval", f"{files}/train.tsv", "--json", str(held)]
    with sole_writer(held):
        code, said = at_once([*["python", "-m", "thresher"], name, f"{files}/base", *words])
        assert code == 2, said
        assert f"is being written by process {os.getpid()} on " in said
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_that_fails_leads_none_astray(tmp_path, monkeypatch):
    def full(self, *_):
        assert self._get_output_dir() == str(self.beside)
        raise OSError(errno.ENOSPC, "no room")

    monkeypatch.setattr(Trainer, "_save_checkpoint", full)
    monkeypatch.setattr(Trainer, "_get_output_dir", lambda self: self.args.output_dir)
    given = trainer.PruningTrainer.__new__(trainer.PruningTrainer)
    given.args, given.beside = SimpleNamespace(output_dir=str(tmp_path)), None
    given.state = SimpleNamespace(global_step=1, best_global_step=1)
    with pytest.raises(UserError, match="no room"):
        given._save_checkpoint()
    assert given._get_output_dir() == str(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_failure_leaves_the_older_model_and_whole_checkpoints(files, tmp_path, monkeypatch):
    """A disk that is full at the second checkpoint: what is there can be opened, and gone on with, by the
    same data and model only."""
    out, save, saves = tmp_path / "out", trainer.PruningTrainer._save_rng_state, []
    short = (
        "--budget",
        "0.6",
        "--soft-epochs",
        "0.1",
        "--hard-epochs",
        "0.3",
        "--no-saliency",
        "--evaluations",
        "2",
    )
    asked = command(files, out, *short)
    code, said = at_once(command(files, out, "--budget", "0.8", "--soft-epochs", "0", "--hard-epochs", "0"))
    assert code == 0, said
    before = {name: (out / name).read_bytes() for name in names(out)}

    def full(self, folder):
        saves.append(folder)
        if len(saves) == 2:
            raise OSError(28, "No space left on device")
        save(self, folder)

    monkeypatch.setattr(trainer.PruningTrainer, "_save_rng_state", full)
    code, said = at_once([*asked, "--force"])
    assert code == 2, said
    assert "No space left on device" in said
    assert {name: (out / name).read_bytes() for name in before} == before
    assert PrunedModel.from_pretrained(out).budgets == (0.8,)
    (checkpoint,) = (out / "checkpoints").glob("*checkpoint-*")
    assert last_checkpoint(out / "checkpoints") == checkpoint

    lines = (files / "train.tsv").read_text()
    (files / "train.tsv").write_text(lines.replace("good", "plot", 9))
    code, said = at_once([*asked, "--resume"])
    (files / "train.tsv").write_text(lines)
    assert code == 2, said
    assert "another content of the training texts" in said

    weights = checkpoint / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:1000])
    code, said = at_once([*asked, "--resume"])
    weights.write_bytes(whole)
    assert code == 2, said
    assert f"{checkpoint.name} is damaged" in said

    optimizer = (checkpoint / "optimizer.pt").rename(files / "optimizer.pt")
    code, said = at_once([*asked, "--resume"])
    optimizer.rename(checkpoint / "optimizer.pt")
    assert code == 2, said
    assert f"{checkpoint.name} is damaged (optimizer.pt is missing)" in said

    code, said = at_once([*asked, "--resume"])
    assert code == 0, said
    after = {name: (out / name).read_bytes() for name in names(out)}
    assert PrunedModel.from_pretrained(out).budgets == (0.6,)
    assert not any(name.startswith("checkpoints") for name in after)
    code, again = at_once([*asked, "--resume"])
    assert code == 0, again
    assert again.partition("Model and report")[0] == said.partition("Model and report")[0]  # the same table
    assert {name: (out / name).read_bytes() for name in names(out)} == after


def test_a_demo_that_another_run_writes(tmp_path, monkeypatch):
    monkeypatch.setattr("thresher.demo.run.encoder_folder", lambda: tmp_path)
    with sole_writer(tmp_path / "demo"):
        code, said = at_once(["python", "-m", "thresher", "demo", "--out", str(tmp_path / "demo")])
    assert code == 2, said
    assert "is being written by process" in said


@pytest.mark.parametrize("torn", [b"", b"\x93NUMPY", "half", "of other texts"])
def test_outputs_of_base_that_are_not_whole_are_computed_again(tmp_path, monkeypatch, torn):
    class Model:
        dense = nullcontext

    answers = np.ones((3, 2), np.float32)
    monkeypatch.setattr(
        "thresher.training.examples.predict", lambda *_, **__: SimpleNamespace(logits=answers)
    )
    rows = Dataset.from_dict({"input_ids": [[1], [2], [3, 4]]})
    base_outputs(Model(), None, rows, tmp_path / "base.npy")
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    if torn == "of other texts":
        np.save(file, np.zeros((2, 2), np.float32))
    else:
        file.write_bytes(whole[:-4] if torn == "half" else torn)
    assert (base_outputs(Model(), None, rows, tmp_path / "base.npy") == answers).all()
    assert file.read_bytes() == whole
    assert list(tmp_path.iterdir()) == [file]
