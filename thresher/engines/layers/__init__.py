"""Linear layers for inference: one kind, one file."""

from thresher.engines.layers.int8 import Int8Linear
from thresher.engines.layers.packed import PackedLinear, replace
from thresher.engines.layers.tiles import TileLinear

__all__ = ["Int8Linear", "PackedLinear", "TileLinear", "replace"]
