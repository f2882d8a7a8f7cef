"""Our own C++ (csrc/), behind a C interface: where it was built, and which instructions it uses."""

from __future__ import annotations

import ctypes
import logging
import os
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.profiler import record_function

from thresher.errors import UserError
from thresher.native.layout import differences
from thresher.native.records import FUNCTIONS, IN_WORDS, LAYOUTS, LINEARS, PRECISIONS, STAGES, BurnWork

# Instructions to use: one of INSTRUCTIONS; off to do without. Default: the best there are.
SWITCH = "THRESHER_NATIVE"
log = logging.getLogger(__name__)
NOTHING = nullcontext()
INSTRUCTIONS = (
    "amx",
    "avx512-bf16",
    "avx512-vnni",
    "avx512",
    "avx-vnni",
    "avx2",
    "neon-bf16",
    "neon-dot",
    "portable",
)
"""From the best on."""
PROVEN = INSTRUCTIONS[: INSTRUCTIONS.index("avx2") + 1]
"""With which the native engine is the default. NEON has run in an emulator alone; AVX-VNNI on a processor, in
the form that AVX-512 has of it."""

PANELS = {"fp32": torch.float32, "bf16": torch.bfloat16, "int8": torch.int8}
_has: dict[str, int] = {}  # in each precision, what the instructions in use have


def use(name: str | None = None) -> str:
    """Choose one of `INSTRUCTIONS`; by default the best there are.

    Returns
    -------
    str
        Their name.

    Raises
    ------
    UserError
        If the machine lacks them.
    """
    global instructions
    assert library is not None
    if (found := library.thresher_use(None if name is None else name.encode())) is None:
        raise UserError(
            f"{SWITCH} is '{name}', which this machine lacks; choose {', '.join(INSTRUCTIONS)} or off."
        )
    instructions = found.decode()
    _has.update({precision: library.thresher_has(code) for precision, code in PRECISIONS.items()})
    return instructions


def serves(values: Tensor) -> bool:
    """True if the library is there and can take such numbers: on a CPU, in float32 or bfloat16."""
    return library is not None and values.is_cpu and values.dtype in (torch.float32, torch.bfloat16)


def has_linears(precision: str) -> bool:
    """True if the instructions in use have linear layers in a precision: fp32, bf16 or int8."""
    return library is not None and bool(_has[precision] & LINEARS)


def panel_dtype(precision: str) -> torch.dtype:
    """Of the weights that the instructions in use multiply."""
    return torch.int16 if library is not None and _has[precision] & IN_WORDS else PANELS[precision]


def has_stages(precision: str) -> bool:
    """True if the instructions in use have whole stages in a precision."""
    return library is not None and bool(_has[precision] & STAGES)


def peak(precision: str, seconds: float = 0.05) -> float | None:
    """FLOP/s of multiply-adds in registers, by vectors, on all threads: what no product can exceed. None
    where the instructions in use have no such precision, or have tiles (AMX) that are faster."""
    if not has_linears(precision) or (instructions == "amx" and precision != "fp32"):
        return None
    assert library is not None
    code, count, rounds, best = PRECISIONS[precision], torch.get_num_threads(), 100_000, 0.0
    flops = 2 * library.thresher_round(code) * count
    end = time.perf_counter() + seconds
    while (start := time.perf_counter()) < end:
        call("burn", BurnWork(rounds=rounds, precision=code), work=1, least=0)
        best = max(best, flops * rounds / (time.perf_counter() - start))
    return best


def wants_gradients(*inputs: Tensor) -> bool:
    """True where code that only goes forward must not be taken."""
    return torch.is_grad_enabled() and any(x.requires_grad for x in inputs)


def in_profile(name: str) -> AbstractContextManager[Any]:
    """Has torch's profiler see what is called by ctypes as an operation of this name."""
    return record_function(name) if torch.autograd._profiler_enabled() else NOTHING


def threads(work: int, least: int = 1 << 18) -> int:
    """How many threads to use for so many multiply-adds: few are done before a second thread is awake."""
    return torch.get_num_threads() if work > least else 1


def call(
    name: str, record: Mapping[str, Any], work: int, least: int = 1 << 18, label: str | None = None
) -> None:
    """Have the library do something, by ``thresher_<name>``.

    Parameters
    ----------
    name : str
        A function of `records.FUNCTIONS`.
    record : the record that the function takes
    work, least : int
        Multiply-adds, and the most of them that one thread does alone: see `threads`.
    label : str, optional
        What torch's profiler shows. Default: ``thresher::<name>``.

    Raises
    ------
    TypeError, ValueError
        If the record is not as the function reads it: see `Layout.filled`.
    MemoryError
        If there is not enough memory.
    """
    function: Callable[..., int] = getattr(library, f"thresher_{name}")
    memory = ctypes.byref(FUNCTIONS[name].filled(record))
    with in_profile(label or f"thresher::{name}"):
        if function(memory, threads(work, least), team):
            raise MemoryError(f"The native code found no memory to {name}: smaller batches need less of it.")


def _built() -> Path | None:
    """Where the library was built."""
    files = [Path(__file__).with_name("_library" + suffix) for suffix in EXTENSION_SUFFIXES]
    return next((file for file in files if file.exists()), None)


def _open(file: Path) -> ctypes.CDLL | None:
    try:
        opened = ctypes.CDLL(str(file))
        opened.thresher_use.restype = opened.thresher_records.restype = ctypes.c_char_p
        for name in FUNCTIONS:
            getattr(opened, f"thresher_{name}")
        wrong = differences(opened.thresher_records().decode(), LAYOUTS)
    except (OSError, AttributeError, ValueError) as error:
        wrong = [str(error)]
    if not wrong:
        return opened
    log.warning("%s was built on another machine or of another version; install Thresher again.", file)
    for line in wrong:
        log.debug("%s", line)
    return None


_place = _built()
library = None if _place is None or os.environ.get(SWITCH) == "off" else _open(_place)
"""The library, or None where it was not built or is switched off."""

instructions: str | None = None
if library:
    use(os.environ.get(SWITCH) or None)

# torch's own team of threads, where it has one that can be found: a second would fight it for the cores.
_parallel = getattr(ctypes.CDLL(None), "GOMP_parallel", None) if library else None
team = ctypes.cast(_parallel, ctypes.c_void_p) if _parallel else None
