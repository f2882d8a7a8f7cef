"""Runs that are stopped: by Ctrl-C, by kill -9, by a loss that is no number."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from tests import toy
from thresher.cli import app
from thresher.training import recipes, trainer


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


def finish(arguments: list[str]) -> tuple[int, str]:
    process = start(arguments)
    said = process.communicate(timeout=240)[0]
    return process.returncode, " ".join(said.split())


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
    """Ctrl-C: exit code 130, with a checkpoint. Then kill -9. Then to the end, bit for bit."""
    code, said = finish(command(files, tmp_path / "whole"))
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
    assert "another seed: 42, now 7." in said

    before = {p.parent.name for p in out.glob("checkpoints/checkpoint-*/trainer_state.json")}
    process = start(command(files, out, "--resume"))
    for _ in range(2400):
        if process.poll() is not None or before != {
            p.parent.name for p in out.glob("checkpoints/checkpoint-*/*.json")
        }:
            break
        time.sleep(0.05)
    process.kill()
    process.communicate()
    code, said = finish(command(files, out, "--resume"))
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
    original, steps = trainer.distillation_loss, []

    def interrupted(*args):
        steps.append(1)
        if len(steps) == 24:
            signal.raise_signal(signal.SIGINT)
        return original(*args)

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "distillation_loss", interrupted)
        code, said = at_once(command(files, out := tmp_path / "stopped", *asked))
    assert code == 130, said
    code, said = at_once(command(files, out, *asked, "--resume"))
    assert code == 0, said
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

    for name, where in (("choose", recipes), ("distillation_loss", trainer)):
        with monkeypatch.context() as patch:
            patch.setattr(where, name, stop)
            again = ("--resume",) if where is trainer else ()
            if again:
                (tmp_path / "first").rename(tmp_path / "stopped")  # checkpoints are found where they are
            out = tmp_path / ("stopped" if again else "first")
            code, said = at_once(command(files, out, *asked, *again))
        assert code == (0 if again else 130), said
    whole, stopped = (load_file(folder / "model.safetensors") for folder in (tmp_path / "whole", out))
    for name, tensor in whole.items():
        assert torch.equal(tensor, stopped[name]), name


def test_a_loss_that_is_no_number_stops_with_the_last_checkpoint(files, tmp_path, monkeypatch):
    original, steps = trainer.distillation_loss, []

    def poisoned(*args):
        steps.append(1)
        return original(*args) * (math.nan if len(steps) == 30 else 1.0)

    monkeypatch.setattr(trainer, "distillation_loss", poisoned)
    code, said = at_once(command(files, tmp_path / "out"))
    assert code == 1, said
    assert "loss became nan at step 29" in said
    assert "Traceback" not in said
    assert not (tmp_path / "out" / "config.json").exists()
    checkpoint = trainer.last_checkpoint(tmp_path / "out" / "checkpoints")
    assert checkpoint is not None
    assert all(tensor.isfinite().all() for tensor in load_file(checkpoint / "model.safetensors").values())
