"""Models with a decoder: what they write, the settings by which they write, and how they are trained."""

from __future__ import annotations

import json

import pytest
import torch
from transformers import (
    AutoModel,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    GenerationConfig,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
)

from thresher import PrunedModel, PruningConfig, UserError, prune
from thresher.store import load_config
from thresher.tasks import task_of

from .cases import LENGTHS, ThresholdRule, clear_case, rows, soften
from .reference import masked_reference
from .test_every_head import made
from .tiny import ARCHITECTURES, BY_DECODER, random_inputs

WRITERS = ["bart", "marian", "t5"]
each_writer = pytest.mark.parametrize("name", WRITERS)
LONG = {"max_new_tokens": 6, "min_new_tokens": 6}


def texts(pruned: PrunedModel, **padding) -> dict[str, torch.Tensor]:
    inputs = random_inputs(pruned.model, LENGTHS, **padding)
    return {key: x for key, x in inputs.items() if not key.startswith("decoder")}


@each_writer
@pytest.mark.parametrize("beams", [1, 2])
def test_nothing_dropped_writes_what_transformers_writes(name, beams):
    """Words of the input may be forbidden, for which transformers needs the ids."""
    options = {"num_beams": beams, "output_scores": True, "return_dict_in_generate": True}
    options |= {"encoder_no_repeat_ngram_size": 1, **LONG}
    for pruned in (prune(ARCHITECTURES[name](head="generation")), made(name, "generation")):
        inputs = texts(pruned, extra_padding=3)
        ours, theirs = (
            pruned.generate(**inputs, dense=True, **options),
            pruned.model.generate(**inputs, **options),
        )
        assert torch.equal(ours.sequences, theirs.sequences)
        for one, other in zip(ours.scores, theirs.scores, strict=True):
            torch.testing.assert_close(one, other, atol=1e-6, rtol=0)


@each_writer
@pytest.mark.usefixtures("no_grad")
def test_what_is_written_of_survivors_is_what_masks_say(name):
    """Word by word, by the plain model that hides the dropped tokens."""
    pruned = made(name, "generation")
    inputs, _, _ = clear_case(pruned, name, "threshold", suffix=1)
    del inputs["decoder_input_ids"]
    found = pruned.generate(**inputs, output_scores=True, return_dict_in_generate=True, **LONG)
    for step, scores in enumerate(found.scores[:-1]):  # the last is EOS, forced
        before = {"decoder_input_ids": found.sequences[:, : step + 1]}
        logits = masked_reference(pruned.model, inputs | before, ThresholdRule(), suffix=1).logits[:, -1]
        logits[:, pruned.config.eos_token_id] = -torch.inf
        torch.testing.assert_close(scores, logits.to(scores), atol=1e-5, rtol=0)
        assert torch.equal(found.sequences[:, step + 1], logits.argmax(1))


@each_writer
@pytest.mark.parametrize("beams", [1, 2])
def test_a_text_is_written_alike_alone_and_among_others(name, beams):
    pruned = made(name, "generation")
    inputs = texts(pruned, padding_side="left")
    whole = pruned.generate(**inputs, num_beams=beams, **LONG)
    for text, expected in zip(rows(inputs), whole, strict=True):
        assert torch.equal(pruned.generate(**text, num_beams=beams, **LONG)[0], expected)


@each_writer
@pytest.mark.parametrize("engine", ["torch", "native"])
@pytest.mark.usefixtures("no_grad")
def test_engines_write_the_same(name, engine):
    """The decoder runs in the engine's precision too."""
    pruned = made(name, "generation")
    inputs = random_inputs(pruned.model, LENGTHS)
    for precision, tolerance in {"fp32": 1e-4, "bf16": 1.0}.items():
        ready = made(name, "generation", dtype=torch.float32).for_inference(precision, engine)
        expected = pruned(**inputs).logits.float()
        torch.testing.assert_close(ready(**inputs).logits.float(), expected, atol=tolerance, rtol=0)
        if precision == "fp32":
            assert torch.equal(
                ready.generate(**texts(pruned), **LONG), pruned.generate(**texts(pruned), **LONG)
            )


@each_writer
def test_first_and_last_token_survive(name):
    pruned = made(name, "generation")
    pruned.pruner.thresholds.fill_(1e6)
    trace = pruned(**random_inputs(pruned.model, LENGTHS)).trace
    assert [trace.positions(row)[-1] for row in (0, 1)] == [[0, 25], [0]]


def test_flops_of_the_encoder_by_hand():
    pruned = made("marian", "generation")
    trace = pruned(**random_inputs(pruned.model, [26])).trace
    d, f, total, n_in = 32, 64, 0, 26
    for n_out in trace.kept[:, 0].tolist():
        total += 2 * (3 * d**2 * n_in + d * n_in**2 + d * n_in * n_out + d**2 * n_out + 2 * d * f * n_out)
        n_in = n_out
    assert n_in < 20
    assert trace.flops.tolist() == [total]


# Training ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["bart", "marian"])
def test_dropout_is_that_of_transformers(name):
    """Without that of attention, which draws for other rows, the numbers drawn are the same."""
    options = {"dropout": 0.3, "activation_dropout": 0.2, "attention_dropout": 0.0}
    pruned = prune(ARCHITECTURES[name](**options)).train()
    inputs = random_inputs(pruned.model, [32, 32])
    torch.manual_seed(5)
    theirs = pruned.model(**inputs).logits
    torch.manual_seed(5)
    torch.testing.assert_close(pruned(**inputs).logits, theirs, atol=1e-9, rtol=0)
    with pruned.without_dropout():
        still = pruned(**inputs).logits
    torch.testing.assert_close(still, pruned.eval()(**inputs).logits, atol=1e-9, rtol=0)
    assert (still - theirs).abs().max() > 0.1


def test_layers_are_not_skipped_in_silence():
    pruned = prune(ARCHITECTURES["bart"](encoder_layerdrop=0.1, decoder_layerdrop=0.1))
    inputs = random_inputs(pruned.model, LENGTHS)
    pruned(**inputs)
    with pytest.raises(UserError, match=r"encoder_layerdrop is 0\.1"):
        pruned.train()(**inputs)


@each_writer
def test_thresholds_learn_by_what_the_decoder_reads(name):
    """By finite differences, of the last layer's threshold too."""
    pruned = soften(made(name, "generation"), 0.5)
    inputs = random_inputs(pruned.model, LENGTHS)
    labels = torch.arange(6 * 5).view(6, 5)
    pruned(**inputs, labels=labels).loss.backward()
    table = pruned.pruner.table
    for layer in range(4):
        around = []
        for step in (1e-3, -1e-3):
            with torch.no_grad():
                table[0, layer] += step
                around.append(float(pruned(**inputs, labels=labels).loss))
                table[0, layer] -= step
        expected = torch.tensor((around[0] - around[1]) / 2e-3)
        torch.testing.assert_close(table.grad[0, layer].float(), expected, atol=1e-4, rtol=0.02)


def test_seq2seq_trainer_trains_writes_and_saves(tmp_path):
    pruned = made("marian", "generation", dtype=torch.float32)
    pruned.generation_config.num_beams = 3
    given = [
        {
            **{key: x[0] for key, x in random_inputs(pruned.model, [9], seed=seed).items()},
            "labels": torch.arange(5),
        }
        for seed in range(4)
    ]
    arguments = Seq2SeqTrainingArguments(
        str(tmp_path),
        max_steps=2,
        predict_with_generate=True,
        report_to=[],
        use_cpu=True,
        generation_max_length=8,
    )
    trainer = Seq2SeqTrainer(pruned, arguments, train_dataset=given, eval_dataset=given)
    trainer.train()
    again = PrunedModel.from_pretrained(tmp_path / "checkpoint-2")
    assert again.generation_config.num_beams == 3
    inputs = texts(pruned)
    assert torch.equal(again.generate(**inputs), pruned.generate(**inputs))
    assert trainer.predict(given).predictions.shape[0] == 4


# Folders -------------------------------------------------------------------------------------------------


@each_writer
def test_a_saved_model_writes_the_same(name, tmp_path):
    pruned = made(name, "generation", dtype=torch.float32)
    settings = {"num_beams": 2, "max_length": 9, "bad_words_ids": [[7], [8, 9]], "early_stopping": True}
    pruned.generation_config = GenerationConfig(
        **settings, decoder_start_token_id=3, pad_token_id=0, eos_token_id=1, length_penalty=0.8
    )
    inputs = texts(pruned)
    expected = pruned.generate(**inputs, return_dict_in_generate=True, output_scores=True)
    pruned.save_pretrained(tmp_path)
    again = PrunedModel.from_pretrained(tmp_path)
    assert again.can_generate()
    for key in ("sequences", "sequences_scores"):
        found = again.generate(**inputs, return_dict_in_generate=True, output_scores=True)
        assert torch.equal(found[key], expected[key])


def test_a_table_of_sines_that_no_file_holds_may_be_most_of_a_model(tmp_path):
    pruned = made("marian", "generation", dtype=torch.float32, max_position_embeddings=8192)
    pruned.save_pretrained(tmp_path)
    inputs = random_inputs(pruned.model, LENGTHS)
    assert torch.equal(PrunedModel.from_pretrained(tmp_path)(**inputs).logits, pruned(**inputs).logits)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"num_beams": 10**9}, "num_beams is 1000000000; it must be a whole number from 1 to 256"),
        ({"num_beams": 0}, "num_beams is 0"),
        ({"max_length": -1}, "max_length is -1"),
        ({"max_new_tokens": 2.5}, "max_new_tokens is 2.5"),
        ({"bad_words_ids": [[10**9]]}, "bad_words_ids is"),
        ({"bad_words_ids": [7]}, "bad_words_ids is"),
        ({"decoder_start_token_id": 120}, "decoder_start_token_id is 120; it must be an id below 120"),
        ({"forced_eos_token_id": [1, -1]}, "forced_eos_token_id is"),
        ({"suppress_tokens": [1e9]}, "suppress_tokens is"),
        ({"length_penalty": float("nan")}, "length_penalty is nan; it must be a finite number"),
        ({"repetition_penalty": 0}, "repetition_penalty is 0; it must be a finite number above 0"),
        ({"top_p": 2}, "top_p is 2; it must be a number from 0 to 1"),
        ({"do_sample": "yes"}, "do_sample is 'yes'; it must be true or false"),
        ({"early_stopping": "always"}, "early_stopping is 'always'"),
        ({"custom_generate": "somebody/theirs"}, "Thresher does not know this setting"),
        ({"assistant_model": "theirs"}, "Thresher does not know this setting"),
        ([], "holds no settings of generate"),
        ("[" * 100_000, "damaged"),
    ],
    ids=str,
)
def test_settings_of_a_stranger_are_looked_at(setting, message, tmp_path_factory):
    folder = tmp_path_factory.mktemp("folder")
    made("bart", "generation", dtype=torch.float32).save_pretrained(folder)
    text = setting if isinstance(setting, str) else json.dumps(setting)
    (folder / "generation_config.json").write_text(text)
    with pytest.raises(UserError, match=message) as refused:
        PrunedModel.from_pretrained(folder)
    assert str(folder) in str(refused.value)


def test_settings_that_change_no_answer_are_left_out(tmp_path):
    made("bart", "generation", dtype=torch.float32).save_pretrained(tmp_path)
    settings = {
        "cache_implementation": "static",
        "output_attentions": True,
        "bad_words_ids": [],
        "num_beams": 2,
    }
    (tmp_path / "generation_config.json").write_text(json.dumps(settings))
    model = PrunedModel.from_pretrained(tmp_path)
    assert (model.generation_config.num_beams, model.generation_config.cache_implementation) == (2, None)


# What is refused -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "head"), [(name, head) for name in WRITERS for head in sorted(BY_DECODER[name])]
)
def test_answers_of_the_decoder_are_refused_by_name(name, head):
    autos = {"sequence": AutoModelForSequenceClassification, "spans": AutoModelForQuestionAnswering}
    auto, config = autos.get(head, AutoModel), ARCHITECTURES[name](head="generation").config
    if type(config) not in auto._model_mapping:
        pytest.skip("transformers has none")
    model = auto.from_config(config)
    with pytest.raises(UserError, match=f"{type(model).__name__} answers by its decoder"):
        prune(model)


def test_what_has_no_decoder_writes_nothing():
    pruned = made("bert", "sequence")
    assert not pruned.can_generate()
    with pytest.raises(UserError, match="BertForSequenceClassification has no decoder"):
        pruned.generate(**texts(pruned))
    with pytest.raises(UserError, match="takes no decoder_input_ids"):
        pruned(**texts(pruned), decoder_input_ids=torch.ones(6, 5).long())


def test_a_decoder_must_be_told_what_to_read_or_to_write(tmp_path):
    pruned = made("bart", "generation", dtype=torch.float32)
    with pytest.raises(UserError, match=r"pass labels or decoder_input_ids as well, or call model\.generate"):
        pruned(**texts(pruned))
    with pytest.raises(
        UserError, match="offset has 3 numbers; it needs one for each of the model's 0 labels"
    ):
        prune(pruned.model, PruningConfig(offset=[0.1, 0.2, 0.3]))
    with pytest.raises(UserError, match="takes no inputs_embeds"):
        pruned.generate(**texts(pruned), inputs_embeds=torch.ones(6, 5, 32))
    pruned.save_pretrained(tmp_path)
    with pytest.raises(UserError, match="the model answers with a text"):
        task_of(load_config(tmp_path))
