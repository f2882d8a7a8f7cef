"""Values of options: from what is typed to what the library takes."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import typer

from thresher.errors import UserError, one_line


def folder(name: str | Path) -> Path:
    """A folder to write; an empty name, as of a variable that is not set, would be the working directory."""
    if not str(name).strip():
        raise typer.BadParameter("it is empty; name a folder.")
    if (path := Path(name)).exists() and not path.is_dir():
        raise typer.BadParameter(f"{path} is a file; name a folder.")
    return path


def home(model: str) -> Path:
    """Where reports on a model go: its folder, or of one of the hub the working directory."""
    path = Path(model).expanduser()
    return path if path.is_dir() else Path()


def argument(text: str) -> str:
    """A text of the command line, which is UTF-8 whatever the locale says."""
    try:
        return os.fsencode(text).decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError("The text is not UTF-8: set the terminal to UTF-8, or write it to a file.") from error


def parts(text: str) -> list[str]:
    """``"a, b"`` to a list."""
    return [part.strip() for part in text.split(",") if part.strip()]


def pairs(given: list[str] | None) -> dict[str, str]:
    """``["0=neg,1=pos"]``, ``["0=neg", "1=pos"]`` and the name of a JSON file that holds as much."""
    found: dict[str, str] = {}
    for item in given or ():
        if item.endswith(".json"):
            found |= _pairs_of_file(item)
            continue
        some = item.split(",") if all("=" in part for part in item.split(",")) else [item]
        for part in some:
            label, equals, name = part.partition("=")
            if not (equals and label.strip() and name.strip()):
                raise UserError(f"--label-map {item}: write FROM=TO, as 1=pos.")
            found[label.strip()] = name.strip()
    return found


def _pairs_of_file(name: str) -> dict[str, str]:
    try:
        found = json.loads(Path(name).read_text("utf-8"))
        return {str(key): str(value) for key, value in found.items()}
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(
            f'--label-map {name}: no JSON object of labels and classes, as {{"0": "neg"}} '
            f"({one_line(error)})."
        ) from error


def points(given: str) -> float:
    """``"1%"`` and ``"1"`` alike: a hundredth of the whole scale of quality."""
    try:
        found = float(given.removesuffix("%"))
    except ValueError:
        raise UserError(f"--max-drop {given}: write points of quality, as 1%.") from None
    if 0 < found < 0.1 and not given.endswith("%"):
        raise UserError(f"--max-drop {given}: write {100 * found:g}% if you mean that, or {found:g}%.")
    return found


def share(given: str) -> float:
    """``"1%"`` and ``"0.01"`` alike."""
    try:
        return float(given.removesuffix("%")) / (100 if given.endswith("%") else 1)
    except ValueError:
        raise UserError(f"--max-change {given}: write a share, as 1% or 0.01.") from None


def budgets(given: str) -> float | list[float]:
    """``"0.5"``, or ``"0.7,0.5"``."""
    try:
        found = [float(part) for part in parts(given)]
    except ValueError:
        found = []
    if not found:
        raise UserError(f"--budget {given}: write a share of the FLOPs, as 0.5, or several, as 0.7,0.5.")
    return found[0] if len(found) == 1 else found


def options(given: list[str] | None) -> dict[str, Any]:
    """``["gate=paper", "dense_layers=1"]`` to a dict, values read as JSON where they are."""
    found: dict[str, Any] = {}
    for item in given or ():
        name, equals, value = item.partition("=")
        if not equals:
            raise UserError(f"--option {item}: write NAME=VALUE.")
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    return found
