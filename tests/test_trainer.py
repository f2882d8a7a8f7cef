"""A PrunedModel under the plain transformers.Trainer: train, save, resume, evaluate."""

import pytest
import torch
from safetensors.torch import load_file
from transformers import Trainer, TrainerCallback, TrainingArguments

from thresher.plan import Soft

from .cases import build
from .tiny import random_inputs

STEPS, CUT = 6, 3


class Texts(torch.utils.data.Dataset):
    def __init__(self, model):
        inputs = random_inputs(model, [12, 3, 7, 9] * 6)
        self.columns = {**inputs, "labels": torch.arange(24) % 3}

    def __len__(self):
        return 24

    def __getitem__(self, i):
        return {name: values[i] for name, values in self.columns.items()}


class Stop(TrainerCallback):
    """Kills the run in mid-flight, after its checkpoint."""

    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop = state.global_step == CUT
        control.should_save = control.should_save or control.should_training_stop


def trainer(pruned, folder, callbacks=()):
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=STEPS,
        per_device_train_batch_size=4,
        learning_rate=1e-2,
        weight_decay=0.1,
        save_steps=CUT,
        logging_steps=1,
        report_to=[],
        use_cpu=True,
        seed=3,
        disable_tqdm=True,
    )
    return Trainer(
        pruned,
        arguments,
        train_dataset=Texts(pruned.model),
        eval_dataset=Texts(pruned.model),
        callbacks=list(callbacks),
    )


def fresh(family, pruner, soft):
    pruned = build(family, pruner, dtype=torch.float32).train()
    pruned.soft = Soft(0.5) if soft else None
    return pruned


@pytest.mark.parametrize(
    ("family", "pruner", "soft"),
    [
        ("bert", "threshold", True),
        ("bert", "threshold", False),
        ("modernbert", "topk", False),
        ("electra", "none", False),
    ],
)
def test_a_resumed_run_equals_the_run_left_alone(family, pruner, soft, tmp_path):
    """Dropout is on: the random state is part of it."""
    start = {name: tensor.clone() for name, tensor in fresh(family, pruner, soft).state_dict().items()}
    alone = fresh(family, pruner, soft)
    losses = [log["loss"] for log in losses_of(trainer(alone, tmp_path / "alone"))]

    cut = fresh(family, pruner, soft)
    trainer(cut, tmp_path / "cut", [Stop()]).train()
    assert any(
        not torch.equal(a, b)
        for a, b in zip(cut.state_dict().values(), alone.state_dict().values(), strict=True)
    )

    resumed = fresh(family, pruner, soft)
    again = trainer(resumed, tmp_path / "cut")
    assert [log["loss"] for log in losses_of(again, str(tmp_path / "cut" / f"checkpoint-{CUT}"))] == losses
    for name, tensor in alone.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name
        if name.endswith("query.weight"):
            assert not torch.equal(tensor, start[name])
    if pruner == "threshold":
        moved = (alone.pruner.table != start["pruner.table"])[0].tolist()
        # Behind the last layer's exact gate is only [CLS]: without a pull from the FLOPs it has no gradient.
        # In the hard stage nothing moves the thresholds, weight decay included.
        assert moved[:3] == [soft] * 3
        assert soft or not moved[3]

    metrics = again.evaluate()
    assert metrics["eval_loss"] > 0
    predictions = again.predict(Texts(resumed.model)).predictions
    assert predictions.shape == (24, 3)


def losses_of(trainer, checkpoint=None):
    trainer.train(resume_from_checkpoint=checkpoint)
    return [log for log in trainer.state.log_history if "loss" in log]


def test_checkpoint_files_hold_every_tensor(tmp_path):
    pruned = fresh("bert", "threshold", False)
    trainer(pruned, tmp_path).train()
    saved = load_file(tmp_path / f"checkpoint-{STEPS}" / "model.safetensors")
    assert saved.keys() == pruned.state_dict().keys()
