"""What a config of transformers can say of a model: computed as transformers does, or refused in words."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from thresher import UserError, prune

from .tiny import ARCHITECTURES, FAMILIES, MODERNBERT, random_inputs

pytestmark = pytest.mark.usefixtures("no_grad")

BERTS = ["bert", "roberta", "electra"]
LENGTHS = [26, 1, 9]


def rotary(**parameters) -> dict:
    kinds = MODERNBERT["rope_parameters"]
    return {"rope_parameters": {kind: values | parameters for kind, values in kinds.items()}}


COMPUTED = [
    *[(BERTS, {"hidden_act": name}) for name in ("relu", "gelu_new", "gelu_python", "silu")],
    (BERTS, {"layer_norm_eps": 0.1}),
    (BERTS, {"chunk_size_feed_forward": 1}),
    (BERTS, {"classifier_dropout": 0.5, "hidden_dropout_prob": 0.9, "attention_probs_dropout_prob": 0.9}),
    (BERTS, {"position_embedding_type": "absolute", "use_cache": False, "tie_word_embeddings": False}),
    (BERTS, {"num_labels": 1, "problem_type": "regression"}),
    (BERTS, {"type_vocab_size": 5}),
    (BERTS, {"num_attention_heads": 1}),
    (BERTS, {"num_attention_heads": 32}),
    (BERTS, {"num_hidden_layers": 1}),
    (BERTS, {"pad_token_id": 7, "max_position_embeddings": 72}),
    (["bert", "electra", "modernbert"], {"pad_token_id": None}),
    (["electra"], {"embedding_size": 32}),
    (["modernbert"], {"hidden_activation": "relu", "classifier_activation": "silu"}),
    (["modernbert"], {"norm_eps": 0.1, "mlp_dropout": 0.5, "embedding_dropout": 0.5}),
    (["modernbert"], {"layer_types": None, "global_attn_every_n_layers": 2}),
    (["modernbert"], {"layer_types": ["sliding_attention"] * 4}),
    *[(["modernbert"], {"local_attention": window}) for window in (0, 1, 7, 1000)],
    (["modernbert"], rotary(rope_type="linear", factor=4.0)),
    (["modernbert"], rotary(rope_type="dynamic", factor=4.0)),
    (["modernbert"], rotary(rope_type="yarn", factor=4.0, original_max_position_embeddings=16)),
    (["distilbert"], {"activation": "relu", "seq_classif_dropout": 0.5, "sinusoidal_pos_embds": True}),
    (["albert"], {"num_hidden_groups": 1, "hidden_act": "gelu_new", "classifier_dropout_prob": 0.5}),
    (["albert"], {"num_hidden_groups": 4, "embedding_size": 32}),
    (["mpnet"], {"pad_token_id": 7, "layer_norm_eps": 0.1}),  # positions go by padding id 1 all the same
    (["deberta-v2"], {"pos_att_type": ["c2p"]}),
    (["deberta-v2"], {"pos_att_type": None}),
    (["deberta-v2"], {"relative_attention": False, "pos_att_type": [], "norm_rel_ebd": "none"}),
    (["deberta-v2"], {"norm_rel_ebd": "none", "position_buckets": 3, "embedding_size": 16}),
    (["nomic_bert", "eurobert"], {"head_dim": 16}),
    (["gte", "jina_embeddings_v3"], {"type_vocab_size": 3}),
    (["eurobert"], {"num_key_value_heads": 1, "attention_bias": True, "mlp_bias": True}),
    (["eurobert"], {"classifier_pooling": "bos"}),
    (["gemma3_text"], {"layer_types": ["sliding_attention"] * 4, "sliding_window": 1, "head_dim": 8}),
    (["roberta-prelayernorm", "xlm-roberta-xl"], {"hidden_act": "relu", "type_vocab_size": 3}),
    (["bart", "marian"], {"scale_embedding": False, "activation_function": "relu"}),
    (["bart", "marian"], {"tie_word_embeddings": False, "encoder_attention_heads": 1}),
    (["marian"], {"share_encoder_decoder_embeddings": False, "decoder_vocab_size": 130}),
    (["t5"], {"head": "generation", "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}),
]


def flat(**parameters) -> dict:
    return {"rope_parameters": {"rope_theta": 400.0, "factor": 4.0} | parameters}


LONG = {"short_factor": [1.0] * 4, "long_factor": [3.0] * 4, "original_max_position_embeddings": 16}
REFUSED = [
    (BERTS, {"position_embedding_type": "relative_key"}, "only absolute"),
    ([*BERTS, "modernbert"], {"is_decoder": True}, "decoder"),
    ([*BERTS, "modernbert"], {"is_causal": True}, "decoder"),
    (BERTS, {"num_hidden_layers": 0}, "at least 1"),
    (["roberta", "xlm-roberta", "camembert"], {"pad_token_id": None}, "no pad_token_id"),
    (["electra"], {"num_attention_heads": 5}, "5 attention heads do not divide"),
    (["modernbert"], {"num_attention_heads": 32}, "do not fit heads of 1 "),
    (["modernbert"], {"head_dim": 16}, "do not fit heads of 8 "),
    (["modernbert"], rotary(rope_type="longrope", factor=4.0, **LONG), "longrope"),
    (["nomic_bert", "gte", "jina_embeddings_v3", "eurobert"], flat(rope_type="longrope", **LONG), "longrope"),
    (["albert"], {"inner_group_num": 2}, "inner_group_num is 2"),
    (["deberta-v2"], {"conv_kernel_size": 3}, "conv_kernel_size is 3: a convolution mixes neighbours"),
    (["gemma3_text"], {"use_bidirectional_attention": False}, "causal decoder"),
    (["gemma3_text"], {"attn_logit_softcapping": 50.0}, "attn_logit_softcapping"),
    (["t5", "mt5", "umt5"], {"head": "sequence"}, "answers by its decoder"),
    (["t5", "mt5", "umt5"], {"head": "spans"}, "answers by its decoder"),
    (["bart"], {"head": "sequence"}, "BartForSequenceClassification answers by its decoder"),
]


def each(cases: list[tuple]) -> list:
    found = [(family, *rest) for families, *rest in cases for family in families]
    return [pytest.param(*case, id=f"{case[0]}-{'-'.join(case[1])}-{at}") for at, case in enumerate(found)]


@pytest.mark.parametrize(("family", "options"), each(COMPUTED))
def test_is_computed_as_transformers_computes_it(family, options):
    model = ARCHITECTURES[family](**options)
    drawn_for = ARCHITECTURES[family]() if model.config.pad_token_id is None else model
    inputs = random_inputs(drawn_for, LENGTHS)
    expected = model(**inputs).logits
    torch.testing.assert_close(prune(model)(**inputs).logits, expected, atol=3e-5, rtol=0)


@pytest.mark.parametrize(("family", "options", "message"), each(REFUSED))
def test_is_refused(family, options, message):
    model = ARCHITECTURES[family](**options)
    with pytest.raises(UserError, match=message):
        prune(model)


@pytest.mark.parametrize("family", ["bert", "modernbert"])
def test_layers_that_were_taken_out_by_hand(family):
    """The folder that would be saved has more of them in its config."""
    model = FAMILIES[family]()
    stack = model.bert.encoder.layer if family == "bert" else model.model.layers
    inputs = random_inputs(model, LENGTHS)
    del stack[1]
    with pytest.raises(UserError, match="has 3 layers, and num_hidden_layers of its config is 4"):
        prune(model)
    model.config.num_hidden_layers = 3  # of ModernBERT, the kinds of those that are left
    torch.testing.assert_close(prune(model)(**inputs).logits, model(**inputs).logits, atol=3e-5, rtol=0)


def test_tokens_that_an_adapter_learned_are_not_left_out_in_silence():
    model = FAMILIES["bert"]()
    model.active_peft_config = SimpleNamespace(is_prompt_learning=True)
    with pytest.raises(UserError, match="prompt or prefix tuning"):
        prune(model)
