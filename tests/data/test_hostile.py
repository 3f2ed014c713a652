"""Whatever hypothesis writes into a file, its parser reads it or refuses it in one line; what it found stays mended."""
import json
import sys
from argparse import Namespace
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / 'helpers'))
pytest.importorskip('hypothesis')
import fuzz  # noqa: E402

from timm_smalldata.build.eval_images import training_counts  # noqa: E402
from timm_smalldata.build.trained import TrainedModel  # noqa: E402
from timm_smalldata.config.yaml_file import load_config  # noqa: E402
from timm_smalldata.errors import UserError  # noqa: E402
from timm_smalldata.utils.model_folder import is_complete  # noqa: E402

PARSERS = fuzz.create_parsers()
CALM = ('starts', 'choice')  # what is damaged there is passed over
MENDED = ('cache index', 'cache pixels')  # and this is made again


@pytest.mark.parametrize('name', PARSERS)
def test_read_or_refused_in_a_line(name):
    count = fuzz.try_parser(PARSERS[name], 25)
    assert count['inputs'] >= 25 and (count['refused'] > 0) == (name not in CALM + MENDED)


@pytest.mark.parametrize('content', [b'null', b'3', b'[]', b'[' * 3000])
def test_a_config_that_is_no_dictionary(tmp_path, content):
    for name, good in fuzz.good_model().items():
        (tmp_path / name).write_bytes(good)
    assert is_complete(tmp_path)
    (tmp_path / 'config.json').write_bytes(content)
    assert not is_complete(tmp_path)


@pytest.mark.parametrize('part', ['args', 'classes', 'history', 'best'])
def test_a_checkpoint_whose_parts_are_something_else(tmp_path, part):
    state = {**fuzz.good_checkpoint(), part: 3}
    with pytest.raises(UserError, match='was not written by this program'):
        fuzz.read_checkpoint(tmp_path, fuzz.saved(state))
    fuzz.read_checkpoint(tmp_path, fuzz.saved({**state, part: fuzz.good_checkpoint()[part]}))
    assert torch.load(tmp_path / 'e' / 'last.pth.tar', weights_only=False)['epoch'] == 0


@pytest.mark.parametrize('told', [3, [1, 'ant'], {'ant': 1, 'bee': 2}, [None, None], 'ab'])
def test_class_names_that_are_no_names(tmp_path, told):
    (tmp_path / 'f.json').write_text(json.dumps(dict(pos_counts=[3, 4], num_samples=7, class_names=told)))
    with pytest.raises(UserError, match='class_names is no list of names'):
        training_counts(Namespace(class_stats=str(tmp_path / 'f.json')), TrainedModel(None, {}), ['ant', 'bee'], [])


def test_a_number_beyond_floats(tmp_path):
    (tmp_path / 'f.yaml').write_text(f'lr: 1{"0" * 400}\n')
    with pytest.raises(UserError, match='lr is too large a number'):
        load_config(str(tmp_path / 'f.yaml'))
