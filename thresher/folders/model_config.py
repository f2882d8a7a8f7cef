"""The config of a transformers model, whoever wrote it: no code is run, and no number is out of range."""

from __future__ import annotations

import math
import re
from typing import Any

from transformers import CONFIG_MAPPING, PreTrainedConfig
from transformers.activations import ACT2FN

from thresher.errors import UserError, first_line, one_line
from thresher.families import family_for
from thresher.folders.read import naming

IGNORED = re.compile(
    r"auto_map|_?name_or_path|transformers_weights|per_layer_config|distributed_config|fusion_config"
    r"|_?(attn|experts)_implementation\w*|configuration_files"
    r"|use_return_dict|is_heterogeneous|per_layer_attributes"  # which nobody can set: transformers logs that
    r"|return_dict|output_hidden_states|output_attentions"
)
"""What would have transformers fetch, replace or run something that the folder names, or answer in another
form than a call asks for."""
COUNTS = {
    "num_hidden_layers": 512,
    "hidden_size": 2**16,
    "embedding_size": 2**16,
    "intermediate_size": 2**18,
    "hidden_dim": 2**18,
    "encoder_ffn_dim": 2**18,
    "decoder_ffn_dim": 2**18,
    "decoder_layers": 512,
    "num_decoder_layers": 512,
    "decoder_attention_heads": 2**10,
    "decoder_vocab_size": 2**24,
    "pooler_hidden_size": 2**16,
    "query_pre_attn_scalar": 2**16,
    "num_attention_heads": 2**10,
    "num_key_value_heads": 2**10,
    "num_hidden_groups": 512,
    "inner_group_num": 512,
    "head_dim": 2**12,
    "d_kv": 2**12,
    "d_ff": 2**18,
    "vocab_size": 2**24,
    "type_vocab_size": 2**10,
    "max_position_embeddings": 2**20,
    "local_attention": 2**21,
    "sliding_window": 2**21,
    "relative_attention_num_buckets": 2**10,
    "relative_attention_max_distance": 2**20,
    "max_relative_positions": 2**20,
    "position_buckets": 2**20,
    "num_labels": 2**16,
}
"""The largest of each size. Weights of such sizes must lie in the folder as well."""
LEAST = {"type_vocab_size": 0, "max_relative_positions": -1, "position_buckets": -1}  # of others it is 1
OPTIONAL = {"head_dim", "num_key_value_heads", "sliding_window", "num_decoder_layers", "decoder_vocab_size"}
RATES = re.compile(r"\w*dropout(_prob|_rate)?|\w*layerdrop|(layer_|rms_)?norm_eps(ilon)?")
NEEDED_RATES = {"dropout", "activation_dropout", "attention_dropout"}
DEVIATIONS = {"initializer_range", "initializer_factor", "init_std"}  # of weights that are drawn anew
LARGEST = 1000  # of these
DECODED = ("decoder_start_token_id", "forced_bos_token_id", "forced_eos_token_id")  # ids that a decoder reads
ROPE = ("rope_parameters", "rope_scaling", "rope_theta", "global_rope_theta", "local_rope_theta")
SHARE = "partial_rotary_factor"  # of a head that is rotated
ABOVE_0 = {"rope_theta", "global_rope_theta", "local_rope_theta", "factor", SHARE}
ABOVE_0 |= {"original_max_position_embeddings", "short_factor", "long_factor", "beta_fast", "beta_slow"}
ACTIVATIONS = {"hidden_act", "hidden_activation", "classifier_activation", "pooler_hidden_act"}
ACTIVATIONS |= {"activation", "activation_function", "dense_act_fn"}
CHOICES = {
    "feed_forward_proj": (*ACT2FN, *(f"gated-{name}" for name in ACT2FN)),
    "dtype": ("float16", "bfloat16", "float32", "float64"),
    "torch_dtype": ("float16", "bfloat16", "float32", "float64"),
    "problem_type": ("regression", "single_label_classification", "multi_label_classification"),
}


def make_config(content: dict[str, Any], source: str) -> PreTrainedConfig:
    """The config in a JSON object that has a ``model_type``, without what would run code.

    Parameters
    ----------
    content : dict
    source : str
        The file or folder, for messages.

    Raises
    ------
    UserError
        If no family claims the architecture, or a value is out of range.
    """
    model_type = content.get("model_type")
    if not isinstance(model_type, str):
        raise UserError(f"{source}: model_type is {model_type!r:.100}; it must be a name such as 'bert'.")
    try:
        family_for(model_type)
    except UserError as error:
        own = " Its own code ('auto_map') is never run." if "auto_map" in content else ""
        raise UserError(f"{source}: {error}{own}") from error
    kind = CONFIG_MAPPING[model_type]
    content = {name: value for name, value in content.items() if not IGNORED.fullmatch(name)}
    if content.get("num_labels", 0) is None:  # transformers would count labels up to it
        del content["num_labels"]
    own_names = {own: name for name, own in kind.attribute_map.items()}
    _check_numbers(content, own_names, source)
    _check_words(content, source)
    _check_labels(content, source)
    if taken := [name for name in content if callable(getattr(kind, name, None))]:
        raise UserError(f"{source}: '{taken[0]}' is no setting of a model. Remove it.")
    try:
        config = kind.from_dict(content)
    except Exception as error:  # what is wrong with a value in a config may be found anywhere
        said = first_line(error)
        said = one_line(error) if said.endswith(":") else said
        raise UserError(f"No model could be opened: {source}: {said}") from error
    _check_sizes(config, source)
    _check_ids(config, source)
    with naming(source):
        family_for(config).check(config)
    return config


def _check_numbers(content: dict[str, Any], own_names: dict[str, str], source: str) -> None:
    """Refuse numbers out of range, some of which an architecture has under names of its own."""
    for name, value in content.items():
        most, least = COUNTS.get(own_names.get(name, name)), LEAST.get(name, 1)
        if most and type(value) is int and not least <= value <= most:
            raise UserError(
                f"{source}: {name} {value!s:.30}; a model needs {least} or more, and at most {most}."
            )
        if most and type(value) is not int and not (value is None and name in OPTIONAL):
            raise UserError(f"{source}: {name} is {value!r:.100}: expected int, got {type(value).__name__}.")
        number, unset = type(value) in (int, float), value is None and name not in NEEDED_RATES
        if RATES.fullmatch(name) and not (unset or (number and 0 <= value <= 1)):
            raise UserError(f"{source}: {name} is {value!r:.100}; it must be a number from 0 to 1.")
        if name in DEVIATIONS and not (number and 0 <= value < LARGEST):
            raise UserError(f"{source}: {name} is {value!r:.100}; it must be a number from 0 to {LARGEST}.")
        if name in ROPE and not _positive(name, value):
            raise UserError(
                f"{source}: {name} is {value!r:.100}; its numbers must be finite, and most of them above 0."
            )


def _positive(name: str, value: Any) -> bool:
    """False if a number in nested settings is infinite or NaN, or a base or a length is not above 0."""
    if isinstance(value, dict):
        return all(_positive(*item) for item in value.items())
    if isinstance(value, list):
        return all(_positive(name, item) for item in value)
    if type(value) not in (int, float):
        return name not in ABOVE_0 or value is None
    return (value > 0 or name not in ABOVE_0) and abs(value) < math.inf and (value <= 1 or name != SHARE)


def _check_words(content: dict[str, Any], source: str) -> None:
    known = dict.fromkeys(ACTIVATIONS, tuple(ACT2FN)) | CHOICES
    for name, choices in known.items():
        value = content.get(name)
        if value is not None and (not isinstance(value, str) or value not in choices):
            raise UserError(f"{source}: {name} is {value!r:.100}; choose one of: {', '.join(choices)}.")
    kinds = content.get("architectures")
    if kinds is not None and not (isinstance(kinds, list) and all(isinstance(name, str) for name in kinds)):
        raise UserError(f"{source}: architectures is {kinds!r:.100}; it must be a list of names.")


def _check_labels(content: dict[str, Any], source: str) -> None:
    """Refuse names of classes that are no names, and maps that contradict each other."""
    names, ids = content.get("id2label"), content.get("label2id")
    for name, value in (("id2label", names), ("label2id", ids)):
        if value is not None and not isinstance(value, dict):
            raise UserError(f"{source}: {name} is {value!r:.100}; it must map ids to names of classes.")
        if value is not None and len(value) > COUNTS["num_labels"]:
            raise UserError(
                f"{source}: {name} names {len(value)} classes, not {COUNTS['num_labels']} at most."
            )
    names, ids = names or {}, ids or {}
    keys = [str(key) for key in names]
    if sorted(keys) != sorted(map(str, range(len(keys)))):
        raise UserError(f"{source}: the ids in id2label are {', '.join(keys):.100}; they must count from 0.")
    if bad := [name for name in names.values() if not isinstance(name, str | int | float)]:
        raise UserError(f"{source}: id2label calls a class {bad[0]!r:.100}; it must be a name.")
    if content.get("num_labels") is not None and names and content["num_labels"] != len(names):
        raise UserError(f"{source}: num_labels is {content['num_labels']}, but id2label has {len(names)}.")
    called: dict[str, set[str]] = {}
    for key, class_name in names.items():
        called.setdefault(str(class_name), set()).add(key)
    for name in ids.keys() & called.keys():
        if str(ids[name]) not in called[name]:
            raise UserError(f"{source}: id2label and label2id disagree on the class {name!r:.100}.")


def _check_sizes(config: Any, source: str) -> None:
    """Refuse sizes that do not fit each other."""
    hidden, heads = getattr(config, "hidden_size", 1), getattr(config, "num_attention_heads", 1)
    own = family_for(config).own_head_dim
    if not own and isinstance(hidden, int) and isinstance(heads, int) and hidden % heads:
        raise UserError(
            f"{source}: the hidden size ({hidden}) is not a multiple of the number of attention heads "
            f"({heads})."
        )
    groups = getattr(config, "num_key_value_heads", None)
    if groups is not None and heads % groups:
        raise UserError(
            f"{source}: num_key_value_heads is {groups}, which does not divide the {heads} attention heads."
        )
    if not own and getattr(config, "head_dim", None) not in (
        None,
        hidden // heads,
    ):  # rotary angles are made for each
        raise UserError(
            f"{source}: head_dim is {config.head_dim!r:.100}; it must be {hidden // heads}, the hidden size "
            "over the number of attention heads."
        )
    kinds = getattr(config, "layer_types", None)
    if kinds is not None and (
        len(kinds) != config.num_hidden_layers or set(kinds) - {"full_attention", "sliding_attention"}
    ):
        raise UserError(
            f"{source}: layer_types must name 'full_attention' or 'sliding_attention' for each of the "
            f"{config.num_hidden_layers} layers."
        )


def _check_ids(config: Any, source: str) -> None:
    """Refuse ids of tokens that a model of such a vocabulary cannot have."""
    vocabulary = getattr(config, "vocab_size", math.inf)
    bounds = {"pad_token_id": vocabulary}
    bounds |= dict.fromkeys(DECODED, getattr(config, "decoder_vocab_size", None) or vocabulary)
    for name, bound in bounds.items():
        value = getattr(config, name, None)
        several = value if isinstance(value, list) and name in DECODED else [value]
        if any(id_ is not None and not (type(id_) is int and 0 <= id_ < bound) for id_ in several):
            raise UserError(f"{source}: {name} is {value!r:.100}; it must be below vocab_size, {bound}.")
