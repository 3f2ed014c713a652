"""Sources and their wrappers: labels without decoding, and never another image in place of a bad one."""
import io

import numpy as np
import pytest
from PIL import Image

from timm_smalldata.data.classes import class_counts
from timm_smalldata.data.source import ArraySource, ImageSource, Joined, Relabelled, Subset


class Encoded(ImageSource):
    """Images as encoded bytes; counts how often one is looked at."""

    def __init__(self, encoded, targets, classes):
        self.encoded, self.targets, self.classes = encoded, np.array(targets, dtype=np.int64), classes
        self.names = [f'x{i}' for i in range(len(targets))]
        self.looks = 0

    def raw(self, index):
        self.looks += 1
        return self.encoded[index]


def png(value, mode='RGB'):
    stream = io.BytesIO()
    Image.new(mode, (4, 3), value).save(stream, 'PNG')
    return stream.getvalue()


@pytest.fixture
def arrays():
    images = [np.full((3, 4, 3), value, dtype=np.uint8) for value in range(6)]
    return ArraySource(images, [0, 1, 2, 0, 1, 2], ['a', 'b', 'c'])


def values(source):
    """What each image holds (they are of one colour), with its label and name."""
    read = [source.read(i) for i in range(len(source))]
    return [np.asarray(image)[0, 0, 0] for image, _ in read], [label for _, label in read], source.names


def test_array_source(arrays):
    assert values(arrays) == ([0, 1, 2, 3, 4, 5], [0, 1, 2, 0, 1, 2], [f'{i:06d}' for i in range(6)])
    assert arrays.raw(3) == bytes([3] * 36)
    assert arrays.targets.dtype == np.int64


def test_subset_keeps_the_given_order(arrays):
    subset = Subset(arrays, [4, 0, 4])
    assert values(subset) == ([4, 0, 4], [1, 0, 1], ['000004', '000000', '000004'])
    assert subset.targets.tolist() == [1, 0, 1] and subset.raw(1) == arrays.raw(0)
    assert values(Subset(subset, [1])) == ([0], [0], ['000000'])


def test_an_empty_subset_has_no_images(arrays):
    assert len(Subset(arrays, [])) == 0


def test_relabelled_changes_labels_only(arrays):
    relabelled = Relabelled(arrays, ['z', 'c', 'a', 'b'], [2, 3, 1])
    assert values(relabelled)[:2] == ([0, 1, 2, 3, 4, 5], [2, 3, 1, 2, 3, 1])
    assert relabelled.targets.tolist() == [2, 3, 1, 2, 3, 1]
    assert relabelled.classes == ['z', 'c', 'a', 'b'] and relabelled.raw(5) == arrays.raw(5)


def test_joined_is_one_after_the_other(arrays):
    joined = Joined([Subset(arrays, [5]), Subset(arrays, [0, 1]), arrays])
    assert values(joined)[0] == [5, 0, 1, 0, 1, 2, 3, 4, 5]
    assert values(joined)[1] == joined.targets.tolist() == [2, 0, 1, 0, 1, 2, 0, 1, 2]
    assert [joined.raw(i)[0] for i in range(9)] == [5, 0, 1, 0, 1, 2, 3, 4, 5]


def test_read_gives_rgb_whatever_the_file_holds():
    source = Encoded([png(7, 'L'), png((1, 2, 3, 4), 'RGBA'), png(1, 'P')], [0, 1, 1], ['a', 'b'])
    assert {source.read(i)[0].mode for i in range(3)} == {'RGB'}


def test_a_bad_image_raises_and_no_other_one_takes_its_place():
    good = png((9, 9, 9))
    source = Encoded([good, good[:len(good) // 2], b''], [0, 1, 1], ['a', 'b'])
    wrapped = Joined([Subset(Relabelled(source, ['b', 'a'], [1, 0]), [1, 2, 0])])
    for index in (0, 1):
        with pytest.raises(OSError):
            wrapped.read(index)
    assert wrapped.read(2)[1] == 1


def test_labels_and_counts_decode_nothing():
    source = Encoded([b''] * 4, [0, 2, 2, 0], ['a', 'b', 'c'])  # no byte of it could be decoded
    wrapped = Joined([Subset(Relabelled(source, ['c', 'b', 'a'], [2, 1, 0]), [0, 1, 2]), source])
    assert len(wrapped) == 7 and wrapped.targets.tolist() == [2, 0, 0, 0, 2, 2, 0]
    assert class_counts(wrapped, 3).tolist() == [4, 0, 3]
    assert source.looks == 0
