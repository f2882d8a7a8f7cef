"""The base model beside the one that is trained, for its hidden states."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from thresher.model import PrunedModel


class Teacher:
    """A frozen copy of a model as it is now, with nothing pruned.

    Parameters
    ----------
    model : PrunedModel
    dtype : torch.dtype, optional
        What it is computed in: bfloat16, or by default float32.
    """

    def __init__(self, model: PrunedModel, dtype: torch.dtype | None = None):
        self.model = copy.deepcopy(model).for_inference("bf16" if dtype == torch.bfloat16 else "fp32")

    @torch.no_grad()
    def states(self, inputs: dict[str, Tensor]) -> tuple[Tensor, ...]:
        """Embeddings and hidden states ``[tokens, dim]`` after each layer, of all tokens of a padded batch,
        packed."""
        with self.model.dense():
            return self.model(**inputs, output_hidden_states=True).hidden_states
