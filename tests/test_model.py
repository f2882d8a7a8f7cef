"""PrunedModel's calling convention, what it refuses, and its life inside transformers' pipeline."""

import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import nn
from transformers import (
    BertForMaskedLM,
    FNetConfig,
    FNetForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    PreTrainedTokenizerFast,
    pipeline,
)
from transformers.modeling_outputs import SequenceClassifierOutput

from thresher import PrunedModel, PruningConfig, UserError, prune
from thresher.families import family_of

from .cases import LENGTHS, build, every_family, every_pair, rows
from .tiny import FAMILIES, POSITIONS, random_inputs

LOSSES = {
    "single-label": (3, None, torch.tensor([0, 2, 1, 1, 0, 2])),
    "multi-label": (
        3,
        "multi_label_classification",
        torch.tensor([[1, 0, 1], [0, 0, 1]] * 3, dtype=torch.double),
    ),
    "regression": (1, "regression", torch.tensor([0.5, -1, 2, 0, 1, 3], dtype=torch.double)),
    "many regressions": (3, "regression", torch.arange(18, dtype=torch.double).view(6, 3)),
    "guessed regression": (1, None, torch.tensor([0.5, -1, 2, 0, 1, 3], dtype=torch.double)),
    "guessed multi-label": (3, None, torch.tensor([[1, 0, 1], [0, 0, 1]] * 3, dtype=torch.double)),
}


# Calling convention ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "task"),
    [(f, "single-label") for f in FAMILIES] + [("bert", t) for t in LOSSES if t != "single-label"],
)
def test_loss_is_that_of_transformers(family, task):
    labels, problem, target = LOSSES[task]
    pruned = build(family, "none", num_labels=labels, problem_type=problem)
    stock = FAMILIES[family](num_labels=labels, problem_type=problem)
    inputs = random_inputs(stock, LENGTHS)
    ours, theirs = pruned(**inputs, labels=target), stock(**inputs, labels=target)
    torch.testing.assert_close(ours.loss, theirs.loss, atol=1e-5, rtol=0)
    assert pruned.config.problem_type == stock.config.problem_type
    ours.loss.backward()
    theirs.loss.backward()
    for (name, one), other in zip(pruned.model.named_parameters(), stock.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, atol=1e-5, rtol=1e-4, msg=name)


@every_pair
@pytest.mark.usefixtures("no_grad")
def test_output(family, pruner):
    pruned = build(family, pruner)
    inputs = random_inputs(pruned.model, LENGTHS)
    output = pruned(**inputs)
    assert type(output) is SequenceClassifierOutput
    assert list(output.keys()) == ["logits"]  # the trace is no item: it would break pipelines and Trainer
    assert output.trace.kept.shape == (4, len(LENGTHS))
    assert output.loss is None
    by_place = [inputs.get(name) for name in ("input_ids", "attention_mask", "token_type_ids")]
    assert torch.equal(pruned(*by_place).logits, output.logits)
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    with_loss = pruned(**inputs, labels=labels)
    assert list(with_loss.keys()) == ["loss", "logits"]
    loss, logits = pruned(**inputs, labels=labels, return_dict=False)
    assert torch.equal(logits, output.logits)
    assert loss == with_loss.loss
    (logits,) = pruned(**inputs, return_dict=False)
    assert torch.equal(logits, output.logits)


def test_a_model_like_any_other():
    pruned = build("bert")
    assert pruned.config is pruned.model.config
    assert (pruned.device, pruned.dtype) == (torch.device("cpu"), torch.float64)
    assert not pruned.can_generate()
    assert not pruned.training
    names = {name.split(".")[0] for name in pruned.state_dict()}
    assert names == {"model", "pruner", "_extra_state"}  # the family registers nothing twice
    assert prune(FAMILIES["bert"]().train()).training


@pytest.mark.usefixtures("no_grad")
def test_dense_is_left_again_after_an_error():
    pruned = build("bert")
    inputs = random_inputs(pruned.model, LENGTHS)
    before = pruned(**inputs)
    with pruned.dense():
        assert torch.equal(pruned(**inputs).trace.kept[-1], torch.tensor(LENGTHS))
    with pytest.raises(UserError, match="input_ids"), pruned.dense():
        pruned()
    assert torch.equal(pruned(**inputs).logits, before.logits)


@every_family
@pytest.mark.usefixtures("no_grad")
def test_thresholds_are_assigned_in_place(family):
    """They start at 0, and nothing but a prefix is left of thresholds that are too high."""
    pruned = prune(FAMILIES[family]())
    inputs = random_inputs(pruned.model, LENGTHS)
    assert (pruned.pruner.thresholds == 0).all()
    assert torch.equal(pruned(**inputs).trace.kept[-1], torch.tensor(LENGTHS))
    pruned.pruner.thresholds[2] = 1e9
    assert pruned.pruner.table[0].tolist() == [0, 0, 1e9, 0]
    kept = pruned(**inputs).trace.kept
    assert torch.equal(kept, torch.tensor([LENGTHS] * 2 + [[1] * len(LENGTHS)] * 2))
    pruned.pruner.thresholds[:] = 1e9
    output = pruned(**inputs)
    assert (output.trace.kept == 1).all()
    assert output.logits.isfinite().all()


# Refusals --------------------------------------------------------------------------------------------------


@every_family
def test_texts_longer_than_the_positions_are_refused(family):
    pruned = build(family)
    (whole,) = rows(random_inputs(pruned.model, [POSITIONS]))
    assert pruned(**whole).logits.isfinite().all()
    longer = {name: torch.cat([values, values[:, -1:]], 1) for name, values in whole.items()}
    with pytest.raises(UserError, match=f"{POSITIONS + 1} tokens, but this model allows {POSITIONS}"):
        pruned(**longer)


def test_padding_counts_for_nothing_in_the_length():
    pruned = build("bert")
    text = random_inputs(pruned.model, [5])
    wide = {name: nn.functional.pad(values, (0, 3 * POSITIONS)) for name, values in text.items()}
    torch.testing.assert_close(pruned(**wide).logits, pruned(**text).logits, atol=1e-12, rtol=0)


def test_masks_that_cannot_be_packed_are_refused():
    pruned = build("bert")
    inputs = random_inputs(pruned.model, [4, 4])
    with pytest.raises(UserError, match="holes in row 1"):
        pruned(inputs["input_ids"], torch.tensor([[1, 1, 1, 1], [1, 0, 1, 1]]))
    with pytest.raises(UserError, match="no real token in row 0"):
        pruned(inputs["input_ids"], torch.tensor([[0, 0, 0, 0], [1, 1, 1, 1]]))
    with pytest.raises(UserError, match="input_ids"):
        pruned()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: FNetForSequenceClassification(
                FNetConfig(vocab_size=9, hidden_size=8, intermediate_size=8, num_hidden_layers=1)
            ),
            "'fnet' is not supported. Supported encoders: bert, roberta, .*modernbert",
        ),
        (
            lambda: GPT2ForSequenceClassification(GPT2Config(vocab_size=9, n_embd=8, n_head=2, n_layer=1)),
            "'gpt2' is not supported. Supported encoders: bert",
        ),
        (lambda: nn.Linear(2, 2), "'Linear' is not supported. Supported encoders: bert"),
        (lambda: FAMILIES["bert"](is_decoder=True), "configured as a decoder"),
        (
            lambda: BertForMaskedLM(FAMILIES["bert"]().config),
            "BertForMaskedLM has no head that",
        ),
    ],
)
def test_unsupported_models_are_refused(make, message):
    with pytest.raises(UserError, match=message):
        prune(make())


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (PruningConfig("better"), "no pruner 'better'; choose one of: threshold, topk"),
        ("threshold", r"a PruningConfig, not 'threshold': PruningConfig\('threshold'\)"),
        (PruningConfig("none", {"k": 1}), "no option 'k'; its options are: none"),
        (PruningConfig("threshold", {"gate": "soft"}), "no gate 'soft'; choose one of: exact, paper"),
        (PruningConfig("threshold", {"normalization": "x"}), "no normalization 'x'"),
        (PruningConfig("topk", {"dense_layers": 4}), "first 4 of 4 layers dense"),
    ],
)
def test_unknown_pruners_and_options_are_refused(config, message):
    with pytest.raises(UserError, match=message):
        prune(FAMILIES["bert"](), config)


class Wrapper(nn.Module):
    """As much of a PEFT model as choosing the family needs."""

    def __init__(self, model):
        super().__init__()
        self.base_model = model
        self.config, self.device, self.dtype = model.config, model.device, model.dtype

    def get_base_model(self):
        return self.base_model


@every_family
@pytest.mark.usefixtures("no_grad")
def test_a_wrapper_is_looked_through(family):
    model = FAMILIES[family]()
    assert family_of(Wrapper(model)).model is model
    assert Wrapper(model).training  # what it says; the model in it does not, and is not told to
    assert not prune(Wrapper(model)).training
    inputs = random_inputs(model, LENGTHS)
    assert torch.equal(prune(Wrapper(model))(**inputs).logits, prune(model)(**inputs).logits)


@pytest.mark.usefixtures("no_grad")
def test_submodules_are_called_live():
    """A layer exchanged later (an adapter, a quantised linear) is the one that runs, as in transformers."""
    pruned = build("bert", "none")
    inputs = random_inputs(pruned.model, LENGTHS)
    before = pruned(**inputs).logits
    old = pruned.model.bert.encoder.layer[1].attention.self.query
    pruned.model.bert.encoder.layer[1].attention.self.query = nn.Sequential(old, nn.Linear(32, 32).double())
    after = pruned(**inputs).logits
    assert not torch.allclose(after, before, atol=1e-3)
    torch.testing.assert_close(after, pruned.model(**inputs).logits, atol=1e-9, rtol=0)


# Pipeline --------------------------------------------------------------------------------------------------


@pytest.fixture
def tokenizer():
    """A WordPiece tokenizer of 120 made-up words."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *(f"w{i}" for i in range(116))]
    core = Tokenizer(models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    core.normalizer, core.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.Whitespace()
    core.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return PreTrainedTokenizerFast(tokenizer_object=core, **special)


@pytest.mark.parametrize("batch_size", [1, 2])
@pytest.mark.parametrize("family", ["bert", "modernbert"])
def test_pipeline(family, batch_size, tokenizer, transformers_log, tmp_path):
    build(family, dtype=torch.float32, pad_token_id=0, type_vocab_size=2).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    pruned = PrunedModel.from_pretrained(tmp_path)
    texts = ["w1 w7 w20 w3 w99 w4 w5", "w8", "w5 w6 w7 w8 w9 w10 w11 w12 w13 w40 w2", "w55 w56 unknown"]
    classify = pipeline("text-classification", model=pruned, tokenizer=tokenizer, device="cpu")
    answers = classify(texts, batch_size=batch_size)
    expected = pruned(**tokenizer(texts, padding=True, return_tensors="pt"))
    assert expected.trace.flops.sum() < 0.9 * expected.trace.dense_flops.sum()
    scores, labels = expected.logits.softmax(1).max(1)
    assert [answer["label"] for answer in answers] == [f"LABEL_{label}" for label in labels.tolist()]
    torch.testing.assert_close(torch.tensor([a["score"] for a in answers]), scores, atol=1e-5, rtol=0)
    assert "not supported" not in transformers_log.text
    pipeline("text-classification", model=nn_lookalike(pruned), tokenizer=tokenizer, device="cpu")
    assert "not supported" in transformers_log.text  # the log does hear it, of a stranger


def nn_lookalike(pruned):
    """The same model under a name that transformers does not know."""
    return type("Stranger", (PrunedModel,), {})(pruned.model, pruned.pruning)


def test_a_mask_of_another_shape_is_refused():
    model = prune(FAMILIES["bert"]())
    with pytest.raises(UserError, match="must be alike"):
        model(input_ids=torch.ones(2, 5, dtype=torch.long), attention_mask=torch.ones(2, 4))


def test_an_adapter_is_not_saved_in_part(tmp_path):
    model = prune(FAMILIES["bert"]())
    model.model.get_base_model = lambda: model.model
    with pytest.raises(UserError, match="merge"):
        model.save_pretrained(tmp_path)
