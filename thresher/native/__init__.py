"""Our own C++ (csrc/), behind a C interface: where it was built, and which instructions it uses."""

from __future__ import annotations

import ctypes
import logging
import os
from contextlib import AbstractContextManager, nullcontext
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.profiler import record_function

from thresher.errors import UserError

# Instructions to use: amx, avx512, avx2 or portable; off to do without. Default: the best there are.
SWITCH = "THRESHER_NATIVE"
log = logging.getLogger(__name__)
NOTHING = nullcontext()


_pointer, _long = ctypes.c_void_p, ctypes.c_int64


class Problem(ctypes.Structure):
    """As in csrc/interface.h."""

    _fields_ = (
        *((name, _pointer) for name in ("query", "key", "value")),
        *((name, _long * 2) for name in ("query_stride", "key_stride", "value_stride")),
        *((name, _pointer) for name in ("starts", "positions", "log_weight", "rows", "row_starts")),
        *((name, _pointer) for name in ("context", "received", "importance")),
        *((name, _long) for name in ("batch", "tokens", "heads", "dim", "window")),
        ("scale", ctypes.c_float),
        ("bf16", ctypes.c_int32),
    )


class Gradients(ctypes.Structure):
    """As in csrc/interface.h."""

    _fields_ = (
        ("problem", Problem),
        *((name, _pointer) for name in ("context_grad", "importance_grad")),
        *((name, _pointer) for name in ("query_grad", "key_grad", "value_grad", "log_weight_grad")),
    )


class RowWork(ctypes.Structure):
    """As in csrc/interface.h."""

    _fields_ = (
        *((name, _pointer) for name in ("source", "target", "sizes", "bias")),
        *((name, _long) for name in ("rows", "width")),
        *((name, ctypes.c_int32) for name in ("bf16", "gelu")),
    )


class ScoreWork(ctypes.Structure):
    """As in csrc/interface.h."""

    _fields_ = (
        *((name, _pointer) for name in ("hidden", "vector", "importance", "starts", "scores")),
        *((name, _long) for name in ("batch", "dim", "stride")),
        *((name, ctypes.c_float) for name in ("largest", "least")),
        *((name, ctypes.c_int32) for name in ("alone", "bf16")),
    )


class LinearWork(ctypes.Structure):
    """As in csrc/interface.h."""

    _fields_ = (
        *((name, _pointer) for name in ("source", "target", "weights", "weight_sizes", "bias")),
        *((name, _long) for name in ("rows", "inputs", "outputs", "stride")),
        *((name, ctypes.c_int32) for name in ("int8", "bf16", "gelu")),
    )


def use(name: str | None = None) -> str:
    """Choose the instructions: amx, avx512, avx2 or portable; by default the best there are.

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
            f"{SWITCH} is '{name}', which this machine lacks; choose amx, avx512, avx2, portable or off."
        )
    instructions = found.decode()
    return instructions


def serves(values: Tensor) -> bool:
    """True if the library is there and can take such numbers: on a CPU, in float32 or bfloat16."""
    dtypes = (torch.float32, torch.bfloat16)
    return library is not None and values.device.type == "cpu" and values.dtype in dtypes


def wants_gradients(*inputs: Tensor) -> bool:
    """True where code that only goes forward must not be taken."""
    return torch.is_grad_enabled() and any(x.requires_grad for x in inputs)


def in_profile(name: str) -> AbstractContextManager[Any]:
    """Has torch's profiler see what is called by ctypes as an operation of this name."""
    return record_function(name) if torch.autograd._profiler_enabled() else NOTHING


def threads(work: int, least: int = 1 << 18) -> ctypes.c_int32:
    """How many threads to use for so many multiply-adds: few are done before a second thread is awake."""
    return ctypes.c_int32(torch.get_num_threads() if work > least else 1)


def _built() -> Path | None:
    """Where the library was built."""
    files = [Path(__file__).with_name("_library" + suffix) for suffix in EXTENSION_SUFFIXES]
    return next((file for file in files if file.exists()), None)


def _open(file: Path) -> ctypes.CDLL | None:
    try:
        opened = ctypes.CDLL(str(file))
        opened.thresher_use.restype = ctypes.c_char_p
        structs = {
            "problem": Problem,
            "gradients": Gradients,
            "row_work": RowWork,
            "linear_work": LinearWork,
            "score_work": ScoreWork,
        }
        same = all(
            getattr(opened, f"thresher_{name}_size")() == ctypes.sizeof(struct)
            for name, struct in structs.items()
        )
    except (OSError, AttributeError):
        same = False
    if not same:
        log.warning("%s was built on another machine or of another version; install Thresher again.", file)
    return opened if same else None


_place = _built()
library = None if _place is None or os.environ.get(SWITCH) == "off" else _open(_place)
"""The library, or None where it was not built or is switched off."""

instructions: str | None = None
if library:
    use(os.environ.get(SWITCH) or None)

# torch's own team of threads, where it has one that can be found: a second would fight it for the cores.
_parallel = getattr(ctypes.CDLL(None), "GOMP_parallel", None) if library else None
team = ctypes.cast(_parallel, ctypes.c_void_p) if _parallel else None
