"""Packed attention with importance: one shared function for every architecture.

A route takes queries, keys and values ``[tokens, heads, head_dim]`` of a packed batch and returns
context rows for the survivors. In between it asks `decide`, with the importance of every token,
who survives: so no context row is computed for a token that is dropped.
"""

from thresher.attention.matrix import attend
from thresher.attention.reach import weight_in_reach

__all__ = ["attend", "weight_in_reach"]
