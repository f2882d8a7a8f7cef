"""Token pruning by masks alone: what the packed implementation is tested against.

Nothing is removed or packed here. Every layer is computed for every column of the padded batch; a dropped
token is hidden from the others with a score of -inf, casts no vote and is not pooled. Everything is
float64, attention is written out, dropout does not exist. Only weights (as Linear, LayerNorm and Embedding
modules) and ModernBERT's rotary tables are taken from the transformers model, no forward code above
those, and nothing from thresher. It is differentiable: use ``torch.no_grad()`` where that is not wanted.

Shapes: b batch, n columns, h heads, d width.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass
class Reference:
    """What one forward gives. ``layers`` lists have one entry a layer."""

    logits: Tensor  # [b, labels]
    importance: list[Tensor]  # layers x [b, n], in fair shares; 0 where the token was not alive at entry
    alive: list[Tensor]  # layers x bool [b, n]: alive after the layer's drop (soft mode: all real tokens)
    kept: Tensor  # int [layers, b]: how many are alive after the layer's drop
    gates: list[Tensor]  # layers x [b, n], soft mode only: the layer's own gate; prefix 1, padding 0
    flops: (
        Tensor  # int [b]: the layers' FLOPs on real tokens; embeddings, projections of them and head left out
    )
    dense_flops: Tensor  # int [b]: the same with nothing dropped


class _Bert:
    """BERT, RoBERTa, XLM-R, CamemBERT, ELECTRA: norm after the residual, absolute positions."""

    feed_forward_matrices = 2

    def __init__(self, model):
        self.model, self.config = model, model.config
        self.base = model.base_model
        self.layers = self.base.encoder.layer
        assert self.config.hidden_act == "gelu"
        assert getattr(self.config, "position_embedding_type", None) in (None, "absolute")

    def embed(self, input_ids, segments, positions, real):
        table = self.base.embeddings
        if self.config.model_type in ("roberta", "xlm-roberta", "camembert"):
            positions = _counted(input_ids, real, self.config.pad_token_id)
        x = table.word_embeddings(input_ids) + table.token_type_embeddings(segments)
        x = table.LayerNorm(x + table.position_embeddings(positions))
        if self.config.model_type == "electra" and self.config.embedding_size != self.config.hidden_size:
            x = self.base.embeddings_project(x)
        return x

    def window(self, index):
        return None

    def queries_keys_values(self, index, x, positions):
        attention = self.layers[index].attention.self
        return [_split(w(x), self.config) for w in (attention.query, attention.key, attention.value)]

    def rest(self, index, x, context):
        layer = self.layers[index]
        x = layer.attention.output.LayerNorm(layer.attention.output.dense(context) + x)
        return layer.output.LayerNorm(layer.output.dense(F.gelu(layer.intermediate.dense(x))) + x)

    def head(self, x, first, weight):
        cls = x[torch.arange(len(x), device=x.device), first]
        classifier = self.model.classifier
        if self.config.model_type == "bert":
            return classifier(torch.tanh(self.base.pooler.dense(cls)))
        activation = F.gelu if self.config.model_type == "electra" else torch.tanh
        return classifier.out_proj(activation(classifier.dense(cls)))


class _ModernBert:
    """ModernBERT: norm before, rotary positions, sliding windows, gated feed-forward."""

    feed_forward_matrices = 3

    def __init__(self, model):
        self.model, self.config = model, model.config
        self.base = model.model
        self.layers = self.base.layers
        assert self.config.hidden_activation == self.config.classifier_activation == "gelu"

    def embed(self, input_ids, segments, positions, real):
        return self.base.embeddings.norm(self.base.embeddings.tok_embeddings(input_ids))

    def window(self, index):
        sliding = self.config.layer_types[index] == "sliding_attention"
        return self.config.sliding_window if sliding else None

    def queries_keys_values(self, index, x, positions):
        layer = self.layers[index]
        normed = x if index == 0 else layer.attn_norm(x)  # the embeddings end in a norm of their own
        q, k, v = layer.attn.Wqkv(normed).chunk(3, dim=-1)
        # float32 values in float64 tensors; the rotation itself is float64 here
        cos, sin = self.base.rotary_emb(x, positions, self.config.layer_types[index])
        cos, sin = cos[:, None], sin[:, None]

        def rotate(y):
            left, right = y.chunk(2, dim=-1)
            return y * cos + torch.cat((-right, left), dim=-1) * sin

        return [rotate(_split(q, self.config)), rotate(_split(k, self.config)), _split(v, self.config)]

    def rest(self, index, x, context):
        layer = self.layers[index]
        x = x + layer.attn.Wo(context)
        value, gate = layer.mlp.Wi(layer.mlp_norm(x)).chunk(2, dim=-1)
        return x + layer.mlp.Wo(F.gelu(value) * gate)

    def head(self, x, first, weight):
        x = self.base.final_norm(x)
        if self.config.classifier_pooling == "cls":
            pooled = x[torch.arange(len(x), device=x.device), first]
        else:
            pooled = (x * weight[:, :, None]).sum(1) / weight.sum(1, keepdim=True)
        head = self.model.head
        return self.model.classifier(head.norm(F.gelu(head.dense(pooled))))


def _counted(input_ids: Tensor, real: Tensor, pad: int) -> Tensor:
    """RoBERTa's position ids [b, n]: ``pad`` for the pad id, pad + 1, pad + 2, ... for a text's other ids."""
    positions = torch.full_like(input_ids, pad)
    for row, column in real.nonzero().tolist():
        if input_ids[row, column] != pad:
            positions[row, column] = positions[row].max() + 1
    return positions


def _split(x: Tensor, config) -> Tensor:
    """[b, n, d] -> [b, h, n, d / h]"""
    return x.unflatten(-1, (config.num_attention_heads, -1)).transpose(1, 2)


def _attention(q: Tensor, k: Tensor, v: Tensor, visible: Tensor, key_weight: Tensor) -> tuple[Tensor, Tensor]:
    """Attention probabilities [b, h, n, n] and context [b, n, d].

    ``visible [b, n, n]`` says which key (last) a query may see; ``key_weight [b, n]`` multiplies a key's
    exponential (1: plain softmax, 0: the key is gone). A query that sees no key at all gets probabilities 0.
    """
    scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
    scores = scores + key_weight.log()[:, None, None, :]
    scores = scores.masked_fill(~visible[:, None], -torch.inf)
    blind = (scores == -torch.inf).all(-1, keepdim=True)
    probabilities = scores.masked_fill(blind, 0.0).softmax(-1).masked_fill(blind, 0.0)
    return probabilities, (probabilities @ v).transpose(1, 2).flatten(2)


def _layer_flops(config, feed_forward_matrices: int, before: Tensor, after: Tensor, reach: Tensor) -> Tensor:
    """FLOPs [b] of a layer (2 a multiply-add) from who is alive before and after its drop, by counting pairs.

    q, k, v for all at entry; scores for all pairs; then, for survivors only: context rows, output projection,
    feed-forward.
    """
    d, f = config.hidden_size, config.intermediate_size
    n_in, n_out = before.sum(1), after.sum(1)
    pairs_in = (before[:, :, None] & before[:, None, :] & reach).sum((1, 2))
    pairs_out = (after[:, :, None] & before[:, None, :] & reach).sum((1, 2))
    return 2 * (
        3 * d * d * n_in
        + d * pairs_in
        + d * pairs_out
        + d * d * n_out
        + feed_forward_matrices * d * f * n_out
    )


def masked_reference(
    model,
    inputs: dict[str, Tensor],
    keep_rule: Callable | None = None,
    *,
    gate_rule: Callable | None = None,
    gate_form: str = "exact",
    prefix: int = 1,
    suffix: int = 0,
) -> Reference:
    """Run ``model`` on a padded batch, pruning by masks. With neither rule: dense.

    Parameters
    ----------
    model
        A transformers ``*ForSequenceClassification`` of a supported architecture. One that is not float64 is
        copied to float64 first (and gradients then do not reach the original).
    inputs
        input_ids, attention_mask (default: all ones) and token_type_ids (default: zeros), each [b, n].
        Padding on either side. Positions count real tokens from 0.
    keep_rule
        Hard mode. ``keep_rule(layer, importance [b, n], alive bool [b, n], lengths int [b]) -> bool [b, n]``;
        ``lengths`` are the numbers of real tokens, ``alive`` those at entry of the layer.
    gate_rule
        Soft mode. ``gate_rule(layer, importance [b, n], alive bool [b, n]) -> float [b, n]`` in [0, 1].
        Nothing is dropped, ``alive`` are the real tokens.
    gate_form
        "paper": a layer's output is multiplied by its gates, attention knows nothing of them, and mean
        pooling takes every real token fully. "exact": gates multiply up over the layers and weigh a token
        as key, as voter and in mean pooling, from the next layer on; its hidden state is untouched. (A
        gate of exactly 0 is fine forward; its gradient is not, being that of a logarithm at 0.)
    prefix, suffix
        So many real tokens at the start and at the end of each sequence are always kept, with gate 1.
    """
    if keep_rule is not None and gate_rule is not None:
        raise ValueError("keep_rule is hard mode and gate_rule is soft mode: give one of them")
    if gate_form not in ("exact", "paper"):
        raise ValueError(f"gate_form is 'exact' or 'paper', not {gate_form!r}")
    if model.dtype != torch.float64:
        model = copy.deepcopy(model).double()
    family = (_ModernBert if model.config.model_type == "modernbert" else _Bert)(model)

    input_ids = inputs["input_ids"]
    real = inputs.get("attention_mask", torch.ones_like(input_ids)).bool()
    segments = inputs.get("token_type_ids", torch.zeros_like(input_ids))
    lengths = real.sum(1)
    first = real.int().argmax(1)
    positions = torch.arange(real.shape[1], device=real.device) - first[:, None]  # right on real tokens
    assert torch.equal(real, (positions >= 0) & (positions < lengths[:, None])), "the mask has holes"
    assert lengths.min() > 0, "an empty sequence"
    positions = positions.masked_fill(~real, 0)  # on padding: anything that the tables accept
    distance = (positions[:, :, None] - positions[:, None, :]).abs()
    protected = real & ((positions < prefix) | (positions >= lengths[:, None] - suffix))

    x = family.embed(input_ids, segments, positions, real)
    alive = real
    weight = torch.ones_like(x[:, :, 0])  # the exact form's accumulated gate; 1 for everyone otherwise
    result = Reference(None, [], [], None, [], torch.zeros_like(lengths), torch.zeros_like(lengths))

    for index in range(model.config.num_hidden_layers):
        window = family.window(index)
        reach = torch.ones_like(distance, dtype=torch.bool) if window is None else distance <= window
        # A dead token sees the living like everybody else. Nobody will look at what it makes of that.
        visible = alive[:, None, :] & reach
        q, k, v = family.queries_keys_values(index, x, positions)
        probabilities, context = _attention(q, k, v, visible, weight)

        votes = (alive * weight)[:, :, None] * probabilities.mean(1)  # [b, query, key]
        importance = votes.sum(1).masked_fill(~alive, 0.0)

        entered = alive
        x = family.rest(index, x, context)
        if keep_rule is not None:
            alive = alive & (keep_rule(index, importance, alive, lengths).bool() | protected)
        if gate_rule is not None:
            gate = gate_rule(index, importance, alive).to(x).masked_fill(protected, 1.0)
            result.gates.append(gate.masked_fill(~real, 0.0))
            if gate_form == "paper":
                x = x * gate[:, :, None]
            else:
                weight = weight * gate.masked_fill(~real, 1.0)

        result.importance.append(importance)
        result.alive.append(alive)
        cost = (model.config, family.feed_forward_matrices)
        result.flops = result.flops + _layer_flops(*cost, entered, alive, reach)
        result.dense_flops = result.dense_flops + _layer_flops(*cost, real, real, reach)

    result.logits = family.head(x, first, alive * weight)
    result.kept = torch.stack([a.sum(1) for a in result.alive])
    return result
