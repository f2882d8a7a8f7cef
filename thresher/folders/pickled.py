"""Weights of PyTorch's older format, which anybody may have written: looked at before they are read."""

from __future__ import annotations

import io
import os
import pickletools
import re
import struct
import zipfile
from pickle import UnpicklingError
from typing import IO, Any

import torch

ZIPPED = b"PK\3\4"
LIST, POINTER, END = struct.Struct("<4s52x"), struct.Struct("<4sIQI"), 22  # at the end of an archive
OLDER = 5  # pickles at the start of a file from before PyTorch 1.6
CALLED = re.compile(
    r"collections OrderedDict|torch\._utils _rebuild_(tensor(_v[23])?|parameter(_with_state)?)"
    r"|torch (\w+Storage|Size|device|b?float\w+|u?int\d+|bool)|torch\.storage \w+Storage"
    r"|torch\.nn\.parameter Parameter"
)
"""Names that weights need. PyTorch's own list of names that run no code has more: a bytearray of any size."""
STEPS = re.compile(
    "PROTO|GLOBAL|REDUCE|BUILD|STOP|MARK|NONE|NEW(TRUE|FALSE)|(LONG_)?BIN(GET|PUT)|BINPERSID|BININT[12]?|LONG1"
    "|BINFLOAT|BINUNICODE|SHORT_BINSTRING|EMPTY_(DICT|LIST|TUPLE)|TUPLE[123]?|APPENDS?|SETITEMS?"
)
"""Opcodes that PyTorch writes and reads."""
MOST_STEPS = 200_000  # a tensor takes about 40
LARGEST_TUPLE = 256
"""With what is in it; a tensor takes about 20. Hashing takes time by the size, and stack by the depth."""


def load(file: str, place: str) -> dict[str, Any]:
    """What a file holds. On the device "meta" nothing is made of the tensors' sizes.

    Raises
    ------
    ValueError
        If the file holds no tensors by name, or may grow in reading: parts are compressed, or it calls what
        no weights need.
    Exception
        Anything else that the unpickler meets.
    """
    zipped = _is_zipped(file)
    if zipped:
        _check_end(file)
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
        if any(entry.compress_type for entry in entries):
            raise ValueError("its parts are compressed, as PyTorch never does")
        if sum(entry.file_size for entry in entries) > os.stat(file).st_size:
            raise ValueError("its parts overlap")
        _check_calls(io.BytesIO(torch._C.PyTorchFileReader(file).get_record("data.pkl")))
    else:
        with open(file, "rb") as stream:
            for _ in range(OLDER):
                _check_calls(stream)
    try:
        loaded = torch.load(file, map_location=place, weights_only=True, mmap=zipped)
    except UnpicklingError as error:  # PyTorch's advice is to have the file run what it likes
        raise ValueError("it holds what no weights need") from error
    if not isinstance(loaded, dict):
        raise ValueError("it holds no tensors by name")
    return loaded


def _check_end(file: str) -> None:
    """Refuse an archive with two lists of its parts: Python takes the list that lies before the pointer to
    it, PyTorch the one that is pointed at."""
    with open(file, "rb") as stream:
        size = stream.seek(0, os.SEEK_END)
        stream.seek(max(0, size - LIST.size - POINTER.size - END))
        tail = stream.read()
    pointer = tail[-END - POINTER.size : -END]
    far = pointer[:4] == b"PK\6\7" and POINTER.unpack(pointer)[2] != size - END - POINTER.size - LIST.size
    if tail[-END:][:4] != b"PK\5\6" or far:
        raise ValueError("the list of its parts is not where PyTorch puts it")


def _check_calls(stream: IO[bytes]) -> None:
    """Read a pickle, without running it: on the stack lie numbers, each the size of a tuple, or 1."""
    stack: list[int] = []
    marks: list[int] = []
    memo: dict[int, int] = {}
    argument: Any
    for number, (code, argument, _) in enumerate(pickletools.genops(stream)):
        if number == MOST_STEPS:
            raise ValueError(f"it takes more than {MOST_STEPS:,} steps to read, as no weights do")
        if not STEPS.fullmatch(code.name):
            raise ValueError(f"it uses {code.name}, which torch.save writes in no pickle of protocol 2")
        if code.name == "GLOBAL" and not CALLED.fullmatch(str(argument)):
            raise ValueError(f"it calls '{argument!s:.100}', which no weights need")
        if code.name == "MARK":
            marks.append(len(stack))
        elif code.name.endswith("PUT"):
            memo[argument] = stack[-1]
        elif code.name.endswith("GET"):
            stack.append(memo[argument])
        else:
            above = pickletools.stackslice in code.stack_before
            left = marks.pop() if above else len(stack)
            left -= len(code.stack_before) - 2 * above
            if left < 0:
                raise ValueError("it takes more than it holds")
            taken, stack[left:] = stack[left:], [1] * len(code.stack_after)
            if code.name.startswith("TUPLE"):
                stack[-1] += sum(taken)
                if stack[-1] > LARGEST_TUPLE:
                    raise ValueError("it holds a tuple that is larger than any of weights")


def _is_zipped(file: str) -> bool:
    with open(file, "rb") as stream:
        return stream.read(len(ZIPPED)) == ZIPPED
