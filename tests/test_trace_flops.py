"""The FLOPs of a trace against a count by pairs, the formula, and instrumented matrix products."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from thresher.engines import TorchEngine

from .cases import LENGTHS, build, clear_case, drops, every_family, every_pair
from .tiny import FAMILIES, random_inputs

pytestmark = pytest.mark.usefixtures("no_grad")
N = 24


def head_flops(config, sequences=1):
    """BERT's pooler and classifier, which no count of ours holds."""
    return 2 * sequences * (config.hidden_size**2 + config.hidden_size * config.num_labels)


def counted(run) -> int:
    """Every matrix product of a run, two FLOPs a multiply-add. Fused attention would escape it."""
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        run()
    return counter.get_total_flops()


@every_pair
@pytest.mark.parametrize("prefix", [1, 2])
def test_flops_equal_the_count_by_pairs(family, pruner, prefix):
    pruned = build(family, pruner, prefix=prefix)
    inputs, reference, _ = clear_case(pruned, family, pruner, prefix)
    trace = pruned(**inputs).trace
    assert trace.flops.dtype == torch.float64
    assert torch.equal(trace.flops, reference.flops.double())
    assert torch.equal(trace.dense_flops, reference.dense_flops.double())
    ratio = trace.flops.sum() / trace.dense_flops.sum()
    assert ratio < 0.97 if drops(pruner) else ratio == 1.0


@every_family
def test_nothing_dropped_is_exactly_one(family):
    for pruned in (build(family, "none"), build(family, "threshold", thresholds=(0.0,) * 4)):
        trace = pruned(**random_inputs(pruned.model, LENGTHS)).trace
        assert (trace.flops / trace.dense_flops).tolist() == [1.0] * len(LENGTHS)
    pruned = build(family, "threshold", thresholds=(1e-30,) * 4)  # importance is computed, and all stay
    trace = pruned(**random_inputs(pruned.model, LENGTHS)).trace
    assert torch.equal(trace.flops, trace.dense_flops)


@pytest.mark.parametrize("family", [name for name in FAMILIES if not name.startswith("modernbert")])
def test_flops_are_the_formula_of_the_design(family):
    pruned = build(family)
    trace = pruned(**random_inputs(pruned.model, LENGTHS)).trace
    d, f = pruned.config.hidden_size, pruned.config.intermediate_size
    n_in = torch.cat([torch.tensor([LENGTHS]), trace.kept[:-1]])
    n_out = trace.kept
    layers = 2 * (3 * d**2 * n_in + d * n_in**2 + d * n_in * n_out + d**2 * n_out + 2 * d * f * n_out)
    assert torch.equal(trace.flops, layers.sum(0).double())


@pytest.mark.parametrize("lengths", [[N], [N, N, N]])
def test_dense_flops_equal_an_instrumented_transformers_model(lengths):
    pruned = build("bert", "none", attn_implementation="eager")
    inputs = random_inputs(pruned.model, lengths)
    seen = counted(lambda: pruned.model(**inputs))
    assert pruned(**inputs).trace.dense_flops.sum() == seen - head_flops(pruned.config, len(lengths))


@pytest.fixture
def no_spare_rows(monkeypatch):
    """FLOPs are counted on real tokens; what rounding their number adds is left out here as well."""
    monkeypatch.setattr(TorchEngine, "rounds_rows", False)


@pytest.mark.usefixtures("no_spare_rows")
def test_dense_flops_equal_an_instrumented_packed_run():
    pruned = build("bert", "none")
    text = random_inputs(pruned.model, [N])
    seen = counted(lambda: pruned(**text))
    assert pruned(**text).trace.flops.sum() == seen - head_flops(pruned.config)


@pytest.mark.usefixtures("no_spare_rows")
@pytest.mark.parametrize(
    "thresholds", [(0.5, 0.625, 0.75, 0.625), (1.05, 0.0, 1.05, 0.0), (0.0, 0.9, 1e6, 0.1)]
)
def test_flops_equal_an_instrumented_pruned_run(thresholds):
    """One text, so that no bucket is padded. Two things are done that the count of the method leaves out:

    the column sums of importance, and the context rows of dropped tokens where more than half survive (to
    gather the rows of the others would cost more than it saves).
    """
    pruned = build("bert", thresholds=thresholds)
    text = random_inputs(pruned.model, [N])
    seen = counted(lambda: pruned(**text))
    trace = pruned(**text).trace
    d, heads, extra, n_in, gathered = pruned.config.hidden_size, 4, 0, N, 0
    for layer, n_out in enumerate(trace.kept[:, 0].tolist()):
        if thresholds[layer] > 0:
            extra += 2 * heads * n_in**2
            if 2 * n_out > n_in:
                extra += 2 * d * n_in * (n_in - n_out)
            else:
                gathered += 1
        n_in = n_out
    assert trace.flops.sum() == seen - extra - head_flops(pruned.config)
    assert trace.flops.sum() < 0.8 * trace.dense_flops.sum()
    assert extra < 0.15 * seen
    if max(thresholds) > 1:
        assert gathered


def test_the_last_layer_of_a_cls_head_is_nearly_free():
    """All but q, k, v, scores, and one row of the rest."""
    pruned = build("bert", "none", prefix_only_at_end=True)
    trace = pruned(**random_inputs(pruned.model, [N])).trace
    d, f = pruned.config.hidden_size, pruned.config.intermediate_size
    saved = 2 * (N - 1) * (d * N + d * d + 2 * d * f)
    assert trace.dense_flops.sum() - trace.flops.sum() == saved
