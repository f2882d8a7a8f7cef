"""How far the tokens of a text get, and what the model answers to it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from thresher.errors import UserError
from thresher.inputs.rows import ANSWERS, KEYS, PLACES, ROW, whole_texts
from thresher.inputs.text import TextEncoder
from thresher.model import PrunedModel
from thresher.show.stretches import Stretches, by_offsets, by_tokens, with_answer, with_labels
from thresher.tasks import Task, marked, task_of
from thresher.trace import Trace

WORD = re.compile(r"\w+|[^\w\s]")  # words of a text that comes as a string, for tags


@dataclass(frozen=True)
class Survival:
    """How far each token of a text got.

    Attributes
    ----------
    tokens : list of str
        As the tokenizer shows them, special tokens included.
    last_layer : list of int
        Layers that each token got through: 0 if layer 1 dropped it, `layers` if it survives.
    layers : int
    texts : list of Stretches
        The text, or both of a pair, cut where the fate of the characters changes.
    prediction : dict of str to float
        Predicted labels with their probabilities, or the score of a regression by its name.
    flops_ratio : float
        FLOPs over those of the base model, for this text.
    prefix_only_at_end : bool
        True where the last layer drops all but the prefix, whatever it is: nothing else is read there.
    """

    tokens: list[str]
    last_layer: list[int]
    layers: int
    texts: list[Stretches]
    prediction: dict[str, float]
    flops_ratio: float
    prefix_only_at_end: bool = False

    @property
    def alive(self) -> list[int]:
        """Tokens alive after each layer."""
        return [sum(last > layer for last in self.last_layer) for layer in range(self.layers)]

    @property
    def choosing(self) -> int:
        """Layers that choose among tokens: what gets through all of them is kept."""
        return self.layers - self.prefix_only_at_end

    @property
    def prefix(self) -> str:
        """What the last layer needs at least, in words."""
        return self.tokens[0] if self.alive[-1] == 1 else "the prefix"


@torch.inference_mode()
def survival(
    model: PrunedModel, tokenizer: Any, text: str, text_pair: str | None = None, max_length: int | None = None
) -> Survival:
    """Run a text, or a pair of texts, and see how far its tokens get.

    Parameters
    ----------
    model : PrunedModel
        It is run in evaluation mode.
    tokenizer : transformers tokenizer
        A fast one tells which characters a token stands for. With another, the text is put together
        from its tokens, so capitals and spaces may differ from the original.
    text, text_pair : str
    max_length : int, optional
        Longer texts are truncated; a context is read in windows instead. Default: what the model takes.
    """
    task = task_of(model.config)
    most = max_length or model.family.max_length
    if task.within:
        return _answered(model, task, tokenizer, text, text_pair, most)
    if task.by_word:
        return _tagged(model, task, tokenizer, text, most)
    if task.apart and text_pair is not None:
        both = [_seen(model, tokenizer, (one,), most) for one in (text, text_pair)]
        return _joined(model, both, task.answer(np.concatenate([seen.logits for seen in both])))
    seen = _seen(model, tokenizer, (text,) if text_pair is None else (text, text_pair), most)
    return _joined(model, [seen], task.answer(seen.logits[0]))


@dataclass(frozen=True)
class _Seen:
    """What became of one sequence. Fields as of `Survival`, `logits` as its head reads them."""

    tokens: list[str]
    last_layer: list[int]
    texts: list[Stretches]
    logits: np.ndarray
    trace: Trace


def _joined(
    model: PrunedModel,
    parts: Sequence[_Seen],
    prediction: dict[str, float],
    texts: list[Stretches] | None = None,
) -> Survival:
    """The view of some sequences together, whose texts are those given, or their own."""
    flops, dense = (
        sum(float(getattr(seen.trace, x).sum()) for seen in parts) for x in ("flops", "dense_flops")
    )
    return Survival(
        [token for seen in parts for token in seen.tokens],
        [last for seen in parts for last in seen.last_layer],
        model.family.layers,
        [stretches for seen in parts for stretches in seen.texts] if texts is None else texts,
        prediction,
        flops / dense,
        model.pruning.prefix_only_at_end,
    )


def _run(model: PrunedModel, tokenizer: Any, inputs: dict[str, list[int]]) -> _Seen:
    """Run one sequence."""
    batch = {key: torch.tensor([ids], device=model.device) for key, ids in inputs.items()}
    with model.evaluating():
        output = model(**batch)
    logits = model.head.read(output, batch).float().cpu().numpy()
    last_layer = [0] * len(inputs["input_ids"])
    for survivors in output.trace.positions(0):
        for position in survivors:
            last_layer[position] += 1
    tokens = tokenizer.convert_ids_to_tokens(inputs["input_ids"])
    return _Seen(tokens, last_layer, [], logits, output.trace)


def _encoded(
    tokenizer: Any, texts: tuple[Any, ...], most: int, **how: Any
) -> tuple[Any, dict[str, list[int]]]:
    """What a tokenizer says of a text or a pair, and the inputs of the model in it."""
    encoded = tokenizer(
        *texts,
        truncation=True,
        max_length=most,
        return_offsets_mapping=tokenizer.is_fast,
        return_special_tokens_mask=True,
        **how,
    )
    inputs = {key: encoded[key] for key in KEYS if key in encoded}
    if not inputs["input_ids"]:  # an empty text, of a tokenizer that adds no token
        inputs = {"input_ids": [TextEncoder(tokenizer, most).stand_in]}
    return encoded, inputs


def _seen(model: PrunedModel, tokenizer: Any, texts: tuple[str, ...], most: int) -> _Seen:
    """A text, or a pair of texts as one sequence."""
    encoded, inputs = _encoded(tokenizer, texts, most)
    seen = _run(model, tokenizer, inputs)
    if tokenizer.is_fast:
        owners, offsets = encoded.sequence_ids(0), encoded["offset_mapping"]
        cut = [
            by_offsets(whole, [(*offsets[i], seen.last_layer[i]) for i, o in enumerate(owners) if o == owner])
            for owner, whole in enumerate(texts)
        ]
    else:
        known = zip(seen.tokens, seen.last_layer, encoded["special_tokens_mask"], strict=True)
        cut = [by_tokens([(token, last) for token, last, special in known if not special])]
    return replace(seen, texts=cut)


def _answered(
    model: PrunedModel, task: Task, tokenizer: Any, text: str, text_pair: str | None, most: int
) -> Survival:
    """The view of a question and its context, with the answer marked. A word gets as far as in the window in
    which it gets farthest; tokens are counted in every window."""
    if text_pair is None:
        raise UserError("The model answers a question from a context: give the context as `text_pair`.")
    columns = TextEncoder(tokenizer, most, within=True).encode([text], [text_pair])
    encoding = tokenizer(text, text_pair, verbose=False).encodings[0]
    asked = [place for place, owner in enumerate(encoding.sequence_ids) if owner == 0]
    windows: list[_Seen] = []
    logits = np.empty(len(columns[ROW]), dtype=object)
    question: list[tuple[int, int, int]] = []
    context: list[tuple[int, int, int]] = []
    for row, (answers, places) in enumerate(zip(columns[ANSWERS], columns[PLACES], strict=True)):
        seen = _run(model, tokenizer, {key: columns[key][row] for key in KEYS if key in columns})
        logits[row] = seen.logits[answers]
        question += [(*encoding.offsets[place], seen.last_layer[place]) for place in asked]
        ends = zip(places[2::2], places[3::2], answers[1:], strict=True)
        context += [(first, end, seen.last_layer[place]) for first, end, place in ends]
        windows.append(seen)
    (whole,) = whole_texts(logits, columns)
    found = task.columns(whole, (text, text_pair))
    marked_up = by_offsets(text_pair, context)
    if found["prediction"]:
        marked_up = with_answer(text_pair, context, found["start"], found["start"] + len(found["prediction"]))
    prediction = task.answer(whole, (text, text_pair))
    return _joined(model, windows, prediction, [by_offsets(text, question), marked_up])


def _tagged(model: PrunedModel, task: Task, tokenizer: Any, text: str, most: int) -> Survival:
    """The view of a text whose words have tags: what the tags mark has its kind after it."""
    words = [found.span() for found in WORD.finditer(text)]
    in_words = [text[start:end] for start, end in words]
    encoded, inputs = _encoded(tokenizer, (in_words,), most, is_split_into_words=True)
    seen = _run(model, tokenizer, inputs)
    of_words = encoded.word_ids(0)
    first: dict[int | None, int] = {}
    for place, word in enumerate(of_words):
        first.setdefault(word, place)
    read = range(max((word for word in of_words if word is not None), default=-1) + 1)
    found = task.columns(seen.logits[[first[word] for word in read]])
    spans = [
        (words[word][0] + start, words[word][0] + end, last)
        for word, (start, end), last in zip(of_words, encoded["offset_mapping"], seen.last_layer, strict=True)
        if word is not None
    ]
    prediction: dict[str, float] = {}
    labels = []
    for kind, start, end in marked(found["prediction"] or []):
        labels.append((words[end][1], kind))
        prediction[f"{text[words[start][0] : words[end][1]]} [{kind}]"] = min(found["score"][start : end + 1])
    return _joined(model, [seen], prediction, [with_labels(text, spans, labels)])
