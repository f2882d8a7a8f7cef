"""RoBERTa-PreLayerNorm and XLM-RoBERTa-XL: BERT's layer with the norms before its parts."""

from __future__ import annotations

from torch import Tensor, nn

from thresher.families.bert import Bert
from thresher.families.stage import StageModules


class PreLayerNorm(Bert):
    """Pre-norm layers; the two architectures keep their norms in different places."""

    model_types = ("roberta-prelayernorm", "xlm-roberta-xl")

    def qkv(self, index: int, hidden: Tensor, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        attention = self.layer(index).attention
        norm = getattr(attention, "self_attn_layer_norm", None) or attention.LayerNorm
        return super().qkv(index, norm(hidden), positions)

    def transform(self, index: int, hidden: Tensor, context: Tensor) -> Tensor:
        layer = self.layer(index)
        hidden = layer.attention.output(context, hidden)
        norm = getattr(layer, "LayerNorm", nn.Identity())  # XLM-RoBERTa-XL's
        return layer.output(layer.intermediate(norm(hidden)), hidden)

    def norm(self, hidden: Tensor) -> Tensor:
        norm = getattr(self.encoder, "LayerNorm", None) or self.encoder.encoder.LayerNorm
        return norm(hidden)

    def stage(self, index: int) -> StageModules | None:
        return None
