"""Base models in PyTorch's older format, and what somebody careless or hostile may put in their place."""

from __future__ import annotations

import copy
import pickle
import random
import shutil
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from .mutations import KINDS, WEIGHTS, Mutation, both, directory, fifo, remove

BIN = "pytorch_model.bin"
Tensors = dict[str, torch.Tensor]


def pickles() -> list[Mutation]:
    """Folders with weights of the older format alone."""
    return [*_honest(), *_wrong(), *_archives(), *_drawn()]


def saved(how: Callable[[Tensors], Any] = dict, **options: Any) -> Callable[[Path], object]:
    """Weights as `torch.save` writes them, after a change."""

    def change(folder: Path) -> None:
        tensors = load_file(folder / WEIGHTS)
        (folder / WEIGHTS).unlink()
        torch.save(how(tensors), folder / BIN, **options)

    return change


def _honest() -> Iterator[Mutation]:
    """What people's scripts write."""
    older = {"_use_new_zipfile_serialization": False}
    for kind in KINDS:
        yield Mutation(f"{kind} as it is", saved(), "same", kind)
        yield Mutation(f"{kind} of old", saved(**older), "same", kind)
    tied = saved(lambda found: found | {"cls.decoder.weight": next(iter(found.values())), "epoch": 3})
    yield Mutation("tied", tied, "same")
    turned = saved(
        lambda found: {name: x.t().contiguous().t() if x.dim() == 2 else x for name, x in found.items()}
    )
    yield Mutation("transposed", turned, "same")
    parameters = saved(lambda found: {name: torch.nn.Parameter(x) for name, x in found.items()})
    yield Mutation("parameters", parameters, "same", "roberta")


def _wrong() -> Iterator[Mutation]:
    def of_one(found: Tensors) -> Tensors:
        whole = torch.zeros(max(x.numel() for x in found.values()))
        return {name: whole[: x.numel()].view(x.shape) for name, x in found.items()}

    for old in (False, True):
        options = {"_use_new_zipfile_serialization": not old}
        for what, how in {
            "one number for all": lambda found: {n: torch.zeros(1).expand(x.shape) for n, x in found.items()},
            "one row for all": lambda found: {n: x[:1].clone().expand(x.shape) for n, x in found.items()},
            "one storage for all": of_one,
            "of integers": lambda found: {n: x.to(torch.int8) for n, x in found.items()},
            "of 8 bits": lambda found: {n: x.to(torch.float8_e4m3fn) for n, x in found.items()},
            "NaN": lambda found: {n: x * torch.nan for n, x in found.items()},
            "a list": lambda found: list(found.values()),
            "nested": lambda found: {"state_dict": found},
            "sparse": lambda found: {n: x.to_sparse() for n, x in found.items()},
            "nothing": lambda found: {},
            "a model": lambda found: torch.nn.Linear(2, 2),
        }.items():
            yield Mutation(f"{what}, old: {old}", saved(how, **options), "refused")
    for size in (2**31, 2**40):
        calls = b"\x80\x02cbuiltins\nbytearray\n\x8a\x08" + struct.pack("<q", size) + b"\x85R."
        yield Mutation(f"{size} bytes", both_ways(lambda data, c=calls: c), "refused")
        yield Mutation(f"{size} bytes, old", lambda folder, c=calls: _alone(folder, c), "refused")
    for what, data in {
        "deep": b"}" * 10**7,
        "marked": b"(" * 10**7,
        "tuples in tuples, as a name": b"}" + b")" + b"\x85" * 150_000 + b"Ns.",
        "doubled tuples, as a name": b"})" + b"q\1h\1\x86" * 60 + b"Ns.",
        "more taken than held": b"ttt0(t.",
        "an instance": b"(S'touch RAN'\nios\nsystem\n.",
        "a dictionary of numbers": b"}K\1K\2s.",
        "a model's name": b"X\4\0\0\0bert.",
    }.items():
        yield Mutation(what, both_ways(lambda _, d=data: b"\x80\2" + d), "refused")
        yield Mutation(f"{what}, old", lambda folder, d=data: _alone(folder, b"\x80\2" + d), "refused")
    for protocol in (0, 3, 4, 5):
        yield Mutation(f"protocol {protocol}", saved(pickle_protocol=protocol))
    for what, other in {"a pipe": fifo, "a folder": directory}.items():
        yield Mutation(what, both(remove(WEIGHTS), other(BIN)), "refused")
    yield Mutation("a long memo", both_ways(lambda data: b"\x80\x02}r\xff\xff\xff\xff."), "refused")
    yield Mutation("a large claim", both_ways(lambda data: data.replace(b"K\x10", b"K\xff")), "refused")


def _alone(folder: Path, data: bytes) -> None:
    (folder / WEIGHTS).unlink()
    (folder / BIN).write_bytes(data)


def both_ways(how: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    """An archive of PyTorch with another pickle in it."""
    return archive(lambda name, data: how(data) if name.endswith("data.pkl") else data)


def archive(
    how: Callable[[str, bytes], bytes] = lambda name, data: data,
    compression: int = zipfile.ZIP_STORED,
    twice: int = 0,
) -> Callable[[Path], object]:
    """An archive of PyTorch, written anew."""

    def change(folder: Path) -> None:
        saved()(folder)
        shutil.move(folder / BIN, folder.parent / "was.bin")
        with zipfile.ZipFile(folder.parent / "was.bin") as old, zipfile.ZipFile(folder / BIN, "w") as new:
            for name in old.namelist():
                new.writestr(name, how(name, old.read(name)), compression)
            new.filelist += [copy.copy(max(new.filelist, key=lambda entry: entry.file_size))] * twice
        (folder.parent / "was.bin").unlink()

    return change


def _archives() -> Iterator[Mutation]:
    yield Mutation("deflated", archive(compression=zipfile.ZIP_DEFLATED), "refused")
    bomb = archive(lambda name, data: data + bytes(2**27) * name.endswith("pkl"), zipfile.ZIP_DEFLATED)
    yield Mutation("a bomb", bomb, "refused")
    yield Mutation("many of one place", archive(twice=1000), "refused")
    for what, data in {
        "a pickle": pickle.dumps({"a": [1]}),
        "no archive": b"PK\3\4" + bytes(100),
        "nothing at all": b"",
    }.items():
        yield Mutation(what, lambda folder, d=data: _alone(folder, d), "refused")


def _drawn() -> Iterator[Mutation]:
    draw = random.Random(0)
    for number in range(40):
        seed, old = draw.random(), number % 2 == 0

        def change(folder: Path, seed: float = seed, old: bool = old) -> None:
            saved(_use_new_zipfile_serialization=not old)(folder)
            again = random.Random(seed)
            data = bytearray((folder / BIN).read_bytes())
            size = 4000 if again.random() < 0.7 else len(data)  # the pickle, most often
            for _ in range(again.randint(1, 4)):
                data[again.randrange(size)] = again.randrange(256)
            (folder / BIN).write_bytes(data)

        yield Mutation(f"{number}: bytes, old: {old}", change, kind=list(KINDS)[number % len(KINDS)])
