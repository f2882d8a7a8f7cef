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
from thresher.measure.view import Survival, _by_offsets, _by_tokens, render, survival

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
    stretches = _by_tokens([(token, i) for i, token in enumerate(tokens)])
    assert "".join(piece for piece, _ in stretches) == text
    assert [fate for _, fate in stretches if fate is not None] == list(range(len(tokens)))


def test_by_offsets() -> None:
    # Some tokenizers count the space in; one character may be spread over several tokens.
    assert _by_offsets("a b", [(0, 1, 2), (1, 3, 0)]) == [("a", 2), (" ", None), ("b", 0)]
    assert _by_offsets("é!", [(0, 1, 0), (0, 1, 3), (1, 2, 3)]) == [("é!", 3)]
    assert _by_offsets("a b c", [(2, 3, 1)]) == [("… ", None), ("b", 1), (" …", None)]
    assert _by_offsets(" ", []) == []


def test_readable_without_colours() -> None:
    text = [("grain", 3), (" ", None), ("cha", 0), ("ff", 1), (" [b]", 2), ("\x1b", 3)]
    found = Survival(["[CLS]", "grain", "cha", "##ff", "[b]"], [3, 3, 0, 1, 2], 3, [text], {"good": 0.9}, 0.5)
    shown = printed(found)
    assert "grain cha¹ff² [b]³?" in shown
    assert "\x1b" not in shown
    assert "word¹: dropped in layer 1" in shown
    rows = [line.split() for line in shown.splitlines() if "█" in line]
    assert [row[:3] for row in rows] == [["1", "4", "80%"], ["2", "3", "60%"], ["3", "2", "40%"]]
    assert [len(row[3]) for row in rows] == [24, 18, 12]
    assert "Prediction: good 0.90" in shown
    assert "FLOPs: 50% of base's" in shown


def test_readable_with_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    found = Survival(["[CLS]", "a", "b"], [2, 0, 1], 2, [[("a", 0), (" ", None), ("b", 1)]], {}, 0.5)
    terminal = {"force_terminal": True, "color_system": "truecolor"}
    shown = printed(found, **terminal)
    assert "\x1b[38;2;112;112;112ma\x1b[0m" in shown
    assert "\x1b[1;38;2;204;120;0mkept to the end" in shown
    assert "¹" not in shown
    assert "Prediction: \x1b[1mno label" in shown
    assert "¹" in printed(found, numbers=True, **terminal)
    monkeypatch.setenv("NO_COLOR", "1")
    assert "a¹ b²" in printed(found, **terminal)


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
