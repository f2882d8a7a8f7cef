"""The classes of a model, and the ways in which data call them."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

from thresher.errors import UserError
from thresher.tasks import labels as raw

log = logging.getLogger(__name__)

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
        if not any(re.search(r"\d", name) for name in self.names) or self.unnamed:
            ids = {text: i for i in range(len(self.names)) for text in (str(i), f"label_{i}")}
            way = ways[-1 if self.unnamed else 2][1]  # True may be the id 1 only where nobody has named it
            tables.append(("" if self.unnamed else BY_ID, way, ids))
        return tables

    def find(self, label: Any) -> tuple[int, str]:
        """The id that a label stands for, and how it was found: "" where there is nothing to say of it, and
        id -1 where there is none."""
        for text in [label, raw.spelled(label)] if isinstance(label, str) else [raw.spelled(label)]:
            for how, way, table in self._tables:
                if (found := table.get(way(text))) is not None:
                    return found, how
        return -1, ""

    def mean_the_same(self, names: Sequence[str], by_id: bool) -> bool:
        """Whether other names are those of these classes, each of one; `by_id`: or their ids."""
        found = {name: self.find(name) for name in names}
        same = sorted(id_ for id_, _ in found.values()) == list(range(len(self.names)))
        same &= not self.unnamed and (by_id or all(how != BY_ID for _, how in found.values()))
        if same:
            self._tell("the training labels", found)
        return same

    def encode(
        self,
        labels: Sequence[Any],
        places: Sequence[str],
        source: str = "",
        aliases: Mapping[str, str] | None = None,
        vectors: bool | None = None,
    ) -> list[Any]:
        """Turn raw labels into ids or, where there may be many, into lists of 0.0 or 1.0 for each class.

        Parameters
        ----------
        labels : sequence
            All labels of one file, because only all of them show whether lists are vectors.
        places : sequence of str
            File and line of each, for messages.
        source : str
            The file, to say which labels are called otherwise there. Default: nothing is said.
        aliases : mapping of str to str, optional
            The class that a label stands for, by its key.
        vectors : bool, optional
            Whether lists are vectors, where that is known.

        Raises
        ------
        UserError
            For a label that is no class, and for names in some rows and ids in others.
        """
        read = self._read(labels, places)
        found = None if vectors is False else self._vectors(read, places)
        if found is not None:
            return [self._of_vector(vector, where) for vector, where in zip(found, places, strict=True)]
        reading = _Reading(self, aliases or {})
        encoded: list[Any] = []
        for some, where in zip(read, places, strict=True):
            ids = {reading.id(item, where) for item in some}
            if self.many:
                encoded.append([float(i in ids) for i in range(len(self.names))])
            elif len(ids) == 1:
                encoded.append(ids.pop())
            else:
                raise UserError(
                    f"{where}: the label {some!r} is of {len(ids)} classes; this model knows one a text"
                )
        if source:
            self._tell(source, reading.found)
            reading.tell_unused(source)
        return encoded

    def _read(self, labels: Sequence[Any], places: Sequence[str]) -> list[Sequence[Any]]:
        """The classes in raw labels, or their vectors of 0 and 1."""
        known: dict[str, Sequence[Any]] = {}  # most labels of a file are there many times
        read: list[Sequence[Any]] = []
        for label, where in zip(labels, places, strict=True):
            if not isinstance(label, str):
                read.append(self._read_one(label, where))
                continue
            if label not in known:
                known[label] = self._read_one(label, where)
            read.append(known[label])
        return read

    def _read_one(self, label: Any, where: str) -> Sequence[Any]:
        if self.many and len(self.names) == 1 and not isinstance(label, (list, tuple)):
            yes = raw.truth(raw.key(label).casefold())  # one output: the label may be a plain yes or no
            if yes in ("0", "1") and self.find(label)[1] in ("", BY_ID):
                return [int(yes)]
        if self.many and isinstance(label, str) and label.strip() in self.names:
            return [label.strip()]  # also where the name holds commas or brackets
        return read_classes(label, self.many, where)

    def _vectors(self, read: list[Sequence[Any]], places: Sequence[str]) -> list[list[int]] | None:
        if len(self.names) == 1:
            bits = [[item for item in some if not isinstance(item, str) and item in (0, 1)] for some in read]
            yes = self.many and all(len(some) == len(bit) < 2 for some, bit in zip(read, bits, strict=True))
            return [bit or [0] for bit in bits] if yes else None
        found = raw.as_vectors(read, places)
        # Lists of another length may hold ids, where no list holds an entry twice.
        if found and len(found[0]) != len(self.names) and all(len(set(some)) == len(some) for some in read):
            return None
        return found

    def _of_vector(self, vector: Sequence[int], where: str) -> Any:
        """A vector with an entry for each class: the vector itself, or the one class that it marks."""
        if len(vector) != len(self.names):
            raise UserError(
                f"{where}: the label is a vector of {len(vector)} entries, but the model has "
                f"{len(self.names)} classes; give one entry a class"
            )
        if self.many:
            return [float(item) for item in vector]
        if sum(vector) != 1:
            raise UserError(f"{where}: the label {list(vector)} marks {sum(vector)} classes; mark one")
        return list(vector).index(1)

    def known(self) -> str:
        return f"the model knows {raw.few(self.names)}"

    def _tell(self, source: str, read: Mapping[Any, tuple[int, str]]) -> None:
        """Say which labels were read as classes that are called otherwise."""
        odd = [f"{label!r} is {self.names[id_]!r} ({how})" for label, (id_, how) in read.items() if how]
        if odd:
            log.warning(
                "In %s, labels are not called as the model's classes are: %s%s. If one means another class, "
                "name that class in `label_map`.",
                source,
                ", ".join(odd[: raw.MANY]),
                f" and {len(odd) - raw.MANY} more" if len(odd) > raw.MANY else "",
            )


class _Reading:
    """What the labels of one file were read as."""

    def __init__(self, classes: Classes, aliases: Mapping[str, str]):
        self.classes, self.aliases = classes, aliases
        self.found: dict[Any, tuple[int, str]] = {}  # of labels that no alias names
        self.aliased: dict[str, int] = {}
        self.first: dict[bool, Any] = {}  # the first label that was read by id, and the first that was not

    def id(self, label: Any, where: str) -> int:
        """The id of one class."""
        if label in self.found:
            return self.found[label][0]
        if self.aliases and (said := raw.key(label)) in self.aliases:
            if said not in self.aliased:
                self.aliased[said] = self._find(self.aliases[said], where)[0]
            return self.aliased[said]
        id_, how = self._find(label, where)
        self.first.setdefault(how == BY_ID, label)
        if len(self.first) > 1:
            raise UserError(
                f"{where}: label {label!r} beside {self.first[how != BY_ID]!r}: one is a name and the other "
                "an id; write names in all rows, or say what ids mean in `label_map`"
            )
        self.found[label] = id_, how
        return id_

    def _find(self, name: Any, where: str) -> tuple[int, str]:
        id_, how = self.classes.find(name)
        if id_ < 0:
            raise UserError(
                f"{where}: unknown label {name!r}; {self.classes.known()}: mend the label, or say what it "
                "means in `label_map`"
            )
        return id_, how

    def tell_unused(self, source: str) -> None:
        if unused := [label for label in self.aliases if label not in self.aliased]:
            log.warning("In %s, no label is %s, though `label_map` has it.", source, raw.few(unused))


def read_classes(label: Any, many: bool, where: str) -> Sequence[Any]:
    """The classes in a raw label, each checked. A single label is one class, or a vector of 0 and 1."""
    some: Sequence[Any] = [label]
    if many:
        some = raw.items(label, where)
    elif isinstance(label, (str, list, tuple)):
        vector = raw.parse_list(label) if isinstance(label, str) else list(label)
        bits = [bit for bit in vector or () if isinstance(bit, (int, float)) and bit in (0, 1)]
        some = bits if vector and 1 < len(vector) == len(bits) else some
    for item in some:
        raw.check_class(item, where)
    return some


def _unambiguous(names: Iterable[str]) -> dict[str, int]:
    """Ids by name, without the names that several have."""
    names = list(names)
    count = Counter(names)
    return {name: i for i, name in enumerate(names) if count[name] == 1}
