"""Health of a representation against plain computations; collapse is told."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ce_align.trainer.monitor import (
    LEAST_RANK,
    collapse_warning,
    effective_rank,
    health_of,
    mean_norm,
    relative_spread,
)


@given(rank=st.integers(1, 12), scale=st.floats(1e-3, 1e3))
def test_effective_rank_of_an_even_spectrum_is_its_rank(rank, scale):
    directions = torch.eye(20)[:rank] * scale
    rows = torch.cat([directions, -directions])
    assert effective_rank(rows) == pytest.approx(rank, rel=1e-6)


def test_effective_rank_is_the_exponential_of_the_entropy(rng):
    rows = rng.normal(size=(50, 8)) * np.arange(1, 9)
    values = np.linalg.eigvalsh(np.cov(rows.T))
    shares = values / values.sum()
    expected = np.exp(-(shares * np.log(shares)).sum())
    assert effective_rank(torch.from_numpy(rows)) == pytest.approx(expected, rel=1e-9)


def test_collapse_has_no_rank():
    assert effective_rank(torch.ones(9, 4)) == 0


def test_mean_norm_is_that_of_numpy(rng):
    rows = rng.normal(size=(30, 5))
    expected = np.linalg.norm(rows, axis=1).mean()
    assert mean_norm(torch.from_numpy(rows)) == pytest.approx(expected)


@given(offset=st.floats(0, 1e4), scale=st.floats(1e-3, 1e3))
def test_relative_spread_is_that_of_a_planted_offset(offset, scale):
    rows = torch.tensor([[1.0, 0], [-1, 0], [0, 1], [0, -1]], dtype=torch.float64)
    expected = 1 / np.sqrt(1 + offset**2)
    shifted = (rows + torch.tensor([0.6, 0.8]) * offset) * scale
    assert relative_spread(shifted) == pytest.approx(expected, rel=1e-6)


def test_health_has_the_rank_of_features_and_the_length_of_embeddings(rng):
    features, embeddings = (torch.from_numpy(rng.normal(size=(40, d))) for d in (6, 3))
    assert health_of(features, embeddings) == {
        "effective_rank": effective_rank(features),
        "embedding_norm": mean_norm(embeddings),
    }


def test_rows_of_one_direction_and_equal_rows_up_to_rounding_are_told(rng):
    healthy = torch.from_numpy(rng.normal(size=(60, 8)))
    assert collapse_warning(features=healthy, embeddings=healthy) is None
    line = healthy[:, :1] * torch.ones(8)
    found = collapse_warning(features=line, embeddings=healthy)
    assert "features (effective rank 1" in found
    assert "embeddings" not in found
    equal = torch.ones(60, 8) + 1e-7 * healthy
    assert effective_rank(equal) > LEAST_RANK
    assert "embeddings (effective rank" in collapse_warning(embeddings=equal)
    assert "\n" not in found
    assert collapse_warning(features=torch.zeros(9, 4))
