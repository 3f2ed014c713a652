"""Class names, their order and counts: one object, checked by name."""
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from timm.data import create_dataset

from timm_smalldata.data.classes import ClassInfo, check_same_classes, class_counts
from timm_smalldata.errors import UserError


def test_class_info_survives_a_checkpoint():
    info = ClassInfo(['b', 'a', 'ü'], [3, 0, 12], 'ab' * 32)
    assert ClassInfo.from_dict(info.to_dict()) == info and len(info) == 3
    assert ClassInfo.from_dict({'names': ('a',), 'counts': (np.int64(4),)}) == ClassInfo(['a'], [4], '')


@pytest.mark.parametrize('dataset', [
    SimpleNamespace(targets=[0, 2, 2]),
    SimpleNamespace(targets=torch.tensor([0, 2, 2])),
    SimpleNamespace(labels=np.array([0, 2, 2], dtype=np.int32)),
    SimpleNamespace(reader=SimpleNamespace(samples=[('x', 0), ('y', 2), ('z', 2)])),
])
def test_class_counts(dataset):
    assert class_counts(dataset).tolist() == [1, 0, 2]
    assert class_counts(dataset, 5).tolist() == [1, 0, 2, 0, 0]
    assert class_counts(dataset).dtype == np.int64


def test_class_counts_without_labels_is_an_error():
    with pytest.raises(ValueError, match='SimpleNamespace has no targets'):
        class_counts(SimpleNamespace(images=[1]))


def test_class_counts_of_timm_data_opens_no_file(photos):
    """timm's ImageDataset has its labels in reader.samples; files that are no images show that none was opened."""
    for path in photos.rglob('*.*'):
        path.write_bytes(b'no image')
    assert class_counts(create_dataset('', root=str(photos), split='train')).tolist() == [12, 8, 6]


def test_unknown_classes_are_shown_with_both_lists():
    check_same_classes(['a', 'b'], ['b'], 'the val split')
    with pytest.raises(UserError) as error:
        check_same_classes(['a', 'b'], ['b', 'dog'], 'the val split')
    text = str(error.value)
    assert 'dog not in the class list' in text and 'Class list (2): a, b' in text and '(2): b, dog' in text


def test_long_lists_are_cut():
    with pytest.raises(UserError) as error:
        check_same_classes([f'c{i}' for i in range(500)], ['dog'], 'the test split')
    assert '(470 more)' in str(error.value) and len(str(error.value)) < 600
