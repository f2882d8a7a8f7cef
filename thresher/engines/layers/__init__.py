"""Linear layers for inference: one kind, one file."""

from thresher.engines.layers.int8 import Int8Linear
from thresher.engines.layers.native import NativeLinear
from thresher.engines.layers.packed import PackedLinear, replace

__all__ = ["Int8Linear", "NativeLinear", "PackedLinear", "replace"]
