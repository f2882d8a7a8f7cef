"""Which tokens survive to which layer, shown on a terminal as the text itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from rich.color import Color
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.style import Style
from rich.table import Table
from rich.text import Text

from thresher.model import PrunedModel
from thresher.tasks import Task

BAR = 30  # characters of a full bar
RAMP = ((112, 112, 112), (24, 134, 150), (204, 120, 0))  # grey, teal, amber: legible on black and on white
SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
WORD_STARTS = ("Ġ", "▁")  # how byte-level BPE and SentencePiece write the space before a word

# One text as stretches of characters, each with the layers it got through. None: no token holds it (spaces).
Stretches = list[tuple[str, int | None]]


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
        FLOPs over those of the base, for this text.
    """

    tokens: list[str]
    last_layer: list[int]
    layers: int
    texts: list[Stretches]
    prediction: dict[str, float]
    flops_ratio: float

    @property
    def alive(self) -> list[int]:
        """Tokens alive after each layer."""
        return [sum(last > layer for last in self.last_layer) for layer in range(self.layers)]


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
    encoded = tokenizer(
        text,
        text_pair,
        truncation=True,
        max_length=max_length or model.family.max_length,
        return_offsets_mapping=tokenizer.is_fast,
        return_special_tokens_mask=True,
    )
    inputs = {key: encoded[key] for key in ("input_ids", "token_type_ids") if key in encoded}
    training = model.training
    model.eval()
    try:
        output = model(**{key: torch.tensor([ids], device=model.device) for key, ids in inputs.items()})
    finally:
        model.train(training)
    tokens = tokenizer.convert_ids_to_tokens(encoded["input_ids"])
    last_layer = [0] * len(tokens)
    for survivors in output.trace.positions(0):
        for position in survivors:
            last_layer[position] += 1
    if tokenizer.is_fast:
        owners, offsets = encoded.sequence_ids(0), encoded["offset_mapping"]
        texts = [
            _by_offsets(whole, [(*offsets[i], last_layer[i]) for i, o in enumerate(owners) if o == owner])
            for owner, whole in enumerate([text] if text_pair is None else [text, text_pair])
        ]
    else:
        special = encoded["special_tokens_mask"]
        texts = [_by_tokens([(t, n) for t, n, s in zip(tokens, last_layer, special, strict=True) if not s])]
    return Survival(
        tokens,
        last_layer,
        model.family.layers,
        texts,
        Task.of(model.config).answer(output.logits[0].float().cpu().numpy()),
        float(output.trace.flops.sum() / output.trace.dense_flops.sum()),
    )


def _by_offsets(text: str, spans: Sequence[tuple[int, int, int]]) -> Stretches:
    """Cut a text by ``(start, end, layers got through)`` of its tokens."""
    fates: list[int | None] = [None] * len(text)
    for start, end, last in spans:
        for place in range(start, end):
            if not text[place].isspace():  # some tokenizers count the space before a word in
                before = fates[place]  # a character in several tokens lives as long as the last of them
                fates[place] = last if before is None else max(before, last)
    held = [place for place, fate in enumerate(fates) if fate is not None]
    first, behind = (held[0], held[-1] + 1) if held else (0, 0)
    stretches: Stretches = [("… ", None)] if text[:first].strip() else []
    for fate, places in groupby(range(first, behind), key=fates.__getitem__):
        stretches.append(("".join(text[place] for place in places), fate))
    return stretches + ([(" …", None)] if text[behind:].strip() else [])  # truncated


def _by_tokens(tokens: Sequence[tuple[str, int]]) -> Stretches:
    """Put a text together from ``(token, layers got through)``."""
    marked = any(token.startswith(WORD_STARTS) for token, _ in tokens)
    stretches: Stretches = []
    for token, last in tokens:
        joined = not token.startswith(WORD_STARTS) if marked else token.startswith("##")
        if stretches and not joined:
            stretches.append((" ", None))
        stretches.append((token.removeprefix("##").lstrip("".join(WORD_STARTS)), last))
    return stretches


def render(survival: Survival, numbers: bool | None = None) -> RenderableType:
    """The text with every word coloured by how far it got, and a table of the layers.

    Parameters
    ----------
    survival : Survival
    numbers : bool, optional
        Write behind each dropped piece of text the layer that dropped it. Default: where the
        output has no colours.

    Returns
    -------
    rich renderable
        For ``rich.print`` or ``Console.print``.
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
        for stretches in self.survival.texts:
            yield self._text(stretches, numbers, options.ascii_only)
            yield ""
        yield self._legend(numbers, options.ascii_only)
        yield self._table("#" if options.ascii_only else "█")
        found = ", ".join(f"{name} {value:.2f}" for name, value in self.survival.prediction.items())
        yield Text.assemble("Prediction: ", (found or "no label", "bold"))
        yield Text(f"FLOPs: {self.survival.flops_ratio:.0%} of base's")

    def _style(self, last: int) -> Style:
        """From grey for what the first layer dropped, over teal, to bold amber for survivors."""
        layers = self.survival.layers
        below, share = divmod(last / layers * (len(RAMP) - 1), 1)
        low, high = RAMP[int(below)], RAMP[min(int(below) + 1, len(RAMP) - 1)]
        color = Color.from_rgb(*(round(a + (b - a) * share) for a, b in zip(low, high, strict=True)))
        return Style(color=color, bold=last == layers)

    def _text(self, stretches: Stretches, numbers: bool, ascii_only: bool) -> Text:
        text = Text()
        for piece, last in stretches:
            piece = "".join(c if c.isprintable() or c.isspace() else "?" for c in piece)  # no escape codes
            if last is None:
                text.append(piece)
                continue
            text.append(piece, self._style(last))
            if numbers and last < self.survival.layers:
                text.append(_number(last + 1, ascii_only), self._style(last))
        return text

    def _legend(self, numbers: bool, ascii_only: bool) -> Text:
        if numbers:
            return Text(
                f"word{_number(1, ascii_only)}: dropped in layer 1; without a number: kept to the end"
            )
        text = Text("Dropped in layer ")
        for layer in range(self.survival.layers):
            text.append(str(layer + 1), self._style(layer)).append(" ")
        return text.append("or ").append("kept to the end", self._style(self.survival.layers))

    def _table(self, block: str) -> Table:
        total = len(self.survival.tokens)
        table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
        table.add_column("after layer", justify="right")
        table.add_column("tokens", justify="right")
        table.add_column("share", justify="right")
        table.add_column("", no_wrap=True)
        for layer, alive in enumerate(self.survival.alive, 1):
            share = alive / total
            bar = Text(block * max(1, round(BAR * share)), self._style(layer))
            table.add_row(str(layer), str(alive), f"{share:.0%}", bar)
        return table


def _number(layer: int, ascii_only: bool) -> str:
    return f"({layer})" if ascii_only else str(layer).translate(SUPERSCRIPTS)
