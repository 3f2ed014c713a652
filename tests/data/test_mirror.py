"""Mirror images: refused where left and right matter, taken where they do not, or where nothing can be told."""
import numpy as np
import pytest

from timm_smalldata.data.mirror import edges, mirror_classes, mirror_images_fit
from timm_smalldata.data.samples import sample_source
from timm_smalldata.data.source import ArraySource


def source(images, targets):
    return ArraySource([np.stack([image] * 3, -1) for image in images], targets, sorted({str(t) for t in targets}))


def drawn(mirrored: bool, count=120):
    """Two classes of slanted lines, left or right; `mirrored`: one that is flat and one that is upright instead."""
    rng, images, targets = np.random.RandomState(0), [], []
    for number in range(count):
        label = number % 2
        y, x = np.mgrid[:32, :32] + rng.randint(0, 8, 2)[:, None, None]
        phase = (y if label else x) if mirrored else (x + y if label else x - y)
        images.append(((phase // 4 % 2) * 200 + rng.randint(0, 50, (32, 32))).astype(np.uint8))
        targets.append(label)
    return source(images, targets)


def test_left_and_right_matter():
    fits, plain, mirrored = mirror_images_fit(drawn(False))
    assert not fits and plain > 0.95 and mirrored < 0.2
    assert not mirror_images_fit(sample_source('digits', 'train'))[0]


def test_left_and_right_do_not_matter():
    fits, plain, mirrored = mirror_images_fit(drawn(True))
    assert fits and plain > 0.95 and mirrored > 0.95


def test_where_nothing_can_be_told_mirror_images_are_taken():
    rng = np.random.RandomState(0)
    noise = source([rng.randint(0, 256, (32, 32)).astype(np.uint8) for _ in range(60)], [i % 3 for i in range(60)])
    assert mirror_images_fit(noise)[0]
    assert mirror_images_fit(source([np.zeros((1, 1), np.uint8)] * 2, [0, 1]))[0]


def test_edges_of_a_mirror_image_are_mirrored():
    grey = np.random.RandomState(0).rand(3, 32, 32).astype(np.float32)
    upright = edges(grey).reshape(3, 4, 4, 9)
    mirrored = edges(grey[:, :, ::-1]).reshape(3, 4, 4, 9)[:, :, ::-1]
    np.testing.assert_allclose(mirrored[..., 8], upright[..., 8], atol=1e-6)  # brightness
    np.testing.assert_allclose(mirrored[..., :8].sum(-1), upright[..., :8].sum(-1), atol=1e-5)  # all directions


def figures(count, seed=0):
    """Four classes of lines: falling and rising (mirror images of each other), flat and upright (of themselves)."""
    rng, images, targets = np.random.RandomState(seed), [], []
    for number in range(count):
        y, x = np.mgrid[:32, :32] + rng.randint(0, 8, 2)[:, None, None]
        phase = (x - y, x + y, y, x)[number % 4]
        images.append(((phase // 4 % 2) * 200 + rng.randint(0, 50, (32, 32))).astype(np.uint8))
        targets.append(number % 4)
    return source(images, targets)


HALF = [[10, 10, 0, 0], [10, 10, 0, 0], [0, 0, 10, 10], [0, 0, 10, 10]]


def test_classes_that_are_mirror_images_are_found_where_they_are_confused():
    assert mirror_classes(np.array(HALF), figures(80), figures(80, 1)) == [(0, 1, 20, 40)]  # flat and upright are not
    one_way = np.array([[20, 0, 0, 0], [20, 0, 0, 0], [0, 0, 20, 0], [0, 0, 0, 20]])  # the larger class takes all
    assert mirror_classes(one_way, figures(80), figures(80, 1)) == [(0, 1, 20, 40)]


@pytest.mark.parametrize('confusion, teach, ask', [
    (np.eye(4, dtype=int) * 20, 80, 80),  # nothing is confused
    (np.full((4, 4), 5), 80, 80),  # no more than with other classes
    (np.array(HALF), 12, 80), (np.array(HALF), 80, 32)])  # too few images
def test_nothing_is_told_without_reason(confusion, teach, ask):
    assert mirror_classes(confusion, figures(teach), figures(ask, 1)) == []
