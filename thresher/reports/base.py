"""What all reports share, and their JSON form."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, ClassVar, Self, get_args, get_origin, get_type_hints

from thresher.errors import UserError
from thresher.files.atomic import replacing

VERSION = 1

Quality = dict[str, float]
"""Figures of a task by name, in percent; the main one first."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """What every report says.

    Attributes
    ----------
    model : str
        Folder or hub name of the model that the run began with.
    versions : dict of str to str
        Packages, the processor, its instructions in use, and the threads.
    seconds : float
        How long the run took, all in all.
    """

    command: ClassVar[str]

    model: str
    versions: dict[str, str]
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Plain values, with the version of their layout."""
        return {"version": VERSION, "command": self.command, **asdict(self)}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """Read the plain values back. Entries that a report of this kind does not have are passed over, as
        an experiment adds some.

        Raises
        ------
        UserError
            If another version of the layout wrote them, or they are of another command.
        """
        if (version := values.get("version", VERSION)) != VERSION:
            raise UserError(
                f"The report has version {version!r:.100}; this Thresher reads version {VERSION}."
            )
        if (command := values.get("command")) != cls.command:
            raise UserError(f"The report is of the command {command!r:.100}, not of {cls.command}.")
        found: Self = _read(cls, values)
        return found

    def write(self, path: Path) -> Path:
        """Write the JSON form, whole or not at all."""
        return write_json(self.to_json(), path)


@dataclass(frozen=True, kw_only=True)
class Kept:
    """What a model keeps of some texts.

    Attributes
    ----------
    flops_ratio : float
        FLOPs over those of the base model, on real tokens.
    kept_share : list of float [layers]
        Share of all tokens that is alive after each layer.
    kept_tokens : list of float [layers]
        Mean number of tokens alive after each layer.
    mean_tokens : float
        Mean number of tokens of a text.
    thresholds : list of float [layers], or None
        In fair shares; None where the pruner has none.
    """

    flops_ratio: float
    kept_share: list[float]
    kept_tokens: list[float]
    mean_tokens: float
    thresholds: list[float] | None = None


def write_json(values: dict[str, Any], path: Path) -> Path:
    """Write plain values, whole or not at all."""
    with replacing(path) as partial:
        partial.write_text(json.dumps(values, indent=2, default=str) + "\n")
    return path


def _read(kind: Any, value: Any) -> Any:
    """A value of JSON as the type that a field is annotated with."""
    if isinstance(kind, UnionType):
        if value is None:
            return None
        (kind,) = (some for some in get_args(kind) if some is not type(None))
    if is_dataclass(kind):
        hints = get_type_hints(kind)
        names = [entry.name for entry in fields(kind) if entry.name in value]
        return kind(**{name: _read(hints[name], value[name]) for name in names})  # type: ignore[operator]
    inner = get_args(kind)
    if get_origin(kind) is list and is_dataclass(inner[0]):
        return [_read(inner[0], item) for item in value]
    return tuple(value) if get_origin(kind) is tuple else value
