"""The programs under examples/, as they stand, on small files and little training."""

import gzip
import json
import runpy
import sys
from pathlib import Path

import pytest

from tests import toy
from thresher.store import load_config

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Run an example in an empty folder; what it says."""
    monkeypatch.chdir(tmp_path)
    toy.save_encoder(tmp_path / "encoder")

    def run(name: str, *words: str) -> str:
        monkeypatch.setattr(sys, "argv", [name, *words])
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return capsys.readouterr().out

    return run


def test_an_example_is_short():
    found = sorted(EXAMPLES.glob("*.py"))
    assert {file.stem for file in found} == {"tagger", "embedder", "reranker"}
    assert all(len(file.read_text().splitlines()) <= 80 for file in found)


def test_the_tagger(run, tmp_path):
    for name, count in (("train", 60), ("dev", 20), ("test", 20)):
        with gzip.open(tmp_path / f"{name}.jsonl.gz", "wt") as file:
            file.writelines(json.dumps(row) + "\n" for row in toy.tagged(count, seed=count))
    said = run("tagger.py", ".", "encoder", "--epochs", "0.8", "--out", "out")
    assert "pruned │" in said
    assert load_config("out/pruned").architectures == ["BertForTokenClassification"]


def test_the_embedder(run, tmp_path):
    rows = [text for text, _ in toy.rows(120, seed=1)]
    for name, some in (("train", rows[:80]), ("dev", rows[80:])):
        lines = [f"{a}\t{b}\t{i % 5}.5" for i, (a, b) in enumerate(zip(some[::2], some[1::2], strict=True))]
        (tmp_path / f"{name}.tsv").write_text("\n".join(["sentence1\tsentence2\tscore", *lines]) + "\n")
    said = run("embedder.py", "train.tsv", "dev.tsv", "encoder", "--epochs", "0.8", "--out", "out")
    assert "pruned │" in said
    assert "The train to Paris leaves at noon." in said


def test_the_reranker(run, tmp_path):
    pytest.importorskip("bm25s")
    toy.collection(tmp_path / "folder", queries=(20, 6, 6), documents=60)
    said = run("reranker.py", "folder", "encoder", "--epochs", "0.5", "--max-length", "32", "--out", "out")
    assert "pruned │" in said
    assert "Signs of measles" in said
