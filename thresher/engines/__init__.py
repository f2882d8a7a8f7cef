"""Who runs the stages of a model. One engine is one file; `make_engine` knows them all."""

from __future__ import annotations

from importlib.util import find_spec

from thresher.engines.base import PRECISIONS, Engine, Heads
from thresher.engines.torch import TorchEngine
from thresher.errors import UserError
from thresher.families import Family

ENGINES = ("torch", "openvino")


def make_engine(name: str, family: Family, precision: str) -> Engine:
    """An engine ready for inference. The model's own weights may be converted in place.

    Raises
    ------
    UserError
        For a name or precision that there is not, or an engine that is not installed.
    """
    if precision not in PRECISIONS:
        raise UserError(f"precision is '{precision}'; choose one of: {', '.join(PRECISIONS)}.")
    if name == "torch":
        return TorchEngine(family, precision)
    if name == "openvino":
        if find_spec("openvino") is None or (precision == "int8" and find_spec("nncf") is None):
            raise UserError("Engine 'openvino' is not installed: pip install 'thresher[openvino]'.")
        from thresher.engines.openvino import OpenVinoEngine

        return OpenVinoEngine(family, precision)
    raise UserError(f"There is no engine '{name}'; choose one of: {', '.join(ENGINES)}.")


__all__ = ["ENGINES", "PRECISIONS", "Engine", "Heads", "TorchEngine", "make_engine"]
