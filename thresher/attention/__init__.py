"""Packed attention with importance: one shared function for every architecture, and the routes it takes."""

from thresher.attention.attend import attend
from thresher.attention.reach import weight_in_reach

__all__ = ["attend", "weight_in_reach"]
