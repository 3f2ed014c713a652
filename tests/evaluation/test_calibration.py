import numpy as np
import pytest
import torch

from timm_smalldata.evaluation import calibration_error
from timm_smalldata.evaluation.calibration import CONFIDENCE_SCALE, bin_edges, calibration_bins

# LiVT's own function on these predictions, 15 bins
CONF = [0.95, 0.9, 0.81, 0.7, 0.66, 0.55, 0.4, 0.35, 0.2, 1.0]
PRED = [0, 1, 2, 1, 0, 2, 2, 1, 0, 0]
LABEL = [0, 1, 2, 0, 0, 1, 2, 0, 0, 0]
COUNTS = [0, 0, 1, 0, 0, 2, 0, 0, 1, 1, 1, 0, 1, 1, 2]


def rows(dtype=torch.float64, num_classes=12):
    """Rows whose largest probability is CONF at PRED, the rest spread evenly."""
    conf = torch.tensor(CONF, dtype=dtype)
    out = ((1 - conf) / (num_classes - 1))[:, None].repeat(1, num_classes)
    out[torch.arange(len(CONF)), torch.tensor(PRED)] = conf
    return out


def by_hand(probabilities, labels, n_bins):
    """The two equations, bin by bin in float64."""
    confidence, prediction = probabilities.max(1), probabilities.argmax(1)
    ece, mce = 0.0, 0.0
    for b in range(n_bins):
        inside = (confidence > b / n_bins) & (confidence <= (b + 1) / n_bins)
        if inside.any():
            gap = abs((prediction == labels)[inside].mean() - confidence[inside].mean())
            ece, mce = ece + inside.sum() * gap / len(labels), max(mce, gap)
    return ece, mce


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_vector(dtype):
    result = calibration_error(rows(dtype), torch.tensor(LABEL))
    assert result == pytest.approx({'ece': 0.298, 'mce': 0.8}, abs=1e-7)
    assert all(type(value) is float for value in result.values())


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_bins_of_vector(dtype):
    """0.2 and 0.4 lie on edges: right-closed in either precision."""
    bins = calibration_bins(torch.tensor(CONF, dtype=dtype), torch.tensor(PRED) == torch.tensor(LABEL),
                            bin_edges(15, dtype))
    assert bins.dtype == torch.int64
    assert bins[0].tolist() == [0, *COUNTS]
    assert bins[1].sum() == 7
    assert bins[2].sum() / CONFIDENCE_SCALE / 10 == pytest.approx(0.652, abs=1e-7)


@pytest.mark.parametrize('n_bins', [1, 10, 15, 100])
def test_against_the_equations(n_bins):
    rng = np.random.default_rng(n_bins)
    probabilities = rng.dirichlet(np.full(6, 0.3), size=500)
    labels = np.where(rng.random(500) < 0.5, probabilities.argmax(1), rng.integers(0, 6, 500))
    result = calibration_error(probabilities, labels, n_bins=n_bins)
    assert (result['ece'], result['mce']) == pytest.approx(by_hand(probabilities, labels, n_bins), abs=1e-9)


def test_edge_cases():
    labels = torch.tensor([0, 1])
    assert calibration_error(torch.eye(2), labels) == {'ece': 0.0, 'mce': 0.0}
    assert calibration_error(torch.eye(2), labels.flip(0)) == {'ece': 1.0, 'mce': 1.0}
    assert calibration_error(torch.zeros(0, 2), torch.zeros(0)) == {'ece': 0.0, 'mce': 0.0}
    # a row without any confidence lies in no bin but is one of the N images
    assert calibration_error(torch.tensor([[0.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 0]))['ece'] == 0.5


@pytest.mark.parametrize('probabilities, labels, n_bins, match', [
    (torch.tensor([[3.0, -1.0]]), torch.tensor([0]), 15, 'softmax'),
    (torch.tensor([[float('nan'), 1.0]]), torch.tensor([0]), 15, r'\[0, 1\]'),
    (torch.eye(2), torch.tensor([0]), 15, r'not \(2, 2\) and \(1,\)'),
    (torch.eye(2), torch.tensor([0, 1]), 0, 'n_bins'),
])
def test_errors(probabilities, labels, n_bins, match):
    with pytest.raises(ValueError, match=match):
        calibration_error(probabilities, labels, n_bins=n_bins)


def test_nan_lies_in_no_bin():
    bins = calibration_bins(torch.tensor([float('nan'), 0.5]), torch.tensor([True, True]), bin_edges(2))
    assert bins[0].tolist() == [1, 1, 0] and bins[2].tolist() == [0, CONFIDENCE_SCALE // 2, 0]
