"""Answers from contexts: files, windows, the best span, figures, and from files to a pruned model."""

import json
import re
import string
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from transformers.loss.loss_utils import ForQuestionAnsweringLoss

from tests import toy
from tests.cli.calling import call
from thresher import UserError
from thresher.data import iter_rows, load_examples
from thresher.inputs.context import LEAST, OVERLAP, ContextEncoder, trimmed, windows
from thresher.inputs.rows import whole_texts
from thresher.inputs.text import TextEncoder
from thresher.tasks.best_span import LONGEST, best_span
from thresher.tasks.spans import ENDS, Spans
from thresher.tasks.squad import worth
from thresher.training import Data, Job, TrainingSettings
from thresher.training.examples import Examples
from thresher.training.texts import Texts, split

PAIR = ["question", "context"]


# Files -----------------------------------------------------------------------------------------------------


def flat(paragraphs):
    """Rows as data sets of the hub have them."""
    for paragraph in paragraphs:
        for asked in paragraph["qas"]:
            answers = {
                "text": [answer["text"] for answer in asked["answers"]],
                "answer_start": [answer["start"] for answer in asked["answers"]],
            }
            row = {"id": asked["id"], "question": asked["question"], "context": paragraph["context"]}
            yield row | {"answers": answers}


def write_all(folder, name, paragraphs):
    """The same questions in all layouts."""
    toy.write_jsonl(folder / f"{name}.jsonl", paragraphs)
    toy.write_jsonl(folder / f"{name}-flat.jsonl", list(flat(paragraphs)))
    (folder / f"{name}.json").write_text(json.dumps(toy.as_squad(paragraphs)))
    (folder / f"{name}-indented.json").write_text(json.dumps(toy.as_squad(paragraphs), indent=1))
    toy.write_jsonl(folder / f"{name}-lines.json", paragraphs)


def test_all_layouts_say_the_same(tmp_path):
    paragraphs = toy.asked(6, seed=3, impossible=0.6)
    write_all(tmp_path, "some", paragraphs)
    wanted = list(flat(paragraphs))
    assert {bool(row["answers"]["text"]) for row in wanted} == {True, False}
    for name in ("some.jsonl", "some-flat.jsonl", "some.json", "some-indented.json", "some-lines.json"):
        rows = list(iter_rows(tmp_path / name, ["question,context"]))
        assert [row.values for row in rows] == wanted
        assert [row.line for row in rows] == [1, 2, 3, 4, 5, 6]
        examples = load_examples(str(tmp_path / name), ["question,context"], "answers")
        assert examples["label"][:] == [row["answers"] for row in wanted]


ASKED = '{"question": "q", "answers": [%s]%s}'
NESTED = '{"context": "good film", "qas": [%s]}'
BROKEN = {
    "half.json": ('{"data": [{"paragraphs": [', r"half\.json:1: invalid JSON"),
    "flat.json": ('{"text": "a"}', r"flat\.json: is JSON, but not in SQuAD's layout"),
    "none.json": ('{"data": [{"paragraphs": [{"context": "a", "qas": []}]}]}', "has no rows"),
    "odd.jsonl": (
        f'{NESTED % ASKED % ("", "")}\n{{"text": 1}}',
        r"odd\.jsonl:2: a paragraph has no 'context'",
    ),
    "list.jsonl": (
        f'{NESTED % ASKED % ("", "")}\n{{"context": "a", "qas": 3}}',
        r"jsonl:2: 'qas' is no list",
    ),
    "mute.jsonl": (NESTED % "{}", r"mute\.jsonl:1 qas 1: there is no 'question'"),
    "shape.jsonl": (NESTED % ASKED % ('"good"', ""), r"shape\.jsonl:1 qas 1: the answers are \['good'\]"),
    "both.jsonl": (
        NESTED % ASKED % ('{"text": "good", "start": 0}', ', "impossible": true'),
        r"both\.jsonl:1 qas 1: the question is marked impossible, but has the answer 'good'",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_nested_files_that_are_broken(tmp_path, name):
    content, message = BROKEN[name]
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=message):
        load_examples(str(tmp_path / name), ["question,context"], "answers")


def test_answers_that_nobody_asks_for_stop_nothing(tmp_path):
    for name in ("shape.jsonl", "both.jsonl"):
        (tmp_path / name).write_text(BROKEN[name][0])
        assert len(load_examples(str(tmp_path / name), ["question,context"])) == 1
    (tmp_path / "test.jsonl").write_text(NESTED % '{"question": "q"}')
    (row,) = iter_rows(tmp_path / "test.jsonl")
    assert row.values["answers"] is None


# Windows ---------------------------------------------------------------------------------------------------


@given(st.integers(0, 900), st.integers(LEAST, 300))
def test_windows_cover_a_context_and_overlap(tokens, room):
    found = windows(tokens, room)
    assert found[0][0] == 0
    assert found[-1][1] == tokens
    assert all(end - first == room for first, end in found[:-1])
    for (_, end), (first, _) in pairwise(found):
        assert end - first == min(OVERLAP, room // 2)


@settings(deadline=None)
@given(st.integers(0, 9), st.lists(st.sampled_from(toy.FILLER), max_size=90), st.integers(30, 50))
def test_windows_are_those_of_the_tokenizer(asked, words, most):
    tokenizer = toy.tokenizer()
    question, context = " ".join(toy.FILLER[:asked]), "  ".join(words)
    found = ContextEncoder(tokenizer, most)([question], [context])
    how = {"truncation": "only_second", "max_length": most, "return_overflowing_tokens": True}
    how |= {"stride": min(OVERLAP, (most - asked - 3) // 2), "return_offsets_mapping": True}
    theirs = tokenizer([question], [context], **how)
    assert found["input_ids"] == theirs["input_ids"]
    assert found.get("token_type_ids") == theirs.get("token_type_ids")
    assert found["row"] == [0] * len(theirs["input_ids"])
    for row, (answers, places) in enumerate(zip(found["answers"], found["places"], strict=True)):
        inside = [i for i, owner in enumerate(theirs.sequence_ids(row)) if owner == 1]
        assert answers == [0, *inside]
        assert places == [-1, -1, *(x for i in inside for x in theirs["offset_mapping"][row][i])]
        assert [context[a:b] for a, b in zip(places[2::2], places[3::2], strict=True)] == (
            tokenizer.convert_ids_to_tokens([found["input_ids"][row][i] for i in inside])
        )


def test_spaces_are_no_part_of_a_token():
    assert trimmed(" a \u3000b ", [(0, 2), (2, 5), (5, 6), (2, 4)]).tolist() == [1, 2, 4, 5, 6, 6, 4, 4]


def test_a_question_without_room_is_refused_by_place(tmp_path):
    long = {"question": "film " * 20, "context": "good " * 30}
    toy.write_jsonl(tmp_path / "a.jsonl", [{"question": "film", "context": "good"}, long])
    examples = load_examples(str(tmp_path / "a.jsonl"), PAIR)
    encoder = TextEncoder(toy.tokenizer(), 30, within=True)
    message = r"a\.jsonl:2: the question has 20 tokens, which leaves no room .*`max_length`, 30; shorten"
    for encode in (encoder.encode_examples, encoder.encode_columns):
        with pytest.raises(UserError, match=message):
            encode(examples, str(tmp_path / "a.jsonl"))
    short = {"question": long["question"], "context": "good film"}  # which has room as a whole
    assert len(encoder.encode([short["question"]], [short["context"]])["row"]) == 1
    with pytest.raises(UserError, match="name the columns of both in `text`"):
        encoder.encode(["film"])


# What rows are taught --------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.integers(0, 60), st.integers(1, 6))
def test_a_row_is_taught_an_answer_that_is_whole_in_it(start, length):
    words = (toy.FILLER * 6)[:66]
    context = " ".join(words)
    at = len(" ".join([*words[:start], ""])) if start else 0
    answer = {"text": [" ".join(words[start : start + length])], "answer_start": [at], "context": context}
    columns = ContextEncoder(toy.tokenizer(), 30)(["film"], [context])
    taught = Spans(ENDS).row_labels(dict_of(columns), [answer])
    assert len(taught) == len(columns["row"]) > 1
    whole = 0
    for row, marks in enumerate(taught):
        begin, end = columns["answers"][row][marks_at(marks, 1)], columns["answers"][row][marks_at(marks, 2)]
        if begin == 0:
            assert end == 0
            continue
        ids = columns["input_ids"][row][begin : end + 1]
        assert toy.tokenizer().convert_ids_to_tokens(ids) == answer["text"][0].split()
        whole += 1
    assert whole  # windows overlap by more than six words


def dict_of(columns):
    import datasets

    return datasets.Dataset.from_dict(columns)


def marks_at(marks, bit):
    (place,) = [i for i, mark in enumerate(marks) if mark & bit]
    return place


def test_the_loss_is_that_of_transformers():
    draw = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 7, 2, generator=draw)
    starts, ends = torch.tensor([0, 2, 5]), torch.tensor([0, 4, 6])
    labels = torch.zeros(3, 7, dtype=torch.long)
    labels[range(3), starts] |= 1
    labels[range(3), ends] |= 2
    found = Spans(ENDS).loss(logits.flatten(0, 1), labels.flatten(), torch.tensor([7, 7, 7]))
    wanted = ForQuestionAnsweringLoss(logits[..., 0], logits[..., 1], starts, ends)
    assert float(found) == pytest.approx(float(wanted))


# The best span ---------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 40), min_size=1, max_size=3), st.booleans(), st.integers(0, 99))
def test_the_best_span_is_found(counts, none, seed):
    draw = np.random.default_rng(seed)
    parts, spans, nothing, at = [], [], [], 0
    for count in counts:
        logits = 3 * draw.normal(size=(count + 1, 2))
        widths = draw.integers(0, 3, size=count)  # of which some hold no character
        places = [(-1, -1)] + [(at + 4 * i, at + 4 * i + int(width)) for i, width in enumerate(widths)]
        at += 2 * count  # windows overlap
        parts.append(np.hstack([logits, places]))
        shares = np.exp(logits) / np.exp(logits).sum(0)
        nothing.append((logits[0].sum(), shares[0].prod()))
        for i in range(1, count + 1):
            for j in range(i, min(i + LONGEST, count + 1)):
                if widths[i - 1] and widths[j - 1]:
                    spans.append(
                        (logits[i, 0] + logits[j, 1], places[i][0], places[j][1], shares[i, 0] * shares[j, 1])
                    )
    found = best_span(np.concatenate(parts), none)
    best = max(spans, default=None)
    if best is None or (none and min(nothing)[0] > best[0]):
        assert found[:2] == (-1, -1)
        assert found.probability == pytest.approx(min(nothing)[1])
    else:
        assert found[:2] == best[1:3]
        assert found.probability == pytest.approx(best[3])


# Official figures ------------------------------------------------------------------------------------------


def plain(text):
    """`normalize_answer` of both scripts."""
    text = "".join(letter for letter in text.lower() if letter not in set(string.punctuation))
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def by_hand(said, gold, version):
    """F1 and exact match by evaluate-v1.1.py and evaluate-v2.0.py."""
    if version == 2:
        gold = [text for text in gold if plain(text)] or [""]
    figures = [(0.0, 0.0)]
    for text in gold:
        first, second = plain(said).split(), plain(text).split()
        same = sum((Counter(first) & Counter(second)).values())
        if version == 2 and (not first or not second):
            f1 = float(first == second)
        elif not same:
            f1 = 0.0
        else:
            precision, recall = same / len(first), same / len(second)
            f1 = 2 * precision * recall / (precision + recall)
        figures.append((f1, float(plain(said) == plain(text))))
    return tuple(max(each) for each in zip(*figures, strict=True))


WORDS = st.lists(st.sampled_from(["the", "a", "An", "u.s.", "US", "film", "Film,", "-", "two"]), max_size=4)


@given(WORDS, st.lists(WORDS, max_size=3), st.sampled_from([1, 2]))
def test_figures_are_those_of_the_official_scripts(said, gold, version):
    said, gold = " ".join(said), [" ".join(words) for words in gold]
    assert worth(said, gold, version == 2) == pytest.approx(by_hand(said, gold, version))


def logits_for(context, answer):
    """Of a text of one window and a token a character: those that give an answer, or none."""
    text = np.zeros((len(context) + 1, 4))
    text[0, 2:] = -1
    text[1:, 2], text[1:, 3] = np.arange(len(context)), np.arange(1, len(context) + 1)
    at = context.index(answer) if answer else -1
    text[at + 1, 0] = text[at + len(answer) + (not answer), 1] = 9
    return text


def test_questions_without_an_answer_have_figures_of_their_own():
    context = "the good film"
    gold = [("good",), ("good", "good film"), (), ()]
    said = ["good", "film", "", "good"]
    labels = [{"text": texts, "answer_start": [], "context": context} for texts in gold]
    logits = np.empty(4, dtype=object)
    logits[:] = [logits_for(context, answer) for answer in said]
    figures = Spans(ENDS, none=True).quality(logits, labels)
    assert figures == pytest.approx(
        {"f1": (100 + 200 / 3 + 100) / 4, "exact": 50, "f1 of answerable": 250 / 3, "exact of answerable": 50}
        | {"f1 of unanswerable": 50, "exact of unanswerable": 50}
    )
    assert list(Spans(ENDS, none=True).quality(logits[:2], labels[:2])) == ["f1", "exact"]
    always = Spans(ENDS)
    assert always.columns(logits[2], ("which", context))["prediction"] != ""  # though it is the least likely
    assert Spans(ENDS, none=True).columns(logits[2], ("which", context))["start"] == -1


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ({"text": ["film"], "answer_start": [4]}, r"'film' .* at character 4 .* 'good' stands; write 9,"),
        ({"text": ["bad"], "answer_start": [90]}, r"'bad' .* there is none, and it stands nowhere else"),
        (
            {"text": ["which"], "answer_start": [0]},
            r"stands in the other text: name the column of the question",
        ),
        ({"text": ["film"], "answer_start": [-5]}, r"at character -5 of the context, where there is none"),
        ({"text": ["film"], "answer_start": []}, "the answers are .*; write"),
        ({"text": "film", "answer_start": [0]}, "the answers are .*; write"),
        ({"text": [3], "answer_start": [0]}, "the answer 3 is no text"),
        ({"text": [" "], "answer_start": [0]}, "the answer ' ' is no text"),
        ({"text": ["film"], "answer_start": ["8"]}, "'film' starts at '8'"),
        ("film", "the answers are 'film'"),
    ],
)
def test_answers_that_are_wrong_are_told_by_line(tmp_path, answers, message):
    row = {"question": "which film", "context": "the good film", "answers": answers}
    toy.write_jsonl(tmp_path / "a.jsonl", [row])
    examples = load_examples(str(tmp_path / "a.jsonl"), PAIR, "answers")
    with pytest.raises(UserError, match=rf"a\.jsonl:1: .*{message}"):
        Spans(ENDS).encode_all(examples, str(tmp_path / "a.jsonl"))


def test_a_drop_is_measured_by_text():
    """By each text's own figure, as by that of all."""
    columns = TextEncoder(toy.tokenizer(), 30, within=True).encode(["film"] * 3, ["good film"] * 3)
    labels = [{"text": ["good"], "answer_start": [0], "context": "good film"}] * 3
    task, rows = Spans(ENDS), dict_of(columns)
    right, wrong = np.array([[0, 0], [9, 9], [0, 0.0]]), np.array([[0, 0], [0, 0], [9, 9.0]])
    base, found = np.empty(3, dtype=object), np.empty(3, dtype=object)
    base[:], found[:] = [right] * 3, [right, right, wrong]
    examples = Examples.of(task, rows, labels)
    examples.base = base
    unlabelled = Examples(rows, base=base)
    for some in (examples, unlabelled):
        drop = some.estimate_drop(task, found)
        assert drop.points == pytest.approx(100 / 3)
        assert 0 <= drop.interval[0] < drop.points < drop.interval[1] <= 100
    assert task.agreement(*(whole_texts(x, rows) for x in (base, found))) == pytest.approx(200 / 3)


# From files to a pruned model ------------------------------------------------------------------------------


COLUMNS = ["--text", "question,context", "--max-length", 30]
DEV = {"seed": 1, "longest": 50, "impossible": 0.3}  # longer than a window


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("answers")
    write_all(folder, "train", toy.asked(320, longest=16, impossible=0.3))
    write_all(folder, "dev", toy.asked(40, **DEV))
    toy.save_encoder(folder / "encoder", layers=2)
    files = ["--train", folder / "train.json", "--eval", folder / "dev.jsonl", "--label", "answers", *COLUMNS]
    code, said = call(
        *("finetune", folder / "encoder", *files, "--epochs", 12, "--batch-size", 16),
        *("--learning-rate", 5e-3, "--precision", "fp32", "--out", folder / "base"),
    )
    assert code == 0, said
    code, said = call(*pruning(folder), "--out", folder / "pruned")
    assert code == 0, said
    return folder


def pruning(folder):
    files = ["--train", folder / "train-flat.jsonl", "--eval", folder / "dev.json", "--label", "answers"]
    how = [
        "--budget",
        0.85,
        "--soft-epochs",
        1,
        "--hard-epochs",
        1,
        "--batch-size",
        16,
        "--precision",
        "fp32",
    ]
    return ["prune", folder / "base", *files, *COLUMNS, *how]


def figures(folder, name, file="report"):
    return json.loads((folder / name / f"{file}.json").read_text())["quality"]


def test_it_learns_and_is_measured_as_the_official_scripts_do(world):
    assert figures(world, "base")["dense"]["f1"] > 85
    quality = figures(world, "pruned")
    assert quality["base"] == figures(world, "base")["dense"]
    kinds = [f"{name} of {kind}" for kind in ("answerable", "unanswerable") for name in ("f1", "exact")]
    assert list(quality["pruned"]) == ["f1", "exact", *kinds]
    assert json.loads((world / "pruned" / "config.json").read_text())["handle_impossible_answer"] is True


def test_predictions_are_those_that_were_measured(world):
    """Of nested files too, as flat rows with their ids."""
    output = world / "said.jsonl"
    code, said = call("predict", world / "pruned", "--input", world / "dev.json", "--output", output)
    assert code == 0, said
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert [row["id"] for row in rows] == [f"q{number}" for number in range(40)]
    found = [by_hand(row["prediction"], row["answers"]["text"], 2) for row in rows]
    measured = figures(world, "pruned")["pruned"]
    assert [measured["f1"], measured["exact"]] == pytest.approx(100 * np.mean(found, axis=0))
    for row in rows:
        assert 0 < row["score"] <= 1
        start, text = row["start"], row["prediction"]
        assert row["context"][start : start + len(text)] == text if text else start == -1
    code, said = call(
        "predict", world / "pruned", "--input", world / "dev.json", "--output", world / "x.json"
    )
    assert code == 2
    assert "name it .jsonl" in said


def test_plain_tables_are_answered_too(world, tmp_path):
    rows = list(flat(toy.asked(40, **DEV)))
    lines = ["question,context", *(f"{row['question']},{row['context']}" for row in rows), "film,"]
    (tmp_path / "a.csv").write_text("\n".join(lines) + "\n")
    code, said = call(
        "predict", world / "pruned", "--input", tmp_path / "a.csv", "--output", tmp_path / "b.csv"
    )
    assert code == 0, said
    found = [row.values for row in iter_rows(tmp_path / "b.csv")]
    code, said = call(
        "predict", world / "pruned", "--input", world / "dev.jsonl", "--output", tmp_path / "b.jsonl"
    )
    assert code == 0, said
    others = [row.values for row in iter_rows(tmp_path / "b.jsonl")]
    assert [row["prediction"] for row in found] == [*(row["prediction"] for row in others), ""]


def test_long_questions_are_told_by_line_and_what_was_answered_is_kept(world, tmp_path):
    row = {"question": "film " * 20, "context": "good " * 40}
    toy.write_jsonl(tmp_path / "a.jsonl", [row])
    code, said = call(
        "predict", world / "pruned", "--input", tmp_path / "a.jsonl", "--output", tmp_path / "b.csv"
    )
    assert code == 2
    assert "a.jsonl:1: the question has 20 tokens" in said
    assert not (tmp_path / "b.csv").exists()


def test_every_layout_has_the_same_figures(world):
    code, said = call("evaluate", world / "pruned", "--eval", world / "dev-flat.jsonl", "--label", "answers")
    assert code == 0, said
    assert "f1 on 40 texts" in said
    for model in ("dense", "pruned"):
        found = figures(world, "pruned", "evaluation")[model]
        assert found == pytest.approx(figures(world, "pruned")[model])


def test_a_stopped_run_ends_where_the_other_ended(world, monkeypatch):
    loss, calls = Spans.loss, []

    def interrupted(*args):
        calls.append(1)
        if len(calls) == 25:
            raise KeyboardInterrupt
        return loss(*args)

    with monkeypatch.context() as patch:
        patch.setattr(Spans, "loss", interrupted)
        code, said = call(*pruning(world), "--out", world / "again")
    assert code == 130, said
    code, said = call(*pruning(world), "--out", world / "again", "--resume")
    assert code == 0, said
    for file in ("model.safetensors", "token_pruning.safetensors"):
        whole, again = (load_file(world / name / file) for name in ("pruned", "again"))
        assert all(torch.equal(whole[name], again[name]) for name in whole)


def test_neither_calibration_nor_distillation_needs_answers(world):
    code, said = call(
        *("calibrate", world / "base", "--data", world / "train.jsonl", *COLUMNS),
        *("--max-change", "20%", "--out", world / "calibrated"),
    )
    assert code == 0, said
    code, said = call(
        *("prune", world / "base", "--train", world / "dev.jsonl", *COLUMNS, "--out", world / "distilled"),
        *("--max-drop", "40%", "--soft-epochs", 1, "--hard-epochs", 1),
    )
    assert code == 0, said
    assert list(figures(world, "distilled")["pruned"]) == ["agreement"]


def test_a_model_that_learned_no_question_without_answer_gives_one_always(world, tmp_path, caplog):
    config = json.loads((world / "pruned" / "config.json").read_text())
    del config["handle_impossible_answer"]
    for file in (world / "pruned").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "config.json").write_text(json.dumps(config))
    code, said = call("evaluate", tmp_path, "--eval", world / "dev.jsonl", "--label", "answers", "--no-speed")
    assert code == 0, said
    assert figures(tmp_path, "", "evaluation")["pruned"]["f1 of unanswerable"] == 0
    assert "of 40 questions have no answer, but the model always gives one" in caplog.text + said


def test_show_marks_the_answer_in_its_context(world, tmp_path):
    context = " ".join(["the"] * 30 + ["bad scene of"])
    code, said = call(
        *("show", world / "pruned", "was the film dull", "--pair", context, "--html", tmp_path / "view.html")
    )
    assert code == 0, said
    assert "Prediction: " in said
    assert "[answer: " in said
    assert "[answer: " in (tmp_path / "view.html").read_text()
    code, said = call("show", world / "pruned", "was the film dull", "--pair", "")
    assert code == 0, said
    assert "no answer" in said
    code, said = call("show", world / "pruned", "was the film dull")
    assert code == 2
    assert "give the context by --pair" in said


def test_a_benchmark_measures_the_same(world, monkeypatch):
    monkeypatch.setattr("thresher.bench.contenders.RIVALS", ("transformers",))
    how = ["--engine", "torch", "--texts", 40, "--repeats", 1, "--quick"]
    code, said = call("bench", world / "pruned", "--eval", world / "dev.jsonl", "--label", "answers", *how)
    assert code == 0, said
    report = json.loads((world / "pruned" / "bench.json").read_text())
    assert {row["engine"] for row in report["rows"]} >= {"transformers", "torch"}
    assert not any("Error" in why for why in report["skipped"].values())
    dense, pruned = (figures(world, "pruned")[name] for name in ("dense", "pruned"))
    for row in report["rows"]:
        assert row["quality"] == pytest.approx(pruned if row["kind"] == "pruned" else dense, abs=3)


def test_questions_of_a_paragraph_are_held_out_together():
    rows = [{"text": f"q{i}", "text_pair": f"c{i // 7}", "line": i} for i in range(140)]
    texts = Texts(Dataset.from_list(rows), None, None)
    job = Job("m", Data("t", ["question", "context"]), Path("out"), TrainingSettings())
    apart, rest = split(job, texts, lambda some: 1.0, Spans.together)
    assert {*apart["text_pair"]}.isdisjoint(rest["text_pair"])
    assert len(apart) == 14
    assert sorted([*apart["text"], *rest["text"]]) == sorted(row["text"] for row in rows)
    one = Texts(Dataset.from_list([row | {"text_pair": "c"} for row in rows]), None, None)
    assert [len(part) for part in split(job, one, lambda some: 1.0, Spans.together)] == [14, 126]
