"""How a record lies in memory, and whether the library that was opened agrees."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Mapping
from operator import itemgetter
from typing import Any, NamedTuple, get_args, get_type_hints, is_typeddict

import torch


class Kind(NamedTuple):
    """What a field holds, under its name in csrc/records.h; and the tensors that it may point to."""

    name: str
    ctype: Any = ctypes.c_void_p
    dtypes: tuple[torch.dtype, ...] = ()
    contiguous: bool = True


class Layout:
    """The struct of a record.

    Parameters
    ----------
    record : TypedDict class
        Its fields are annotated with a `Kind` each, or are records themselves. ``| None`` allows null.
    """

    def __init__(self, record: type):
        self.name = record.__name__
        self.kinds: dict[str, Kind] = {}
        self._pointers: list[tuple[int, tuple[torch.dtype, ...], bool, bool]] = []
        self._nested: list[tuple[int, Layout]] = []
        for place, (name, hint) in enumerate(get_type_hints(record, include_extras=True).items()):
            if is_typeddict(hint):
                self._nested.append((place, Layout(hint)))
                self.kinds[name] = Kind(hint.__name__, self._nested[-1][1].struct)
                continue
            optional = not hasattr(hint, "__metadata__")
            (self.kinds[name],) = (get_args(hint)[0] if optional else hint).__metadata__
            if dtypes := self.kinds[name].dtypes:
                self._pointers.append((place, dtypes, self.kinds[name].contiguous, optional))
        self._values = itemgetter(*self.kinds)
        fields = [(name, kind.ctype) for name, kind in self.kinds.items()]
        self.struct: Any = type(self.name, (ctypes.Structure,), {"_fields_": fields})

    def filled(self, record: Mapping[str, Any]) -> ctypes.Structure:
        """The struct that holds what a record says. It points into the record's tensors: keep the record.

        Raises
        ------
        TypeError
            If a field is missing, or there is none of that name.
        ValueError
            If the native code would misread a tensor: its dtype, its device, or how it lies in memory.
        """
        try:
            values = list(self._values(record))
        except KeyError as missing:
            raise TypeError(f"{self.name} lacks its field {missing}") from None
        if len(record) > len(values):
            raise TypeError(f"{self.name} has no field {', '.join(record.keys() - self.kinds.keys())}")
        for place, dtypes, contiguous, optional in self._pointers:
            tensor = values[place]
            if tensor is None:
                if not optional:
                    raise ValueError(self._demand(place))
            elif tensor.dtype in dtypes and tensor.is_cpu and (not contiguous or tensor.is_contiguous()):
                values[place] = tensor.data_ptr()
            else:
                raise ValueError(self._demand(place))
        for place, layout in self._nested:
            values[place] = layout.filled(values[place])
        return self.struct(*values)

    def _demand(self, place: int) -> str:
        name, (_, _, dtypes, contiguous) = list(self.kinds.items())[place]
        wanted = " or ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)
        how = ", contiguous," if contiguous else ""
        return f"{self.name}.{name} must be a tensor of {wanted}{how} on the CPU"

    def lines(self) -> dict[str, str]:
        """What csrc/records.cpp says of the struct and of those in it: size, and how every field lies."""
        places = {name: getattr(self.struct, name) for name in self.kinds}
        lines = {self.name: str(ctypes.sizeof(self.struct))}
        for name, place in places.items():
            lines[f"{self.name}.{name}"] = f"{self.kinds[name].name} {place.offset} {place.size}"
        for _, layout in self._nested:
            lines |= layout.lines()
        return lines


def differences(told: str, layouts: Iterable[Layout]) -> list[str]:
    """Where the structs of a library are other than ours, a line for each struct and field.

    Parameters
    ----------
    told : str
        What the library's ``thresher_records()`` says.
    layouts : iterable of Layout
    """
    theirs = dict(line.split(" ", 1) for line in told.splitlines())
    ours: dict[str, str] = {}
    for layout in layouts:
        ours |= layout.lines()
    return [
        f"{name}: {theirs.get(name, 'missing')} in the library, {ours.get(name, 'missing')} in Python"
        for name in ours | theirs
        if theirs.get(name) != ours.get(name)
    ]
