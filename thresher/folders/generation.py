"""The settings of a model that generates, whoever wrote them: no code is run, and no number is too large."""

from __future__ import annotations

import math
from typing import Any

from transformers import GenerationConfig

from thresher.errors import UserError, one_line
from thresher.folders.read import file_of, read_json

FILE = "generation_config.json"
GENERATION = "generation"  # name of the same settings in the block of a file that Trainer wrote
IDS = {"pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id"}
IDS |= {"forced_bos_token_id", "forced_eos_token_id"}
LISTS = ("suppress_tokens", "begin_suppress_tokens")
LENGTHS = ("max_length", "max_new_tokens", "min_length", "min_new_tokens")
COUNTS = dict.fromkeys(LENGTHS, (0, 2**20)) | {
    "num_beams": (1, 2**8),
    "num_return_sequences": (1, 2**8),
    "no_repeat_ngram_size": (0, 2**10),
    "encoder_no_repeat_ngram_size": (0, 2**10),
    "top_k": (0, 2**24),
}
"""The least and the largest of each."""
FINITE, ABOVE_0 = ("length_penalty",), ("repetition_penalty", "encoder_repetition_penalty", "temperature")
SHARES = ("top_p", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff")
SWITCHES = ("do_sample", "early_stopping", "use_cache", "renormalize_logits", "remove_invalid_values")
IDLE = {"transformers_version", "_from_model_config", "return_dict_in_generate", "cache_implementation"}
IDLE |= {"output_attentions", "output_hidden_states", "output_scores", "output_logits", "trust_remote_code"}
"""What a folder may say, and no answer hangs on; it is left out."""


def generation_config(where: str, config: Any, content: Any = None, **hub: Any) -> GenerationConfig | None:
    """The settings of ``generate`` in a folder; None where there are none.

    Parameters
    ----------
    where : str
        What `thresher.folders.locate.locate` answered.
    config : PreTrainedConfig
    content : dict, optional
        The settings, where they were found in another file than their own.
    **hub
        Options of `thresher.folders.locate.ASKING`.

    Raises
    ------
    UserError
        If the file is damaged, or a setting is out of range or unknown.
    """
    source = where
    if content is None and (file := file_of(where, FILE, **hub)) is not None:
        content, source = read_json(file), file
    if content is None:
        return None
    if not isinstance(content, dict):
        raise UserError(f"{source} is damaged: it holds no settings of generate. Copy the folder again.")
    given = {name: x for name, x in content.items() if x is not None and x != [] and name not in IDLE}
    vocabulary = max(getattr(config, name, None) or 0 for name in ("vocab_size", "decoder_vocab_size"))
    for name, value in given.items():
        if (wanted := _wanted(name, value, vocabulary)) is not None:
            raise UserError(f"{source}: {name} is {value!r:.100}; {wanted}.")
    try:
        return GenerationConfig(**given)
    except Exception as error:  # what settings say together
        raise UserError(f"{source}: {one_line(error):.300}") from error


def _wanted(name: str, value: Any, vocabulary: int) -> str | None:
    """What a setting should be, where it is not."""
    finite = type(value) in (int, float) and abs(value) < math.inf
    rows = value if isinstance(value, list) else [value]
    if name in IDS:
        several = name.endswith("eos_token_id")
        right, wanted = _are_ids(rows if several else [value], vocabulary), f"an id below {vocabulary}"
    elif name == "bad_words_ids":
        right = all(isinstance(row, list) and _are_ids(row, vocabulary) for row in rows)
        wanted = f"a list of lists of ids below {vocabulary}"
    elif name in LISTS:
        right, wanted = _are_ids(rows, vocabulary), f"a list of ids below {vocabulary}"
    elif name in COUNTS:
        least, most = COUNTS[name]
        right = type(value) is int and least <= value <= most
        wanted = f"a whole number from {least} to {most}"
    elif name in FINITE:
        right, wanted = finite, "a finite number"
    elif name in ABOVE_0:
        right, wanted = finite and value > 0, "a finite number above 0"
    elif name in SHARES:
        right, wanted = finite and 0 <= value <= 1, "a number from 0 to 1"
    elif name in SWITCHES:
        right = type(value) is bool or (name == "early_stopping" and value == "never")
        wanted = "true or false"
    else:
        return "Thresher does not know this setting: remove it, and pass it to generate"
    return None if right else f"it must be {wanted}"


def _are_ids(values: list[Any], vocabulary: int) -> bool:
    return all(type(value) is int and 0 <= value < vocabulary for value in values)
