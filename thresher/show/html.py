"""A view as a page for a browser."""

from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console, RenderableType

from thresher.errors import writing
from thresher.files.atomic import replacing

WIDTH = 110  # characters of a line


def write_html(view: RenderableType, path: Path) -> None:
    """Write a view with its colours.

    Parameters
    ----------
    view : rich renderable
    path : Path

    Raises
    ------
    UserError
        If the file cannot be written.
    """
    console = Console(
        record=True,
        file=io.StringIO(),
        width=WIDTH,
        force_terminal=True,
        color_system="truecolor",
        markup=False,
    )
    console.print(view)
    with writing(path), replacing(path) as partial:
        partial.write_text(console.export_html(), encoding="utf-8")
