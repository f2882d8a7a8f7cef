"""Tiny random models, one per architecture, and random batches for them.

The weights are drawn here, not by transformers: its own initialisation gives nearly uniform attention, zero
biases and unit LayerNorms, and a bug in any of those would not show. The numbers are drawn in float32 from
the seed alone and then cast, so a float32 and a float64 model of one seed hold the same values.
"""

import os
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import transformers
from torch import nn
from transformers import (
    AutoModel,
    AutoModelForMultipleChoice,
    AutoModelForQuestionAnswering,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoModelForTextEncoding,
    AutoModelForTokenClassification,
    PreTrainedModel,
)

DEVICE = torch.device(os.environ.get("THRESHER_DEVICE", "cpu"))
"""Where models and batches lie, for the tests that run anywhere: `ANYWHERE` of conftest.py."""

VOCAB = 120
POSITIONS = 64  # the longest text every family takes
SHAPE = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 64,
}
# Position ids of the RoBERTa kind start at pad_token_id + 1 = 2, so the table has two rows more.
ROBERTA = {"max_position_embeddings": POSITIONS + 2, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
MODERNBERT = {
    "max_position_embeddings": POSITIONS,
    "pad_token_id": 116,
    "cls_token_id": 117,
    "bos_token_id": 117,
    "sep_token_id": 118,
    "eos_token_id": 118,
    "layer_types": ["full_attention", "sliding_attention", "sliding_attention", "full_attention"],
    "local_attention": 8,  # config.sliding_window = 4: a token reaches four to each side
    # Small bases, so that the two kinds of layer rotate visibly differently within thirty tokens.
    "rope_parameters": {
        "full_attention": {"rope_type": "default", "rope_theta": 400.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 10.0},
    },
}
# ModernBERT's checkpoints have no biases; the "mean" factory turns them all on, so that both ways are run.
ALL_BIASES = {"norm_bias": True, "attention_bias": True, "mlp_bias": True, "classifier_bias": True}


HEADS: dict[str, tuple[Any, ...]] = {
    "sequence": (AutoModelForSequenceClassification,),
    "tokens": (AutoModelForTokenClassification,),
    "spans": (AutoModelForQuestionAnswering,),
    "choice": (AutoModelForMultipleChoice,),
    "embedding": (AutoModelForTextEncoding, AutoModel),
    "generation": (AutoModelForSeq2SeqLM,),
}
"""The Auto classes that open a model with such a head, the first that knows the architecture."""
BY_DECODER = {name: {"sequence", "spans"} for name in ("t5", "mt5", "umt5")}
BY_DECODER |= {name: {"sequence", "spans", "embedding"} for name in ("bart", "marian")}
"""Heads that an architecture has, but not of its encoder."""

SHARP = ("query", "key", "Wqkv", "q_lin", "k_lin", "q_proj", "k_proj", "query_proj", "key_proj", ".q", ".k")


def _randomise(model: PreTrainedModel, seed: int) -> None:
    """Draw every parameter anew, rows of the padding index too: whoever reads padding will be noticed."""
    generator = torch.Generator().manual_seed(seed)

    def draw(parameter: nn.Parameter | None, scale: float, mean: float = 0.0) -> None:
        if parameter is not None:
            parameter.data = mean + scale * torch.randn(parameter.shape, generator=generator)

    # Attention scores get a standard deviation of about 2: neither uniform nor one-hot.
    gain = 0.83 if model.config.model_type in ("t5", "mt5", "umt5") else 1.4  # scores that are not scaled
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            draw(module.weight, (gain if name.endswith(SHARP) else 1.0) * module.in_features**-0.5)
            draw(module.bias, 0.25)
        elif isinstance(module, nn.Embedding):
            if "Sinusoidal" not in type(module).__name__:  # which no file holds
                draw(module.weight, 1.0)
        elif isinstance(weight := getattr(module, "weight", None), nn.Parameter):  # a norm
            draw(weight, 0.25, mean=0.2 if "Gemma" in type(module).__name__ else 1.0)
            draw(getattr(module, "bias", None), 0.25)
    if (bias := getattr(model, "final_logits_bias", None)) is not None:
        bias.copy_(torch.randn(bias.shape, generator=generator))
    if model.config.tie_word_embeddings:
        model.tie_weights()


def _make(
    config_class: str,
    defaults: dict,
    seed: int = 0,
    num_labels: int = 3,
    dtype: torch.dtype = torch.float64,
    head: str = "sequence",
    **config_overrides,
) -> PreTrainedModel:
    """A random model in eval mode; dropout rates as in the default config, sdpa unless overridden."""
    options = {**SHAPE, **defaults, "num_labels": 2 if head == "spans" else num_labels, **config_overrides}
    config = getattr(transformers, config_class)(**options)
    implementation = options.get("attn_implementation", _fastest(config))
    auto = next(auto for auto in HEADS[head] if type(config) in auto._model_mapping)
    with torch.random.fork_rng():  # building the model draws from the global generator
        model = auto.from_config(config, attn_implementation=implementation)
    _randomise(model, seed)
    for parameter in model.parameters():
        # Not model.to(dtype): in bfloat16 that would round rotary frequencies, which are buffers and stay
        # float32 when from_pretrained loads a model in bfloat16.
        parameter.data = parameter.data.to(dtype)
    return model.eval().to(DEVICE)


def _fastest(config: Any) -> str:
    return "eager" if config.model_type in ("mpnet", "deberta-v2") else "sdpa"


BERT = {"max_position_embeddings": POSITIONS, "pad_token_id": 0}
ROTARY = {**BERT, "rope_parameters": {"rope_type": "default", "rope_theta": 400.0}}
T5 = {
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 64,
    "num_layers": 4,
    "num_heads": 4,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 16,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "decoder_start_token_id": 0,
}
BART = {
    "d_model": 32,
    "encoder_layers": 4,
    "encoder_attention_heads": 4,
    "encoder_ffn_dim": 64,
    "decoder_layers": 2,
    "decoder_attention_heads": 2,
    "decoder_ffn_dim": 48,
    "scale_embedding": True,
    "max_position_embeddings": POSITIONS,
    "pad_token_id": 0,
    "bos_token_id": 2,
    "eos_token_id": 1,
    "forced_eos_token_id": 1,
    "decoder_start_token_id": 3,
}
GEMMA = {
    "max_position_embeddings": POSITIONS,
    "pad_token_id": 0,
    "num_key_value_heads": 2,
    "head_dim": 16,  # not the width over the heads
    "query_pre_attn_scalar": 10,
    "use_bidirectional_attention": True,
    "sliding_window": 8,  # a token reaches four to each side
    "layer_types": MODERNBERT["layer_types"],
    "rope_parameters": MODERNBERT["rope_parameters"],
}
DEBERTA = {**BERT, "relative_attention": True, "pos_att_type": ["c2p", "p2c"], "position_biased_input": False}
DEBERTA |= {"position_buckets": 8, "norm_rel_ebd": "layer_norm", "share_att_key": True, "type_vocab_size": 0}
DISTILBERT = {"dim": 32, "n_layers": 4, "n_heads": 4, "hidden_dim": 64, **BERT}

#: name -> factory(seed=0, num_labels=3, dtype=torch.float64, head="sequence", **config_overrides)
ARCHITECTURES: dict[str, Callable[..., PreTrainedModel]] = {
    "bert": partial(_make, "BertConfig", BERT),
    # Segments: one, as in the published RoBERTa and XLM-R; two for CamemBERT (the config's own default).
    "roberta": partial(_make, "RobertaConfig", {**ROBERTA, "type_vocab_size": 1}),
    "xlm-roberta": partial(_make, "XLMRobertaConfig", {**ROBERTA, "type_vocab_size": 1}),
    "camembert": partial(_make, "CamembertConfig", {**ROBERTA, "type_vocab_size": 2}),
    # embedding_size differs from hidden_size, so there is an embeddings_project
    "electra": partial(_make, "ElectraConfig", {**BERT, "embedding_size": 16}),
    "modernbert": partial(_make, "ModernBertConfig", {**MODERNBERT, "classifier_pooling": "cls"}),
    "modernbert-mean": partial(
        _make, "ModernBertConfig", {**MODERNBERT, **ALL_BIASES, "classifier_pooling": "mean"}
    ),
    "distilbert": partial(_make, "DistilBertConfig", DISTILBERT),
    "albert": partial(_make, "AlbertConfig", {**BERT, "embedding_size": 16, "num_hidden_groups": 2}),
    "mpnet": partial(_make, "MPNetConfig", {**ROBERTA}),
    "deberta-v2": partial(_make, "DebertaV2Config", DEBERTA),
    "deberta-v2-parts": partial(
        _make,
        "DebertaV2Config",
        {
            **DEBERTA,
            "pos_att_type": ["p2c"],
            "share_att_key": False,
            "position_buckets": -1,
            "max_relative_positions": 12,
            "position_biased_input": True,
            "type_vocab_size": 2,
        },
    ),
    "nomic_bert": partial(_make, "NomicBertConfig", {**ROTARY, "type_vocab_size": 2}),
    "gte": partial(_make, "GteConfig", {**ROTARY, "type_vocab_size": 0}),
    "jina_embeddings_v3": partial(_make, "JinaEmbeddingsV3Config", {**ROTARY, "type_vocab_size": 1}),
    "eurobert": partial(_make, "EuroBertConfig", {**ROTARY, "num_key_value_heads": 2}),
    "eurobert-mean": partial(
        _make, "EuroBertConfig", {**ROTARY, "num_key_value_heads": 4, "classifier_pooling": "mean"}
    ),
    "roberta-prelayernorm": partial(_make, "RobertaPreLayerNormConfig", {**ROBERTA, "type_vocab_size": 1}),
    "xlm-roberta-xl": partial(_make, "XLMRobertaXLConfig", {**ROBERTA, "type_vocab_size": 1}),
    "t5": partial(_make, "T5Config", T5),
    "mt5": partial(_make, "MT5Config", T5),
    "umt5": partial(_make, "UMT5Config", T5),
    "bart": partial(_make, "BartConfig", {**BART, "scale_embedding": True}, head="generation"),
    "marian": partial(
        _make,
        "MarianConfig",
        {**BART, "activation_function": "swish", "scale_embedding": True},
        head="generation",
    ),
    "gemma3_text": partial(_make, "Gemma3TextConfig", GEMMA),
}
OLDEST = ("bert", "roberta", "xlm-roberta", "camembert", "electra", "modernbert", "modernbert-mean")
FAMILIES = {name: ARCHITECTURES[name] for name in OLDEST}
"""Those that every suite runs on."""


def heads_of(architecture: str) -> list[str]:
    """Heads that transformers has for an architecture's encoder."""
    config = getattr(transformers, ARCHITECTURES[architecture].args[0])
    known = [head for head, autos in HEADS.items() if any(config in auto._model_mapping for auto in autos)]
    return [head for head in known if head not in BY_DECODER.get(architecture, ())]


def random_inputs(
    model: PreTrainedModel,
    lengths: list[int],
    seed: int = 0,
    padding_side: str = "right",
    extra_padding: int = 0,
) -> dict[str, torch.Tensor]:
    """A padded batch of random texts, the keyword arguments of ``model``.

    The texts depend on ``seed``, ``lengths`` and the model's pad id only: either padding side and any
    ``extra_padding`` hold the same ones. About every eighth token of a text is the pad id, as "<pad>" among
    the words makes it. The first token is any token; no family needs a [CLS] id.

    Returns
    -------
    dict
        input_ids and attention_mask int64 [batch, n], n = max(lengths) + extra_padding; where the model knows
        more than one segment also token_type_ids [batch, n]: 0 in the first half of a text, 1 in the second;
        where it has a decoder also decoder_input_ids [batch, 5].
    """
    if padding_side not in ("right", "left"):
        raise ValueError(f"padding_side is 'right' or 'left', not {padding_side!r}")
    if not lengths or min(lengths) < 1:
        raise ValueError(f"every text needs at least one token, got lengths {lengths}")
    width = max(lengths) + extra_padding
    if width > POSITIONS:
        raise ValueError(f"{width} columns, but the tiny models have {POSITIONS} positions")
    pad = model.config.pad_token_id
    reads_last = hasattr(model, "score")
    generator = torch.Generator().manual_seed(seed)
    input_ids = torch.full((len(lengths), width), pad)
    attention_mask = torch.zeros_like(input_ids)
    segments = torch.zeros_like(input_ids)
    for row, n in enumerate(lengths):
        text = torch.randint(model.config.vocab_size, (n,), generator=generator)
        text[torch.rand(n, generator=generator) < 1 / 8] = pad
        if reads_last and text[-1] == pad:
            text[-1] = pad + 1
        columns = slice(0, n) if padding_side == "right" else slice(width - n, width)
        input_ids[row, columns] = text
        attention_mask[row, columns] = 1
        segments[row, columns] = (torch.arange(n) >= (n + 1) // 2).long()
    inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
    if getattr(model.config, "type_vocab_size", 1) > 1:
        inputs["token_type_ids"] = segments
    if model.can_generate():
        inputs["decoder_input_ids"] = torch.randint(VOCAB, (len(lengths), 5), generator=generator)
    return {name: values.to(DEVICE) for name, values in inputs.items()}
