"""Who runs the stages of a model. One engine is one file; `make_engine` knows them all."""

from __future__ import annotations

from importlib.util import find_spec

from thresher.engines.base import PRECISIONS, Engine, Heads
from thresher.engines.torch import TorchEngine, to_bfloat16
from thresher.errors import UserError
from thresher.families import Family

ENGINES = ("torch", "openvino")


def check_names(name: str, precision: str) -> None:
    """Refuse, by a `UserError`, a name or a precision that there is not."""
    if precision not in PRECISIONS:
        raise UserError(f"precision is '{precision}'; choose one of: {', '.join(PRECISIONS)}.")
    if name not in ENGINES:
        raise UserError(f"There is no engine '{name}'; choose one of: {', '.join(ENGINES)}.")


def lacks(name: str, precision: str) -> str | None:
    """The package that is missing for an engine, if any."""
    needs = {"openvino": ["openvino"] + ["nncf"] * (precision == "int8")}.get(name, [])
    return next((package for package in needs if find_spec(package) is None), None)


def check_engine(name: str, precision: str) -> None:
    """Refuse, before anything is loaded, what `make_engine` would refuse.

    Raises
    ------
    UserError
        For a name or precision that there is not, or an engine that is not installed.
    """
    check_names(name, precision)
    if lacks(name, precision):
        raise UserError(f"Engine '{name}' is not installed: pip install '.[{name}]'.")


def make_engine(name: str, family: Family, precision: str) -> Engine:
    """An engine ready for inference. The model's own weights may be converted in place.

    Raises
    ------
    UserError
        As of `check_engine`.
    """
    check_engine(name, precision)
    if name == "torch":
        return TorchEngine(family, precision)
    from thresher.engines.openvino import OpenVinoEngine

    return OpenVinoEngine(family, precision)


__all__ = [
    "ENGINES",
    "PRECISIONS",
    "Engine",
    "Heads",
    "TorchEngine",
    "check_engine",
    "check_names",
    "lacks",
    "make_engine",
    "to_bfloat16",
]
