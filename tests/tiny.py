"""Tiny random models, one per architecture, and random batches for them.

The weights are drawn here, not by transformers: its own initialisation gives nearly uniform attention, zero
biases and unit LayerNorms, and a bug in any of those would not show. The numbers are drawn in float32 from
the seed alone and then cast, so a float32 and a float64 model of one seed hold the same values.
"""

import os
from collections.abc import Callable
from functools import partial

import torch
from torch import nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    CamembertConfig,
    CamembertForSequenceClassification,
    ElectraConfig,
    ElectraForSequenceClassification,
    ModernBertConfig,
    ModernBertForSequenceClassification,
    PreTrainedModel,
    RobertaConfig,
    RobertaForSequenceClassification,
    XLMRobertaConfig,
    XLMRobertaForSequenceClassification,
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


def _randomise(model: PreTrainedModel, seed: int) -> None:
    """Draw every parameter anew, rows of the padding index too: whoever reads padding will be noticed."""
    generator = torch.Generator().manual_seed(seed)

    def draw(parameter: nn.Parameter | None, scale: float, mean: float = 0.0) -> None:
        if parameter is not None:
            parameter.data = mean + scale * torch.randn(parameter.shape, generator=generator)

    for name, module in model.named_modules():
        if isinstance(module, nn.LayerNorm):
            draw(module.weight, 0.25, mean=1.0)
            draw(module.bias, 0.25)
        elif isinstance(module, nn.Linear):
            # Attention scores get a standard deviation of about 2: neither uniform nor one-hot.
            gain = 1.4 if name.endswith(("query", "key", "Wqkv")) else 1.0
            draw(module.weight, gain * module.in_features**-0.5)
            draw(module.bias, 0.25)
        elif isinstance(module, nn.Embedding):
            draw(module.weight, 1.0)


def _make(
    model_class: type[PreTrainedModel],
    config_class: type,
    defaults: dict,
    seed: int = 0,
    num_labels: int = 3,
    dtype: torch.dtype = torch.float64,
    **config_overrides,
) -> PreTrainedModel:
    """A random model in eval mode; dropout rates as in the default config, sdpa unless overridden."""
    options = {
        "attn_implementation": "sdpa",
        **SHAPE,
        **defaults,
        "num_labels": num_labels,
        **config_overrides,
    }
    with torch.random.fork_rng():  # building the model draws from the global generator
        model = model_class(config_class(**options))
    _randomise(model, seed)
    for parameter in model.parameters():
        # Not model.to(dtype): in bfloat16 that would round ModernBERT's rotary frequencies, which are
        # buffers and stay float32 when from_pretrained loads a model in bfloat16.
        parameter.data = parameter.data.to(dtype)
    return model.eval().to(DEVICE)


#: name -> factory(seed=0, num_labels=3, dtype=torch.float64, **config_overrides)
FAMILIES: dict[str, Callable[..., PreTrainedModel]] = {
    "bert": partial(
        _make,
        BertForSequenceClassification,
        BertConfig,
        {"max_position_embeddings": POSITIONS, "pad_token_id": 0},
    ),
    # Segments: one, as in the published RoBERTa and XLM-R; two for CamemBERT (the config's own default).
    "roberta": partial(
        _make, RobertaForSequenceClassification, RobertaConfig, {**ROBERTA, "type_vocab_size": 1}
    ),
    "xlm-roberta": partial(
        _make, XLMRobertaForSequenceClassification, XLMRobertaConfig, {**ROBERTA, "type_vocab_size": 1}
    ),
    "camembert": partial(
        _make, CamembertForSequenceClassification, CamembertConfig, {**ROBERTA, "type_vocab_size": 2}
    ),
    "electra": partial(
        _make,
        ElectraForSequenceClassification,
        ElectraConfig,
        # embedding_size differs from hidden_size, so there is an embeddings_project
        {"max_position_embeddings": POSITIONS, "pad_token_id": 0, "embedding_size": 16},
    ),
    "modernbert": partial(
        _make,
        ModernBertForSequenceClassification,
        ModernBertConfig,
        {**MODERNBERT, "classifier_pooling": "cls"},
    ),
    "modernbert-mean": partial(
        _make,
        ModernBertForSequenceClassification,
        ModernBertConfig,
        {**MODERNBERT, **ALL_BIASES, "classifier_pooling": "mean"},
    ),
}


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
        more than one segment also token_type_ids [batch, n]: 0 in the first half of a text, 1 in the second.
    """
    if padding_side not in ("right", "left"):
        raise ValueError(f"padding_side is 'right' or 'left', not {padding_side!r}")
    if not lengths or min(lengths) < 1:
        raise ValueError(f"every text needs at least one token, got lengths {lengths}")
    width = max(lengths) + extra_padding
    if width > POSITIONS:
        raise ValueError(f"{width} columns, but the tiny models have {POSITIONS} positions")
    pad = model.config.pad_token_id
    generator = torch.Generator().manual_seed(seed)
    input_ids = torch.full((len(lengths), width), pad)
    attention_mask = torch.zeros_like(input_ids)
    segments = torch.zeros_like(input_ids)
    for row, n in enumerate(lengths):
        text = torch.randint(model.config.vocab_size, (n,), generator=generator)
        text[torch.rand(n, generator=generator) < 1 / 8] = pad
        columns = slice(0, n) if padding_side == "right" else slice(width - n, width)
        input_ids[row, columns] = text
        attention_mask[row, columns] = 1
        segments[row, columns] = (torch.arange(n) >= (n + 1) // 2).long()
    inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
    if getattr(model.config, "type_vocab_size", 1) > 1:
        inputs["token_type_ids"] = segments
    return {name: values.to(DEVICE) for name, values in inputs.items()}
