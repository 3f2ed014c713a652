"""Likely wrong labels, against the definition of the confident joint written out image by image."""
import numpy as np
import pytest

from timm_smalldata.evaluation import class_thresholds, wrong_labels


def by_definition(said, given):
    """C[given][j]: j is, of the classes with p_j >= mean of p_j over images labelled j, the one with the highest p."""
    classes = range(said.shape[1])
    thresholds = [np.mean([p[j] for p, y in zip(said, given) if y == j]) if j in given else np.inf for j in classes]
    found = []
    for place, (p, y) in enumerate(zip(said, given)):
        confident = [j for j in classes if p[j] >= thresholds[j]]
        if not confident:
            continue
        j = max(confident, key=lambda c: p[c])
        if j != y and p[j] > p[y]:
            found.append((place, int(y), j, float(p[j] - p[y])))
    return sorted(found, key=lambda row: -row[3])


@pytest.mark.parametrize('seed', range(5))
def test_against_the_definition(seed):
    rng = np.random.RandomState(seed)
    said = rng.dirichlet([0.3] * 4, 60)
    given = np.where(rng.rand(60) < 0.8, said.argmax(1), rng.randint(0, 4, 60))
    given[given == 3] = seed % 4  # in some cases the last class has no image
    found, expected = wrong_labels(said, given), by_definition(said, given.tolist())
    assert [tuple(row[:3]) for row in found] == [row[:3] for row in expected] and found
    assert np.allclose([row.margin for row in found], [row[3] for row in expected])


def test_thresholds_and_edges():
    said = np.array([[.9, .1, 0], [.5, .5, 0], [.2, .8, 0]])
    assert np.allclose(class_thresholds(said, np.array([0, 0, 1])), [.7, .8, np.inf])
    assert wrong_labels(np.zeros((0, 3)), np.zeros(0)) == []
    assert wrong_labels(said, np.array([0, 0, 1])) == []
