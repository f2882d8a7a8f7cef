"""Who runs the stages of a model. One engine is one file, which puts itself in the list."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from thresher import native as native_code  # `native` is the engine here
from thresher.engines.base import PRECISIONS, REGISTERED, Engine, Heads
from thresher.engines.torch import TorchEngine, to_bfloat16
from thresher.errors import UserError
from thresher.families import Family

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")

ENGINES: tuple[str, ...] = tuple(sorted(REGISTERED, key=lambda name: (name != TorchEngine.name, name)))
"""Names of all engines, first the one that needs nothing."""


AUTO = "auto"
"""The name that stands for the engine to take on this machine."""


def chosen(name: str, device: str = "cpu") -> str:
    """The engine of this name; for `AUTO` native with instructions that are proven, else torch."""
    if name != AUTO:
        return name
    fast = native_code.instructions in native_code.PROVEN
    return "native" if fast and device == "cpu" else TorchEngine.name


def check_names(name: str, precision: str) -> None:
    """Refuse, by a `UserError`, a name or a precision that there is not."""
    if precision not in PRECISIONS:
        raise UserError(f"precision is '{precision}'; choose one of: {', '.join(PRECISIONS)}.")
    if chosen(name) not in REGISTERED:
        raise UserError(f"There is no engine '{name}'; choose one of: {', '.join((AUTO, *ENGINES))}.")


def lacks(name: str, precision: str) -> str | None:
    """The package that is missing for an engine, if any."""
    return REGISTERED[name].lacks(precision)


def check_engine(name: str, precision: str, device: str = "cpu") -> str:
    """The engine of this name, as of `chosen`: what `make_engine` would refuse is refused before anything is
    loaded.

    Raises
    ------
    UserError
        For a name or precision that there is not, or an engine that is not installed.
    """
    check_names(name, precision)
    name = chosen(name, device)
    if precision not in (known := REGISTERED[name].precisions):
        raise UserError(f"Engine '{name}' does not run in {precision}; choose {', '.join(known)}.")
    if lacks(name, precision):
        raise UserError(f"Engine '{name}' is not installed: pip install '.[{name}]'.")
    return name


def make_engine(name: str, family: Family, precision: str) -> Engine:
    """An engine ready for inference. The model's own weights may be converted in place.

    Raises
    ------
    UserError
        As of `check_engine`.
    """
    return REGISTERED[check_engine(name, precision, family.model.device.type)](family, precision)


__all__ = [
    "AUTO",
    "ENGINES",
    "PRECISIONS",
    "Engine",
    "Heads",
    "TorchEngine",
    "check_engine",
    "check_names",
    "chosen",
    "lacks",
    "make_engine",
    "to_bfloat16",
]
