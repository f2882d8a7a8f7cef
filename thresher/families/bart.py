"""The encoders of BART and Marian: BERT's layer, under a decoder that reads the survivors."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from thresher.errors import UserError
from thresher.families.base import JOINED, Family
from thresher.families.decoded import refuse_decoded
from thresher.families.shape import LayerShape
from thresher.families.stage import StageModules

HEADS = "q_proj", "k_proj", "v_proj"
LARGEST = 2**21  # numbers of a table of sines, which transformers computes one by one


class Bart(Family):
    """Post-norm layers. BART learns its positions and norms the embeddings; Marian does neither. Rates of
    dropout are numbers, not modules."""

    model_types = ("bart", "marian")
    inputs = ("input_ids",)

    def __init__(self, model: Any):
        refuse_decoded(model, self._holder(model), "a model ForConditionalGeneration, or MarianMTModel")
        super().__init__(model)

    @staticmethod
    def _holder(model: Any) -> Any:
        """The model that holds the encoder."""
        return getattr(model, "model", model)

    @property
    def encoder(self) -> Any:
        return self._holder(self.model).encoder

    @staticmethod
    def sizes(config: Any) -> tuple[int, int]:
        return config.encoder_layers, config.d_model

    @staticmethod
    def check(config: Any) -> None:
        positions, dim = config.max_position_embeddings, config.d_model
        if positions * dim > LARGEST:
            raise UserError(
                f"max_position_embeddings is {positions}, and d_model is {dim}: the product must be at most "
                f"{LARGEST}."
            )

    @property
    def stack(self) -> Any:
        return self.encoder.layers

    def _shape(self, index: int) -> LayerShape:
        config = self.config
        return self._even(config.d_model, config.encoder_attention_heads, config.encoder_ffn_dim)

    def attention_dropout(self, index: int) -> float:
        return self.layer(index).self_attn.dropout

    def embed(self, inputs: dict[str, Tensor], positions: Tensor) -> Tensor:
        encoder, ids = self.encoder, inputs["input_ids"][None]
        if encoder.training and encoder.layerdrop > 0:
            raise UserError(
                f"encoder_layerdrop is {encoder.layerdrop}: transformers skips whole layers in training, and "
                "Thresher skips none. Set encoder_layerdrop=0 when you load the model."
            )
        embedded = encoder.embed_tokens(ids) * getattr(encoder, "embed_scale", 1.0)  # BART's own scales
        hidden = embedded + encoder.embed_positions(ids, position_ids=positions)
        if (norm := getattr(encoder, "layernorm_embedding", None)) is not None:
            hidden = norm(hidden)
        return F.dropout(hidden[0], encoder.dropout, encoder.training)

    def qkv(self, index: int, hidden: Tensor, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self._heads(self.layer(index).self_attn, HEADS, hidden)

    def fuse(self) -> None:
        for index in range(self.layers):
            layer = self.layer(index)
            self._join(layer.self_attn, HEADS)
            self._join_gelu(layer, "fc1", "activation_fn")

    def stage(self, index: int) -> StageModules | None:
        layer, last = self.layer(index), index + 1 == self.layers
        following = None if last else getattr(self.layer(index + 1).self_attn, JOINED, None)
        if following is None and not last:
            return None
        return StageModules(
            output=layer.self_attn.out_proj,
            first=layer.self_attn_layer_norm,
            up=layer.fc1,
            activation=layer.activation_fn,
            down=layer.fc2,
            second=layer.final_layer_norm,
            following=following,
        )

    def transform(self, index: int, hidden: Tensor, context: Tensor) -> Tensor:
        layer = self.layer(index)
        training = layer.training
        added = F.dropout(layer.self_attn.out_proj(context), layer.dropout, training)
        hidden = layer.self_attn_layer_norm(hidden + added)
        wide = F.dropout(layer.activation_fn(layer.fc1(hidden)), layer.activation_dropout, training)
        hidden = layer.final_layer_norm(hidden + F.dropout(layer.fc2(wide), layer.dropout, training))
        if hidden.dtype == torch.float16:  # whose sums overflow; transformers does so too
            most = torch.finfo(hidden.dtype).max - 1000
            hidden = hidden.clamp(-most, most)
        return hidden
