"""OpenVINO: converted, in int8 quantised by NNCF with texts to calibrate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from thresher.bench.rivals import Batch, Runner, Setup

NEEDS = ("openvino", "nncf")
EXTRA = "openvino"
PRECISIONS = ("fp32", "bf16", "int8")


def load(setup: Setup, precision: str) -> Runner:
    import openvino as ov

    file = setup.work / ("openvino-int8.xml" if precision == "int8" else "openvino.xml")
    if not file.exists():
        _convert(setup, precision == "int8", file)
    config: dict[str, Any] = {"INFERENCE_NUM_THREADS": setup.threads, "NUM_STREAMS": 1}
    if precision != "int8":  # what int8 leaves over runs in what OpenVINO likes best
        config["INFERENCE_PRECISION_HINT"] = "f32" if precision == "fp32" else "bf16"
    request = ov.Core().compile_model(file, "CPU", config).create_infer_request()

    def run(batch: Batch) -> Any:
        for name, values in batch.items():
            request.set_tensor(name, ov.Tensor(np.asarray(values), shared_memory=True))
        request.infer()
        return request.get_output_tensor(0).data.copy()

    return run


def _convert(setup: Setup, int8: bool, file: Path) -> None:
    import openvino as ov
    import torch

    from thresher.bench.rivals.traced import Logits
    from thresher.engines.openvino import quantized
    from thresher.store import dense_model

    example = setup.examples[0]
    names = list(example)
    with torch.no_grad():
        model = ov.convert_model(
            Logits(dense_model(setup.folder), names),
            example_input=tuple(example.values()),
            input=[ov.PartialShape([-1, -1])] * len(names),
        )
    for place, name in zip(model.inputs, names, strict=True):
        place.tensor.set_names({name})
    if int8:
        model = quantized(model, [tuple(v.numpy() for v in batch.values()) for batch in setup.examples])
    ov.save_model(model, file, compress_to_fp16=False)
