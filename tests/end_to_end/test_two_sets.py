"""A recipe that trains on one folder and fine-tunes on another: what goes over, and what is new."""
import json
from pathlib import Path

import pytest
from safetensors.torch import load_file

STILL = ['--finetune.opt', 'sgd', '--finetune.lr', '1e-12', '--finetune.warmup-lr', '0', '--finetune.min-lr', '0']
SMALL = ['--recipe', 'deit3-src', '--scale', 'sample', '--model', 'test_vit', '--model-kwargs', 'init_values=1e-4',
         '--batch-size', '4', '--train.epochs', '1', '--finetune.epochs', '1', '--img-size', '32']


@pytest.mark.parametrize('same', [False, True])
def test_two_folders(run, photo_folder, same):
    photo_folder('first', {'ant': 8, 'bee': 6, 'cat': 4, 'dog': 4})
    photo_folder('second', {'ant': 8, 'bee': 6, 'cat': 4, 'dog': 4} if same else {'hen': 9, 'owl': 7})
    code, _, err = run([*SMALL, '--train.data-dir', 'first', '--finetune.data-dir', 'second', *STILL])
    assert code == 0, err
    stages = [Path('runs/e') / name for name in ('1-train', '2-finetune')]
    reports = [json.loads((stage / 'report.json').read_text()) for stage in stages]
    assert reports[0]['data_hash'] != reports[1]['data_hash'] or same
    names = [json.loads((stage / 'model/config.json').read_text())['label_names'] for stage in stages]
    assert names == [['ant', 'bee', 'cat', 'dog'], ['ant', 'bee', 'cat', 'dog'] if same else ['hen', 'owl']]
    first, second = (load_file(stage / 'model/model.safetensors') for stage in stages)
    for key in ('patch_embed.proj.weight', 'blocks.0.attn.qkv.weight', 'cls_token', 'head.weight'):
        equal = first[key].shape == second[key].shape and (first[key] - second[key]).abs().max() < 1e-6
        assert equal == (same or key != 'head.weight'), key


def test_a_folder_of_one_stage_alone_is_not_enough(run, photo_folder):
    """The other stage would train on the embedded sample; that has to be said by a name."""
    photo_folder('second')
    code, _, err = run([*SMALL, '--finetune.data-dir', 'second'])
    assert code == 2 and 'stage train has no images' in err.splitlines()[-1]
