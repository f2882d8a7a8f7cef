"""The classes of a model, and the ways in which data call them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

from thresher import labels as raw
from thresher.errors import UserError

log = logging.getLogger(__name__)

SHOWN = 20  # names in a message
BY_ID = "by id"


class Classes:
    """Finds the class that a label of the data stands for, and says so where it is called otherwise.

    Parameters
    ----------
    names : sequence of str
        In the order of their ids.
    many : bool
        Whether a text may have any number of them, rather than one.
    """

    def __init__(self, names: Sequence[str], many: bool):
        self.names, self.many = tuple(names), many
        self.unnamed = all(name == f"LABEL_{i}" for i, name in enumerate(self.names))

    @cached_property
    def _tables(self) -> list[tuple[str, Callable[[str], str], dict[str, int]]]:
        """Ways to find a class, the surest first: what it is called, what becomes of a label, and the ids. A
        way holds no label that may mean two classes."""
        ways: list[tuple[str, Callable[[str], str]]] = [
            ("", str),
            ("", raw.key),
            ("by case", lambda label: raw.key(label).casefold()),
            ("as a bool", lambda label: raw.truth(raw.key(label).casefold())),
        ]
        tables = [(how, way, _unambiguous(map(way, self.names))) for how, way in ways]
        if not any(raw.number(raw.truth(raw.key(name))) is not None for name in self.names):
            ids = {text: i for i in range(len(self.names)) for text in (str(i), f"label_{i}")}
            tables.append(("" if self.unnamed else BY_ID, ways[-1][1], ids))
        return tables

    def find(self, label: Any) -> tuple[int, str]:
        """The id that a label stands for, and how it was found: "" where there is nothing to say of it, and
        id -1 where there is none."""
        for text in [label, raw.spelled(label)] if isinstance(label, str) else [raw.spelled(label)]:
            for how, way, table in self._tables:
                if (found := table.get(way(text))) is not None:
                    return found, how
        return -1, ""

    def mean_the_same(self, names: Sequence[str]) -> bool:
        """Whether other names are those of these classes, each of one."""
        found = {name: self.find(name) for name in names}
        same = sorted(id_ for id_, _ in found.values()) == list(range(len(self.names)))
        if same and not self.unnamed:
            self._tell("the training labels", found)
        return same and not self.unnamed

    def encode(self, labels: Sequence[Any], places: Sequence[str], source: str = "") -> list[Any]:
        """Turn raw labels into ids or, where there may be many, into lists of 0.0 or 1.0 for each class.

        Parameters
        ----------
        labels : sequence
            Of one file: whether lists are vectors with an entry a class shows in all of them.
        places : sequence of str
            File and line of each, for messages.
        source : str
            The file, to say which labels are called otherwise there. Default: nothing is said.

        Raises
        ------
        UserError
            For a label that is no class, and for names in some rows and ids in others.
        """
        read = [self._read(label, where) for label, where in zip(labels, places, strict=True)]
        if self._are_vectors(read):
            return [self._of_vector(vector, where) for vector, where in zip(read, places, strict=True)]
        seen: dict[Any, tuple[int, str]] = {}
        encoded: list[Any] = []
        for some, where in zip(read, places, strict=True):
            ids = {self._id(item, where, seen) for item in some}
            if self.many:
                encoded.append([float(i in ids) for i in range(len(self.names))])
            elif len(ids) == 1:
                encoded.append(ids.pop())
            else:
                raise UserError(
                    f"{where}: the label {some!r} is of several classes; this model knows one a text"
                )
        if source:
            self._tell(source, seen)
        return encoded

    def _read(self, label: Any, where: str) -> Sequence[Any]:
        """The classes in a raw label, or its vector of 0 and 1."""
        if self.many and len(self.names) == 1 and not isinstance(label, (list, tuple)):
            yes = raw.truth(raw.key(label).casefold())  # one output: the label may be a plain yes or no
            if yes in ("0", "1") and self.find(label)[1] in ("", BY_ID):
                return [int(yes)]
        return read_classes(label, self.many, where)

    def _are_vectors(self, read: Sequence[Sequence[Any]]) -> bool:
        if len(self.names) == 1:
            return self.many and all(
                len(some) == 1 and not isinstance(some[0], str) and some[0] in (0, 1) for some in read
            )
        # Of another length, lists in which nothing is there twice may hold ids.
        return raw.are_hot(read) and (
            len(read[0]) == len(self.names) or any(len(set(some)) < len(some) for some in read)
        )

    def _of_vector(self, vector: Sequence[Any], where: str) -> Any:
        """Of one entry a class: the vector itself, or the one class that it marks."""
        if len(vector) != len(self.names):
            raise UserError(
                f"{where}: the label is a vector of {len(vector)} entries, but the model has "
                f"{len(self.names)} classes; give one entry a class"
            )
        if self.many:
            return [float(item) for item in vector]
        if sum(vector) != 1:
            raise UserError(f"{where}: the label {list(vector)} marks {int(sum(vector))} classes; mark one")
        return list(vector).index(1)

    def _id(self, label: Any, where: str, seen: dict[Any, tuple[int, str]]) -> int:
        """The id of one class; `seen` notes what labels were read as, and how."""
        if label not in seen:
            id_, how = self.find(label)
            if id_ < 0:
                raise UserError(f"{where}: unknown label {label!r}; {self._known()}")
            others = [name for name, (_, way) in seen.items() if (way == BY_ID) != (how == BY_ID)]
            if others:
                raise UserError(
                    f"{where}: label {label!r} beside {others[0]!r}: one is a name and the other an id; "
                    "write names in all rows"
                )
            seen[label] = id_, how
        return seen[label][0]

    def _known(self) -> str:
        known = ", ".join(map(repr, self.names[:SHOWN]))
        more = f" and {len(self.names) - SHOWN} more" if len(self.names) > SHOWN else ""
        return f"the model knows {known}{more}: mend the label, or say what it means by --label-map 'FROM=TO'"

    def _tell(self, source: str, read: Mapping[Any, tuple[int, str]]) -> None:
        """Say which labels were read as classes that are called otherwise."""
        odd = [f"{label!r} is {self.names[id_]!r} ({how})" for label, (id_, how) in read.items() if how]
        if odd:
            log.warning(
                "In %s, labels are not called as the model's classes are: %s%s. If one means another class, "
                "say so by --label-map 'FROM=TO'.",
                source,
                ", ".join(odd[:SHOWN]),
                f" and {len(odd) - SHOWN} more" if len(odd) > SHOWN else "",
            )


def read_classes(label: Any, many: bool, where: str) -> Sequence[Any]:
    """The classes in a raw label, each checked; of a single label the one, or its vector of 0 and 1."""
    if many:
        some = list(raw.items(label, where))
    else:
        vector = raw.parse_list(label) if isinstance(label, str) else label
        some = list(vector) if isinstance(vector, (list, tuple)) and raw.are_hot([vector]) else [label]
    for item in some:
        raw.check_class(item, where)
    return some


def _unambiguous(names: Iterable[str]) -> dict[str, int]:
    """Ids by name, without the names that several have."""
    names = list(names)
    return {name: i for i, name in enumerate(names) if names.count(name) == 1}
