"""What transformers, accelerate, peft and PyTorch ask of a model besides its answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedConfig
from transformers.utils import PushToHubMixin

from thresher.errors import UserError
from thresher.folders import trained as state
from thresher.folders.generation import GENERATION

if TYPE_CHECKING:
    from thresher.families import Family

Stage = TypeVar("Stage", bound=Callable[..., Any])
INSTEAD = (
    "Export the stages of its layers, as Thresher's OpenVINO engine does "
    "(PrunedModel.from_pretrained(folder, engine='openvino')), or export the dense model: model.model."
)
REFUSED = {
    "position_ids": "positions are those of the tokens in their own text, from 0",
    "inputs_embeds": "the model embeds the tokens itself; pass input_ids",
    "output_attentions": "attention is never held as a whole; output.trace says what was kept, and "
    "model.model(..., output_attentions=True) answers for the dense model",
    "head_mask": "no head can be switched off",
    "past_key_values": "an encoder has no cache of keys",
}
TRANSIENT = ("use_cache", "return_loss")  # nothing hangs on them here


class Conventions(PushToHubMixin, nn.Module):
    """The part of `PrunedModel` that makes it a model like any other."""

    accepts_loss_kwargs = False  # Trainer divides the loss by the steps that it accumulates
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    _keys_to_ignore_on_save = None

    model: Any
    family: Family
    _checkpoint: Callable[..., Any] | None = None
    _every = 1

    @property
    def config(self) -> PreTrainedConfig:
        """The transformers config of the model inside."""
        return self.model.config

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def dtype(self) -> torch.dtype:
        return self.model.dtype

    def get_input_embeddings(self) -> nn.Module:
        return self.family.model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.family.model.set_input_embeddings(value)

    def resize_token_embeddings(self, *args: Any, **kwargs: Any) -> nn.Module:
        """As of the transformers model: for a tokenizer with more tokens."""
        return self.family.model.resize_token_embeddings(*args, **kwargs)

    def num_parameters(self, *args: Any, **kwargs: Any) -> int:
        """Parameters of the transformers model, without the pruner's."""
        return self.family.model.num_parameters(*args, **kwargs)

    # Memory while training ---------------------------------------------------------------------

    def activation_checkpointing_enable(
        self,
        activation_checkpointing_kwargs: dict[str, Any] | None = None,
        every_n_layers: int = 1,
        offload: bool = False,
    ) -> None:
        """Compute what lies between two attentions a second time on the way back, in place of holding it.

        Parameters
        ----------
        activation_checkpointing_kwargs : dict, optional
            For ``torch.utils.checkpoint.checkpoint``.
        every_n_layers : int
            Only every so manieth layer.
        offload : bool
            Hold the inputs of these layers in the memory of the CPU.

        Raises
        ------
        UserError
            For ``use_reentrant=True``, which loses gradients where the embeddings are frozen.
        """
        options = {"use_reentrant": False} | (activation_checkpointing_kwargs or {})
        if options["use_reentrant"]:
            raise UserError(
                "PrunedModel checkpoints without re-entering: pass {'use_reentrant': False}, or nothing."
            )
        run = partial(checkpoint, **options)
        self._checkpoint = partial(_offloaded, run) if offload else run
        self._every = every_n_layers

    def activation_checkpointing_disable(self) -> None:
        self._checkpoint = None

    def gradient_checkpointing_enable(
        self, gradient_checkpointing_kwargs: dict[str, Any] | None = None, **kwargs: Any
    ) -> None:
        """The name of `activation_checkpointing_enable` in older versions of transformers."""
        self.activation_checkpointing_enable(gradient_checkpointing_kwargs, **kwargs)

    def gradient_checkpointing_disable(self) -> None:
        self.activation_checkpointing_disable()

    @property
    def is_activation_checkpointing(self) -> bool:
        return self._checkpoint is not None

    @property
    def is_gradient_checkpointing(self) -> bool:
        return self._checkpoint is not None

    def _checkpointed(self, layer: int, run: Stage) -> Stage:
        """`run`, or `run` by the checkpoint function where this layer's activations are not to be held."""
        if self._checkpoint is None or not self.training or not torch.is_grad_enabled():
            return run
        return run if layer % self._every else cast("Stage", partial(self._checkpoint, run))

    # State dicts -------------------------------------------------------------------------------

    def _block(self) -> dict[str, Any]:
        raise NotImplementedError

    def _obstacle(self) -> str | None:
        raise NotImplementedError

    def get_extra_state(self) -> Tensor:
        """What PyTorch puts into the state dict beside the tensors: the settings, so that a checkpoint of
        Trainer, which writes no config of a model that is not of transformers, can be opened by itself."""
        block = self._block()
        if (obstacle := self._obstacle()) is not None:
            block |= {"obstacle": obstacle}
        if (settings := getattr(self.family.model, "generation_config", None)) is not None:
            block |= {GENERATION: settings.to_diff_dict()}
        return state.described(self.family.model, block)

    def set_extra_state(self, extra: Any) -> None:
        """Nothing: a model that loads a state dict has its settings."""

    def state_dict(self, *args: Any, prefix: str = "", **kwargs: Any) -> Any:
        """As of any Module, but a weight that has several names is there once: files of safetensors, which
        Trainer writes, hold no tensor twice."""
        found = super().state_dict(*args, prefix=prefix, **kwargs)
        for name in self._repeated():
            found.pop(f"{prefix}{name}", None)
        return found

    def _repeated(self) -> dict[str, str]:
        """Further names of weights that have several, as tied embeddings do, with the first of each."""
        first: dict[int, str] = {}
        names = [
            (name, first.setdefault(id(x), name)) for name, x in self.named_parameters(remove_duplicate=False)
        ]
        return {name: kept for name, kept in names if name != kept}

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any, **kwargs: Any) -> None:
        for name, kept in self._repeated().items():
            if f"{prefix}{kept}" in state_dict:
                state_dict.setdefault(f"{prefix}{name}", state_dict[f"{prefix}{kept}"])
        # State dicts of older versions lack the settings, which nothing reads here.
        state_dict.setdefault(f"{prefix}{state.KEY}", None)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    # What cannot work, and what does ------------------------------------------------------------

    def _replicate_for_data_parallel(self) -> Any:
        raise UserError(
            "torch.nn.DataParallel cannot copy a PrunedModel: use DistributedDataParallel, which torchrun "
            "and accelerate launch start, or one GPU (CUDA_VISIBLE_DEVICES=0)."
        )

    def __prepare_scriptable__(self) -> Any:
        raise UserError(
            "torch.jit.script cannot compile a PrunedModel: how many tokens stay depends on the data. "
            + INSTEAD
        )


def refuse_tracing() -> None:
    """Refuse, while a forward pass is recorded, what a recording would get wrong.

    Raises
    ------
    UserError
        Under torch.jit.trace, torch.export and torch.onnx.export.
    """
    if torch.jit.is_tracing():
        how = "torch.jit.trace"
    elif torch.compiler.is_exporting():
        how = "torch.export (which torch.onnx.export calls)"
    else:
        return
    raise UserError(f"{how} cannot record a PrunedModel: how many tokens stay depends on the data. {INSTEAD}")


def refuse_inputs(inputs: dict[str, Any], others: dict[str, Any]) -> None:
    """Refuse what is no tensor, and inputs that a pruned model has no use for, where they are more than None
    or False.

    Raises
    ------
    UserError
        With the input's name, and why.
    """
    for name, value in inputs.items():
        if value is not None and not isinstance(value, Tensor):
            raise UserError(
                f"PrunedModel got a {type(value).__name__} in place of a tensor of {name}: call "
                "model(**batch), with tensors. In sentence-transformers, assign the model to "
                "CrossEncoder(folder)[0].model."
            )
    for name, value in others.items():
        if value is None or value is False or name in TRANSIENT:
            continue
        why = REFUSED.get(name, "it takes input_ids, attention_mask, token_type_ids and labels")
        raise UserError(f"PrunedModel takes no {name}: {why}.")
    if (input_ids := inputs["input_ids"]) is None:
        raise UserError("PrunedModel needs input_ids, as the tokenizer makes them.")
    if input_ids.is_meta:
        raise UserError("The model is on the meta device, which holds no numbers: move it to run it.")
    if input_ids.is_floating_point():
        raise UserError(f"input_ids are {input_ids.dtype}; pass the whole numbers that the tokenizer makes.")
    if input_ids.numel() == 0:
        raise UserError("The batch is empty: pass one text or more.")


@contextmanager
def refusing_ids() -> Iterator[None]:
    """Say in words that an id is none of the model's."""
    try:
        yield
    except IndexError as error:
        raise UserError(
            "An id in input_ids or token_type_ids is none that the model knows: use the tokenizer that was "
            "saved with the model."
        ) from error


def _offloaded(run: Callable[..., Any], *args: Any) -> Any:
    with torch.autograd.graph.save_on_cpu(pin_memory=torch.cuda.is_available()):
        return run(*args)
