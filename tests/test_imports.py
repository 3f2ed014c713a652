"""Each subpackage stands alone, and imports go one way."""
import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / 'timm_smalldata'


@pytest.mark.parametrize('group', [
    ('loss', 'evaluation', 'analysis', 'rng', 'errors'), ('data', 'data.samples', 'models', 'flags', 'args'),
    ('task', 'engine', 'hub', 'optim')])
def test_subpackages_import_alone(group):
    """In fresh interpreters (a few modules share one, each first dropped from sys.modules)."""
    code = '\n'.join(
        f'import sys, importlib\n'
        f'for m in [m for m in sys.modules if m.startswith("timm_smalldata")]: del sys.modules[m]\n'
        f'importlib.import_module("timm_smalldata.{name}")' for name in group)
    code += '\nassert not {"matplotlib", "sklearn", "pandas", "datasets", "wandb"} & set(sys.modules)'
    done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def _imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            yield node.level, node.module or ''


@pytest.mark.parametrize('folder', ['loss', 'evaluation', 'analysis', 'optim'])
def test_functions_on_tensors_import_nothing_from_above(folder):
    for path in (PACKAGE / folder).glob('*.py'):
        if path.name == '__main__.py':
            continue
        above = {module for level, module in _imports(path) if level > 1}
        assert above <= {'errors'}, f'{path.name} imports {above}'


def test_lower_rooms_do_not_import_the_script_or_the_plan():
    for folder in ('data', 'task', 'models'):
        for path in (PACKAGE / folder).rglob('*.py'):
            top = ('plan', 'engine', 'args', 'backbone', 'build', 'prepare')
            above = {module for level, module in _imports(path) if module in top}
            assert not above, f'{path} imports {above}'


def test_version_and_lazy_names():
    import timm_smalldata
    assert timm_smalldata.__version__
    assert timm_smalldata.create_loss('balanced-bce', [3, 1]) is not None
    with pytest.raises(AttributeError):
        timm_smalldata.nothing  # noqa: B018
