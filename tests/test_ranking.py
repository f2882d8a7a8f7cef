"""Reranking: folders in BEIR's layout, tables, figures, and from files to a pruned cross-encoder."""

import gzip
import json
import math
import random
import re
import signal
import sys
from itertools import groupby

import datasets
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from sentence_transformers import CrossEncoder
from torch import nn
from transformers import BertConfig

from tests import toy
from tests.cli.calling import call
from thresher import UserError
from thresher.bench.run import bench
from thresher.data.beir import is_collection, open_collection
from thresher.data.candidates import FEW, Bm25, pairs_of, to_learn, to_rank
from thresher.inputs.rows import first_rows, whole_texts
from thresher.inputs.text import TextEncoder
from thresher.tasks import task_of
from thresher.tasks.ranking import Ranking
from thresher.tasks.regression import Regression
from thresher.training import Data, Job, TrainingSettings, trainer
from thresher.training.examples import Collator, Examples
from thresher.training.sampler import TextSampler
from thresher.training.texts import load_texts, split

TASK = Ranking(("relevance",))


# Figures ---------------------------------------------------------------------------------------------------


def by_hand(metric, scores, grades, missed=()):
    """From the definitions, of the worst order among equal scores."""
    order = sorted(range(len(scores)), key=lambda i: (-scores[i], grades[i]))
    gains = [max(0, grades[i]) for i in order]
    if metric == "mrr@10":
        return next((1 / (i + 1) for i, gain in enumerate(gains[:10]) if gain > 0), 0.0)
    ideal = sorted((grade for grade in [*grades, *missed] if grade > 0), reverse=True)
    best = sum(gain / math.log2(i + 2) for i, gain in enumerate(ideal[:10]))
    return sum(gain / math.log2(i + 2) for i, gain in enumerate(gains[:10])) / best


def as_texts(parts):
    logits = np.empty(len(parts), dtype=object)
    for i, part in enumerate(parts):
        logits[i] = np.asarray(part, dtype=np.float32).reshape(-1, 1)
    return logits


query = st.lists(st.tuples(st.integers(-3, 3), st.integers(-1, 3)), min_size=1, max_size=14)


@given(st.lists(st.tuples(query, st.lists(st.integers(0, 2), max_size=2)), min_size=1, max_size=5))
def test_figures_are_their_definitions(queries):
    logits = as_texts([[score for score, _ in some] for some, _ in queries])
    labels = [[grade for _, grade in some] + missed for some, missed in queries]
    times = np.arange(1, len(queries) + 1)
    for metric in TASK.metrics:
        values = [
            100 * by_hand(metric, *zip(*some, strict=True), missed) if max(label) > 0 else None
            for (some, missed), label in zip(queries, labels, strict=True)
        ]
        counted = [value for value in values if value is not None]
        weighed = [
            value for value, n in zip(values, times, strict=True) if value is not None for _ in range(n)
        ]
        task = TASK.measured_by(metric)
        assert task.quality(logits, labels)[metric] == pytest.approx(np.mean(counted or [0]))
        assert task.main_quality(logits, labels, times) == pytest.approx(np.mean(weighed or [0]))
        assert np.nan_to_num(task.values(logits, labels), nan=-1) == pytest.approx(
            [-1 if value is None else value for value in values]
        )


def test_equal_scores_gain_nothing():
    """Whatever the order of the file."""
    assert TASK.main_quality(as_texts([[0.0] * 20]), [[1.0] + [0.0] * 19]) == 0
    assert TASK.main_quality(as_texts([[0.0, 0.0]]), [[2.0, 1.0]]) < 100


def test_agreement_looks_at_the_top():
    base = as_texts([np.arange(20), [3, 1]])
    tail, top = base.copy(), base.copy()
    tail[0], top[0] = base[0].copy(), base[0].copy()
    tail[0][:2] = tail[0][1::-1]
    top[0][-2:] = top[0][:-3:-1]
    assert TASK.agreement(tail, base) == 100 > TASK.agreement(top, base) == pytest.approx(95)
    assert TASK.agreement(top, base, np.array([1.0, 3.0])) == pytest.approx(97.5)


# Folders in BEIR's layout ----------------------------------------------------------------------------------


def test_a_folder_is_read_with_its_titles(tmp_path):
    folder = toy.collection(tmp_path / "beir")
    assert is_collection(str(folder))
    assert is_collection(f"{folder}:dev")
    assert not any(map(is_collection, [str(tmp_path), "imdb:train", str(folder / "queries.jsonl"), None]))
    found = open_collection(str(folder), "train")
    first = json.loads(gzip.decompress((folder / "corpus.jsonl.gz").read_bytes()).split(b"\n")[0])
    assert found.documents["d0"] == f"{first['title']} {first['text']}"
    assert len(found.documents) == 90
    assert list(found.queries) == list(found.judged) == list(found.lines)
    assert (
        open_collection(str(folder), "validation").judged == open_collection(f"{folder}:dev", "test").judged
    )
    (folder / "qrels" / "test.tsv").unlink()
    assert open_collection(str(folder), "test").file.name == "dev.tsv"


DOCUMENT, QUERY = '{"_id": "d", "title": "t", "text": "x"}', '{"_id": "q", "text": "x"}'
HEAD = "query-id\tcorpus-id\tscore\n"
BROKEN = {
    "no corpus": ({"corpus.jsonl": None}, "there is no corpus.jsonl"),
    "no queries": ({"queries.jsonl": None}, "there is no queries.jsonl"),
    "no split": ({"qrels/test.tsv": None}, "there is no qrels/test.tsv; name one of the splits train, as"),
    "no judgements": ({"qrels/test.tsv": None, "qrels/train.tsv": None}, "holds no file of judgements"),
    "document twice": (
        {"corpus.jsonl": f"{DOCUMENT}\n{DOCUMENT}"},
        "corpus.jsonl:2: the document of line 1 has",
    ),
    "query twice": (
        {"queries.jsonl": f"{QUERY}\n\n{QUERY}"},
        "queries.jsonl:3: the query of line 1 has the _id 'q'",
    ),
    "no id": ({"corpus.jsonl": '{"_id": "", "text": "x"}'}, "corpus.jsonl:1: column '_id' is empty"),
    "no text": (
        {"queries.jsonl": '{"_id": "q", "text": null}'},
        "queries.jsonl:1: column 'text' has no text",
    ),
    "title": (
        {"corpus.jsonl": '{"_id": "d", "text": "x", "title": []}'},
        "corpus.jsonl:1: column 'title' is a",
    ),
    "unknown query": (
        {"qrels/test.tsv": HEAD + "q\td\t1\nqq\td\t1"},
        "test.tsv:3: 'qq' is not in queries.jsonl",
    ),
    "unknown document": ({"qrels/test.tsv": HEAD + "q\tdd\t1"}, "test.tsv:2: 'dd' is not in corpus.jsonl"),
    "score": ({"qrels/test.tsv": HEAD + "q\td\tyes"}, "test.tsv:2: the score is 'yes'; write a number"),
    "nan": ({"qrels/test.tsv": HEAD + "q\td\tnan"}, "test.tsv:2: the score is 'nan'"),
    "judged twice": (
        {"qrels/test.tsv": HEAD + "q\td\t1\nq\td\t0"},
        "test.tsv:3: 'd' is judged twice for 'q'",
    ),
    "no header": ({"qrels/test.tsv": "q\td\t1"}, "test.tsv: no column 'query-id'"),
    "empty": ({"qrels/test.tsv": HEAD}, "test.tsv: the file has no rows"),
    "nothing": ({"qrels/test.tsv": HEAD + "q\td\t0"}, "test.tsv: no document is relevant to any query"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_folders_are_told_by_line(tmp_path, kind):
    files = {"corpus.jsonl": DOCUMENT, "queries.jsonl": QUERY} | {
        f"qrels/{split}.tsv": HEAD + "q\td\t1" for split in ("train", "test")
    }
    changes, message = BROKEN[kind]
    (tmp_path / "qrels").mkdir()
    for name, content in (files | changes).items():
        if content is not None:
            (tmp_path / name).write_text(content + "\n")
    with pytest.raises(UserError, match=re.escape(message)):
        open_collection(f"{tmp_path}:test", "test")


def test_candidates_are_the_best_of_bm25(tmp_path, caplog):
    found = open_collection(f"{toy.collection(tmp_path / 'beir')}:test", "test")
    ranked, best = (
        to_rank(found, 5),
        Bm25(list(found.documents.values())).best(list(found.queries.values()), 5),
    )
    texts = list(found.documents.values())
    assert ranked["passages"][:] == [[texts[place] for place in places] for places in best]
    missed = 0
    for key, passages, label in zip(found.queries, ranked["passages"], ranked["label"], strict=True):
        grades = {found.documents[doc]: grade for doc, grade in found.judged[key].items()}
        assert label[:5] == [grades.get(passage, 0.0) for passage in passages]
        assert sorted(filter(None, label)) == sorted(grades.values())
        missed += not any(label[:5])
    assert f"of 10 queries, {missed} have no relevant document among the 5 best" in caplog.text


def test_queries_without_a_hit_are_not_left_out():
    index = Bm25(["good film", "bad plot", "film film"])
    assert [places.tolist() for places in index.best(["film", "music", "", "plot bad"], 9)] == [
        [2, 0],
        [],
        [],
        [1],
    ]
    assert [places.tolist() for places in Bm25(["", " "]).best(["film"], 3)] == [[]]


def test_training_has_what_is_relevant_and_a_few_others(tmp_path):
    found = open_collection(str(toy.collection(tmp_path / "beir")), "train")
    one, again, other = (to_learn(found, seed) for seed in (0, 0, 1))
    assert one["passages"][:] == again["passages"][:] != other["passages"][:]
    texts, far = list(found.documents.values()), 0
    for key, passages, label in zip(found.queries, one["passages"], one["label"], strict=True):
        relevant = [found.documents[doc] for doc in found.judged[key]]
        assert passages[: len(relevant)] == relevant
        assert label == [*found.judged[key].values(), *[0.0] * 7]
        assert len(passages) == len({*passages}) == len(label)
        hits = [texts[place] for place in Bm25(texts).best([found.queries[key]], 100)[0]]
        near = [text for text in hits if text not in relevant]
        hard, rest = passages[len(relevant) :][:2], passages[len(relevant) + 2 :][:2]
        assert {*hard} <= {*near[:4]}
        assert {*rest} <= {*near[4:]}
        far += len({*passages} - {*hits}) > 0
    assert far > len(found.queries) / 2  # documents without a word of the query, too


def test_without_bm25s_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "bm25s", None)
    with pytest.raises(UserError, match=r"pip install 'thresher\[retrieval\]'"):
        Bm25(["film"])


# Tables ----------------------------------------------------------------------------------------------------


def test_rows_of_a_query_belong_together_wherever_they_stand(tmp_path):
    rows = [("b", "1", 0), ("a", "2", 1), ("b", "3", 2), ("c", "4", 0), ("a", "5", 0)]
    (tmp_path / "t.tsv").write_text("q\tp\ty\n" + "".join("\t".join(map(str, row)) + "\n" for row in rows))
    found = Ranking.load(str(tmp_path / "t.tsv"), ["q", "p"], "y", "train")
    assert found["text"][:] == ["b", "a", "c"]
    assert found["passages"][:] == [["1", "3"], ["2", "5"], ["4"]]
    assert found["label"][:] == [[0, 2], [1, 0], [0]]
    assert found["line"][:] == [2, 3, 5]
    assert pairs_of(found)["text_pair"][:] == ["1", "3", "2", "5", "4"]
    (tmp_path / "t.tsv").write_text("q\tp\ty\na\t1\t0\na\t2\tgood\n")
    with pytest.raises(UserError, match=r"t\.tsv:3: label 'good' is no grade"):
        Ranking.load(str(tmp_path / "t.tsv"), ["q", "p"], "y", "train")
    with pytest.raises(UserError, match="name two columns in `text`, of the query and of the passage"):
        Ranking.load(str(tmp_path / "t.tsv"), ["q"], "y", "train")


def test_parts_of_the_data_keep_queries_whole():
    draw = random.Random(0)
    texts = [" ".join(draw.choices(toy.FILLER, k=3)) for _ in range(50)]
    passages = [[" ".join(draw.choices(toy.FILLER, k=9)) for _ in range(draw.randint(1, 4))] for _ in texts]
    labels = [[float(draw.random() < 0.4) for _ in some] for some in passages]
    data = datasets.Dataset.from_dict({"text": texts, "passages": passages})
    encoder = TextEncoder(toy.tokenizer(), 64)
    examples = Examples.of(TASK, encoder.encode_examples(data), labels)
    assert (examples.texts, len(examples)) == (50, sum(map(len, passages)))
    some = examples.select([7, 27, 3])  # 7 and 27 have the same place among those encoded together
    assert some.truths == [labels[7], labels[27], labels[3]]
    assert some.labels == [*labels[7], *labels[27], *labels[3]]
    ids = encoder.encode([texts[27]] * len(passages[27]), passages[27])["input_ids"]
    assert some.rows["input_ids"][len(passages[7]) :][: len(ids)] == ids
    assert len(whole_texts(np.zeros((len(some), 1)), some.rows)) == 3


@pytest.mark.parametrize("batch", [1, 5, 32, 1000])
def test_batches_tell_which_passages_are_of_one_query(batch):
    passages = [[f"{letter} good"] * (1 + i % 4) for i, letter in enumerate("abcdefghij" * 5)]
    labels = [[float(i)] * len(some) for i, some in enumerate(passages)]
    data = datasets.Dataset.from_dict({"text": ["film"] * 50, "passages": passages})
    encoder = TextEncoder(toy.tokenizer(), 64)
    examples = Examples.of(TASK, encoder.encode_examples(data), labels)
    rows, collate = examples.table(), Collator(encoder, TASK)
    order = list(TextSampler(first_rows(rows), len(rows), seed=3))
    for start in range(0, len(order), batch):
        found = collate([rows[i] for i in order[start : start + batch]])
        assert len(found["counts"]) == len({*found["labels"].tolist()})
        parts = found["labels"].split(found["counts"].tolist())
        assert all(len({*part.tolist()}) == 1 for part in parts)


def test_the_passages_of_a_query_follow_each_other_in_an_order_of_each_epoch():
    sizes = np.array([8] * 40 + [1, 17, 100])
    starts, rows = np.cumsum(sizes) - sizes, int(sizes.sum())
    query_of, sampler = np.repeat(np.arange(len(sizes)), sizes), TextSampler(starts, rows, seed=3)
    orders = []
    for epoch in (0, 1):
        sampler.set_epoch(epoch)
        orders.append(order := list(sampler))
        assert order == list(sampler)
        assert sorted(order) == list(range(rows)) == list(range(len(sampler)))
        queries, lengths = zip(*((key, len([*some])) for key, some in groupby(query_of[order])), strict=True)
        whole = [key for key, length in zip(queries, lengths, strict=True) if length == 8 and key < 40]
        assert sorted(whole) == list(range(40))
        assert len(queries) > 43  # the longest are parted
        assert [*queries] != sorted(queries)
        firsts = {order.index(start) - min(order.index(start + i) for i in range(8)) for start in starts[:40]}
        assert len(firsts) > 4  # what comes first in the data does not in a batch
    assert orders[0] != orders[1] != list(TextSampler(starts, rows, seed=4))


@given(st.lists(query, min_size=1, max_size=5))
def test_the_loss_is_that_of_pairs_and_that_of_lists(queries):
    scores, grades = (np.array([pair[i] for some in queries for pair in some], float) for i in (0, 1))
    pairs = np.log1p(np.exp(np.where(grades > 0, -scores, scores)))
    lists = []
    for some in queries:
        gains, all_of = [max(0, grade) for _, grade in some], sum(math.exp(score) for score, _ in some)
        if len(some) > 1 and sum(gains) > 0:
            parts = [gain * math.log(math.exp(some[i][0]) / all_of) for i, gain in enumerate(gains)]
            lists.append(-sum(parts) / sum(gains) * len(some))
    counts = torch.tensor([len(some) for some in queries])
    found = TASK.loss(torch.tensor(scores)[:, None], torch.tensor(grades), counts)
    assert float(found) == pytest.approx(pairs.mean() + sum(lists) / len(scores), abs=1e-9)


# From files to a pruned reranker ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranking")
    beir = toy.collection(folder / "beir")
    toy.save_encoder(folder / "encoder", layers=2)
    code, said = call(
        *("finetune", folder / "encoder", "--train", f"{beir}:train", "--eval", f"{beir}:dev"),
        *("--epochs", 6, "--learning-rate", 3e-3, "--out", folder / "base"),
    )
    assert code == 0, said
    code, said = call(
        *("prune", folder / "base", "--train", f"{beir}:train", "--eval", f"{beir}:dev", "--budget", 0.7),
        *("--out", folder / "pruned"),
    )
    assert code == 0, said
    found = to_rank(open_collection(f"{beir}:test", "test"))
    lines = ["query\tpassage\trelevance"]
    for text, passages, label in zip(found["text"], found["passages"], found["label"], strict=True):
        lines += [f"{text}\t{p}\t{y:g}" for p, y in zip(passages, label, strict=False)]
    random.Random(0).shuffle(rest := lines[1:])
    (folder / "test.tsv").write_text("\n".join([lines[0], *rest]) + "\n")
    return folder


COLUMNS = ("--text", "query", "--text", "passage")


def report(folder, name="report.json"):
    return json.loads((folder / name).read_text())


def test_it_learns_to_rank_without_a_word_on_columns(world):
    found = report(world / "base")
    assert (found["task"], found["metric"]) == ("ranking", "ndcg@10")
    assert list(found["quality"]["dense"]) == ["ndcg@10", "mrr@10"]
    assert found["quality"]["dense"]["ndcg@10"] > 40
    assert json.loads((world / "base" / "config.json").read_text())["id2label"] == {"0": "relevance"}
    pruned = report(world / "pruned")
    assert pruned["quality"]["base"] == found["quality"]["dense"]
    low, high = pruned["drop_interval"]
    assert low <= pruned["drop"] <= high
    assert 50 < pruned["agreement"] <= 100


def test_a_run_that_is_gone_on_with_has_the_same_order(world, monkeypatch):
    asked = ["finetune", world / "encoder", "--train", f"{world / 'beir'}:train", "--epochs", 2, "--out"]
    trimmed = []
    monkeypatch.setattr(trainer, "trim", lambda: trimmed.append(1))
    code, said = call(*asked, whole := world / "whole")
    assert code == 0, said
    assert trimmed  # while at it, freed memory goes back
    original, steps = Ranking.loss, []

    def interrupted(task, logits, labels, counts):
        steps.append(1)
        assert len(counts) <= max(3, len(logits) / 4)  # most passages are compared with others
        if len(steps) == 15:  # in the second epoch
            signal.raise_signal(signal.SIGINT)
        return original(task, logits, labels, counts)

    with monkeypatch.context() as patch:
        patch.setattr(Ranking, "loss", interrupted)
        code, said = call(*asked, stopped := world / "stopped")
    assert code == 130, said
    code, said = call(*asked, stopped, "--resume")
    assert code == 0, said
    one, other = (load_file(folder / "model.safetensors") for folder in (whole, stopped))
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_a_folder_and_its_table_give_the_same_figures(world):
    for source, options in (
        (f"{world / 'beir'}:test", ()),
        (world / "test.tsv", (*COLUMNS, "--label", "relevance")),
    ):
        code, said = call(
            *("evaluate", world / "pruned", "--eval", source, *options),
            *("--json", world / f"{len(options)}.json"),
        )
        assert code == 0, said
        assert "A query with 100 passages takes" in said
    one, other = (report(world, f"{n}.json")["quality"]["pruned"] for n in (0, 6))
    assert one["mrr@10"] == pytest.approx(other["mrr@10"])
    assert 0 < one["ndcg@10"] <= other["ndcg@10"] + 1e-9  # of which the best order lacks what BM25 missed
    speed = report(world, "0.json")["speed"]["thresher"]
    assert speed["query_ms"] == pytest.approx(1e5 / speed["with_tokenizing"])


def test_cross_encoder_gives_the_scores_of_predict(world, tmp_path):
    call(
        "predict",
        world / "pruned",
        "--input",
        world / "test.tsv",
        *COLUMNS,
        "--output",
        tmp_path / "said.jsonl",
    )
    rows = [json.loads(line) for line in (tmp_path / "said.jsonl").read_text().splitlines()]
    pairs = [(row["query"], row["passage"]) for row in rows]
    theirs = CrossEncoder(str(world / "pruned"), trust_remote_code=True, device="cpu")
    theirs.activation_fn = nn.Identity()
    assert theirs.predict(pairs) == pytest.approx([row["prediction"] for row in rows], abs=1e-5)
    dense = CrossEncoder(str(world / "base"), device="cpu")
    query = pairs[0][0]
    passages = [passage for text, passage in pairs if text == query]
    assert len(dense.rank(query, passages)) == len(passages)


def test_a_cross_encoder_of_others_ranks_by_its_data_or_metric(world, tmp_path):
    toy.save_model(tmp_path / "theirs", names=("LABEL_0",))
    files = [
        "--train",
        world / "test.tsv",
        *COLUMNS,
        "--budget",
        0.8,
        "--soft-epochs",
        0.1,
        "--hard-epochs",
        0.1,
    ]
    files += ["--label", "relevance"]
    for name, metric in {"by metric": ["--metric", "mrr@10"], "as a score": []}.items():
        code, said = call("prune", tmp_path / "theirs", *files, *metric, "--out", tmp_path / name)
        assert code == 0, said
        assert report(tmp_path / name)["task"] == ("ranking" if metric else "regression")
    for name, source in {"by metric": world / "test.tsv", "as a score": world / "beir"}.items():
        columns = [] if source.is_dir() else [*COLUMNS, "--label", "relevance"]
        code, said = call("evaluate", tmp_path / name, "--eval", source, *columns, "--no-speed")
        assert code == 0, said
        main = next(iter(report(tmp_path / name, "evaluation.json")["quality"]["pruned"]))
        assert main == ("mrr@10" if name == "by metric" else "ndcg@10")


def test_calibration_needs_no_columns(world):
    code, said = call(
        *("calibrate", world / "base", "--data", f"{world / 'beir'}:train", "--max-change", "10%"),
        *("--out", world / "calibrated"),
    )
    assert code == 0, said
    assert report(world / "calibrated")["task"] == "ranking"


def test_what_is_held_out_of_train_is_measured_as_what_is_ranked(world):
    """Not as what is learned from, whose far passages are easy."""
    source = f"{world / 'beir'}:train"
    job = Job("", Data(source, []), world / "job", TrainingSettings())
    texts = load_texts(job, TASK)
    kept_apart, learned = split(job, texts, len)
    assert {*kept_apart["text"]}.isdisjoint(learned["text"])
    assert {*kept_apart["text"]} | {*learned["text"]} == {*texts.train["text"]}
    ranked = to_rank(open_collection(source, "train"), FEW)
    wanted = dict(zip(ranked["text"], ranked["passages"], strict=True))
    assert len(kept_apart) > 2
    assert all(wanted[row["text"]] == row["passages"] for row in kept_apart)
    named = Job("", Data(source, [], held_out=f"{world / 'beir'}:dev"), world / "job", TrainingSettings())
    assert load_texts(named, TASK).apart is None


def test_what_is_timed_are_whole_queries():
    queries = [f"q{i % 10}" for i in range(200)]
    chosen = TASK.sample({"text": queries}, 45)
    assert [queries[i] for i in chosen] == [name for _ in range(20) for name in ("q0", "q9")]
    assert TASK.sample({"text": queries}, 500).tolist() == list(range(200))


def test_pairs_are_timed_with_their_quality(world, monkeypatch):
    monkeypatch.setattr("thresher.bench.run.matmul_rate", lambda *args, **how: 1.0)
    monkeypatch.setattr("thresher.native.peak", lambda precision: None)
    monkeypatch.setattr("thresher.bench.contenders.RIVALS", ("transformers",))
    found = bench(
        str(world / "pruned"),
        str(world / "test.tsv"),
        ["query", "passage"],
        "relevance",
        engines=["torch"],
        texts=16,
        repeats=1,
        memory=False,
    )
    assert {"ndcg@10", "mrr@10"} == set(found.rows[0].quality)
    with pytest.raises(UserError, match="a folder of documents and queries"):
        bench(str(world / "pruned"), str(world / "beir"), ["query", "passage"], engines=["torch"])


def test_what_is_not_said_is_asked_for(world, tmp_path):
    table = world / "test.tsv"
    for options, message in (
        (["--train", table, "--label", "relevance"], "name the column of texts in --text"),
        (["--train", table, *COLUMNS], "name the column of labels in --label"),
        (
            [
                "--train",
                table,
                *COLUMNS,
                "--label",
                "relevance",
                "--task",
                "regression",
                "--eval",
                world / "beir",
            ],
            "is a folder of documents and queries",
        ),
        (["--train", world / "beir", "--task", "single-label"], "is a folder of documents and queries"),
        (
            ["--train", world / "beir", "--held-out", f"{world / 'beir'}:train"],
            "--held-out is the file of --train",
        ),
        (["--train", f"{world / 'beir'}:odd"], "name one of the splits dev, test, train"),
    ):
        code, said = call("finetune", world / "encoder", *options, "--out", tmp_path / "out")
        assert code == 2
        assert message in said, said


def test_a_score_called_relevance_does_not_rank_by_its_name():
    """As of a regression on a column of that name."""
    config = BertConfig(
        num_labels=1, id2label={0: "relevance"}, architectures=["BertForSequenceClassification"]
    )
    assert type(task_of(config)) is Regression
    config.update(TASK.noted)
    assert task_of(config) == TASK


def test_what_is_measured_tells_that_a_model_ranks(world, tmp_path):
    """Where it learns from a table, and neither the task nor a metric is named."""
    code, said = call(
        *("finetune", world / "encoder", "--train", world / "test.tsv", *COLUMNS, "--label", "relevance"),
        *("--eval", f"{world / 'beir'}:dev", "--epochs", 0.2, "--out", tmp_path / "out"),
    )
    assert code == 0, said
    assert report(tmp_path / "out")["task"] == "ranking"
