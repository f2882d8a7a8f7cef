"""Tags: words in windows, entities, files, and from files to a pruned tagger."""

import json
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import toy
from tests.cli.calling import call
from thresher import UserError
from thresher.data import load_examples
from thresher.inputs.rows import whole_texts
from thresher.inputs.text import TextEncoder
from thresher.inputs.words import windows
from thresher.tasks.entities import entities
from thresher.tasks.token_labels import TokenLabels

NAMES = ("O", "B-neg", "I-neg", "B-pos", "I-pos")
TAGS = st.lists(st.sampled_from([*NAMES, "I-x"]), max_size=12)


# Windows ---------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 6), min_size=1, max_size=60), st.integers(1, 12))
def test_every_word_is_answered_for_once(pieces, room):
    found = windows(pieces, room)
    assert [word for window in found for word in window.answered] == list(range(len(pieces)))
    for window in found:
        assert window.first <= window.answered.start <= window.answered.stop <= window.end
        assert sum(pieces[window.first : window.end]) <= room or window.end == window.first + 1
    if sum(pieces) <= room:
        assert len(found) == 1


@given(st.lists(st.integers(1, 2), min_size=40, max_size=80))
def test_a_word_is_answered_where_it_has_neighbours_on_both_sides(pieces):
    found = windows(pieces, 16)
    for window in found[:-1]:
        assert window.end - window.answered.stop >= 1
    for window in found[1:]:
        assert window.answered.start - window.first >= 1


def encoder(max_length=12) -> TextEncoder:
    return TextEncoder(toy.tokenizer(), max_length)


def test_the_first_piece_answers_for_the_word():
    tokenizer = toy.tokenizer()
    texts = [["the", "good-film", "was", "bad"], [], ["\u200b", "long"], ["very"] * 30]
    columns = encoder().encode_words(texts)
    assert columns["row"] == [0, 1, 2, *[3] * (len(columns["row"]) - 3)]
    answers = [
        [tokenizer.convert_ids_to_tokens(ids)[at] for at in places]
        for ids, places in zip(columns["input_ids"], columns["answers"], strict=True)
    ]
    assert answers[:3] == [["the", "good", "was", "bad"], [], ["[UNK]", "long"]]
    assert sum(map(len, answers[3:])) == 30
    assert all(len(ids) <= 12 for ids in columns["input_ids"])
    assert len(columns["input_ids"][1]) == 2  # [CLS] and [SEP] alone


def test_words_longer_than_a_window_are_cut_and_counted(caplog):
    texts = encoder()
    columns = texts.encode_words([["film", "-".join(["good"] * 20), "plot"]])
    assert sum(map(len, columns["answers"])) == 3
    texts.warn(texts.truncated, texts.seen, "words")
    assert "1 words of 1 texts have more tokens than a window" in caplog.text


def test_rows_of_a_text_are_joined():
    values = np.empty(3, dtype=object)
    values[:] = [np.ones((2, 3)), np.zeros((1, 3)), np.ones((1, 3))]
    joined = whole_texts(values, {"row": [0, 0, 1]})
    assert [len(text) for text in joined] == [3, 1]
    assert whole_texts([[1, 2], [3], [4]], {"row": [0, 0, 1]}) == [[1, 2, 3], [4]]


# Entities --------------------------------------------------------------------------------------------------


def by_hand(tags):
    """An entity begins where a tag is not O, and is a B, or another kind than before, or after an O."""
    kinds = [tag.partition("-")[2] for tag in tags]
    begins = [
        i
        for i, tag in enumerate(tags)
        if tag != "O" and (tag[0] == "B" or i == 0 or tags[i - 1] == "O" or kinds[i - 1] != kinds[i])
    ]
    for start in begins:
        end = start
        while end + 1 < len(tags) and tags[end + 1] != "O" and end + 1 not in begins:
            end += 1
        yield kinds[start], start, end


@given(TAGS)
def test_entities_are_those_of_conlleval(tags):
    assert list(entities(tags)) == list(by_hand(tags))


@given(st.lists(st.lists(st.integers(0, 4), max_size=6), min_size=1, max_size=6), st.integers(0, 99))
def test_f1_is_its_definition_and_weights_are_repeats(labels, seed):
    draw = np.random.default_rng(seed)
    logits = np.empty(len(labels), dtype=object)
    logits[:] = [draw.normal(size=(len(row), 5)) for row in labels]
    task, times = TokenLabels(NAMES), draw.integers(1, 4, size=len(labels))
    more = np.repeat(np.arange(len(labels)), times)
    said = [{(i, *x) for x in by_hand([NAMES[k] for k in logits[i].argmax(1)])} for i in range(len(labels))]
    true = [{(i, *x) for x in by_hand([NAMES[k] for k in labels[i]])} for i in range(len(labels))]
    hit = sum(len(a & b) * t for a, b, t in zip(said, true, times, strict=True))
    total = sum((len(a) + len(b)) * t for a, b, t in zip(said, true, times, strict=True))
    expected = 200 * hit / total if hit else 0.0
    assert task.main_quality(logits, labels, times) == pytest.approx(expected)
    again = [labels[i] for i in more]
    assert task.main_quality(logits[more], again) == pytest.approx(expected)
    found = task.quality(logits, labels)
    assert list(found)[:4] == ["f1", "precision", "recall", "accuracy"]
    assert set(list(found)[4:]) == {f"f1 of {NAMES[k].partition('-')[2]}" for row in labels for k in row if k}


def test_tags_without_entities_are_measured_by_accuracy():
    task = TokenLabels(("NOUN", "VERB"))
    assert task.metric == "accuracy"
    assert list(task.quality(np.array([np.eye(2)], dtype=object), [[0, 1]])) == ["accuracy"]
    with pytest.raises(UserError, match="these tags mark none: NOUN, VERB"):
        task.measured_by("f1")
    with pytest.raises(UserError, match="these tags mark none: B-x, I-x"):  # no O
        TokenLabels(("B-x", "I-x")).measured_by("f1")


# From files to a pruned tagger -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tags")
    toy.write_tags(folder / "train.jsonl", toy.tagged(360))
    toy.write_tags(
        folder / "dev.jsonl", toy.tagged(40, seed=1, longest=90)
    )  # longer than the 30 tokens of a window
    toy.save_encoder(folder / "encoder", layers=2)
    files = ["--train", folder / "train.jsonl", "--eval", folder / "dev.jsonl", "--text", "tokens"]
    files += ["--label", "tags", "--max-length", 30]
    code, said = call(
        *("finetune", folder / "encoder", *files, "--epochs", 6, "--batch-size", 16),
        *("--learning-rate", 5e-3, "--out", folder / "base"),
    )
    assert code == 0, said
    code, said = call(
        *("prune", folder / "base", *files, "--budget", 0.8, "--soft-epochs", 1, "--hard-epochs", 1),
        *("--out", folder / "pruned"),
    )
    assert code == 0, said
    return folder


def figures(folder, name):
    return json.loads((folder / name / "report.json").read_text())["quality"]


def test_it_learns_and_is_measured_by_whole_entities(world):
    assert figures(world, "base")["dense"]["f1"] > 90
    quality = figures(world, "pruned")
    assert quality["base"] == figures(world, "base")["dense"]
    assert list(quality["pruned"]) == ["f1", "precision", "recall", "accuracy", "f1 of neg", "f1 of pos"]


def test_predictions_are_those_that_were_measured(world):
    """Of texts of many windows: a tag for each word."""
    output = world / "said.jsonl"
    code, said = call("predict", world / "pruned", "--input", world / "dev.jsonl", "--output", output)
    assert code == 0, said
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert all(len(row["prediction"]) == len(row["score"]) == len(row["tokens"]) for row in rows)
    hit = said = true = 0
    for row in rows:
        a, b = set(by_hand(row["prediction"])), set(by_hand(row["tags"]))
        hit, said, true = hit + len(a & b), said + len(a), true + len(b)
    assert figures(world, "pruned")["pruned"]["f1"] == pytest.approx(200 * hit / (said + true), abs=0.2)


def test_conll_columns_say_the_same_as_json(world):
    for name in ("train", "dev"):
        rows = [json.loads(line) for line in (world / f"{name}.jsonl").read_text().splitlines()]
        toy.write_tags(world / f"{name}.conll", rows)
        ours, theirs = (
            load_examples(str(world / f"{name}.{kind}"), ["tokens"], "tags") for kind in ("jsonl", "conll")
        )
        assert ours["words"][:] == theirs["words"][:]
        assert ours["label"][:] == theirs["label"][:]
    assert theirs["line"][:2] == [3, 3 + len(theirs["words"][0]) + 1]
    code, said = call(
        *("evaluate", world / "pruned", "--eval", world / "dev.conll", "--text", "tokens", "--label", "tags"),
        "--no-speed",
    )
    assert code == 0, said
    found = json.loads((world / "pruned" / "evaluation.json").read_text())["quality"]["pruned"]
    assert found["f1"] == pytest.approx(figures(world, "pruned")["pruned"]["f1"])


def test_calibration_needs_no_tags(world):
    code, said = call(
        *("calibrate", world / "base", "--data", world / "train.jsonl", "--text", "tokens"),
        *("--max-length", 30, "--max-change", "5%", "--out", world / "calibrated"),
    )
    assert code == 0, said


BROKEN = {
    "ragged": (
        '{"tokens": ["good", "film"], "tags": ["B-pos"]}',
        "jsonl:1: there are 1 tags for 2 words",
    ),
    "unknown": ('{"tokens": ["good"], "tags": ["B-odd"]}', "broken.jsonl:1: .*B-odd"),
    "no list": ('{"tokens": ["good"], "tags": "B-pos"}', "broken.jsonl:1: the tags are 'B-pos'"),
    "no words": ('{"tokens": "good film", "tags": ["B-pos", "O"]}', "name a column of lists of words"),
    "mixed": (
        '{"tokens": ["good"], "tags": ["B-pos"]}\n{"tokens": "bad", "tags": ["B-neg"]}',
        "broken.jsonl:2: .*'bad', but the texts before it are lists of words",
    ),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_files_are_told_by_line(world, tmp_path, kind):
    content, message = BROKEN[kind]
    (tmp_path / "broken.jsonl").write_text(content + "\n")
    code, said = call(
        *("evaluate", world / "pruned", "--eval", tmp_path / "broken.jsonl", "--text", "tokens"),
        *("--label", "tags", "--no-speed"),
    )
    assert code == 2
    assert re.search(message.replace(" ", r"\s*"), said), said


def test_columns_that_are_ragged(tmp_path):
    (tmp_path / "a.conll").write_text("good B-pos\nfilm\n")
    with pytest.raises(UserError, match=r"a\.conll:2: there are 1 columns, and 2 in the lines before"):
        load_examples(str(tmp_path / "a.conll"), ["tokens"], "tags")


def test_show_has_the_kind_after_what_is_marked(world, tmp_path):
    code, said = call("show", world / "pruned", "good film, bad", "--html", tmp_path / "view.html")
    assert code == 0, said
    assert "[pos]" in said
    assert "[neg]" in said
    assert "Prediction: good [pos]" in said
    assert "[neg]" in (tmp_path / "view.html").read_text()
    code, said = call("show", world / "pruned", "")
    assert code == 0, said
