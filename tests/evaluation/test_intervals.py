import math

import numpy as np
import pytest

from timm_smalldata.evaluation import balanced_accuracy_interval, group_interval, paired_interval, wilson_interval


@pytest.mark.parametrize('hits, n', [(0, 1), (1, 1), (0, 25), (25, 25), (3, 7), (50, 100), (9999, 10000)])
@pytest.mark.parametrize('confidence', [0.8, 0.95, 0.99])
def test_wilson_against_scipy(hits, n, confidence):
    from scipy.stats import binomtest
    expected = binomtest(hits, n).proportion_ci(confidence, method='wilson')
    assert wilson_interval(hits, n, confidence) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_wilson_arrays_and_nothing():
    lo, hi = wilson_interval([0, 5, 10, 0], [10, 10, 10, 0])
    for i, (hits, n) in enumerate([(0, 10), (5, 10), (10, 10), (0, 0)]):
        assert (lo[i], hi[i]) == wilson_interval(hits, n)
    assert wilson_interval(0, 0) == (0.0, 1.0)
    assert isinstance(wilson_interval(1, 2)[0], float)


@pytest.mark.parametrize('hits, n', [(30, 40), (5, 60)])
def test_bootstrap_of_one_class_is_its_binomial(hits, n):
    """For one class the bootstrap distribution is known exactly, up to one image by sampling."""
    from scipy.stats import binom
    exact = binom.ppf([0.025, 0.975], n, hits / n) / n
    lo, hi = balanced_accuracy_interval([hits], [n], draws=20000)
    assert np.abs(np.array([lo, hi]) - exact).max() <= 1 / n + 1e-12


def test_bootstrap_of_many_classes_is_near_normal():
    """A mean over 200 classes is normal with variance sum p(1-p)/n / C^2."""
    rng = np.random.default_rng(1)
    counts = rng.integers(5, 50, 200)
    hits = rng.binomial(counts, 0.7)
    rate = hits / counts
    sd = math.sqrt((rate * (1 - rate) / counts).sum()) / 200
    lo, hi = balanced_accuracy_interval(hits, counts, draws=20000)
    assert (lo, hi) == pytest.approx((rate.mean() - 1.96 * sd, rate.mean() + 1.96 * sd), abs=0.1 * sd)


def test_bootstrap_coverage():
    """Nominal 95 % intervals hold the true mean recall in 90 to 99 of 100 repetitions (here 300)."""
    rng = np.random.default_rng(2)
    rates, counts = np.array([0.9, 0.6, 0.3]), np.array([200, 100, 50])
    held = 0
    for _ in range(300):
        lo, hi = balanced_accuracy_interval(rng.binomial(counts, rates), counts, draws=400)
        held += lo <= rates.mean() <= hi
    assert 0.90 <= held / 300 <= 0.99


def test_bootstrap_leaves_out_empty_classes_and_global_state():
    np.random.seed(3)
    before = np.random.get_state()[1].copy()
    assert balanced_accuracy_interval([3, 0, 8], [10, 0, 9]) == balanced_accuracy_interval([3, 8], [10, 9])
    assert (np.random.get_state()[1] == before).all()
    many = [300, 811, 7], [1000, 900, 13]
    assert balanced_accuracy_interval(*many, seed=1) == balanced_accuracy_interval(*many, seed=1)
    assert balanced_accuracy_interval(*many, seed=1) != balanced_accuracy_interval(*many, seed=2)
    assert all(map(math.isnan, balanced_accuracy_interval([0], [0])))


def test_no_certainty_from_few_images():
    """All right or all wrong: as wide as Wilson's interval, which holds the estimate, and exactly it for one class."""
    assert balanced_accuracy_interval([4], [4]) == pytest.approx(wilson_interval(4, 4))
    assert balanced_accuracy_interval([4, 4], [4, 4]) == pytest.approx(wilson_interval(8, 8))
    lo, hi = balanced_accuracy_interval([2, 0, 2], [2, 50, 2])
    assert lo < 2 / 3 < hi and hi - lo > 0.3


def test_group_interval():
    """Wilson: of all images where the classes have equally many, else of their effective number (Kish)."""
    assert group_interval([9, 2, 5], [10, 10, 10], [1, 2]) == wilson_interval(7, 20)
    hits, counts = [9, 2, 0, 5], [10, 10, 0, 20]  # class 2 has no images; recalls 0.2 and 0.25
    effective = 2 ** 2 / (1 / 10 + 1 / 20)
    assert group_interval(hits, counts, [1, 2, 3]) == wilson_interval(0.225 * effective, effective)
    assert np.isnan(group_interval(hits, counts, [2])).all()


def test_paired_interval_against_scipy():
    from scipy.stats import ttest_1samp
    differences = [1.2, -0.3, 0.8, 2.1, 0.4]
    result = paired_interval(differences, confidence=0.9)
    expected = ttest_1samp(differences, 0).confidence_interval(0.9)
    assert (result.lo, result.hi) == pytest.approx((expected.low, expected.high))
    assert (result.mean, result.sd) == pytest.approx((np.mean(differences), np.std(differences, ddof=1)))


def test_paired_interval_of_little():
    one = paired_interval([2.0])
    assert one.mean == 2.0 and all(map(math.isnan, one[1:]))
    with pytest.raises(ValueError, match='at least one'):
        paired_interval([])
