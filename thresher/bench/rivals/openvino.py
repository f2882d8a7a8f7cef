"""OpenVINO: converted, in int8 quantised by NNCF with texts to calibrate."""

from __future__ import annotations

from typing import Any

import torch

from thresher.bench.rivals import Batch, Logits, Runner, Setup
from thresher.inference.load import dense_model

NEEDS = ("openvino", "nncf")
EXTRA = "openvino"
PRECISIONS = ("fp32", "bf16", "int8")


def load(setup: Setup, precision: str) -> Runner:
    import openvino as ov

    example = setup.examples[0]
    names = list(example)
    with torch.no_grad():
        model = ov.convert_model(
            Logits(dense_model(setup.folder), names),
            example_input=tuple(example.values()),
            input=[ov.PartialShape([-1, -1])] * len(names),
        )
    if precision == "int8":
        from thresher.engines.openvino import quantized

        model = quantized(model, [tuple(v.numpy() for v in batch.values()) for batch in setup.examples])
    config: dict[str, Any] = {"INFERENCE_NUM_THREADS": setup.threads, "NUM_STREAMS": 1}
    if precision != "int8":  # what int8 leaves over runs in what OpenVINO likes best
        config["INFERENCE_PRECISION_HINT"] = "f32" if precision == "fp32" else "bf16"
    request = ov.Core().compile_model(model, "CPU", config).create_infer_request()

    def run(batch: Batch) -> Any:
        for i, values in enumerate(batch.values()):
            request.set_input_tensor(i, ov.Tensor(values.numpy(), shared_memory=True))
        request.infer()
        return request.get_output_tensor(0).data.copy()

    return run
