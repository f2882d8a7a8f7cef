"""Stages by OpenVINO: each is converted and compiled for one dynamic size, in fp32, bf16 or int8."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.profiler import record_function

from thresher.engines.base import Engine, Heads
from thresher.engines.layers import Int8Linear, NativeLinear, PackedLinear
from thresher.errors import UserError
from thresher.families import Family

if TYPE_CHECKING:
    import openvino as ov

EXAMPLES = 8  # tokens that a stage is traced with
SAMPLE = 64  # tokens of a batch that calibrate


class OpenVinoEngine(Engine, name="openvino"):
    """Embeddings and the head stay with PyTorch.

    Parameters
    ----------
    family : Family
    precision : {"fp32", "bf16", "int8"}
        bf16 and int8 hand bfloat16 queries, keys and values to the attention. int8 has fixed scales, found by
        NNCF on the texts given to `calibrate`, which has to come first.
    """

    @classmethod
    def needs(cls, precision: str) -> tuple[str, ...]:
        return ("openvino", "nncf") if precision == "int8" else ("openvino",)

    def __init__(self, family: Family, precision: str):
        import openvino as ov

        self.family, self.precision = family, precision
        if any(
            isinstance(module, (Int8Linear, PackedLinear, NativeLinear)) for module in family.model.modules()
        ):
            raise UserError("Another PrunedModel has made this transformers model ready; load it again.")
        family.model.float()
        self.core = ov.Core()
        self.stages: dict[int, _Stage] = {}
        self.models = {index: self._convert(index) for index in range(-1, family.layers)}
        self.samples: dict[int, list[list[np.ndarray]]] = {}
        if precision != "int8":
            self._compile()

    def calibrate(self, run: Callable[[], object]) -> None:
        """Find the scales of int8. `run` passes texts through the model; PyTorch runs the stages then."""
        if self.stages:
            return
        self.samples = {index: [] for index in self.models}
        run()
        for index, model in self.models.items():
            self.models[index] = quantized(model, self.samples[index])
        self.samples = {}
        self._compile()

    def _convert(self, index: int) -> ov.Model:
        module = _Traced(self.family, index)
        import openvino as ov

        dim, shape = self.family.dim, self.family.shape(max(index, 0))
        example = [torch.randn(EXAMPLES, dim), torch.arange(EXAMPLES)]
        shapes = [ov.PartialShape([-1, dim]), ov.PartialShape([-1])]
        if index >= 0:
            width = shape.heads * shape.head_dim
            example.insert(1, torch.randn(EXAMPLES, width))
            shapes.insert(1, ov.PartialShape([-1, width]))
        with torch.no_grad():
            return ov.convert_model(module, example_input=tuple(example), input=shapes)

    def _compile(self) -> None:
        config = {
            "INFERENCE_PRECISION_HINT": "f32" if self.precision == "fp32" else "bf16",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "NUM_STREAMS": 1,
        }
        for index, model in self.models.items():
            if self.precision != "fp32":
                model = _bf16_attention(model, index)
            self.stages[index] = _Stage(self.core.compile_model(model, "CPU", config))
        self.models = {}

    def _run(self, index: int, *inputs: Tensor) -> list[Tensor]:
        if index in self.stages:
            return self.stages[index](*inputs)
        if index not in self.samples:
            raise UserError(
                "OpenVINO in int8 must see texts first: "
                "model.engine.calibrate(lambda: [model(**batch) for batch in batches])."
            )
        some = [x[:: max(1, len(x) // SAMPLE)].float() for x in inputs]
        self.samples[index].append([x.numpy() for x in some[:-1]] + [some[-1].long().numpy()])
        return list(_Traced(self.family, index)(*(x.float() if x.is_floating_point() else x for x in inputs)))

    def _embed(self, inputs: dict[str, Tensor], positions: Tensor) -> tuple[Tensor, Heads]:
        hidden = self.family.embed(inputs, positions)
        query, key, value = (self.family.split_heads(x) for x in self._run(-1, hidden, positions))
        return hidden, (query, key, value)

    def _stage(
        self, index: int, hidden: Tensor, context: Tensor, positions: Tensor, gate: Tensor | None
    ) -> tuple[Tensor, Heads | None]:
        assert gate is None, "gates are for training"
        hidden, *heads = self._run(index, hidden, context, positions)
        if not heads:
            return hidden, None
        query, key, value = (self.family.split_heads(x) for x in heads)
        return hidden, (query, key, value)


def quantized(model: ov.Model, samples: Sequence[Any]) -> ov.Model:
    """A model in int8, by NNCF; each of the samples is one run's inputs, as NumPy arrays."""
    import nncf
    import rich

    logging.getLogger("nncf").setLevel(logging.ERROR)
    console = rich.get_console()  # NNCF has no switch for its bars, which go there; ours are on another
    before, console.quiet = console.quiet, True
    try:
        return nncf.quantize(
            model, nncf.Dataset(samples), model_type=nncf.ModelType.TRANSFORMER, subset_size=len(samples)
        )
    finally:
        console.quiet = before


class _Traced(nn.Module):
    """One stage as a module; -1 is layer 0's queries, keys and values alone."""

    def __init__(self, family: Family, index: int):
        super().__init__()
        self.model, self.family, self.index = family.model, family, index

    def forward(self, hidden: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
        *context, positions = others
        first: tuple[Tensor, ...] = ()
        if self.index >= 0:
            hidden = self.family.transform(self.index, hidden, *context)
            first = (hidden,)
        if self.index + 1 == self.family.layers:
            return first
        heads = self.family.qkv(self.index + 1, hidden, positions)
        return *first, *(x.flatten(1) for x in heads)


def _bf16_attention(model: ov.Model, index: int) -> ov.Model:
    """The stage with bfloat16 for what comes from attention and goes to it; hidden states stay float32."""
    import openvino as ov

    steps = ov.preprocess.PrePostProcessor(model)
    if index >= 0:
        steps.input(1).tensor().set_element_type(ov.Type.bf16)
    for place in range(len(model.outputs)):
        if index < 0 or place > 0:
            steps.output(place).tensor().set_element_type(ov.Type.bf16)
    return steps.build()


class _Stage:
    """A compiled stage that reads and writes torch's memory."""

    def __init__(self, compiled: ov.CompiledModel):
        import openvino as ov

        self.request, self.lock = compiled.create_infer_request(), Lock()
        self.inputs = len(compiled.inputs)
        self.outputs = [
            (
                torch.bfloat16 if out.element_type == ov.Type.bf16 else torch.float32,
                out.partial_shape[1].get_length(),
            )
            for out in compiled.outputs
        ]

    def __call__(self, *inputs: Tensor) -> list[Tensor]:
        inputs = tuple(x.contiguous() for x in inputs)  # alive until the stage has run
        found = [inputs[0].new_empty(len(inputs[0]), width, dtype=dtype) for dtype, width in self.outputs]
        with self.lock:  # a request holds one set of tensors
            self._infer(inputs, found)
        return found

    def _infer(self, inputs: tuple[Tensor, ...], found: list[Tensor]) -> None:
        for i, values in enumerate(inputs[: self.inputs]):
            self.request.set_input_tensor(i, _shared(values))
        for i, values in enumerate(found):
            self.request.set_output_tensor(i, _shared(values))
        with record_function("openvino::stage"):
            self.request.infer()


def _shared(values: Tensor) -> ov.Tensor:
    """OpenVINO's view of a torch tensor."""
    import openvino as ov

    if values.dtype == torch.bfloat16:
        return ov.Tensor(values.view(torch.uint16).numpy(), ov.Shape(list(values.shape)), ov.Type.bf16)
    return ov.Tensor(values.numpy(), shared_memory=True)
