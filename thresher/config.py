"""How a model is pruned: a dataclass with a versioned JSON form."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self

from thresher.errors import UserError

VERSION = 3  # until 2, the pruner's tensors lay among the model's


@dataclass
class PruningConfig:
    """Settings of a pruned model.

    Parameters
    ----------
    pruner : str
        Name of the method, one of `thresher.pruners.PRUNERS`.
    options : dict
        Keyword arguments of that pruner, e.g. ``{"gate": "paper"}`` for ``threshold``.
    prefix : int
        First tokens of every sequence that are never pruned ([CLS]).
    suffix : int, optional
        Last tokens of every sequence that are never pruned ([SEP]). Heads with nothing to look for rest their
        attention there, so that little else can go if that goes. None: `thresher.training` sees to it, and
        a model that is built without it keeps none.
    prefix_only_at_end : bool
        Drop everything but the prefix after the last layer's attention, whatever the pruner says.
        Outputs do not change where the head reads nothing but [CLS]; refused where it reads more.
    offset : list of float, optional
        Added to the logits ``[labels]`` of the pruned model, not to those of its dense weights.
    """

    pruner: str = "threshold"
    options: dict[str, Any] = field(default_factory=dict)
    prefix: int = 1
    suffix: int | None = None
    prefix_only_at_end: bool = False
    offset: list[float] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.options, dict):
            raise UserError(f"options are {self.options!r}; they are a dict of the pruner's own.")
        if self.prefix < 1:
            raise UserError(
                f"prefix is {self.prefix}; at least the first token of a sequence must stay: 1 or more."
            )
        if self.suffix is not None and self.suffix < 0:
            raise UserError(f"suffix is {self.suffix}; it is a number of tokens: 0 or more.")
        for number in self.offset or ():
            if not math.isfinite(number):
                raise UserError(f"offset holds {number}; what is added to logits must be finite.")

    @property
    def ends(self) -> tuple[int, int]:
        """First and last tokens that are never pruned."""
        return self.prefix, self.suffix or 0

    def to_dict(self) -> dict[str, Any]:
        """JSON form, with the version of its layout."""
        return {"version": VERSION, **asdict(self)}

    @classmethod
    def from_dict(cls, block: dict[str, Any]) -> Self:
        """Read the JSON form.

        Raises
        ------
        UserError
            If it was written by another version of the layout.
        """
        version = version_of(block)
        if version == 1:  # thresholds were on attention received alone
            old = {"score": "attention"} if block["pruner"] == "threshold" else {}
            options = {name: value for name, value in block["options"].items() if name != "rungs"}
            block = {"suffix": 0} | block | {"options": old | options}
        try:
            return cls(**{f.name: block[f.name] for f in fields(cls) if f.name in block})
        except TypeError as error:
            raise UserError(f"The token_pruning block of config.json is damaged ({error}).") from error


def version_of(block: dict[str, Any]) -> int:
    """Version of the layout that a block, and the folder around it, was written in.

    Raises
    ------
    UserError
        If this Thresher does not read that version.
    """
    version = block.get("version") if isinstance(block, dict) else None
    if isinstance(version, int) and 1 <= version <= VERSION:
        return version
    newer = isinstance(version, int) and version > VERSION
    raise UserError(
        f"The model's token_pruning block has version {version}; this Thresher reads "
        f"versions 1 to {VERSION}. " + ("Upgrade Thresher." if newer else "Prune the model again.")
    )
