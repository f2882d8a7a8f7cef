"""What tasks share whose labels are classes."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, ClassVar, Self

import numpy as np

from thresher.errors import UserError
from thresher.tasks import labels as raw
from thresher.tasks.base import Task
from thresher.tasks.classes import Classes, read_classes

log = logging.getLogger(__name__)
TEMPERATURE = 2.0  # of distances: softens both sides, so that more than the top class teaches


class OfClasses(Task):
    """A text has one class, or any number of them.

    Attributes
    ----------
    many : bool
        Whether a text may have any number of classes.
    """

    many: ClassVar[bool]

    @classmethod
    def inferred(
        cls, labels: list[Any], places: Sequence[str], aliases: Mapping[str, str], score_name: str
    ) -> tuple[Self, int]:
        read = [read_classes(label, cls.many, where) for label, where in zip(labels, places, strict=True)]
        hot = raw.as_vectors(read, places)
        if hot is not None:
            different, names = len(set(map(tuple, hot))), [str(i) for i in range(len(hot[0]))]
        else:
            meant = [[aliases.get(raw.key(item), item) for item in some] for some in read]
            called: dict[str, str] = {}
            for item in (item for some in meant for item in some):
                called.setdefault(raw.key(item), raw.spelled(item))
            different = len({frozenset(map(raw.key, some)) for some in meant})
            names = sorted(called.values())
            if all(re.fullmatch(r"[+-]?\d+", name) for name in names):
                names.sort(key=int)
        for doubt in raw.doubts(names, cls.kind):
            log.warning(doubt)
        return cls(tuple(names), aliases=aliases, vectors=hot is not None), different

    @cached_property
    def classes(self) -> Classes:
        """The classes, which know how data may call them."""
        return Classes(self.names, self.many)

    def reading(self, label_map: Mapping[str, str] | None) -> Self:
        for label, name in (label_map or {}).items():
            if self.names and self.classes.find(name)[0] < 0:
                raise UserError(f"`label_map` says that {label!r} is {name!r}, but {self.classes.known()}")
        return super().reading(label_map)

    def in_order_of(self, config: Any) -> Self:
        names = tuple(str(config.id2label[id_]) for id_ in sorted(config.id2label))
        same = Classes(names, self.many).mean_the_same(self.names, by_id=bool(self.vectors))
        return replace(self, names=names) if same else self

    def _encode(self, labels: list[Any], places: Sequence[str], source: str) -> list[Any]:
        return self.classes.encode(labels, places, source, self.aliases, self.vectors)

    def decided(self, logits: np.ndarray) -> np.ndarray:
        """Decisions: ids ``[n]``, or 0 and 1 ``[n, names]``."""
        raise NotImplementedError

    def agreement(self, logits: np.ndarray, base: np.ndarray, weights: np.ndarray | None = None) -> float:
        same = self.decided(logits) == self.decided(base)
        return 100.0 * float(np.average(same.reshape(len(same), -1).mean(1), weights=weights))

    def doubt(self, change: float, texts: int) -> float:
        # The decisions of one text, where it has many, may all change together.
        return (change * (1 - change) / texts) ** 0.5
