"""``thresher show``"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from thresher.cli import ends
from thresher.cli.options import AtBudget, Folder
from thresher.cli.values import argument
from thresher.errors import UserError


def show(
    folder: Folder,
    text: Annotated[str, typer.Argument(help="The text to look at.")],
    pair: Annotated[
        str | None, typer.Option(help="Second text of a pair; of a question, the context.")
    ] = None,
    html: Annotated[
        Path | None, typer.Option(help="Write the view to this file as well, for a browser.")
    ] = None,
    at_budget: AtBudget = None,
) -> None:
    """Show which tokens of a text survive to which layer."""
    with ends.working() as stage:
        text, pair = argument(text), None if pair is None else argument(pair)

        from thresher.inference.load import open_model
        from thresher.show.html import write_html
        from thresher.show.view import render, survival

        stage("loading the model")
        model, encoder, _ = open_model(folder, budget=at_budget)
        if encoder.within and pair is None:
            raise UserError("The model answers a question from a context: give the context by --pair.")
        encoder.encode([text], None if pair is None else [pair])
        encoder.warn(encoder.truncated, encoder.seen)
        view = render(survival(model, encoder.tokenizer, text, pair, encoder.max_length))
        if html is not None:
            write_html(view, html)
    ends.show(view)
    if html is not None:
        ends.say(f"View: {html}")
