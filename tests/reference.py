"""Token pruning by masks alone: what the packed implementation is tested against.

Nothing is removed or packed here, and nothing is of thresher. The plain transformers model runs, in float64,
for every column of a padded batch. Its attention is seen from outside: the probabilities of a dropped token
as a key are taken out, and the others scaled up to 1, which is what hiding the token behind -inf does. A
dropped token casts no vote, and where every token is answered for, it answers from the state with which it
entered the layer that dropped it, or from a linear map of that state. It is differentiable: use
``torch.no_grad()`` where that is not wanted.

Shapes: b batch, n columns, h heads, d width.
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface, eager_mask

SEEN_BY_DROPOUT = {"mpnet": "attn.dropout", "deberta-v2": "self.dropout"}
"""Architectures with attention of their own, and the module that gets its probabilities."""
CROSSING = ("encoder_attn", "EncDecAttention")
"""What decoders call their attention to the encoder."""
WATCHING: list["_Masks"] = []


@dataclass
class Reference:
    """What one forward gives. ``layers`` lists have one entry a layer."""

    output: Any = None  # of the transformers model
    importance: list[Tensor] = field(default_factory=list)  # [b, n], fair shares; 0 where dead at entry
    alive: list[Tensor] = field(default_factory=list)  # bool [b, n]: after the layer's drop (soft: all real)
    gates: list[Tensor] = field(default_factory=list)  # [b, n], soft mode: own gate; prefix 1, padding 0
    flops: Any = 0  # int [b]: the layers' FLOPs on real tokens, without embeddings and head
    dense_flops: Any = 0  # int [b]: the same with nothing dropped

    @property
    def logits(self) -> Tensor:
        return self.output.logits

    @property
    def kept(self) -> Tensor:
        """int [layers, b]: how many are alive after the layer's drop."""
        return torch.stack([alive.sum(1) for alive in self.alive])


class _Masks:
    """What one forward knows of its tokens, between the model's layers. All rows are padded on the right."""

    def __init__(self, model, real: Tensor, decide: Callable, gate_form: str | None, answers: str, maps: Any):
        self.model, self.real, self.decide, self.maps = model, real, decide, maps
        self.paper, self.answers = gate_form == "paper", answers
        self.alive, self.weight = real, real.double()
        self.mask = real.double()  # what the head reads
        self.found = Reference()
        self.entered: Tensor | None = None  # the state at entry of the layer
        self.carried: Tensor | Any = 0.0
        self.gate: Tensor | Any = 1.0
        self.attended = False
        self.watched = {module for layer in layers_of(model) for module in layer.modules()}
        self.crossing = {module for name, module in model.named_modules() if name.endswith(CROSSING)}

    def enter(self, module, args, kwargs):
        self.entered, self.attended = args[0] if args else kwargs["hidden_states"], False
        self.alive_in, self.weight_in = self.alive, self.weight

    def attend(self, probabilities: Tensor, inner: int, reach: Tensor | None = None) -> Tensor:
        """The probabilities [b, h, n, n] among the living; importance and choice are noted."""
        weight = self.alive * self.weight
        seen = probabilities * weight[:, None, None, :]
        total = seen.sum(-1, keepdim=True)
        seen = seen / total.masked_fill(total == 0, 1.0)
        importance = (weight[:, :, None] * seen.mean(1)).sum(1).masked_fill(~self.alive, 0.0)
        layer = len(self.found.alive)
        keep, gate = self.decide(layer, importance, self.alive)
        before, self.alive = self.alive, self.alive & keep
        self.gate = gate if self.paper else 1.0
        if gate is not None and not self.paper:
            self.weight = self.weight * gate.masked_fill(~self.real, 1.0)
        self.found.importance.append(importance)
        self.found.alive.append(self.alive)
        if gate is not None:
            self.found.gates.append(gate.masked_fill(~self.real, 0.0))
        reach = torch.ones_like(seen[:, 0], dtype=torch.bool) if reach is None else reach
        self._count(self._pairs(before, before, reach) + self._pairs(self.alive, before, reach), inner)
        every = 2 * self._pairs(self.real, self.real, reach)
        self.found.dense_flops = self.found.dense_flops + 2 * inner * every
        self.attended = True
        return seen

    def cross(self, probabilities: Tensor) -> Tensor:
        """The probabilities [b, h, m, n] with which a decoder attends to the encoder, among the living."""
        seen = probabilities * self.mask[:, None, None, :]
        return seen / seen.sum(-1, keepdim=True)

    def attend_by_dropout(self, module, args, output):
        return self.attend(args[0], self.model.config.hidden_size)

    @staticmethod
    def _pairs(queries: Tensor, keys: Tensor, reach: Tensor) -> Tensor:
        return (queries[:, :, None] & keys[:, None, :] & reach).sum((1, 2))

    def _count(self, rows: Tensor, products: int) -> None:
        self.found.flops = self.found.flops + 2 * products * rows

    def multiply(self, module: nn.Linear, args, output):
        """A product of a layer: of all that entered before its attention, and else of the survivors."""
        if args[0].shape[-2] == self.real.shape[1] and args[0].dim() == 3:
            products = module.in_features * module.out_features
            self._count((self.alive if self.attended else self.alive_in).sum(1), products)
            self.found.dense_flops = self.found.dense_flops + 2 * products * self.real.sum(1)

    def _mapped(self, gone: Tensor) -> Tensor:
        """The state at the layer's entry, or its map, which costs a square matrix for each that goes."""
        state = self.entered
        if self.maps is not None and self.answers == "carry":
            weight, bias = (x[len(self.found.alive) - 1].double() for x in self.maps)
            state = state + torch.einsum("bnd,ed->bne", state, weight) + bias
            self.found.flops = self.found.flops + 2 * weight.numel() * gone.sum(1)
        return state

    def leave(self, module, args, output):
        """The layer's output, where the last gives what the head shall read of each token."""
        hidden, *rest = output if isinstance(output, tuple) else (output,)
        hidden = hidden * (self.gate[..., None] if torch.is_tensor(self.gate) else 1.0)
        share = self.alive * self.weight
        gone = self.alive_in * self.weight_in - share
        self.carried = self.carried + gone[..., None] * self._mapped(gone)
        if len(self.found.alive) == self.model.config.num_hidden_layers:
            if self.answers == "carry":
                hidden = self.carried + share[..., None] * hidden
            if self.answers == "mean":
                mean = (share[..., None] * hidden).sum(1, keepdim=True) / share.sum(1)[:, None, None]
                hard = self.alive[..., None] & (self.weight[..., None] == 1)
                hidden = torch.where(hard, hidden, mean)
            if self.answers == "survivors":
                self.mask.copy_(share)
        return (hidden, *rest) if isinstance(output, tuple) else hidden


def _attend(module, query, key, value, attention_mask, scaling=None, position_bias=None, **others):
    """An attention of transformers that `WATCHING` sees."""
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    scores = query @ key.transpose(-1, -2) * scaling
    scores = scores if position_bias is None else scores + position_bias
    reach = None if attention_mask is None else (attention_mask > -1)[:, 0].expand(-1, query.shape[2], -1)
    scores = scores if attention_mask is None else scores + attention_mask
    masks, seen = WATCHING[-1], scores.softmax(-1)
    if module in masks.watched:
        seen = masks.attend(seen, query.shape[1] * query.shape[3], reach)
    elif module in masks.crossing:
        seen = masks.cross(seen)
    return (seen @ value).transpose(1, 2).contiguous(), seen


AttentionInterface.register("watched", _attend)
AttentionMaskInterface.register("watched", eager_mask)


def layers_of(model) -> nn.ModuleList:
    """The encoder's layers: the first list of modules."""
    return next(module for module in model.modules() if isinstance(module, nn.ModuleList))


@contextmanager
def _watched(model, masks: _Masks) -> Iterator[None]:
    """Hooks in the model, for one forward."""
    own = SEEN_BY_DROPOUT.get(model.config.model_type)
    hooks, before = [], model.config._attn_implementation
    for layer in layers_of(model):
        hooks.append(layer.register_forward_pre_hook(masks.enter, with_kwargs=True))
        hooks.append(layer.register_forward_hook(masks.leave))
        for name, module in layer.named_modules():
            if isinstance(module, nn.Linear):
                hooks.append(module.register_forward_hook(masks.multiply))
            if own is not None and name.endswith(own):
                hooks.append(module.register_forward_hook(masks.attend_by_dropout))
    if own is None:
        model.set_attn_implementation("watched")
    WATCHING.append(masks)
    try:
        yield
    finally:
        WATCHING.pop()
        for hook in hooks:
            hook.remove()
        if own is None:
            model.set_attn_implementation(before)


def masked_reference(
    model,
    inputs: dict[str, Tensor],
    keep_rule: Callable | None = None,
    *,
    gate_rule: Callable | None = None,
    gate_form: str = "exact",
    prefix: int = 1,
    suffix: int = 0,
    dropped: str = "carry",
    maps: tuple[Tensor, Tensor] | None = None,
) -> Reference:
    """Run ``model`` on a padded batch, pruning by masks. With neither rule: dense.

    Parameters
    ----------
    model
        A transformers encoder. One that is not float64 is copied to float64 first (and gradients then do not
        reach the original).
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
        gate of exactly 0 is fine forward; its gradient is not, being that of a quotient at 0.)
    prefix, suffix
        So many real tokens at the start and at the end of each sequence are always kept, with gate 1.
    dropped
        What a dropped token answers from, where the head answers for every token: "carry" or "mean".
    maps
        Matrices [layers, d, d] and vectors [layers, d]: of what is carried, so much is added to it.
    """
    if keep_rule is not None and gate_rule is not None:
        raise ValueError("keep_rule is hard mode and gate_rule is soft mode: give one of them")
    if gate_form not in ("exact", "paper"):
        raise ValueError(f"gate_form is 'exact' or 'paper', not {gate_form!r}")
    if model.dtype != torch.float64:
        model = copy.deepcopy(model).double()
    ids = inputs["input_ids"]
    real = inputs.get("attention_mask", torch.ones_like(ids)).bool()
    lengths, first = real.sum(1), real.int().argmax(1)
    columns = torch.arange(real.shape[1], device=real.device)
    there = (columns + first[:, None]) % real.shape[1]  # of each column when padding is on the right
    back = (columns - first[:, None]) % real.shape[1]
    right, places = real.gather(1, there), columns.expand_as(real)
    assert torch.equal(right, places < lengths[:, None]), "the mask has holes"
    assert lengths.min() > 0, "an empty sequence"
    protected = right & ((places < prefix) | (places >= lengths[:, None] - suffix))

    def decide(layer: int, importance: Tensor, alive: Tensor) -> tuple[Tensor, Tensor | None]:
        seen = layer, importance.gather(1, back), alive.gather(1, back)
        if gate_rule is not None:
            gate = gate_rule(*seen).to(importance).gather(1, there)
            return torch.ones_like(alive), gate.masked_fill(protected, 1.0)
        if keep_rule is None:
            return torch.ones_like(alive), None
        return keep_rule(*seen, lengths).bool().expand_as(alive).gather(1, there) | protected, None

    name = type(model).__name__
    every = name.endswith(("ForTokenClassification", "ForQuestionAnswering", "Model"))
    every = every and not model.can_generate()
    answers = dropped if every and not (gate_rule and gate_form == "paper") else "as they are"
    if not every and not (gate_rule and gate_form == "paper"):
        answers = "survivors"
    masks = _Masks(model, right, decide, gate_form if gate_rule else None, answers, maps)
    given = {key: x if key.startswith("decoder") else x.gather(1, there) for key, x in inputs.items()}
    given["attention_mask"] = masks.mask
    with _watched(model, masks):
        output = model(**given)
    found = masks.found
    for what in (found.importance, found.alive, found.gates):
        what[:] = [x.gather(1, back) for x in what]
    if every:
        for key, x in output.items():
            if not torch.is_tensor(x):  # the cache of a model that might be a decoder
                continue
            spread = back.view(*back.shape, *[1] * (x.dim() - 2)).expand(-1, -1, *x.shape[2:])
            output[key] = x.gather(1, spread) if x.shape[:2] == back.shape else x
    found.output = output
    _count_relative(model, found, right)
    return found


def _count_relative(model, found: Reference, real: Tensor) -> None:
    """DeBERTa's products of queries and keys with relative positions, which no linear layer does."""
    config = model.config
    if config.model_type != "deberta-v2" or not config.relative_attention:
        return
    span = config.position_buckets if config.position_buckets > 0 else config.max_relative_positions
    span = config.max_position_embeddings if span < 1 else span
    products = 2 * len(config.pos_att_type) * span * config.hidden_size
    entering = [real.sum(1), *(alive.sum(1) for alive in found.alive[:-1])]
    found.flops = found.flops + 2 * products * torch.stack(entering).sum(0)
    found.dense_flops = found.dense_flops + 2 * products * real.sum(1) * len(found.alive)
