"""ONNX Runtime: exported, fused by its transformer optimizer, in int8 with dynamic quantisation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from thresher.bench.rivals import Batch, Runner, Setup

NEEDS = ("onnxruntime", "onnx")
EXTRA = "bench"
PRECISIONS = ("fp32", "int8")


def load(setup: Setup, precision: str) -> Runner:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = setup.threads
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3
    file = _int8(setup) if precision == "int8" else _fused(setup)
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])

    def run(batch: Batch) -> Any:
        return session.run(None, {name: np.asarray(values) for name, values in batch.items()})[0]

    return run


def _fused(setup: Setup) -> Path:
    file = setup.work / "fused.onnx"
    if file.exists():
        return file
    import torch
    from onnxruntime.transformers import optimizer

    from thresher.bench.rivals.traced import Logits
    from thresher.store import dense_model

    model, example = dense_model(setup.folder), setup.examples[0]
    names, plain = list(example), setup.work / "plain.onnx"
    with torch.no_grad():
        torch.onnx.export(
            Logits(model, names),
            tuple(example.values()),
            plain,
            input_names=names,
            output_names=["logits"],
            dynamic_axes={name: {0: "batch", 1: "length"} for name in names},
            opset_version=17,
            dynamo=False,
        )
    config: Any = model.config
    fused = optimizer.optimize_model(
        str(plain), "bert", num_heads=config.num_attention_heads, hidden_size=config.hidden_size, opt_level=1
    )
    fused.save_model_to_file(str(file))
    return file


def _int8(setup: Setup) -> Path:
    file = setup.work / "int8.onnx"
    if not file.exists():
        from onnx import TensorProto
        from onnxruntime.quantization import QuantType, quantize_dynamic

        # Fused operations are not standard ONNX, whose type inference stops there.
        options = {"DefaultTensorType": TensorProto.FLOAT}
        quantize_dynamic(
            _fused(setup), file, weight_type=QuantType.QInt8, per_channel=True, extra_options=options
        )
    return file
