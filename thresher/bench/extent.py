"""How much a benchmark measures."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from thresher.engines import AUTO, chosen
from thresher.errors import UserError
from thresher.inference.load import CALIBRATION


@dataclass(frozen=True)
class Extent:
    """How much a benchmark measures.

    Attributes
    ----------
    engines : tuple of str
        Of ours.
    texts, repeats : int
        Most texts, and rounds.
    memory : bool
        Whether each contender runs in a fresh process as well.
    calibration : int
        Texts that int8 engines are calibrated on.
    without : tuple of str
        Rivals that are left out.
    """

    engines: tuple[str, ...] = (AUTO, "openvino")
    texts: int = 512
    repeats: int = 5
    memory: bool = True
    calibration: int = CALIBRATION
    without: tuple[str, ...] = ()


QUICK = Extent(engines=(AUTO,), texts=32, repeats=3, memory=False, calibration=32, without=("onnxruntime",))


def extent(quick: bool, device: str = "cpu", **given: Any) -> Extent:
    """The whole extent, or the quick one, but for what is given; engines are those for the device.

    Raises
    ------
    UserError
        If there is nothing to measure.
    """
    found = replace(QUICK if quick else Extent(), **{k: v for k, v in given.items() if v is not None})
    if min(found.texts, found.repeats) < 1:
        raise UserError("`texts` and `repeats` must be 1 or more.")
    return replace(found, engines=tuple(dict.fromkeys(chosen(name, device) for name in found.engines)))
