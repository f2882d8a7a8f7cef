"""Which tokens survive to which layer, shown on a terminal as the text itself."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import torch
from rich.color import Color
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.style import Style
from rich.table import Table
from rich.text import Text

from thresher.inputs.text import TextEncoder
from thresher.model import PrunedModel
from thresher.show.stretches import Marks, Stretches, by_offsets, by_tokens, one_word, with_labels
from thresher.show.wording import number, printable
from thresher.tasks import Task, marked, task_of
from thresher.trace import Trace

WORD = re.compile(r"\w+|[^\w\s]")  # words of a text that comes as a string, for tags
BAR = 30  # characters of a full bar
RAMP = ((112, 112, 112), (24, 134, 150), (204, 120, 0))  # grey, teal, amber: legible on black and on white


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
        Longer texts are truncated. Default: what the model takes.
    """
    task, words = task_of(model.config), None
    if task.by_word:
        words = [found.span() for found in WORD.finditer(text)]
    encoded = tokenizer(
        text if words is None else [text[start:end] for start, end in words],
        text_pair,
        is_split_into_words=words is not None,
        truncation=True,
        max_length=max_length or model.family.max_length,
        return_offsets_mapping=tokenizer.is_fast,
        return_special_tokens_mask=True,
    )
    inputs = {key: encoded[key] for key in ("input_ids", "token_type_ids") if key in encoded}
    if not inputs["input_ids"]:  # an empty text, of a tokenizer that adds no token
        inputs = {"input_ids": [TextEncoder(tokenizer, model.family.max_length).stand_in]}
    batch = {key: torch.tensor([ids], device=model.device) for key, ids in inputs.items()}
    with model.evaluating():
        output = model(**batch)
    logits = model.head.read(output, batch).float().cpu().numpy()
    tokens = tokenizer.convert_ids_to_tokens(encoded["input_ids"])
    last_layer = [0] * len(tokens)
    for survivors in output.trace.positions(0):
        for position in survivors:
            last_layer[position] += 1
    if words is not None:
        return _tagged(model, task, text, words, encoded, tokens, last_layer, logits, output.trace)
    if tokenizer.is_fast:
        owners, offsets = encoded.sequence_ids(0), encoded["offset_mapping"]
        texts = [
            by_offsets(whole, [(*offsets[i], last_layer[i]) for i, o in enumerate(owners) if o == owner])
            for owner, whole in enumerate([text] if text_pair is None else [text, text_pair])
        ]
    else:
        special = encoded["special_tokens_mask"]
        texts = [by_tokens([(t, n) for t, n, s in zip(tokens, last_layer, special, strict=True) if not s])]
    return Survival(
        tokens,
        last_layer,
        model.family.layers,
        texts,
        task.answer(logits[0]),
        float(output.trace.flops.sum() / output.trace.dense_flops.sum()),
        model.pruning.prefix_only_at_end,
    )


def _tagged(
    model: PrunedModel,
    task: Task,
    text: str,
    words: list[tuple[int, int]],
    encoded: Any,
    tokens: list[str],
    last_layer: list[int],
    logits: Any,
    trace: Trace,
) -> Survival:
    """The view of a text whose words have tags: what the tags mark has its kind after it."""
    of_words = encoded.word_ids(0)
    first: dict[int | None, int] = {}
    for place, word in enumerate(of_words):
        first.setdefault(word, place)
    seen = range(max((word for word in of_words if word is not None), default=-1) + 1)
    found = task.columns(logits[[first[word] for word in seen]])
    spans = [
        (words[word][0] + start, words[word][0] + end, last)
        for word, (start, end), last in zip(of_words, encoded["offset_mapping"], last_layer, strict=True)
        if word is not None
    ]
    prediction: dict[str, float] = {}
    labels = []
    for kind, start, end in marked(found["prediction"] or []):
        labels.append((words[end][1], kind))
        prediction[f"{text[words[start][0] : words[end][1]]} [{kind}]"] = min(found["score"][start : end + 1])
    return Survival(
        tokens,
        last_layer,
        model.family.layers,
        [with_labels(text, spans, labels)],
        prediction,
        float(trace.flops.sum() / trace.dense_flops.sum()),
    )


def render(survival: Survival, numbers: bool | None = None) -> RenderableType:
    """The text with every word coloured by how far it got, and a table of the layers.

    Parameters
    ----------
    survival : Survival
    numbers : bool, optional
        Write after each dropped piece of text the layer that dropped it. Pieces with different fates then
        stand apart. Default: where the output has no colours.

    Returns
    -------
    rich renderable
        For ``rich.print`` or ``Console.print``. Nothing in the text is read as markup.
    """
    return _View(survival, numbers)


@dataclass(frozen=True)
class _View:
    """Decides while it is printed, when it is known whether the output has colours and Unicode."""

    survival: Survival
    numbers: bool | None

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        plain = console.no_color or console.color_system is None
        numbers = plain if self.numbers is None else self.numbers
        texts = [self._writable(stretches, options.encoding) for stretches in self.survival.texts]
        marks = None
        if numbers:
            whole = "\n".join(piece for stretches in texts for piece, _ in stretches)
            marks = Marks.for_text(whole, options.ascii_only)
        shown = [self._text(stretches, marks) for stretches in texts]
        for text in shown:
            yield text if text.plain.strip() else Text("(no text)", "dim")
            yield Text()
        fates = {last for stretches in texts for _, last in stretches if last is not None}
        if fates:
            joined = marks is not None and any(f" {marks.joint}" in text.plain for text in shown)
            yield self._legend(fates, marks, joined)
        yield self._table("#" if options.ascii_only else "█")
        found = ", ".join(f"{name} {number(value)}" for name, value in self.survival.prediction.items())
        found = printable(found or "no label", options.encoding)
        yield Text.assemble("Prediction: ", (found, "bold"))
        yield Text(f"FLOPs: {number(self.survival.flops_ratio, '.0%')} of the base model's")

    @staticmethod
    def _writable(stretches: Stretches, encoding: str) -> Stretches:
        """The stretches as the output can write them, without those of which nothing is left."""
        safe = [(printable(piece, encoding), last) for piece, last in stretches]
        return [(piece, last) for piece, last in safe if piece]

    def _style(self, last: int) -> Style:
        """From grey for what the first layer dropped, over teal, to bold amber for survivors."""
        choosing = self.survival.choosing
        through = min(last / choosing, 1.0) if choosing else 1.0
        below, share = divmod(through * (len(RAMP) - 1), 1)
        low, high = RAMP[int(below)], RAMP[min(int(below) + 1, len(RAMP) - 1)]
        color = Color.from_rgb(*(round(a + (b - a) * share) for a, b in zip(low, high, strict=True)))
        return Style(color=color, bold=through == 1)

    def _text(self, stretches: Stretches, marks: Marks | None) -> Text:
        text, before = Text(), ""
        for piece, last in stretches:
            if last is None:
                text.append(piece)
                before = ""
                continue
            if marks and before:  # two fates side by side
                text.append(f" {marks.joint}" if one_word(before, piece[0]) else " ")
            text.append(piece, self._style(last))
            if marks and last < self.survival.choosing:
                text.append(marks.number(last + 1), self._style(last))
            before = piece[-1]
        return text

    def _legend(self, fates: set[int], marks: Marks | None, joined: bool) -> Text:
        """What the colours or numbers mean, of those that are there."""
        survival, kept = self.survival, "kept to the end"
        if survival.prefix_only_at_end:
            kept = f"kept to the last layer, which needs {survival.prefix} alone"
        dropped = sorted(last + 1 for last in fates if last < survival.choosing)
        survivors = any(last >= survival.choosing for last in fates)
        if not dropped:
            return Text("Every word is ").append(kept, self._style(survival.choosing))
        if marks:
            parts = [f"word{marks.number(dropped[0])}: dropped in layer {dropped[0]}"]
            parts += [f"no number: {kept}"] * survivors
            parts += [f"{marks.joint}piece: goes on the word before it"] * joined
            return Text("\n".join(parts))
        text = Text("Dropped in layer")
        for layer in dropped:
            text.append(" ").append(str(layer), self._style(layer - 1))
        if survivors:
            text.append(", or ").append(kept, self._style(survival.choosing))
        return text

    def _table(self, block: str) -> Table:
        total = len(self.survival.tokens)
        table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
        table.add_column("after layer", justify="right")
        table.add_column(f"tokens of {total}", justify="right")
        table.add_column("share", justify="right")
        table.add_column("", no_wrap=True)
        for layer, alive in enumerate(self.survival.alive, 1):
            share = alive / total
            bar = Text(block * max(1, round(BAR * share)), self._style(layer))
            if layer > self.survival.choosing:
                bar.append(f" {self.survival.prefix} alone")
            table.add_row(str(layer), str(alive), f"{share:.0%}", bar)
        return table
