"""Retrieval of landmarks by the revisited Oxford and Paris protocol: easy and hard images, junk, mAP and mP@k.

Radenović et al., "Revisiting Oxford and Paris: Large-Scale Image Retrieval Benchmarking", CVPR 2018,
https://arxiv.org/abs/1803.11285.
"""
from typing import Any, Dict, NamedTuple, Sequence

import numpy as np

DIFFICULTIES = ('easy', 'medium', 'hard')


class Answer(NamedTuple):
    """What is right for a query: positions in the database."""
    easy: Sequence[int]
    hard: Sequence[int]
    junk: Sequence[int]

    def at(self, difficulty: str) -> Any:
        """Return the positions to find, and those that count for nothing, at a difficulty.

        Easy: hard images are junk. Medium: easy and hard ones are to be found. Hard: easy images are junk.
        """
        easy, hard, junk = list(self.easy), list(self.hard), list(self.junk)
        return dict(easy=(easy, junk + hard), medium=(easy + hard, junk), hard=(hard, junk + easy))[difficulty]


def trapezoid_precision(places: Sequence[int], positives: int) -> float:
    """Return the average precision under a curve of straight lines, as Oxford, Holidays and Copydays count it.

    Between two images that are right the precision is the mean of that before and that at the second: `AP = 1/P
    sum_j ((j / r_j) + (j + 1) / (r_j + 1)) / 2` with the place r_j of the j-th, from 0; 1 for 0 / 0.

    Args:
        places: Where the images that are right stand in the ranking, from 0 and rising.
        positives: How many there are, found or not (P).

    >>> trapezoid_precision([0, 1], 2), trapezoid_precision([1], 1)
    (1.0, 0.25)
    """
    return sum(((found / place if place else 1.0) + (found + 1) / (place + 1)) / 2
               for found, place in enumerate(places)) / positives


def landmark_scores(
        ranks: np.ndarray, answers: Sequence[Answer], ks: Sequence[int] = (1, 5, 10),
) -> Dict[str, Dict[str, Any]]:
    """Judge rankings of a database.

    Junk is taken out of a ranking before anything is counted. Precision at k looks at no more images than it takes to
    find all. A query with nothing to find at a difficulty does not count there.

    Args:
        ranks: Positions in the database, the nearest first, for each query (Q, N).
        answers: What is right for each query.
        ks: Where precision is taken.

    Returns:
        For `easy`, `medium` and `hard`: `map`, a fraction (None: no query has anything to find), `mean_precision`
        by k, `average_precision`, one for each query (nan where it does not count), and `queries`, how many count.

    Raises:
        ValueError: Shapes do not fit.

    >>> scores = landmark_scores(np.array([[2, 0, 1]]), [Answer(easy=[0], hard=[1], junk=[2])])
    >>> scores['easy']['map'], scores['hard']['map'], scores['medium']['mean_precision'][1]
    (1.0, 1.0, 1.0)
    """
    ranks = np.asarray(ranks)
    if ranks.ndim != 2 or len(ranks) != len(answers):
        raise ValueError(f'Rankings of shape {ranks.shape} for {len(answers)} queries.')
    scores = {}
    for difficulty in DIFFICULTIES:
        precisions, at_k = [], []
        for ranking, answer in zip(ranks, answers):
            right, junk = answer.at(difficulty)
            if not right:
                precisions.append(float('nan'))
                continue
            places = np.flatnonzero(np.isin(ranking[~np.isin(ranking, junk)], right))
            precisions.append(trapezoid_precision(places.tolist(), len(right)))
            limits = [min(places.max() + 1, k) if len(places) else k for k in ks]
            at_k.append([(places < limit).sum() / limit for limit in limits])
        means = np.mean(at_k, axis=0).tolist() if at_k else [None] * len(ks)
        scores[difficulty] = dict(
            map=float(np.nanmean(precisions)) if at_k else None, mean_precision=dict(zip(ks, means)),
            average_precision=precisions, queries=len(at_k))
    return scores
