"""Landmarks: numbers of the protocol's own function, junk, and queries without an answer."""
import numpy as np
import pytest

from timm_smalldata.evaluation.landmarks import Answer, landmark_scores, trapezoid_precision


def test_numbers_of_the_protocols_own_function():
    ranks = np.array([[1, 0], [0, 3], [3, 1], [2, 2]]).T
    scores = landmark_scores(ranks, [Answer([0, 2], [], [1]), Answer([3], [], [])], ks=(1, 2))['medium']
    assert scores['map'] == pytest.approx(0.5208333333333333)
    assert scores['average_precision'] == pytest.approx([0.7916667, 0.25])
    assert scores['mean_precision'] == pytest.approx({1: 0.5, 2: 0.5})


def test_what_is_junk_at_each_difficulty():
    """Ranking: hard, junk, easy, other, hard. By the equation, with junk taken out first."""
    answer = Answer(easy=[2], hard=[0, 4], junk=[1])
    scores = landmark_scores(np.array([[0, 1, 2, 3, 4]]), [answer], ks=(1, 5))
    assert scores['easy']['map'] == 1  # both hard ones are junk: easy, other
    assert scores['medium']['map'] == pytest.approx((1 + 1 + (2 / 3 + 3 / 4) / 2) / 3)  # places 0, 1, 3
    assert scores['hard']['map'] == pytest.approx((1 + (1 / 2 + 2 / 3) / 2) / 2)  # places 0, 2
    assert scores['medium']['mean_precision'] == {1: 1, 5: 3 / 4}  # all are found within four
    assert scores['easy']['mean_precision'] == {1: 1, 5: 1}


def test_a_query_without_an_answer_does_not_count():
    scores = landmark_scores(np.array([[0, 1], [1, 0]]), [Answer([0], [], []), Answer([], [0], [])])
    assert (scores['easy']['queries'], scores['medium']['queries'], scores['hard']['queries']) == (1, 2, 1)
    assert scores['easy']['map'] == 1 and scores['hard']['map'] == 0.25 and np.isnan(
        scores['easy']['average_precision'][1])
    assert landmark_scores(np.array([[0]]), [Answer([0], [], [])])['hard']['map'] is None
    with pytest.raises(ValueError, match='for 2 queries'):
        landmark_scores(np.array([[0]]), [Answer([0], [], [])] * 2)


def test_the_area_is_that_of_straight_lines():
    """Integrated over the points of the curve: recall and precision before and at each right image."""
    rng = np.random.RandomState(0)
    places = sorted(rng.choice(40, 9, replace=False).tolist())
    area = 0.0
    for j, place in enumerate(places):
        before = j / place if place else 1.0
        area += np.trapezoid([before, (j + 1) / (place + 1)], [j / 9, (j + 1) / 9])
    assert trapezoid_precision(places, 9) == pytest.approx(area)
