"""Entities in a row of tags, by the rules of seqeval, which are those of conlleval."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

OUTSIDE = "O"
ENDS, BEGINS = frozenset("ES"), frozenset("BS")  # besides what a change of kind ends and begins


def parts(tag: str) -> tuple[str, str]:
    """What a tag says of the place in an entity (B, I, E, S or O), and the entity's kind.

    Examples
    --------
    >>> parts("B-Disease"), parts("I"), parts("O")
    (('B', 'Disease'), ('I', ''), ('O', ''))
    """
    place, _, kind = tag.partition("-")
    return place, kind


def has_entities(tags: Sequence[str]) -> bool:
    """Whether tags mark entities: O, and besides it nothing but B-, I-, E- and S-."""
    places = {parts(tag)[0] for tag in tags if tag != OUTSIDE}
    return OUTSIDE in tags and bool(places) and places <= set("BIES") and any("-" in tag for tag in tags)


def entities(tags: Sequence[str]) -> Iterator[tuple[str, int, int]]:
    """Kind, first and last place of each entity. An I that goes on nothing begins an entity.

    Examples
    --------
    >>> list(entities(["B-Drug", "I-Drug", "O", "I-Drug", "B-Drug"]))
    [('Drug', 0, 1), ('Drug', 3, 3), ('Drug', 4, 4)]
    """
    start, before = 0, (OUTSIDE, "")
    for at, tag in enumerate([*tags, OUTSIDE]):
        place, kind = parts(tag)
        goes_on = place not in BEGINS | {OUTSIDE} and kind == before[1] and before[0] not in ENDS
        if before[0] != OUTSIDE and not goes_on:
            yield before[1], start, at - 1
        if place != OUTSIDE and (before[0] == OUTSIDE or not goes_on):
            start = at
        before = place, kind


def marked(tags: Sequence[str]) -> list[tuple[str, int, int]]:
    """What tags mark, as of `entities`: or, where none begins or ends an entity, each word by itself."""
    if all(parts(tag)[0] in set("BIES") and "-" in tag for tag in tags if tag != OUTSIDE):
        return list(entities(tags))
    return [(tag, i, i) for i, tag in enumerate(tags) if tag != OUTSIDE]
