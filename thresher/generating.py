"""Text from a pruned encoder's survivors: the part of `PrunedModel` for models with a decoder."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from thresher.conventions import refuse_inputs
from thresher.errors import UserError
from thresher.heads import Head
from thresher.modes import Modes


class Generating(Modes):
    """The part of `PrunedModel` that answers as transformers' models that generate do."""

    head: Head
    run: Any

    def can_generate(self) -> bool:
        return self.head.decodes

    @property
    def generation_config(self) -> Any:
        """The settings of `generate` that hold where a call says nothing else, as of the model inside."""
        return getattr(self.family.model, "generation_config", None)

    @generation_config.setter
    def generation_config(self, settings: Any) -> None:
        self.family.model.generation_config = settings

    @torch.no_grad()
    def generate(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        budget: float | None = None,
        dense: bool | None = None,
        **options: Any,
    ) -> Any:
        """Run the encoder pruned, and let the model's own decoder write from what survives.

        The model is in evaluation mode meanwhile.

        Parameters
        ----------
        input_ids : int64 tensor [batch, length]
        attention_mask : tensor [batch, length], optional
            Default: every token is real.
        budget, dense : optional
            As of `PrunedModel.forward`.
        **options
            Of ``generate`` of the transformers model: ``num_beams``, ``max_new_tokens`` and so on.

        Returns
        -------
        int64 tensor [batch, tokens], or transformers.utils.ModelOutput
            As the transformers model gives it.

        Raises
        ------
        UserError
            If the model has no decoder; and as of `PrunedModel.forward`.
        """
        if not self.head.decodes:
            raise UserError(f"{type(self.family.model).__name__} has no decoder, so that it cannot generate.")
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
        unusable = ("inputs_embeds", "encoder_outputs", "output_attentions", "position_ids")
        refuse_inputs(inputs, {name: options[name] for name in unusable if name in options})
        packed, values = self.family.pack(inputs)
        with self.evaluating():
            output, _ = self.run(packed, values, self.plan(budget, dense))
            # Some options forbid or prefer the words of the input, so that the ids are handed over too.
            return self.family.model.generate(input_ids, **self.head.decoder_inputs(output), **options)
