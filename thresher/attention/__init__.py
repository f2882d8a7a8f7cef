"""Packed attention with importance: one shared function for every architecture, and the routes it takes."""

from thresher.attention.attend import ROUTES, attend
from thresher.attention.base import Asked, Attended
from thresher.attention.bias import Bias, Entries, TableBias, TokenBias
from thresher.attention.reach import weight_in_reach

__all__ = [
    "ROUTES",
    "Asked",
    "Attended",
    "Bias",
    "Entries",
    "TableBias",
    "TokenBias",
    "attend",
    "weight_in_reach",
]
