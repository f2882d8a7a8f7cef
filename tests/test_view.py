"""The view of survivors: what each token's fate is, and that it can be read with and without colours."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch
from rich.console import Console
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from tests.tiny import FAMILIES
from thresher import PrunedModel, PruningConfig, prune
from thresher.show.stretches import by_offsets, by_tokens, clusters
from thresher.show.view import Survival, render, survival

SPECIAL = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
TEXT = "The  Thresher\tseparates grain, quickly."


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    pieces = ["the", "thresh", "##er", "separates", "grain", "from", "chaff", "quick", "##ly", ",", "."]
    vocab = {piece: i for i, piece in enumerate([*SPECIAL.values(), *pieces])}
    backend = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return PreTrainedTokenizerFast(tokenizer_object=backend, **SPECIAL)


class Slow:
    """The same tokenizer without the services of a fast one."""

    is_fast = False

    def __init__(self, fast: PreTrainedTokenizerFast):
        self.convert_ids_to_tokens = fast.convert_ids_to_tokens
        self.fast = fast

    def __call__(self, *texts: str | None, **options: Any) -> dict[str, Any]:
        assert not options.pop("return_offsets_mapping")
        return dict(self.fast(*texts, **options))


@pytest.fixture(scope="module")
def pruned() -> PrunedModel:
    model = prune(FAMILIES["bert"]())
    model.pruner.thresholds.copy_(torch.tensor([0.4, 0.7, 0.9, 1.0]))
    return model.eval()


def printed(found: Survival, numbers: bool | None = None, **options: Any) -> str:
    console = Console(file=io.StringIO(), **{"width": 80, **options})
    console.print(render(found, numbers))
    return console.file.getvalue()


def test_survival_is_what_the_trace_says(pruned: PrunedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    found = survival(pruned, tokenizer, TEXT)
    assert found.tokens == [
        *("[CLS]", "the", "thresh", "##er", "separates", "grain", ",", "quick", "##ly", ".", "[SEP]")
    ]
    with torch.no_grad():
        output = pruned(torch.tensor([tokenizer(TEXT)["input_ids"]]))
    assert found.alive == output.trace.kept[:, 0].tolist()
    for layer, positions in enumerate(output.trace.positions(0)):
        assert [i for i, last in enumerate(found.last_layer) if last > layer] == positions
    assert found.last_layer[0] == found.layers == 4
    assert len(set(found.last_layer)) > 2, "the thresholds should drop tokens in several layers"
    assert found.flops_ratio == pytest.approx(float(output.trace.flops / output.trace.dense_flops))
    ((label, probability),) = found.prediction.items()
    assert label == pruned.config.id2label[int(output.logits.argmax())]
    assert probability == pytest.approx(output.logits.softmax(-1).max().item())


def test_the_original_text_is_shown(pruned: PrunedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    found = survival(pruned, tokenizer, TEXT)
    assert ["".join(piece for piece, _ in stretches) for stretches in found.texts] == [TEXT]
    fates = [fate for piece, fate in found.texts[0] for _ in piece]
    assert fates[TEXT.index("Thresher")] == found.last_layer[2]
    assert fates[TEXT.index("er\t")] == found.last_layer[3]
    assert fates[3:5] == [None, None]
    pair = survival(pruned, tokenizer, "The grain", "the CHAFF")
    assert ["".join(piece for piece, _ in stretches) for stretches in pair.texts] == [
        "The grain",
        "the CHAFF",
    ]
    assert pair.texts[1][-1] == ("CHAFF", pair.last_layer[5])


def test_truncated(pruned: PrunedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    found = survival(pruned, tokenizer, "grain from chaff", max_length=4)
    assert len(found.tokens) == 4
    assert "".join(piece for piece, _ in found.texts[0]) == "grain from …"
    long = survival(pruned, tokenizer, "grain " * 500)
    assert len(long.tokens) == pruned.family.max_length


def test_slow_tokenizer(pruned: PrunedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    fast, slow = (survival(pruned, t, TEXT) for t in (tokenizer, Slow(tokenizer)))
    assert (slow.tokens, slow.last_layer) == (fast.tokens, fast.last_layer)
    assert "".join(piece for piece, _ in slow.texts[0]) == "the thresher separates grain , quickly ."


@pytest.mark.parametrize(
    ("tokens", "text"),
    [
        (["▁A", "▁thresh", "er", "."], "A thresher."),
        (["A", "Ġthresh", "er", "."], "A thresher."),
        (["a", "thresh", "##er"], "a thresher"),
        ([], ""),
    ],
)
def test_put_together_from_tokens(tokens: list[str], text: str) -> None:
    stretches = by_tokens([(token, i) for i, token in enumerate(tokens)])
    assert "".join(piece for piece, _ in stretches) == text
    assert [fate for _, fate in stretches if fate is not None] == list(range(len(tokens)))


def test_by_offsets() -> None:
    # Some tokenizers count the space in; one character may be spread over several tokens.
    assert by_offsets("a b", [(0, 1, 2), (1, 3, 0)]) == [("a", 2), (" ", None), ("b", 0)]
    assert by_offsets("é!", [(0, 1, 0), (0, 1, 3), (1, 2, 3)]) == [("é!", 3)]
    assert by_offsets("a b c", [(2, 3, 1)]) == [("… ", None), ("b", 1), (" …", None)]
    assert by_offsets(" ", []) == []
    assert by_offsets("ab", []) == [("…", None)]
    # BERT's tokenizer strips accents: no token holds the mark, and yet it stays with its letter.
    assert by_offsets("e\u0301a e\u0301", [(0, 1, 1), (2, 3, 2), (4, 5, 0)]) == [
        ("e\u0301", 1),
        ("a", 2),
        (" ", None),
        ("e\u0301", 0),
    ]


def test_tokens_of_one_fate_are_one_piece() -> None:
    assert by_tokens([("quick", 2), ("##ly", 2), (".", 2)]) == [("quickly", 2), (" ", None), (".", 2)]


@pytest.mark.parametrize(
    "text",
    [
        "a|b|,",
        "e\u0301|a",
        "👍🏽|👍",
        "👨\u200d👩\u200d👧|!",
        "🇩🇪|🇫🇷|🇮",
        "❤\ufe0f|1\ufe0f\u20e3",
        "मु|झे",
        "\u1112\u1161\u11ab|가",
        "a| |\u0301",
    ],
)
def test_what_is_drawn_as_one_is_not_cut(text: str) -> None:
    whole = text.replace("|", "")
    assert [whole[start:end] for start, end in clusters(whole, 0, len(whole))] == text.split("|")


def view(*pieces: tuple[str, int | None], **more: Any) -> Survival:
    """One text in three layers, of which nothing but the pieces matters."""
    return Survival(["[CLS]", "a"], [3, 0], 3, [list(pieces)], more.pop("prediction", {}), 0.5, **more)


def test_readable_without_colours() -> None:
    text = [("grain", 3), (" ", None), ("cha", 0), ("ff", 1), (" [b]", 2), ("\x1b", 3)]
    found = Survival(["[CLS]", "grain", "cha", "##ff", "[b]"], [3, 3, 0, 1, 2], 3, [text], {"good": 0.9}, 0.5)
    shown = printed(found)
    assert "grain cha¹ ·ff²  [b]³ ?" in shown
    assert "\x1b" not in shown
    legend = "word¹: dropped in layer 1", "no number: kept to the end", "·piece: goes on the word before it"
    assert "\n".join(legend) in "\n".join(line.rstrip() for line in shown.splitlines())
    rows = [line.split() for line in shown.splitlines() if "█" in line]
    assert [row[:3] for row in rows] == [["1", "4", "80%"], ["2", "3", "60%"], ["3", "2", "40%"]]
    assert [len(row[3]) for row in rows] == [24, 18, 12]
    assert "Prediction: good 0.90" in shown
    assert "FLOPs: 50% of the base model's" in shown


@pytest.mark.parametrize(
    ("pieces", "shown"),
    [
        ([("phone", 2), (",", 1)], "phone³ ,²"),
        ([("thresh", 1), ("er", 2), (".", 3)], "thresh² ·er³ ."),
        ([("(", 0), ("see", 3), (")", 0)], "(¹ see )¹"),
        ([("20", 1), ("24", 2)], "20² ·24³"),
        ([("good", 3), ("ness", 0)], "good ·ness¹"),
        ([("good·", 3), (" ", None), ("like", 3), ("ness", 0)], "good· like +ness¹"),  # the text has the mark
        ([("m²", 2), ("x", 3)], "m²(3) ·x"),  # or a superscript
        ([("m²", 2), (" ", None), ("(1)", 0)], "m²[3] (1)[1]"),
        ([("我喜", 0), ("欢", 1), ("，", 3)], "我喜¹ 欢² ，"),  # no spaces in Chinese: none are missed
        ([("학교", 0), ("에", 1)], "학교¹ ·에²"),
        ([("ילד", 2), ("ים", 1)], "ילד³ ·ים²"),
        ([("हिन्", 2), ("दी", 1)], "हिन्³ ·दी²"),
        ([("👍🏽", 2), ("👨\u200d👩\u200d👧", 1)], "👍🏽³ 👨\u200d👩\u200d👧²"),
        ([("?", 0), ("!", 1), ("...", 2)], "?¹ !² ...³"),
    ],
)
def test_pieces_with_different_fates_stand_apart(pieces: list[tuple[str, int | None]], shown: str) -> None:
    assert printed(view(*pieces)).splitlines()[0].rstrip() == shown


def test_a_long_string_is_wrapped_between_its_pieces() -> None:
    pieces = [(f"{i:07}", i % 3) for i in range(40)]
    lines = [line.strip() for line in printed(view(*pieces), width=40).splitlines()]
    wrapped = " ".join(lines[: lines.index("")]).split()
    assert len(wrapped) == 40
    assert all(piece[-1] in "¹²³" for piece in wrapped)


def test_what_the_output_cannot_write_is_a_question_mark() -> None:
    file = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    found = view(("grün", 0), (",", 1), (" ", None), ("我", 3), (" …", None), prediction={"schön": 0.5})
    Console(file=file, width=80).print(render(found))
    file.seek(0)
    shown = file.read()
    assert shown.splitlines()[0].rstrip() == "gr?n(1) ,(2) ? ..."
    assert "word(1): dropped in layer 1" in shown
    assert "sch?n 0.50" in shown


def test_nothing_in_a_text_or_label_commands_the_terminal() -> None:
    words = "[/old] [bold]x[/bold] :smile: \x1b[31m \u202eabc \r\x85\x9b"
    for terminal in ({}, {"force_terminal": True, "color_system": "truecolor"}):
        shown = printed(view((words, 3), prediction={"[red]": 0.9, ":smile:\x1b": float("nan")}), **terminal)
        assert "[/old] [bold]x[/bold] :smile: ?[31m abc" in shown
        assert not {"\u202e", "\r", "\x85", "\x9b"} & set(shown)
        assert "[red] 0.90, :smile:? -" in shown


def test_kept_to_the_last_layer_where_that_needs_the_prefix_alone() -> None:
    pieces = [("a", 0), (" ", None), ("film", 2), (" ", None), ("long", 1)]
    shown = printed(view(*pieces, prefix_only_at_end=True))
    assert "a¹ film long²" in shown
    assert "no number: kept to the last layer, which needs [CLS] alone" in shown
    assert "[CLS] alone" in next(line for line in shown.splitlines() if line.lstrip().startswith("3 "))
    coloured = printed(view(*pieces, prefix_only_at_end=True), force_terminal=True, color_system="truecolor")
    assert "\x1b[1;38;2;204;120;0mfilm" in coloured
    assert "\x1b[1;38;2;204;120;0mkept to the last layer" in coloured


@pytest.mark.parametrize(
    ("fates", "legend"),
    [
        ((3, 3), "Every word is kept to the end"),
        ((0, 2), "Dropped in layer 1 3"),
        ((1, 3), "Dropped in layer 2, or kept to the end"),
    ],
)
def test_the_legend_names_what_is_there(fates: tuple[int, int], legend: str) -> None:
    found = view(("a", fates[0]), (" ", None), ("b", fates[1]))
    assert legend in [line.rstrip() for line in printed(found, numbers=False).splitlines()]
    assert ("no number" in printed(found)) == (min(fates) < 3 == max(fates))


def test_no_text() -> None:
    found = Survival(["[CLS]", "[SEP]"], [2, 1], 2, [[], [("a", 2)]], {}, 0.5, True)
    assert [line.strip() for line in printed(found).splitlines()[:3]] == ["(no text)", "", "a"]
    assert "word" not in printed(Survival(["[CLS]", "[SEP]"], [2, 1], 2, [[]], {}, 0.5, True))
    one_layer = Survival(["[CLS]", "a"], [1, 0], 1, [[("a", 0)]], {}, 0.5, True)
    assert "Every word is kept to the last layer, which needs [CLS] alone" in printed(one_layer)


def test_survivors_of_a_model_whose_last_layer_keeps_the_prefix(tokenizer: PreTrainedTokenizerFast) -> None:
    model = prune(FAMILIES["bert"](), PruningConfig("none", prefix_only_at_end=True))
    found = survival(model, tokenizer, TEXT)
    assert found.prefix_only_at_end
    assert "Every word is kept to the last layer, which needs [CLS] alone" in printed(found)
    assert "(no text)" in printed(survival(model, tokenizer, ""))


def test_readable_with_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    found = Survival(["[CLS]", "a", "b"], [2, 0, 2], 2, [[("a", 0), (" ", None), ("b", 2)]], {}, 0.5)
    terminal = {"force_terminal": True, "color_system": "truecolor"}
    shown = printed(found, **terminal)
    assert "\x1b[38;2;112;112;112ma\x1b[0m" in shown
    assert "\x1b[1;38;2;204;120;0mkept to the end" in shown
    assert "¹" not in shown
    assert "Prediction: \x1b[1mno label" in shown
    assert "¹" in printed(found, numbers=True, **terminal)
    monkeypatch.setenv("NO_COLOR", "1")
    assert "a¹" in printed(found, **terminal)


@pytest.mark.parametrize("problem", ["regression", "multi_label_classification"])
def test_predictions(tokenizer: PreTrainedTokenizerFast, problem: str) -> None:
    labels = 1 if problem == "regression" else 3
    model = prune(FAMILIES["bert"](num_labels=labels, problem_type=problem), PruningConfig("none"))
    found = survival(model, tokenizer, TEXT)
    assert found.last_layer == [4] * len(found.tokens)
    assert found.flops_ratio == 1
    logits = model(torch.tensor([tokenizer(TEXT)["input_ids"]])).logits[0]
    if problem == "regression":
        assert found.prediction == {"score": pytest.approx(logits[0].item())}
    else:
        expected = {f"LABEL_{i}": p for i, p in enumerate(logits.sigmoid().tolist()) if p > 0.5}
        assert found.prediction == pytest.approx(expected)


def test_the_mode_is_put_back(pruned: PrunedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    pruned.train()
    try:
        found = survival(pruned, tokenizer, TEXT)
        assert pruned.training
    finally:
        pruned.eval()
    assert found == survival(pruned, tokenizer, TEXT)
