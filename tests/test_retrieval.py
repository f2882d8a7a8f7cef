"""Retrieval: embedders that search a whole corpus, against brute force."""

import json

import numpy as np
import pytest

from tests import toy
from tests.cli.calling import call
from tests.test_ranking import by_hand
from thresher import UserError
from thresher.data.beir import open_collection
from thresher.inference.load import open_model
from thresher.inference.predict import predict
from thresher.tasks.embedding import Embedding
from thresher.tasks.retrieval import Retrieval
from thresher.training.examples import Examples


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("retrieval")
    beir = toy.collection(folder / "beir", documents=150)
    toy.save_encoder(folder / "encoder", layers=2)
    code, said = call(
        *("prune", folder / "encoder", "--train", f"{beir}:train", "--eval", f"{beir}:dev", "--budget", 0.7),
        *("--soft-epochs", 2, "--hard-epochs", 2, "--out", folder / "pruned"),
    )
    assert code == 0, said
    return folder


def report(folder, name="report.json"):
    return json.loads((folder / name).read_text())


def test_figures_are_those_of_a_search_of_all_documents(world):
    code, said = call("evaluate", world / "pruned", "--eval", f"{world / 'beir'}:test", "--no-speed")
    assert code == 0, said
    found = report(world / "pruned", "evaluation.json")
    data = open_collection(f"{world / 'beir'}:test", "test")
    model, encoder, _ = open_model(world / "pruned")
    model.for_inference()
    said = predict(model, encoder, encoder.encode([*data.documents.values(), *data.queries.values()])).logits
    said = said.astype(np.float64) / np.linalg.norm(said, axis=1, keepdims=True)
    near = said[len(data.documents) :] @ said[: len(data.documents)].T
    gains = [[grades.get(key, 0) for key in data.documents] for grades in data.judged.values()]
    ndcg = [by_hand("ndcg@10", *pair) for pair in zip(near.round(6), gains, strict=True)]
    order = np.argsort(-near, axis=1)[:, :100]
    recall = [
        np.take(row, some).astype(bool).sum() / np.count_nonzero(row)
        for row, some in zip(gains, order, strict=True)
    ]
    wanted = {"ndcg@10": 100 * np.mean(ndcg), "recall@100": 100 * np.mean(recall)}
    assert found["quality"]["pruned"] == pytest.approx(wanted, abs=0.5)
    assert found["data"]["texts"] == len(said)
    assert 0.5 < found["flops_ratio"] < 0.85


def test_the_report_says_what_was_lost_over_queries(world):
    found = report(world / "pruned")
    assert (found["task"], found["metric"]) == ("retrieval", "ndcg@10")
    quality = {name: quality["ndcg@10"] for name, quality in found["quality"].items()}
    assert found["drop"] == pytest.approx(quality["base"] - quality["pruned"])
    low, high = found["drop_interval"]
    assert low <= found["drop"] <= high
    assert found["data"]["train_texts"] + found["data"]["held_out_texts"] < 150 + 48  # those of train alone


def test_draws_are_of_queries_and_cost_nothing():
    """As the figure computed anew for each draw would have it."""
    random, task = np.random.default_rng(0), Retrieval(())
    base, found = random.normal(size=(2, 40, 4))
    labels = [[] for _ in range(30)] + [[(float(i), 1.0), (float(29 - i), 2.0)] for i in range(10)]

    class Rows:
        column_names = ()

        def __len__(self):
            return 40

    examples = Examples(Rows(), labels, base=base, truths=labels)
    drop = examples.estimate_drop(task, found)
    draws = np.random.default_rng(0)
    lost = (task.values(base, labels) - task.values(found, labels))[30:]
    expected = [lost[draws.integers(10, size=10)].mean() for _ in range(500)]
    assert drop.points == pytest.approx(lost.mean())
    assert drop.interval == pytest.approx(tuple(np.percentile(expected, [2.5, 97.5])))
    assert drop.error == pytest.approx(np.std(expected))


def test_a_query_does_not_find_itself(tmp_path):
    (tmp_path / "qrels").mkdir()
    toy.write_jsonl(tmp_path / "corpus.jsonl", [{"_id": key, "text": key} for key in ("a", "b", "c")])
    toy.write_jsonl(tmp_path / "queries.jsonl", [{"_id": "a", "text": "a"}])
    (tmp_path / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\na\tc\t1\n")
    examples = Retrieval.load(str(tmp_path), [], None, "test")
    assert examples["text"][:] == ["a", "b", "c", "a"]
    vectors = np.array([[1.0, 0], [0, 1], [1, 0.1], [1, 0]])
    found = Retrieval(()).quality(vectors, Retrieval(()).encode_all(examples, "f"))
    assert found == pytest.approx({"ndcg@10": 100, "recall@100": 100})


def test_texts_to_learn_from_are_those_judged_and_the_queries(tmp_path):
    folder = toy.collection(tmp_path / "beir", documents=150)
    data = open_collection(f"{folder}:train", "train")
    judged = {key for grades in data.judged.values() for key in grades}
    for task in (Embedding, Retrieval):
        texts = task.load(str(folder), [], None, "train")["text"][:]
        assert sorted(texts) == sorted([*(data.documents[key] for key in judged), *data.queries.values()])


def test_calibration_and_vectors_of_another_width(world, tmp_path):
    code, said = call(
        *("calibrate", world / "encoder", "--data", f"{world / 'beir'}:train", "--max-change", "20%"),
        *("--out", tmp_path / "calibrated"),
    )
    assert code == 0, said
    code, said = call("evaluate", tmp_path / "calibrated", "--eval", world / "beir", "--no-speed")
    assert code == 0, said
    assert "ndcg@10" in report(tmp_path / "calibrated", "evaluation.json")["quality"]["pruned"]
    import torch

    with pytest.raises(UserError, match="The model's vectors have 4 numbers, and those of `teacher` have 6"):
        Embedding(()).distance(torch.zeros(2, 4), torch.zeros(2, 6))


@pytest.fixture
def pairs(tmp_path):
    """Two files of pairs with scores, and one without."""
    rows = [text for text, _ in toy.rows(120, seed=1)]
    lines = [f"{a}\t{b}\t{i % 5}.5" for i, (a, b) in enumerate(zip(rows[::2], rows[1::2], strict=True))]
    for name, some in (("train", lines[:40]), ("dev", lines[40:])):
        (tmp_path / f"{name}.tsv").write_text("\n".join(["one\tother\tscore", *some]) + "\n")
    bare = [line.rpartition("\t")[0] for line in lines[:40]]
    (tmp_path / "bare.tsv").write_text("\n".join(["one\tother", *bare]) + "\n")
    return tmp_path


LITTLE = ("--text", "one,other", "--label", "score", "--soft-epochs", 0.5, "--hard-epochs", 0.5)


def test_texts_to_learn_from_need_no_scores_where_others_are_measured(world, pairs):
    files = ("--train", pairs / "bare.tsv", "--held-out", pairs / "dev.tsv")
    code, said = call("prune", world / "encoder", *files, *LITTLE, "--out", pairs / "out")
    assert code == 0, said
    assert report(pairs / "out")["metric"] == "spearman"


def test_scores_of_pairs_do_not_judge_a_search(world, pairs):
    """Held-out texts are measured by agreement, and the report says so of the bound."""
    files = (
        "--train",
        pairs / "train.tsv",
        "--held-out",
        pairs / "dev.tsv",
        "--eval",
        f"{world / 'beir'}:dev",
    )
    code, said = call("prune", world / "encoder", *files, *LITTLE, "--max-drop", "9%", "--out", pairs / "out")
    assert code == 0, said
    found = report(pairs / "out")
    assert (found["metric"], found["max_drop"]["metric"]) == ("ndcg@10", "agreement")
    assert "points of agreement" in said
    assert "has 100.00 on the part" not in said
