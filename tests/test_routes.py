"""Every route of attention that serves the device, with texts short and long, against loops in float64."""

from __future__ import annotations

import pytest
import torch

from tests.test_attention import SCALE, by_hand, ragged
from tests.tiny import DEVICE
from thresher.attention import ROUTES, Asked
from thresher.packed import PackedBatch

CLOSE = {torch.float32: 4e-5, torch.bfloat16: 2e-2}
LENGTHS = {"short": [26, 1, 9, 20], "long": [390, 3, 130]}


def there(packed: PackedBatch) -> PackedBatch:
    """The same batch on the device."""
    parts = packed.cu_seqlens, packed.positions, packed.original_lengths
    return PackedBatch(*(x.to(DEVICE) for x in parts))


@pytest.mark.parametrize("window", [None, 20])
@pytest.mark.parametrize("dtype", CLOSE)
@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
@pytest.mark.parametrize("route", ROUTES)
@torch.inference_mode()
def test_equals_brute_force(route, lengths, dtype, window):
    for gaps in (None, 1):  # no token is gone yet; some are
        packed = ragged(lengths, gaps)
        query, key, value = torch.randn(3, packed.tokens, 2, 32).mul(0.5).to(dtype)
        asked = Asked(*(x.to(DEVICE) for x in (query, key, value)), there(packed), SCALE, window)
        if not route.serves(asked):
            pytest.skip(f"does not serve such a batch on {DEVICE}")
        expected, importance = by_hand(query, key, value, packed, window, None)
        attended, kept = route(asked), (packed.positions % 3 == 0).nonzero().squeeze(1)
        seen, context = attended.importance(), attended.context(kept.to(DEVICE))
        assert seen.dtype == torch.float32
        assert context.dtype == dtype
        assert seen.device == context.device == asked.query.device
        close = {"atol": CLOSE[dtype], "rtol": 1e-2 if dtype == torch.bfloat16 else 1e-5}
        torch.testing.assert_close(context.cpu().double(), expected[kept], **close)
        torch.testing.assert_close(seen.cpu().double(), importance, atol=4e-5, rtol=1e-4)
