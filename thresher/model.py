"""PrunedModel: a transformers encoder run layer by layer on a packed batch that shrinks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Self

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from thresher.carried import make_translator
from thresher.config import PruningConfig
from thresher.conventions import refuse_inputs, refuse_tracing
from thresher.engines import Engine, TorchEngine, make_engine
from thresher.errors import UserError
from thresher.families import family_of
from thresher.heads import HEADS, head_of
from thresher.loop import Parts, run
from thresher.packed import PackedBatch
from thresher.plan import Plan
from thresher.pruners import make_pruner
from thresher.saving import Saving
from thresher.trace import Trace


def prune(model: PreTrainedModel, config: PruningConfig | None = None) -> PrunedModel:
    """Wrap a transformers encoder so that it can drop tokens.

    Parameters
    ----------
    model : transformers model
        For classes, scores, tags, spans or choices, an encoder without a head, or one with a decoder that
        generates.
        It is used, not copied.
    config : PruningConfig, optional
        Default: learned thresholds. They start at 0, where outputs equal those of `model`.

    Raises
    ------
    UserError
        If the architecture is not supported; the message says what is.
    """
    if isinstance(model, PrunedModel):
        raise UserError(
            "This model is a PrunedModel already; prune its model.model anew, or change its pruner."
        )
    if not isinstance(config, PruningConfig | None):
        raise UserError(f"prune takes a PruningConfig, not {config!r:.100}: PruningConfig('threshold').")
    if not isinstance(model, nn.Module):
        raise UserError(
            f"prune takes a model, not {model!r}: open it first, as by "
            "AutoModelForSequenceClassification.from_pretrained."
        )
    return PrunedModel(model, config or PruningConfig())


class PrunedModel(Saving):
    """Has the calling convention of the transformers model that it holds.

    Threads may call one model at once: what hangs on its mode, its budget or a `dense` block is read when a
    call begins, and a call can say both for itself. Weights must not be changed meanwhile, as by training.

    Under torch.compile it runs as without: how many tokens stay depends on the data, so that there is little
    to compile as a whole.

    Parameters
    ----------
    model : PreTrainedModel
    config : PruningConfig
    metadata : dict, optional
        What else belongs in the folder: the base model's name and quality, metric, text columns, maximum
        length.

    Attributes
    ----------
    model : PreTrainedModel
        The transformers model inside.
    pruner : Pruner
    translator : Translator, or None
        What translates the states of dropped tokens, where the settings say so.
    pruning : PruningConfig
    """

    def __init__(self, model: PreTrainedModel, config: PruningConfig, metadata: dict[str, Any] | None = None):
        super().__init__()
        self.family = family_of(model)
        self.engine: Engine = TorchEngine(self.family)
        self.model = model
        self.pruning = config
        self.metadata = metadata or {}
        self.pruner = make_pruner(config, self.family.layers, self.family.dim)
        self.head = head_of(self.family)
        self.translator = make_translator(config, self.family.layers, self.family.dim)
        if config.prefix_only_at_end and self.head.reads != "prefix":
            raise UserError(
                "prefix_only_at_end is for heads that read [CLS] alone; this model's head pools all tokens."
            )
        if self.translator is not None and self.head.reads != "all":
            raise UserError(
                "dropped is 'translate', which is for heads that read every token; this model's does not."
            )
        if (self.head.reads == "suffix" and not config.suffix) or (
            self.head.protects_last and config.suffix is None
        ):
            self.pruning = config = replace(config, suffix=1)
        labels = 0 if self.head.decodes else self.config.num_labels
        if config.offset is not None and len(config.offset) != labels:
            raise UserError(
                f"offset has {len(config.offset)} numbers; it needs one for each of the model's {labels} "
                "labels."
            )
        self.pruner.to(model.device)
        if self.translator is not None:
            self.translator.to(model.device)
        # Not self.train(): a wrapper may claim another mode than the model in it, which is left as it is.
        self.training = self.family.model.training
        self.pruner.train(self.training)

    def for_inference(self, precision: str = "fp32", engine: str = "auto") -> Self:
        """Make ready to run, and only to run: weights are converted and layers replaced in place, so that the
        transformers model inside may not run by itself any more.

        Parameters
        ----------
        precision : {"fp32", "bf16", "int8"}
            Of what goes token by token. Importance and thresholds stay float32, and int8 leaves out the head:
            what is not int8 is bfloat16 on processors with AMX, in the native engine on those with AVX-512
            BF16 too, and elsewhere float32.
        engine : {"auto", "torch", "native", "openvino"}
            Who runs it. native is our C++, which auto takes on x86 from AVX2 on, and else torch. OpenVINO in
            int8 wants `OpenVinoEngine.calibrate` first.

        Raises
        ------
        UserError
            For a precision or an engine that there is not, or that is not installed.
        """
        if self.precision is not None:
            raise UserError(f"This model was made ready in {self.precision} already; load it again.")
        self.engine = make_engine(engine, self.family, precision)
        if self.translator is not None:
            self.translator.to(self.dtype)  # that of the states
        self.precision = precision
        return self.eval().requires_grad_(False)

    def __getstate__(self) -> dict[str, Any]:
        if not isinstance(self.engine, TorchEngine):
            raise UserError("Only a model that PyTorch runs can be copied or pickled; load the folder again.")
        return self.__dict__.copy()

    # The loop --------------------------------------------------------------------------------

    @torch.compiler.disable(reason="How many tokens a PrunedModel keeps depends on the data.")
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        labels: Tensor | None = None,
        start_positions: Tensor | None = None,
        end_positions: Tensor | None = None,
        output_hidden_states: bool = False,
        return_dict: bool | None = None,
        budget: float | None = None,
        dense: bool | None = None,
        **others: Any,
    ) -> Any:
        """Run a padded batch.

        Parameters
        ----------
        input_ids : int64 tensor [batch, length], or [batch, choices, length]
        attention_mask : tensor [batch, length], optional
            Default: every token is real.
        token_type_ids : int64 tensor [batch, length], optional
        labels, start_positions, end_positions : tensors, optional
            As the transformers model takes them; the output then has a loss.
        **others
            ``decoder_input_ids`` and ``decoder_attention_mask``, where the model has a decoder.
        output_hidden_states : bool
            The output then has ``hidden_states``: a tensor ``[tokens, dim]`` of the embeddings, and for each
            layer one ``[survivors, dim]``, of the tokens that the trace says are alive after it, packed.
        budget : float, optional
            One of `budgets`, for this call. Default: as `set_budget` had it.
        dense : bool, optional
            Whether every token is kept, in this call. Default: as `dense` has it.

        Returns
        -------
        transformers.utils.ModelOutput
            As the transformers model gives it: ``logits`` ``[batch, labels]``, or of tags
            ``[batch, length, labels]`` and so on; and with an attribute ``trace``. What is given for a
            dropped token is the head's answer to the state that `PruningConfig.dropped` says.

        Raises
        ------
        UserError
            For a mask with holes, a row without tokens, a sequence longer than the model allows, a budget
            that the model does not hold, or another input than these.
        """
        refuse_tracing()
        inputs = {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "token_type_ids": token_type_ids,
        }
        inputs |= {name: others.pop(name, None) for name in self.head.further}
        refuse_inputs(inputs, others)
        labelled = self.head.labelled(
            labels=labels, start_positions=start_positions, end_positions=end_positions
        )
        packed, values = self.family.pack(self.head.flat(inputs))
        states: list[Tensor] | None = [] if output_hidden_states else None
        with self._turns.call():  # the plan is read after a change of mode that this call waits for
            output, trace = self.run(packed, values, self.plan(budget, dense), states)
            output = self.head.finished(output, inputs, **labelled)
        if states is not None:
            alive = (packed.tokens, *(step.exit.tokens for step in trace.steps))
            output.hidden_states = tuple(state[:count] for state, count in zip(states, alive, strict=True))
        if return_dict is False:
            return output.to_tuple()
        # A plain attribute: as an item it would break pipelines and Trainer, which gather items.
        output.trace = trace
        return output

    def run(
        self,
        packed: PackedBatch,
        inputs: dict[str, Tensor],
        plan: Plan | None = None,
        states: list[Tensor] | None = None,
    ) -> tuple[Any, Trace]:
        """Run a packed batch.

        Parameters
        ----------
        packed : PackedBatch
        inputs : dict of tensors [tokens]
            As of `Family.pack`.
        plan : Plan, optional
            Default: that of the model, now.
        states : list, optional
            Hidden states are put to it, of the embeddings and after each layer, with spare rows at their end.

        Returns
        -------
        transformers.utils.ModelOutput
            What the head makes.
        Trace
        """
        with self._turns.call():
            return run(Parts.of(self), packed, inputs, plan or self.plan(), states)


class _PipelineEntry(PreTrainedConfig):
    """Never used as a config: it is how transformers' registry learns the name PrunedModel, so that
    pipelines accept it without complaint."""

    model_type = "thresher-pruned-model"


for _head in HEADS:
    _head.auto.register(_PipelineEntry, PrunedModel)
