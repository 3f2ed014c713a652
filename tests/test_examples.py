"""The examples run, and learn something, at their smallest."""
import importlib.util
import json
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / 'examples'


def load(name):
    spec = importlib.util.spec_from_file_location(f'example_{name}', EXAMPLES / f'{name}.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def tasks_as_before(monkeypatch):
    """An example that registers a task does so for its test alone."""
    from timm_smalldata.task import base
    kept = dict(base.TASKS)
    yield
    base.TASKS.clear()
    base.TASKS.update(kept)
    sys.modules.pop('own_task', None)


def test_every_example_is_tested():
    assert {path.stem for path in EXAMPLES.glob('*.py')} == {'own_loop', 'stock_timm_train', 'own_task'}


@pytest.mark.parametrize('name', ['own_loop', 'stock_timm_train'])
def test_loops(name, capsys):
    metrics = load(name).main(epochs=1)
    assert set(metrics) >= {'balanced_top1', 'many', 'medium', 'few', 'ece'}
    assert 'epoch 0: loss ' in capsys.readouterr().out


def test_own_task(tasks_as_before, capsys):
    metrics = load('own_task').main(epochs=1)
    assert metrics['top1'] > 12 and 'divergence' in capsys.readouterr().out


def test_own_task_in_the_train_command(tasks_as_before, run, monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    code, _, err = run([
        '--device-modules', 'own_task', '--task', 'r-drop', '--drop-path', '0.1', '--batch-size', '64'])
    assert code == 0, err
    assert Path('runs/e/model/model.safetensors').exists()


def test_the_notebook(tmp_path, monkeypatch, capsys):
    """All its cells run, one after the other; it is stored as nobody has run it."""
    cells = json.loads((EXAMPLES / 'start.ipynb').read_text(encoding='utf-8'))['cells']
    cells = [cell for cell in cells if cell['cell_type'] == 'code']
    assert len(cells) == 6 and not any(cell['outputs'] or cell['execution_count'] for cell in cells)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('MPLBACKEND', 'Agg')
    names = {}
    for cell in cells:
        exec(''.join(cell['source']).replace('EPOCHS = 40', 'EPOCHS = 1'), names)
    out = capsys.readouterr().out
    assert 'balanced_top1 ' in out and "['0', '1', '2'" in out
    assert len(names['predictions']) == 8 and all(found.error is None for found in names['predictions'])
