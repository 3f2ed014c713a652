"""The words of a model card; that it says what was measured is tested where a run is pushed (test_hub.py)."""
import pytest

from timm_smalldata.data.classes import ClassInfo
from timm_smalldata.errors import UserError
from timm_smalldata.hub.card import model_card


def test_card_without_results_and_with_odd_classes():
    classes = ClassInfo(['a | b', 'c'], [3, 0])
    text = model_card(classes, None, 'vit_tiny_patch16_224', 'me/x', headless=True)['description']
    assert 'No accuracy was recorded.' in text and 'a \\| b (3) | c (0) | – |' in text
    assert text.startswith('A feature extractor') and 'softmax' not in text
    assert 'no class labels' in model_card(ClassInfo([], []), None, 'vit_tiny_patch16_224', 'me/x')['description']
    with pytest.raises(UserError, match='no licence identifier'):
        model_card(classes, None, 'vit_tiny_patch16_224', 'me/x', license='mit\ntags: x')
