"""A teacher's classes are matched by name; a size that it cannot take is told."""
import pytest
import timm

from timm_smalldata.errors import UserError
from timm_smalldata.task.teacher import check_size, match_classes

NAMES = ['bee', 'ant']


def test_classes_are_matched_by_name():
    assert match_classes(NAMES, 2, ['ant', 'bee'], 'x') == [1, 0]
    assert match_classes(NAMES, 2, NAMES, 'x') is None and match_classes(None, 2, NAMES, 'x') is None
    for names in (['bee', 'cat'], ['bee'], ['ant', 'bee', 'cat']):
        with pytest.raises(UserError, match=f'(?=.*{", ".join(names)})(?=.*ant, bee)'):
            match_classes(names, len(names), ['ant', 'bee'], 'x')
    with pytest.raises(UserError, match='1000 outputs.*2 classes: bee, ant'):
        match_classes(None, 1000, NAMES, 'x')


def test_a_size_that_it_cannot_take():
    model = timm.create_model('test_vit', num_classes=2, img_size=32)
    check_size(model, (32, 32), 2, 'x')
    with pytest.raises(UserError, match='--teacher x cannot take RGB images of 24 x 24 pixels'):
        check_size(model, (24, 24), 2, 'x')
    with pytest.raises(UserError, match='not .1, 3. logits'):
        check_size(model, (32, 32), 3, 'x')
