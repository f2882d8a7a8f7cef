"""How a model is pruned: a dataclass with a versioned JSON form."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self

from thresher.errors import UserError

VERSION, OLDEST = 3, 2  # in 2, the pruner's tensors lay among the model's
DROPPED = ("carry", "mean", "translate")
LONGEST = 2**20  # more tokens than any text has


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
    dropped : {"carry", "mean", "translate"}, optional
        What stands for a dropped token, where the head reads every token: the state with which it entered the
        layer that dropped it; the mean over the survivors, so that a mean over all tokens is one over the
        survivors; or that state, translated by a learned matrix of the layer (see `carried.Translator`).
        None: `thresher.training` translates, and a model that is built without it carries.
    """

    pruner: str = "threshold"
    options: dict[str, Any] = field(default_factory=dict)
    prefix: int = 1
    suffix: int | None = None
    prefix_only_at_end: bool = False
    offset: list[float] | None = None
    dropped: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.pruner, str):
            raise UserError(f"pruner is {self.pruner!r:.100}; it is the name of a method.")
        if not isinstance(self.options, dict):
            raise UserError(f"options are {self.options!r:.100}; they are a dict of the pruner's own.")
        if not _counts(self.prefix, least=1):
            raise UserError(
                f"prefix is {self.prefix!r:.99}; at least the first token of a sequence must stay: 1 or more."
            )
        if self.suffix is not None and not _counts(self.suffix, least=0):
            raise UserError(f"suffix is {self.suffix!r:.100}; it is a number of tokens: 0 or more.")
        if not isinstance(self.prefix_only_at_end, bool):
            raise UserError(f"prefix_only_at_end is {self.prefix_only_at_end!r:.100}; it is true or false.")
        if self.offset is not None and not isinstance(self.offset, list | tuple):
            raise UserError(f"offset is {self.offset!r:.100}; it is a list of numbers, one for each label.")
        for number in self.offset or ():
            if not _is_number(number):
                raise UserError(f"offset holds {number!r:.100}; what is added to logits must be finite.")

        if self.dropped not in (None, *DROPPED):
            raise UserError(f"dropped is {self.dropped!r:.100}; choose one of: {', '.join(DROPPED)}.")

    @property
    def ends(self) -> tuple[int, int]:
        """First and last tokens that are never pruned."""
        return self.prefix, self.suffix or 0

    def to_dict(self) -> dict[str, Any]:
        """JSON form, with the version of its layout."""
        form = {"version": VERSION, **asdict(self)}
        if self.dropped in (None, DROPPED[0]):  # so that versions that do not know it read the folder
            del form["dropped"]
        return form

    @classmethod
    def from_dict(cls, block: dict[str, Any]) -> Self:
        """Read the JSON form.

        Raises
        ------
        UserError
            If it was written by another version of the layout.
        """
        check_version(block)
        if block.get("pruner") == "last-layer":  # an older name of it
            block = block | {"pruner": "none", "prefix_only_at_end": True}
        known = {f.name for f in fields(cls)}
        try:
            if unknown := sorted(block.keys() - known - {"version", "metadata"}):
                raise UserError(f"it holds {unknown[0]!r:.100}, which no version of Thresher writes.")
            check_metadata(block.get("metadata"))
            return cls(**{name: block[name] for name in known & block.keys()})
        except UserError as error:
            raise UserError(f"The token_pruning block of config.json is damaged: {error}") from error


def check_metadata(metadata: Any) -> None:
    """Refuse what a folder says of its training, where it cannot be what a training left.

    Raises
    ------
    UserError
        With the entry's name.
    """
    if metadata is not None and not isinstance(metadata, dict):
        raise UserError(f"metadata is {metadata!r:.100}; it is a dict.")
    rules = {
        "max_length": (lambda value: _counts(value, least=1), "a number of tokens"),
        "text": (_are_columns, "a list of names of columns"),
        "metric": (lambda value: isinstance(value, str), "a name"),
        "base": (lambda value: isinstance(value, str), "a name"),
        "base_measured_on": (lambda value: isinstance(value, str), "a name"),
        "base_quality": (_are_qualities, "numbers by name"),
    }
    for name, (fits, wanted) in rules.items():
        value = (metadata or {}).get(name)
        if value is not None and not fits(value):
            raise UserError(f"metadata: {name} is {value!r:.100}; it must be {wanted}.")


def _counts(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= LONGEST


def _is_number(value: Any) -> bool:
    """True for a finite number, also as float32."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 3e38


def _are_columns(value: Any) -> bool:
    return isinstance(value, list) and len(value) > 0 and all(isinstance(name, str) for name in value)


def _are_qualities(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_number, value.values()))


def check_version(block: dict[str, Any]) -> None:
    """Refuse a block, and the folder around it, of another version of the layout.

    Raises
    ------
    UserError
        With its version.
    """
    version = block.get("version") if isinstance(block, dict) else None
    if type(version) is int and OLDEST <= version <= VERSION:
        return
    newer = type(version) is int and version > VERSION
    raise UserError(
        f"The model's token_pruning block has version {version!s:.100}; this Thresher reads "
        f"versions {OLDEST} and {VERSION}. " + ("Upgrade Thresher." if newer else "Prune the model again.")
    )
