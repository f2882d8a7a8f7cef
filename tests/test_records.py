"""Records: both sides agree on every struct, and a call that leaves something out is refused."""

from __future__ import annotations

import ctypes
import logging
from pathlib import Path
from typing import TypedDict
from unittest.mock import Mock

import pytest
import torch

from thresher import native
from thresher.native.layout import Layout, differences
from thresher.native.records import FUNCTIONS, LAYOUTS, Count, Flag, Floats, RowWork, Strided

built = pytest.mark.skipif(native.library is None, reason="native code is not built")


class Pair(TypedDict):
    floats: Floats | None
    rows: Strided
    count: Count
    flag: Flag
    other: Flag


class Outer(TypedDict):
    pair: Pair
    count: Count


PAIR = """Pair 32
Pair.floats float* 0 8
Pair.rows void* 8 8
Pair.count int64 16 8
Pair.flag int32 24 4
Pair.other int32 28 4"""


def described(layouts):
    return "\n".join(f"{name} {rest}" for layout in layouts for name, rest in layout.lines().items())


@built
def test_the_library_and_python_agree_on_every_record():
    told = native.library.thresher_records().decode()
    assert differences(told, LAYOUTS) == []
    assert set(told.splitlines()) == set(described(LAYOUTS).splitlines())


def test_a_layout_says_where_each_field_lies():
    assert differences(PAIR, [Layout(Pair)]) == []
    outer = {"Outer": "40", "Outer.pair": "Pair 0 32", "Outer.count": "int64 32 8"}
    assert Layout(Outer).lines() == outer | Layout(Pair).lines()


@pytest.mark.parametrize(
    ("here", "there", "named"),
    [
        ("flag int32 24 4\nPair.other int32 28", "other int32 24 4\nPair.flag int32 28", {"flag", "other"}),
        ("floats float* 0 8", "floats int32* 0 8", {"floats"}),
        ("count int64 16 8", "number int64 16 8", {"count", "number"}),
        ("\nPair.other int32 28 4", "", {"other"}),
        ("Pair 32", "Pair 32\nPair.more int64 32 8", {"more"}),
    ],
)
def test_a_field_that_differs_is_named(here, there, named):
    assert here in PAIR
    found = differences(PAIR.replace(here, there), [Layout(Pair)])
    assert {line.split(":")[0] for line in found} == {f"Pair.{name}" for name in named}


@pytest.mark.parametrize(
    ("functions", "change", "named"),
    [
        (
            FUNCTIONS,
            ("gelu int32 52", "gelu int32 48"),
            "RowWork.gelu: int32 48 4 in the library, int32 52 4",
        ),
        (set(FUNCTIONS) - {"score"}, ("", ""), "thresher_score"),
    ],
)
def test_a_library_of_another_version_is_refused(functions, change, named, monkeypatch, caplog):
    told = described(LAYOUTS)
    library = Mock(spec=["thresher_use", "thresher_records", *(f"thresher_{name}" for name in functions)])
    monkeypatch.setattr(ctypes, "CDLL", lambda _: library)
    caplog.set_level(logging.DEBUG, native.log.name)
    library.thresher_records.return_value = told.replace(*change).encode()
    assert native._open(Path("library.so")) is None
    warning, *rest = caplog.records
    assert (warning.levelname, {x.levelname for x in rest}) == ("WARNING", {"DEBUG"})
    assert "library.so was built on another machine or of another version" in warning.getMessage()
    assert any(named in x.getMessage() for x in rest)


def pair(**changed):
    given = {
        "floats": torch.ones(3),
        "rows": torch.ones(4, 6)[:, :3],
        "count": 3,
        "flag": True,
        "other": False,
    }
    return given | changed


def test_a_record_is_filled_as_it_says():
    record = pair()
    filled = Layout(Outer).filled({"pair": record, "count": 7})
    assert (filled.count, filled.pair.count, filled.pair.flag, filled.pair.other) == (7, 3, 1, 0)
    assert filled.pair.floats == record["floats"].data_ptr()
    assert filled.pair.rows == record["rows"].data_ptr()
    assert Layout(Pair).filled(pair(floats=None)).floats is None


@pytest.mark.parametrize(
    ("changed", "error", "words"),
    [
        ({"cuont": 3}, TypeError, "Pair has no field cuont"),
        (
            {"floats": torch.ones(3).double()},
            ValueError,
            "Pair.floats must be a tensor of float32, contiguous,",
        ),
        ({"floats": torch.ones(6)[::2]}, ValueError, "Pair.floats must be"),
        ({"floats": torch.ones(3, device="meta")}, ValueError, "Pair.floats must be .* on the CPU"),
        ({"rows": None}, ValueError, "Pair.rows must be a tensor of float32 or bfloat16 on"),
        ({"rows": torch.ones(4, 3).half()}, ValueError, "Pair.rows must be"),
    ],
)
def test_what_would_be_misread_is_refused(changed, error, words):
    with pytest.raises(error, match=words):
        Layout(Pair).filled(pair(**changed))


@pytest.mark.parametrize("name", Pair.__annotations__)
def test_a_field_that_was_forgotten_is_refused_by_name(name):
    record = pair()
    del record[name]
    with pytest.raises(TypeError, match=f"Pair lacks its field '{name}'"):
        Layout(Pair).filled(record)


@built
def test_a_call_forgets_nothing_and_takes_its_own_record_alone():
    rows, sizes = torch.ones(2, 3), torch.ones(2)
    work = RowWork(
        source=rows, target=rows.char(), sizes=sizes, bias=None, rows=2, width=3, bf16=False, gelu=False
    )
    native.call("quantise", work, 6)
    assert torch.equal(work["target"], torch.full((2, 3), 127, dtype=torch.int8))
    with pytest.raises(TypeError, match="LinearWork lacks its field 'linear'"):
        native.call("linear", work, 6)
    del work["gelu"]
    with pytest.raises(TypeError, match="RowWork lacks its field 'gelu'"):
        native.call("quantise", work, 6)


@built
def test_no_memory_is_an_error(monkeypatch):
    monkeypatch.setattr(native, "library", Mock(thresher_finish=Mock(return_value=1)))
    rows = torch.ones(2, 3)
    work = RowWork(
        source=None, target=rows, sizes=rows[0], bias=rows[1], rows=2, width=3, bf16=False, gelu=False
    )
    with pytest.raises(MemoryError, match="no memory to finish"):
        native.call("finish", work, 6)
