"""Which tokens survive to which layer, shown on a terminal as the text itself."""

from __future__ import annotations

from dataclasses import dataclass

from rich.color import Color
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.style import Style
from rich.table import Table
from rich.text import Text

from thresher.show.stretches import Marks, Stretches, one_word
from thresher.show.survival import Survival, survival
from thresher.show.wording import number, printable

__all__ = ["Survival", "render", "survival"]

BAR = 30  # characters of a full bar
RAMP = ((112, 112, 112), (24, 134, 150), (204, 120, 0))  # grey, teal, amber: legible on black and on white


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
