"""How a model is pruned: a dataclass with a versioned JSON form."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self

from thresher.errors import UserError

VERSION = 2


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
        if self.prefix < 1:
            raise UserError(
                f"prefix is {self.prefix}; at least the first token of a sequence must stay: 1 or more."
            )
        if self.suffix is not None and self.suffix < 0:
            raise UserError(f"suffix is {self.suffix}; it is a number of tokens: 0 or more.")

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
        version = block.get("version")
        if version == 1:  # thresholds were on attention received alone
            old = {"score": "attention"} if block["pruner"] == "threshold" else {}
            options = {name: value for name, value in block["options"].items() if name != "rungs"}
            block = {"suffix": 0} | block | {"options": old | options}
        elif version != VERSION:
            newer = isinstance(version, int) and version > VERSION
            raise UserError(
                f"The model's token_pruning block has version {version}; this Thresher reads "
                f"version {VERSION}. " + ("Upgrade Thresher." if newer else "Prune the model again.")
            )
        return cls(**{f.name: block[f.name] for f in fields(cls) if f.name in block})
