"""Settings of the newer architectures that no model can have: refused in words before anything is built."""

from __future__ import annotations

import json
import time

import pytest
import torch

from thresher import PrunedModel, UserError, prune

from .test_every_head import made
from .tiny import ARCHITECTURES, random_inputs

HUGE = 10**12
SIZE = [-1, 0, HUGE, "x", 2.5, []]
ACTIVATION = ["x", "__class__", 3, []]
RATE = [-0.1, float("nan"), "x", []]
REFUSED = {
    ("distilbert", "sequence"): {
        "dim": SIZE,
        "n_layers": [*SIZE, 10**6, 5],
        "n_heads": [*SIZE, 3],
        "hidden_dim": [*SIZE, 65],
        "activation": ACTIVATION,
        "seq_classif_dropout": RATE,
    },
    ("albert", "sequence"): {
        "inner_group_num": [*SIZE, 10**6, 2],
        "num_hidden_groups": [*SIZE, 10**6, 3],
        "embedding_size": [*SIZE, 17],
        "initializer_range": [-1, float("inf"), "x"],
    },
    ("eurobert", "sequence"): {
        "num_key_value_heads": [-1, 0, 3, HUGE, "x"],
        "classifier_pooling": ["x", 3, None],
        "head_dim": [-8, 0, 7, HUGE],
    },
    ("t5", "tokens"): {
        "d_model": SIZE,
        "d_kv": SIZE,
        "d_ff": SIZE,
        "num_layers": [*SIZE, 10**6, 5],
        "num_heads": SIZE,
        "num_decoder_layers": [-1, 0, 10**6, "x"],
        "relative_attention_num_buckets": [*SIZE, 1, 3, 9],
        "relative_attention_max_distance": [*SIZE, 1, 4],
        "feed_forward_proj": [*ACTIVATION, "gated", "gated-", "gated-x", "relu-gated", "gated-gelu-x"],
        "dense_act_fn": ACTIVATION,
        "layer_norm_epsilon": RATE,
        "initializer_factor": [-1, float("nan"), 1e300],
    },
    ("t5", "generation"): {
        "num_decoder_layers": [*SIZE, 10**6, 5],
        "decoder_start_token_id": [-1, 120, HUGE, "x", 1.5],
    },
    ("marian", "generation"): {
        "d_model": SIZE,
        "encoder_layers": [*SIZE, 10**6, 5],
        "decoder_layers": [*SIZE, 10**6, 3],
        "encoder_attention_heads": [*SIZE, 3],
        "decoder_attention_heads": [*SIZE, 3],
        "encoder_ffn_dim": [*SIZE, 65],
        "decoder_ffn_dim": [*SIZE, 65],
        "vocab_size": [*SIZE, 121],
        "decoder_vocab_size": [-1, HUGE, "x"],
        "max_position_embeddings": [*SIZE, 2**17],
        "activation_function": ACTIVATION,
        "activation_dropout": [*RATE, None],
        "dropout": [*RATE, None],
        "encoder_layerdrop": RATE,
        "init_std": [-1, float("nan")],
        "decoder_start_token_id": [-1, 120, "x"],
        "forced_eos_token_id": [-1, 120, [1, 120], "x"],
        "pad_token_id": [-1, 120, "x"],
        "is_decoder": [True],
    },
}
SAME = {"return_dict": [False, None], "output_hidden_states": [True, 3, "x"], "output_attentions": [True]}
"""What says in which form outputs are wanted: a call says so itself."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A folder of each, made once."""
    made_before: dict[tuple[str, str], tuple] = {}

    def folder(name, head):
        if (name, head) not in made_before:
            place = tmp_path_factory.mktemp(f"{name}-{head}")
            pruned = made(name, head, dtype=torch.float32)
            pruned.save_pretrained(place)
            made_before[name, head] = place, json.loads((place / "config.json").read_text()), pruned
        return made_before[name, head]

    return folder


def opened(place, config, **changed) -> PrunedModel:
    (place / "config.json").write_text(json.dumps(config | changed))
    return PrunedModel.from_pretrained(place)


@pytest.mark.parametrize(
    ("name", "head", "setting"),
    [(*key, setting) for key, settings in REFUSED.items() for setting in settings],
)
def test_is_refused_in_words(name, head, setting, folders):
    place, config, _ = folders(name, head)
    for value in REFUSED[name, head][setting]:
        start = time.process_time()
        with pytest.raises(UserError) as refused:
            opened(place, config, **{setting: value})
        assert str(place) in str(refused.value)
        assert time.process_time() - start < 5, f"{value!r} takes long"


@pytest.mark.parametrize("setting", SAME)
@pytest.mark.usefixtures("no_grad")
def test_changes_no_answer(setting, folders):
    place, config, pruned = folders("marian", "generation")
    inputs = random_inputs(pruned.model, [26, 1, 9])
    for value in SAME[setting]:
        output = opened(place, config, **{setting: value})(**inputs)
        assert torch.equal(output.logits, pruned(**inputs).logits)


def test_a_base_model_of_t5_keeps_how_it_scales(tmp_path):
    """Versions 1.1 and later do not scale what the decoder gives."""
    base = ARCHITECTURES["t5"](head="generation", dtype=torch.float32)
    base.config.scale_decoder_outputs = False
    prune(base).save_pretrained(tmp_path)
    again = PrunedModel.from_pretrained(tmp_path)
    inputs = random_inputs(base, [9])
    torch.testing.assert_close(again(**inputs).logits, base(**inputs).logits, atol=1e-4, rtol=0)


def test_a_text_may_end_with_any_token_where_none_is_padding(tmp_path):
    pruned = made("gemma3_text", "sequence", dtype=torch.float32)
    pruned.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    inputs = random_inputs(pruned.model, [9])
    again = opened(tmp_path, config, pad_token_id=None)
    torch.testing.assert_close(again(**inputs).logits, pruned(**inputs).logits)
