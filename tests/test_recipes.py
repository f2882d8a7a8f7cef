"""Fine-tuning and pruning from files to a finished folder, on a toy model and a toy language."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from tests import toy
from tests.test_tables import training
from thresher import PrunedModel, PruningConfig, UserError
from thresher.inference.evaluate import evaluate
from thresher.pruners import unpruned
from thresher.show.tables import evaluation_table, training_table
from thresher.training import Data, Job, TrainingSettings, fit, texts, trainer
from thresher.training.budget import BudgetController
from thresher.training.examples import Examples
from thresher.training.recipes import finetune, prune
from thresher.training.settings import LADDER


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("files")
    return {
        "train": toy.write_tsv(folder / "train.tsv", 400),
        "eval": toy.write_tsv(folder / "eval.tsv", 100, seed=1),
        "encoder": toy.save_model(folder / "encoder"),
    }


def job(files: dict[str, Path], out: Path, model: Path | None = None, **changes: object) -> Job:
    settings = {"learning_rate": 2e-3, "batch_size": 16, "precision": "fp32", "evaluations": 3} | changes
    data = Data(str(files["train"]), ["text"], str(files["eval"]), "label")
    return Job(str(model or files["encoder"]), data, out, TrainingSettings(**settings))


@pytest.fixture(scope="module")
def base(files, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("base") / "base"
    report = finetune(job(files, out, hard_epochs=4.0))
    assert report.quality["dense"]["accuracy"] > 90  # the language can be learned
    return out


@pytest.fixture
def two_rungs(monkeypatch) -> None:
    """A ladder of two, where how many there are is not what is tested."""
    monkeypatch.setattr("thresher.training.settings.LADDER", (0.7, 0.5))


def test_finetuned_folder_is_plain_transformers(base):
    model = AutoModelForSequenceClassification.from_pretrained(base)
    assert model.config.label2id == {"neg": 0, "pos": 1}
    assert not (base / "checkpoints").exists()
    text = AutoTokenizer.from_pretrained(base)("the film was good", return_tensors="pt")
    assert model.config.id2label[int(model(**text).logits.argmax())] == "pos"


@pytest.mark.parametrize(
    ("pruner", "options"),
    [
        ("threshold", {}),
        ("threshold", {"gate": "paper"}),
        ("threshold", {"normalization": "paper"}),
        ("topk", {"dense_layers": 1}),
    ],
    ids=["exact", "paper-gate", "paper-normalization", "topk"],
)
def test_prune_to_a_budget(files, base, tmp_path, pruner, options):
    # The paper's scores are as much larger as texts are shorter than 128 tokens: so are the steps.
    rate = 0.3 if options.get("normalization") == "paper" else 0.02
    changes = {"budget": 0.5, "soft_epochs": 2.0, "threshold_learning_rate": rate}
    changes["saliency"] = "paper" not in options.values()  # the paper's forms know none
    report = prune(job(files, tmp_path / "out", base, **changes), PruningConfig(pruner, options))
    assert 0.42 <= report.flops_ratio <= 0.55
    # Training comes there by itself: what is fitted at the end is little.
    steered = {entry["stage"]: entry for entry in report.history if "stage" in entry}
    for stage in ("soft", "hard") if pruner == "threshold" else ("hard",):
        assert steered[stage]["target"] == 0.5
        assert steered[stage]["flops_ratio"] == pytest.approx(0.5, abs=0.06)
    assert report.quality["pruned"]["accuracy"] > report.quality["base"]["accuracy"] - 10
    assert {"config.json", "model.safetensors", "report.json", "training.png", "kept.png"} <= {
        file.name for file in (tmp_path / "out").iterdir()
    }
    written = json.loads((tmp_path / "out" / "report.json").read_text())
    assert written["settings"]["budget"] == 0.5
    assert {
        "settings",
        "versions",
        "quality",
        "flops_ratio",
        "kept_share",
        "speed",
        "seconds",
    } <= written.keys()
    again = evaluate(str(tmp_path / "out"), str(files["eval"]), [], "label", speed=False)
    assert again.quality["pruned"] == pytest.approx(report.quality["pruned"])
    assert again.quality["base"] == report.quality["base"]
    assert again.flops_ratio == pytest.approx(report.flops_ratio)


def test_without_labels_it_learns_base(files, base, tmp_path):
    unlabelled = job(files, tmp_path / "out", base, budget=0.5, soft_epochs=2.0)
    unlabelled.data.label = None
    report = prune(unlabelled, PruningConfig())
    assert report.metric == "agreement"
    assert report.quality["base"]["agreement"] == 100
    assert report.quality["pruned"]["agreement"] > 85


def test_free_baseline_needs_no_training(files, base, tmp_path):
    report = prune(
        job(files, tmp_path / "out", base, soft_epochs=0.0, hard_epochs=0.0),
        PruningConfig("none", prefix_only_at_end=True),
    )
    assert report.quality["pruned"] == report.quality["base"]
    assert report.flops_ratio < 0.95
    assert report.kept_tokens[-1] == 1


@pytest.mark.parametrize("kind", ["regression", "multi-label"])
def test_other_tasks(tmp_path, kind):
    texts = toy.rows(200)
    if kind == "regression":
        labels: list = [float(label == "pos") + 0.5 * ("bad" in text) for text, label in texts]
    else:
        labels = [[word for word in ("good", "bad") if word in text.split()] for text, _ in texts]
    records = [{"text": text, "target": label} for (text, _), label in zip(texts, labels, strict=True)]
    file = toy.write_jsonl(tmp_path / "train.jsonl", records)
    data = Data(str(file), ["text"], None, "target")
    settings = TrainingSettings(
        hard_epochs=2.0, budget=0.6, learning_rate=1e-3, batch_size=16, precision="fp32"
    )
    encoder = toy.save_model(tmp_path / "encoder")
    dense = finetune(Job(str(encoder), data, tmp_path / "base", settings))
    assert dense.task == kind
    report = prune(Job(str(tmp_path / "base"), data, tmp_path / "out", settings), PruningConfig())
    assert report.task == kind
    assert report.flops_ratio <= 0.7
    assert set(report.quality["pruned"]) == set(report.quality["base"])


@pytest.mark.parametrize("stage", ["soft", "hard"])
def test_each_stage_comes_to_the_budget_by_itself(files, base, tmp_path, monkeypatch, stage):
    """From thresholds that are far from it, with none fitted to it before or behind."""
    monkeypatch.setattr(fit, "fit_budget", lambda pruner, *_, **__: pruner.thresholds.fill_(0.3))
    changes = {"soft_epochs": 0.0, "hard_epochs": 0.0} | {f"{stage}_epochs": 3.0}
    report = prune(job(files, tmp_path / "out", base, budget=0.5, **changes), PruningConfig())
    ratios = [entry["flops_ratio"] for entry in report.history if "flops_ratio" in entry]
    assert ratios[0] > 0.6
    assert ratios[-1] == pytest.approx(0.5, abs=0.06)


def test_the_best_checkpoint_is_taken(files, base, tmp_path, monkeypatch):
    seen, evaluate = [], trainer.PruningTrainer.evaluate

    def watched(self, *args, **kwargs):
        seen.append(self.work.model.state_dict()["model.classifier.weight"].clone())
        return evaluate(self, *args, **kwargs)

    monkeypatch.setattr(trainer.PruningTrainer, "evaluate", watched)
    monkeypatch.setattr(BudgetController, "score", lambda self, quality, ratios, step: -abs(step - 16.0))
    prune(job(files, tmp_path / "out", base, soft_epochs=0.0, budget=0.5), PruningConfig())
    taken = PrunedModel.from_pretrained(tmp_path / "out").model.classifier.weight
    assert [torch.equal(taken, weight) for weight in seen] == [False, True, False]


def test_thresholds_stay_in_the_hard_stage_without_a_budget(files, base, tmp_path, monkeypatch):
    seen = []
    original = trainer.PruningTrainer.training_step

    def watch(self, model, *args, **kwargs):
        seen.append(model.pruner.thresholds.clone())
        return original(self, model, *args, **kwargs)

    monkeypatch.setattr(trainer.PruningTrainer, "training_step", watch)
    prune(job(files, tmp_path / "out", base, budget=None, regularizer=1.0), PruningConfig())
    hard = seen[len(seen) // 2 + 1 :]
    assert seen[0].max() == 0
    assert all(torch.equal(hard[0], thresholds) for thresholds in hard)
    assert hard[0].min() >= 0
    assert hard[0].max() > 0
    changes = {"budget": None, "regularizer": 1.0, "soft_epochs": 0.0, "hard_epochs": 0.2}
    report = prune(job(files, tmp_path / "other", base, **changes), PruningConfig())
    assert report.thresholds == [0.0] * len(hard[0])


def test_of_what_it_is_measured_on_the_model_knows_nothing_but_lengths(files, base, tmp_path):
    rows = [line.split("\t") for line in files["eval"].read_text().splitlines()[1:]]
    other = [f"{' '.join(['plot'] * len(text.split()))}\t{label}" for text, label in rows]
    (tmp_path / "other.tsv").write_text("\n".join(["text\tlabel", *other[::-1]]))
    for name, file in (("eval", files["eval"]), ("other", tmp_path / "other.tsv")):
        one = job(files, tmp_path / name, base, soft_epochs=0.5, hard_epochs=0.5, budget=0.6)
        one.data.eval = str(file)
        prune(one, PruningConfig())
    models = [load_file(tmp_path / name / "model.safetensors") for name in ("eval", "other")]
    assert all(torch.equal(tensor, models[1][name]) for name, tensor in models[0].items())


def test_a_budget_is_meant_for_texts_as_long_as_those_of_eval(files, base, tmp_path):
    lines = files["train"].read_text().splitlines()
    short, long = (
        [line for line in lines[1:] if (len(line.split()) < 12) == is_short] for is_short in (1, 0)
    )
    (tmp_path / "mixed.tsv").write_text("\n".join([lines[0], *short, *long[: len(short) // 3]]))
    (tmp_path / "long.tsv").write_text("\n".join([lines[0], *long]))
    ratios = {}
    for name in ("long.tsv", "mixed.tsv"):
        one = job(files, tmp_path / f"for-{name}", base, soft_epochs=1.0, hard_epochs=1.0, budget=0.5)
        one.data.train, one.data.eval = str(tmp_path / "mixed.tsv"), str(tmp_path / name)
        prune(one, PruningConfig())
        found = evaluate(
            str(tmp_path / f"for-{name}"), str(tmp_path / "long.tsv"), ["text"], "label", speed=False
        )
        ratios[name] = found.flops_ratio
    assert ratios["long.tsv"] == pytest.approx(0.5, abs=0.03)
    assert ratios["mixed.tsv"] < ratios["long.tsv"] - 0.02


def test_accumulation_and_bfloat16(files, base, tmp_path):
    report = prune(
        job(files, tmp_path / "out", base, batch_size=8, accumulation=2, precision="bf16", budget=0.6),
        PruningConfig(),
    )
    assert report.settings["computed_in"] == "bfloat16"
    assert report.history[-1]["step"] == 45
    assert report.flops_ratio == pytest.approx(0.6, abs=0.06)


def test_thresholds_have_a_group_of_their_own(files, base, tmp_path, monkeypatch):
    groups = []
    original = trainer.PruningTrainer.create_optimizer

    def watch(self, *args):
        optimizer = original(self, *args)
        groups[:] = [(len(g["params"]), g["lr"], g["weight_decay"]) for g in optimizer.param_groups]
        return optimizer

    monkeypatch.setattr(trainer.PruningTrainer, "create_optimizer", watch)
    prune(job(files, tmp_path / "out", base, soft_epochs=0.2, hard_epochs=0.2), PruningConfig())
    assert groups[-2:] == [(1, 0.02, 0.0), (1, 5e-4, 0.0)]  # thresholds, and scores
    assert sum(count for count, *_ in groups) == len(
        list(PrunedModel.from_pretrained(tmp_path / "out").parameters())
    )


@pytest.mark.parametrize("saliency", [True, False])
def test_scores_start_from_saliency(files, base, tmp_path, saliency):
    """With scores that do not learn, those that they start from are saved."""
    changes = {"soft_epochs": 0.2, "hard_epochs": 0.2, "score_learning_rate": 0.0, "saliency": saliency}
    prune(job(files, tmp_path / "out", base, budget=0.8, **changes), PruningConfig())
    weight = PrunedModel.from_pretrained(tmp_path / "out").pruner.weight
    assert (weight[:-1] != 0).any(1).all() == saliency
    assert (weight[-1] == 0).all()  # the last layer drops all it can


def test_thresholds_start_near_their_budgets(files, base, tmp_path, monkeypatch):
    """In all layers alike; without a budget they start from nothing dropped."""
    starts = []
    monkeypatch.setattr(
        trainer.PruningTrainer,
        "go_on",
        lambda self, _: starts.append(self.work.model.pruner.table.detach().clone()),
    )
    for budget in ([0.7, 0.45], 0.45, None):
        out = tmp_path / str(budget)
        prune(job(files, out, base, soft_epochs=1.0, hard_epochs=1.0, budget=budget), PruningConfig())
    ladder, alone, free = starts
    assert (free == 0).all()
    assert torch.equal(alone[0], ladder[1])
    assert (ladder == ladder[:, :1]).all()
    assert 0.2 < ladder[0, 0] < ladder[1, 0] < 5


def test_a_model_with_an_untrained_head_is_sent_to_finetune(files, tmp_path):
    model = AutoModelForSequenceClassification.from_pretrained(files["encoder"])
    model.bert.save_pretrained(tmp_path / "headless")
    toy.tokenizer().save_pretrained(tmp_path / "headless")
    with pytest.raises(UserError, match="thresher finetune"):
        prune(job(files, tmp_path / "out", tmp_path / "headless"), PruningConfig())
    assert not (tmp_path / "out").exists()


def test_a_ladder_is_trained_at_once_and_every_rung_keeps_its_budget(files, base, tmp_path, monkeypatch):
    out, original, fits = tmp_path / "out", fit.fit_budget, []

    def watched(pruner, measure, budget, **how):
        fits.append((budget, original(pruner, measure, budget, **how), pruner.dials(how["rung"]).tolist()))

    monkeypatch.setattr(fit, "fit_budget", watched)
    changes = {"soft_epochs": 2.0, "hard_epochs": 2.0, "budget": [0.7, 0.45]}
    report = prune(job(files, out, base, **changes), PruningConfig())
    assert [rung.budget for rung in report.ladder] == [0.7, 0.45]
    for rung, (budget, ratio, thresholds) in zip(report.ladder, fits[-2:], strict=True):
        assert abs(rung.flops_ratio - rung.budget) < 0.06
        assert budget - 0.02 < ratio <= budget == rung.budget
        assert rung.thresholds == pytest.approx(thresholds)
        assert rung.quality["accuracy"] > 80
        again = evaluate(str(out), str(files["eval"]), [], "label", budget=rung.budget, speed=False)
        assert again.flops_ratio == rung.flops_ratio
        assert again.quality["pruned"] == rung.quality
    assert report.flops_ratio == report.ladder[0].flops_ratio  # the first is in use
    assert PrunedModel.from_pretrained(out).budgets == (0.7, 0.45)
    with pytest.raises(UserError, match="holds no budget"):
        evaluate(str(out), str(files["eval"]), [], "label", budget=0.6, speed=False)
    with pytest.raises(UserError, match="'topk' holds one budget"):
        prune(job(files, tmp_path / "other", base, **changes), PruningConfig("topk"))


def test_a_drop_is_kept_where_harder_pruning_breaks_the_model(files, base, tmp_path, monkeypatch):
    """Made up: under 0.4 of the FLOPs all answers are wrong."""
    lives, narrow, right = [], BudgetController.narrow, Examples.predict

    def broken(self, *args, **how):
        found = right(self, *args, **how)
        return replace(found, logits=-found.logits) if (found.flops_ratio or 1) < 0.4 else found

    def watched(self, drops, bound):
        narrow(self, drops, bound)
        lives.append([self.budgets[rung] for rung in self.live])

    monkeypatch.setattr(Examples, "predict", broken)
    monkeypatch.setattr(BudgetController, "narrow", watched)
    asked = job(files, tmp_path / "out", base, soft_epochs=1.0, hard_epochs=3.0, max_drop=5.0, evaluations=6)
    choice = prune(asked, PruningConfig()).max_drop
    assert min(lives[-1]) < 0.4 < max(lives[-1])
    assert choice.clear
    assert 0.4 <= choice.flops_ratio < 0.5
    assert {point["drop"] > 50 for point in choice.tried if point["flops_ratio"] < 0.4} == {True}


def test_a_drop_is_asked_for_instead_of_a_budget(files, base, tmp_path, monkeypatch):
    out, lives, narrow = tmp_path / "out", [], BudgetController.narrow

    def watched(self, drops, bound):
        narrow(self, drops, bound)
        lives.append([self.budgets[rung] for rung in self.live])

    monkeypatch.setattr(BudgetController, "narrow", watched)
    report = prune(job(files, out, base, soft_epochs=2.0, hard_epochs=3.0, max_drop=5.0), PruningConfig())
    choice, first = report.max_drop, report.ladder[0]
    measured = [entry["eval_flops_ratio"] for entry in report.history if "eval_flops_ratio" in entry]
    assert len(lives[0]) > 2
    assert len(lives[-1]) == 2
    assert measured[-1] == pytest.approx(sum(lives[-1]) / 2, abs=0.03)
    assert choice.kept
    assert choice.clear
    assert choice.drop <= 5.0
    assert choice.interval[0] <= choice.drop <= choice.interval[1]
    assert choice.texts == report.data.held_out_texts
    assert report.flops_ratio == first.flops_ratio
    assert abs(first.flops_ratio - choice.flops_ratio) < 0.1
    assert first.flops_ratio < 0.7
    held = [rung.budget for rung in report.ladder[1:]]
    assert held == list(LADDER[: len(held)])  # but for those that this small model cannot reach
    assert len(held) >= 3
    saved = PrunedModel.from_pretrained(out)
    assert saved.budgets[0] == first.budget
    assert saved.pruner.thresholds.tolist() == first.thresholds
    assert "lost (95 %" in training_table(report).caption
    assert "not sure" not in training_table(report).caption
    unsure = replace(report, max_drop=replace(choice, clear=False))
    assert "not sure" in training_table(unsure).caption
    failed = replace(report, max_drop=replace(choice, kept=False))
    assert "cannot be kept" in training_table(failed).caption
    assert "`held_out`" in training_table(failed).caption
    failed = replace(failed, data=replace(report.data, held_out="valid.tsv"))
    assert "`held_out`" not in training_table(failed).caption


@pytest.mark.usefixtures("two_rungs")
@pytest.mark.parametrize("what", ["scores", "no labels"])
def test_a_drop_of_other_qualities(files, base, tmp_path, what):
    """Of Pearson's r, and of agreement with the model itself."""
    given = files
    if what == "scores":
        rows = [(text, 1.5 * (label == "pos") + 0.1 * len(text.split())) for text, label in toy.rows(400)]
        lines = ["text\tlabel", *(f"{text}\t{score:.2f}" for text, score in rows)]
        (tmp_path / "scores.tsv").write_text("\n".join(lines) + "\n")
        given = files | {"train": tmp_path / "scores.tsv", "eval": tmp_path / "scores.tsv"}
        base = tmp_path / "base"
        finetune(job(given, base, hard_epochs=3.0))
    asked = job(given, tmp_path / "out", base, soft_epochs=1.0, hard_epochs=1.0, max_drop=20.0)
    if what == "no labels":
        asked.data.label = None
    report = prune(asked, PruningConfig())
    choice = report.max_drop
    assert report.metric == ("pearson" if what == "scores" else "agreement")
    assert choice.kept
    assert choice.interval[0] <= choice.drop <= choice.interval[1]
    assert report.flops_ratio < 0.8
    main = report.metric
    assert report.drop == pytest.approx(report.quality["base"][main] - report.quality["pruned"][main])


def test_a_budget_is_meant_for_the_texts_that_are_named(files, base, tmp_path):
    """Train has short texts, and long ones, of which there are few, are in use."""
    rows = sorted(Path(files["train"]).read_text().splitlines()[1:], key=len)
    for name, some in (("short", rows[:350:2] + rows[350::4]), ("long", rows[1:350:8] + rows[351::2])):
        (tmp_path / f"{name}.tsv").write_text("\n".join(["text\tlabel", *some]) + "\n")
    given = files | {"train": tmp_path / "short.tsv"}
    changes = {"soft_epochs": 0.0, "hard_epochs": 0.0, "budget": 0.6}
    for eval_ in (None, str(tmp_path / "long.tsv")):
        asked = job(given, tmp_path / f"out-{eval_ is None}", base, **changes)
        asked.data.held_out, asked.data.eval = str(tmp_path / "long.tsv"), eval_
        report = prune(asked, PruningConfig(options={"score": "attention"}))
        assert report.flops_ratio == pytest.approx(0.6, abs=0.02)


def test_prune_trains_without_dropout_and_finetune_with(files, base, tmp_path, monkeypatch):
    seen = []
    original = trainer.PruningTrainer.compute_loss

    def watch(self, model, *args, **kwargs):
        rates = {m.p for m in model.modules() if isinstance(m, torch.nn.Dropout)}
        seen.append((max(rates), model.plan().dropout))
        return original(self, model, *args, **kwargs)

    monkeypatch.setattr(trainer.PruningTrainer, "compute_loss", watch)
    source = AutoModelForSequenceClassification.from_pretrained(base, hidden_dropout_prob=0.1)
    source.save_pretrained(tmp_path / "base")
    AutoTokenizer.from_pretrained(base).save_pretrained(tmp_path / "base")
    short = {"soft_epochs": 0.1, "hard_epochs": 0.1}
    for name, run, given, expected in (
        ("pruned", prune, {}, (0.0, False)),
        ("pruned-with", prune, {"dropout": True}, (0.1, True)),
        ("tuned", finetune, {}, (0.1, True)),
        ("tuned-without", finetune, {"dropout": False}, (0.0, False)),
    ):
        seen.clear()
        asked = job(files, tmp_path / name, tmp_path / "base", **short, **given)
        run(asked, PruningConfig()) if run is prune else run(asked)
        assert set(seen) == {expected}, name
    kept = AutoModelForSequenceClassification.from_pretrained(tmp_path / "pruned").config
    assert kept.hidden_dropout_prob == 0.1


def test_a_head_keeps_its_meaning(files, base, tmp_path):
    """Fine-tuned on, by next to nothing, from a model whose names are in another order."""
    turned = tmp_path / "turned"
    shutil.copytree(base, turned)
    config = json.loads((turned / "config.json").read_text())
    names = {str(1 - int(key)): name for key, name in config["id2label"].items()}
    config |= {"id2label": names, "label2id": {name: int(key) for key, name in names.items()}}
    (turned / "config.json").write_text(json.dumps(config))
    weights = load_file(turned / "model.safetensors")
    for name in ("classifier.weight", "classifier.bias"):
        weights[name] = weights[name].flip(0)
    save_file(weights, turned / "model.safetensors", metadata={"format": "pt"})
    asked = job(files, tmp_path / "out", turned, hard_epochs=0.04, learning_rate=1e-9)
    assert finetune(asked).quality["dense"]["accuracy"] > 90
    assert json.loads((tmp_path / "out" / "config.json").read_text())["id2label"] == names


def test_texts_that_are_learned_from_are_named(files, base, tmp_path, caplog):
    asked = job(files, tmp_path / "out", base, soft_epochs=0.0, hard_epochs=0.1)
    asked.data.eval = f"{files['train'].parent}/./train.tsv"
    prune(asked, PruningConfig("none", prefix_only_at_end=True))
    assert "learned from" in caplog.text
    asked.data.held_out = asked.data.eval
    asked.force = True
    with pytest.raises(UserError, match="is the file of `train`"):
        prune(asked, PruningConfig("none", prefix_only_at_end=True))


def test_what_was_there_is_left_until_there_is_something_new(files, base, tmp_path):
    asked = job(files, tmp_path / "out", base, soft_epochs=0.0, hard_epochs=0.0, budget=0.6)
    prune(asked, PruningConfig())
    before = {file.name: file.read_bytes() for file in asked.out.iterdir()}
    asked.settings.budget, asked.force = 0.01, True
    with pytest.raises(UserError, match="out of reach"):
        prune(asked, PruningConfig())
    assert {file.name: file.read_bytes() for file in asked.out.iterdir()} == before


def test_what_prunes_nothing_shows_no_stage_and_no_flops(files, base, tmp_path):
    report = prune(job(files, tmp_path / "out", base, hard_epochs=0.5), PruningConfig("none"))
    losses = [entry for entry in report.history if "loss" in entry]
    assert losses
    assert not any(entry.keys() & {"stage", "kept", "flops_ratio"} for entry in losses)


def test_finetune_knows_no_drop(files, tmp_path):
    report = finetune(job(files, tmp_path / "out", hard_epochs=0.1, max_drop=1.0))
    assert report.settings["max_drop"] is None


def test_the_last_token_stays_unless_a_suffix_is_given(files, base, tmp_path):
    for name, given, ends in (("auto", {}, (1, 1)), ("none", {"suffix": 0}, (1, 0))):
        asked = job(files, tmp_path / name, base, soft_epochs=0.0, hard_epochs=0.0, budget=0.6)
        prune(asked, PruningConfig(**given))
        assert PrunedModel.from_pretrained(tmp_path / name).pruning.ends == ends


def test_another_model_can_be_learned_from(files, base, tmp_path):
    """It stands in for the base model, also without labels, and is asked once."""
    student = toy.save_model(tmp_path / "student")
    asked = job(files, tmp_path / "out", student, soft_epochs=0.0, hard_epochs=4.0, distill_hidden=0.0)
    asked.data.label, asked.teacher = None, str(base)
    report = prune(asked, unpruned())
    assert report.quality["base"] == {"agreement": 100.0}
    assert report.quality["pruned"]["agreement"] > 85
    held_out = toy.write_tsv(tmp_path / "other.tsv", 100, seed=5)
    quality = {folder: evaluate_dense(folder, held_out) for folder in (base, tmp_path / "out")}
    assert quality[tmp_path / "out"] > 85 < quality[base]


def evaluate_dense(folder, file):
    """Accuracy of a transformers folder on a file."""
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    texts, labels = zip(*(line.split("\t") for line in file.read_text().splitlines()[1:]), strict=True)
    batch = AutoTokenizer.from_pretrained(folder)(list(texts), padding=True, return_tensors="pt")
    with torch.inference_mode():
        found = model(**batch).logits.argmax(1).tolist()
    right = [model.config.id2label[id_] == label for id_, label in zip(found, labels, strict=True)]
    return 100 * sum(right) / len(right)


@pytest.mark.parametrize("named", [False, True])
def test_few_rows_tell_nothing_of_a_drop(files, base, tmp_path, named):
    rows = Path(files["train"]).read_text().splitlines()[: 15 if named else 100]
    (tmp_path / "few.tsv").write_text("\n".join(rows) + "\n")
    asked = job(files, tmp_path / "out", base, max_drop=1.0)
    setattr(asked.data, "held_out" if named else "train", str(tmp_path / "few.tsv"))
    with pytest.raises(UserError, match=rf"few.tsv has {14 if named else 99} rows: too few to tell"):
        prune(asked, PruningConfig())


@pytest.mark.usefixtures("two_rungs")
def test_what_is_chosen_on_can_be_named(files, base, tmp_path):
    asked = job(files, tmp_path / "out", base, soft_epochs=0.0, hard_epochs=0.1, max_drop=5.0)
    asked.data.held_out = str(toy.write_tsv(tmp_path / "valid.tsv", 60, seed=2))
    report = prune(asked, PruningConfig())
    assert report.data.train_texts == 400
    assert report.data.held_out_texts == report.max_drop.texts == 60
    asked.data.eval, asked.force = None, True
    report = prune(asked, PruningConfig())
    assert report.data.eval_texts == 60
    assert PrunedModel.from_pretrained(asked.out).metadata["base_measured_on"] == "valid.tsv"
    assert (
        report.quality["pruned"]
        == evaluate(str(asked.out), str(asked.data.held_out), [], "label", speed=False).quality["pruned"]
    )


@pytest.mark.usefixtures("two_rungs")
@pytest.mark.parametrize(("tokens", "measured"), [(0, 25), (150, 30)])
def test_a_drop_is_measured_on_more_texts_where_they_are_short(
    files, base, tmp_path, monkeypatch, tokens, measured
):
    monkeypatch.setattr(texts, "MEASURED", 25)
    monkeypatch.setattr(texts, "MEASURED_TOKENS", tokens)
    asked = job(files, tmp_path / "out", base, soft_epochs=0.0, hard_epochs=0.1, max_drop=5.0)
    asked.data.held_out = str(toy.write_tsv(tmp_path / "valid.tsv", 60, seed=2))
    asked.max_length = 5  # so all have as many tokens
    report = prune(asked, PruningConfig())
    assert report.max_drop.texts == measured
    assert report.data.truncated == 400 + 100 + measured  # the look at how long they are does not count


def test_quality_is_what_is_asked_for(files, base, tmp_path):
    asked = job(
        files, tmp_path / "out", base, soft_epochs=0.0, hard_epochs=0.1, metric="macro_f1", budget=0.6
    )
    report = prune(asked, PruningConfig())
    assert report.metric == "macro_f1"
    assert report.drop == report.quality["base"]["macro_f1"] - report.quality["pruned"]["macro_f1"]
    found = evaluate(str(asked.out), files["eval"], [], "label", speed=False)
    assert list(found.quality["pruned"]) == ["macro_f1", "accuracy"]
    assert ": macro_f1 on 100 texts" in evaluation_table(found).title
    asked.data.label, asked.force = None, True
    with pytest.raises(UserError, match="A metric needs labels"):
        prune(asked, PruningConfig())
    dense = finetune(job(files, tmp_path / "dense", hard_epochs=0.1, metric="macro_f1"))
    assert dense.metric == "macro_f1"


@pytest.mark.usefixtures("two_rungs")
def test_a_rare_class_may_tell_nothing_of_a_drop(files, base, tmp_path):
    """Held out are 40 of 400; one that is rare counts for more than the bound."""
    header, *rows = Path(files["train"]).read_text().splitlines()
    negative = [row for row in rows if row.endswith("neg")]
    positive = [row for row in rows if row.endswith("pos")]
    (tmp_path / "rare.tsv").write_text("\n".join([header, *negative[:40], *(positive * 2)[:360]]) + "\n")
    for metric in ("macro_f1", "accuracy"):
        asked = job(
            files, tmp_path / metric, base, soft_epochs=0.0, hard_epochs=0.1, max_drop=5.0, metric=metric
        )
        asked.data.train = str(tmp_path / "rare.tsv")
        if metric == "accuracy":
            prune(asked, PruningConfig())
        else:
            with pytest.raises(
                UserError, match=r"rare\.tsv: of the rarest class, too few texts are held out"
            ):
                prune(asked, PruningConfig())


def test_what_is_learned_from_is_not_chosen_on(files, base, tmp_path):
    asked = job(files, tmp_path / "out", base)
    asked.data.held_out = asked.data.train
    with pytest.raises(UserError, match="the file of `train`"):
        prune(asked, PruningConfig())
    data = replace(training().data, eval="a.tsv", held_out="a.tsv")
    assert "which also chose" in training_table(training(data=data)).title


@pytest.mark.usefixtures("two_rungs")
@pytest.mark.parametrize("named", [False, True])
def test_texts_that_base_may_have_seen_are_warned_of(files, base, tmp_path, caplog, named):
    rows = Path(files["eval"]).read_text().replace("neg", "NEG").replace("pos", "neg").replace("NEG", "pos")
    (tmp_path / "wrong.tsv").write_text(rows)  # of which base knows nothing
    asked = job(files, tmp_path / "out", base, soft_epochs=0.0, hard_epochs=0.1, max_drop=5.0)
    asked.data.eval = str(tmp_path / "wrong.tsv")
    right = toy.write_tsv(tmp_path / "right.tsv", 400)  # as train
    asked.data.held_out = str(right) if named else None
    prune(asked, PruningConfig())
    assert ("name others in `held_out`" in caplog.text) != named


def test_budgets_are_named_in_one_place(files, base, tmp_path):
    with pytest.raises(UserError, match="in `budget`"):
        prune(job(files, tmp_path / "out", base, budget=0.6), PruningConfig(options={"budgets": [0.5]}))
