"""How a command was called, and the words to call it or another one again."""
import pytest

from timm_smalldata.utils.command import as_typed, command

TORCHRUN = {'WORLD_SIZE': '4', 'LOCAL_WORLD_SIZE': '4', 'GROUP_WORLD_SIZE': '1', 'MASTER_ADDR': 'localhost'}


@pytest.mark.parametrize('program, module, train, push', [
    ('/env/bin/train-smalldata', '', 'train-smalldata', 'timm-smalldata push'),
    ('C:/env/train-smalldata.exe', '', 'train-smalldata', 'timm-smalldata push'),
    ('/env/bin/timm-smalldata', '', 'timm-smalldata train', 'timm-smalldata push'),
    ('train_smalldata.py', '', 'python train_smalldata.py', 'python -m timm_smalldata push'),
    ('../here/train_smalldata.py', '', 'python ../here/train_smalldata.py', 'python -m timm_smalldata push'),
    ('/site/train_smalldata.py', 'train_smalldata', 'python -m train_smalldata', 'python -m timm_smalldata push'),
    ('/site/timm_smalldata/__main__.py', 'timm_smalldata.__main__', 'python -m timm_smalldata train',
     'python -m timm_smalldata push'),
    ('/site/another/__main__.py', '', 'python train_smalldata.py', 'timm-smalldata push'),
    ('/usr/bin/pytest', '', 'python train_smalldata.py', 'timm-smalldata push')])
def test_words_of_a_call(program, module, train, push):
    assert ' '.join(command('train', program, module, {})) == train
    assert ' '.join(command('push', program, module, {})) == push


@pytest.mark.parametrize('program, module, words', [
    ('train_smalldata.py', '', 'train_smalldata.py'),
    ('/site/train_smalldata.py', 'train_smalldata', '-m train_smalldata'),
    ('/site/timm_smalldata/__main__.py', 'timm_smalldata.__main__', '-m timm_smalldata train'),
    ('/env/bin/train-smalldata', '', '-m train_smalldata')])
def test_under_torchrun(program, module, words):
    assert ' '.join(command('train', program, module, TORCHRUN)) == f'torchrun --nproc-per-node 4 {words}'
    nodes = {**TORCHRUN, 'WORLD_SIZE': '8', 'GROUP_WORLD_SIZE': '2', 'MASTER_ADDR': 'node-a'}
    assert ' '.join(command('train', program, module, nodes)) == (
        f'torchrun --nproc-per-node 4 --nnodes 2 --rdzv-backend c10d --rdzv-endpoint node-a:29500 {words}')
    assert command('push', program, module, TORCHRUN)[0] != 'torchrun'  # one process sends


def test_texts_speak_the_same_words(monkeypatch):
    monkeypatch.setattr('sys.argv', ['train_smalldata.py'])
    assert as_typed('see timm-smalldata eval RUN; timm-smalldata is') == (
        'see python -m timm_smalldata eval RUN; timm-smalldata is')
