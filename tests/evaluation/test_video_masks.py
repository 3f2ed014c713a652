"""J and F of masks: scikit-learn's Jaccard index, contours by hand, a tolerance in pixels."""
import numpy as np
import pytest
from scipy.ndimage import binary_dilation
from sklearn.metrics import jaccard_score

from timm_smalldata.evaluation.video_masks import contour, contour_accuracy, over_time, region_similarity


def square(size=100, low=30, high=60, shift=(0, 0)):
    mask = np.zeros((size, size), dtype=bool)
    mask[low + shift[0]:high + shift[0], low + shift[1]:high + shift[1]] = True
    return mask


def test_regions_are_compared_as_scikit_learn_does():
    rng = np.random.RandomState(0)
    for _ in range(5):
        a, b = rng.rand(2, 9, 11) > 0.5
        assert region_similarity(a, b) == pytest.approx(jaccard_score(b.ravel(), a.ravel()))
    empty = np.zeros((3, 3))
    assert region_similarity(empty, empty) == 1 and region_similarity(empty, empty + 1) == 0


def test_contours_agree_up_to_the_tolerance():
    """100 x 100 pixels: 0.008 of the diagonal is 1.13, so up to 2 pixels."""
    true = square()
    assert [contour_accuracy(square(shift=(by, 0)), true) for by in (0, 1, 2)] == [1, 1, 1]
    assert 0 < contour_accuracy(square(shift=(3, 0)), true) < 1
    assert contour_accuracy(square(10, 1, 4), square(10, 7, 9)) == 0


def test_contours_by_dilation_with_a_disk():
    """DAVIS' own way: contours matched with dilated ones."""
    y, x = np.mgrid[-2:3, -2:3]
    disk = x ** 2 + y ** 2 <= 4
    rng = np.random.RandomState(0)
    for _ in range(4):
        a, b = (binary_dilation(rng.rand(100, 100) > 0.995, iterations=6) for _ in range(2))
        found, true = contour(a), contour(b)
        precision = (found & binary_dilation(true, disk)).sum() / found.sum()
        recall = (true & binary_dilation(found, disk)).sum() / true.sum()
        assert contour_accuracy(a, b) == pytest.approx(2 * precision * recall / (precision + recall))


def test_masks_without_a_contour():
    empty = np.zeros((100, 100))
    assert contour_accuracy(empty, empty) == 1 and contour_accuracy(empty, square()) == 0
    assert contour_accuracy(square(), empty) == 0 and contour_accuracy(empty + 1, empty) == 1
    with pytest.raises(ValueError, match='Masks of'):
        contour_accuracy(empty, empty[1:])


def test_the_quarters_of_a_video():
    values = [1., .9, .8, .7, .6, .5, .4, .3, .2]  # ends of the quarters: 0, 2, 4, 6, 8
    found = over_time(values)
    assert found == pytest.approx(dict(mean=0.6, recall=5 / 9, decay=0.9 - 0.3))
