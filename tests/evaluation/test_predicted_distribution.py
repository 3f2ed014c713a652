"""PDC: the equation with scipy's relative entropy, its ends, and the totals that it is taken from."""
import numpy as np
import pytest
import torch
from scipy.stats import entropy

from timm_smalldata.data.classes import ClassInfo
from timm_smalldata.evaluation import LongTailEvaluator, predicted_distribution
from timm_smalldata.report.assemble import build_report


def test_the_equation():
    rng = np.random.RandomState(0)
    for _ in range(5):
        predicted, seen, trained = rng.randint(50, 900, (3, 6))
        shares = [counts / counts.sum() for counts in (seen, predicted, trained)]
        known = entropy(shares[0], shares[1]) / entropy(shares[0], shares[2])
        assert predicted_distribution(predicted, torch.tensor(seen), trained.tolist()) == pytest.approx(known, rel=1e-4)
    # by hand: one class is never predicted, 1e-6 stands for nothing
    known = (np.log(0.5 + 1e-6) - (np.log(1 + 1e-6) + np.log(1e-6)) / 2) / (
        np.log(0.5 + 1e-6) - (np.log(0.9 + 1e-6) + np.log(0.1 + 1e-6)) / 2)
    assert predicted_distribution([4, 0], [2, 2], [9, 1]) == pytest.approx(known)


def test_where_it_is_not_defined():
    assert predicted_distribution([1, 2], [3, 3], [8, 8]) is None  # balanced training images
    assert predicted_distribution([0, 0], [0, 0], [8, 1]) is None
    with pytest.raises(ValueError, match='classes'):
        predicted_distribution([1, 2], [3, 3], [8, 8, 1])


def test_the_report_has_it():
    evaluator = LongTailEvaluator([90, 10])
    evaluator.update(torch.tensor([[1., 0.], [1., 0.], [1., 0.], [0., 1.]]), torch.tensor([0, 0, 1, 1]))
    evaluator.compute()
    report = build_report(evaluator, ClassInfo(['a', 'b'], [90, 10]), split='test', selected_on='val', epoch=0)
    assert report['pdc'] == predicted_distribution([3, 1], [2, 2], [90, 10]) and 0 < report['pdc'] < 1
    unknown = build_report(
        evaluator, ClassInfo(['a', 'b'], []), {}, split='test', selected_on=None, epoch=None, shot_split='unknown')
    assert unknown['pdc'] is None
