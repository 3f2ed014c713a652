"""A flipped bit in exported weights is one line wherever they are opened; older exports have no checksum."""
import json

import pytest
import timm

from timm_smalldata.build.predict import load
from timm_smalldata.build.trained import load_teacher
from timm_smalldata.build.weights import open_weights
from timm_smalldata.data.classes import ClassInfo
from timm_smalldata.errors import UserError
from timm_smalldata.hub.export import export_model


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / 'model'
    export_model(timm.create_model('test_vit', num_classes=2), folder, classes=ClassInfo(['ant', 'bee'], [1, 1]),
                 data_config=dict(input_size=(3, 160, 160), mean=(.5,) * 3, std=(.5,) * 3, crop_pct=1.0,
                                  interpolation='bicubic'))
    return folder


def test_a_flipped_bit(model):
    assert load(model).names == ['ant', 'bee'] and open_weights(model).read()
    weights = bytearray((model / 'model.safetensors').read_bytes())
    weights[-5] ^= 4
    (model / 'model.safetensors').write_bytes(weights)
    for opened in (lambda: load(model), lambda: load(f'local-dir:{model}'), lambda: open_weights(model),
                   lambda: load_teacher(str(model), None, 2)):
        with pytest.raises(UserError, match='model.safetensors is damaged or was replaced'):
            opened()
    config = json.loads((model / 'config.json').read_text())
    del config['timm_smalldata']['weights_sha256']
    (model / 'config.json').write_text(json.dumps(config))
    assert load(model).names == ['ant', 'bee']
