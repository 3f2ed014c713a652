"""Feature rank: published numbers, and features whose rank is known."""
import json
from pathlib import Path

import pytest
import torch

from timm_smalldata.analysis import feature_rank

V = json.loads((Path(__file__).parents[1] / 'vectors' / 'analysis.json').read_text())['feature_rank']


def features_with(values, rows=40, width=12, seed=0):
    """Return centred features with these singular values."""
    generator = torch.Generator().manual_seed(seed)
    left = torch.randn(rows, len(values), generator=generator, dtype=torch.float64)
    left = torch.linalg.qr(left - left.mean(0))[0]
    right = torch.linalg.qr(torch.randn(width, len(values), generator=generator, dtype=torch.float64))[0]
    return left * torch.tensor(values, dtype=torch.float64) @ right.T


@pytest.mark.parametrize('threshold', [0.99, 0.95, 0.9])
def test_vectors(threshold):
    features = features_with(V['singular_values'])
    assert feature_rank(features, threshold) == V[f'k@{threshold:.2f}']
    assert feature_rank(features + 7, threshold) == V[f'k@{threshold:.2f}']  # columns are centred


def test_default_threshold():
    assert feature_rank(features_with(V['singular_values'])) == V['k@0.99']


@pytest.mark.parametrize('rank', [1, 3, 8])
def test_features_of_a_rank(rank):
    assert feature_rank(features_with([1.0] * rank)) == rank
    assert feature_rank(features_with([1.0] * rank).float()) == rank


def test_ends():
    assert feature_rank(torch.full((5, 4), 0.1)) == 0
    assert feature_rank(torch.randn(1, 4)) == 0
    assert feature_rank(features_with([1.0, 1.0], rows=3), threshold=1.0) == 2


@pytest.mark.parametrize('features, threshold', [
    (torch.ones(4), 0.9), (torch.ones(0, 4), 0.9), (torch.tensor([[1.0, float('nan')]]), 0.9), (torch.eye(3), 0.0),
    (torch.eye(3), 1.1),
])
def test_refusals(features, threshold):
    with pytest.raises(ValueError):
        feature_rank(features, threshold)
