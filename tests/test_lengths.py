"""Weights that make texts of train as long as those in use."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thresher.inference.predict import Predictions
from thresher.training.lengths import LengthWeights

lengths = st.lists(st.integers(2, 512), min_size=1, max_size=200).map(np.array)


@given(lengths)
def test_the_same_lengths_weigh_the_same(met):
    assert LengthWeights(met, met)(met) == pytest.approx(1.0)
    assert LengthWeights(met, np.tile(met, 3))(met) == pytest.approx(1.0)


@given(lengths, lengths)
def test_any_lengths_have_weights(met, wanted):
    weights = LengthWeights(met, wanted)(met)
    assert weights.mean() == pytest.approx(1.0)
    assert (weights > 0).all()


def test_few_texts_in_use_say_little():
    met = np.arange(10, 110).repeat(10)
    few, many = (LengthWeights(met, np.array([90] * count))(met) for count in (4, 1000))
    assert few.max() < 4 < many.max()
    assert few.min() > 0.8 > 0.1 > many.min()


def test_weighed_texts_are_as_long_as_those_in_use():
    draw = np.random.default_rng(0)
    met = draw.geometric(0.08, size=20_000) + 2
    for wanted in (met[draw.integers(len(met), size=800)] + 4, draw.integers(10, 40, size=900)):
        weights = LengthWeights(met, wanted)(met)
        assert (weights * met).sum() / weights.sum() == pytest.approx(wanted.mean(), rel=0.04)
        assert met.mean() != pytest.approx(wanted.mean(), rel=0.2)


def test_a_ratio_of_sums_with_weights():
    found = Predictions(np.zeros((2, 2)), np.array([10, 30]), np.array([4.0, 3.0]), np.array([5.0, 15.0]))
    assert found.flops_ratio == pytest.approx(7 / 20)
    # Nearly all texts in use are long.
    weights = LengthWeights(np.array([10] * 50 + [30] * 50), np.array([30] * 10_000))(found.lengths)
    assert replace(found, weights=weights).flops_ratio == pytest.approx(3 / 15, abs=0.01)
    assert found.flops_ratio == pytest.approx(7 / 20)
