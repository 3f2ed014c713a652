"""Each part stands alone, and imports go one way."""
import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / 'timm_smalldata'
# The house from top to bottom: each tier may import those below it, and no part of its own tier.
ORDER = [
    {'cli', 'run'},
    {'build', 'engine', 'report', 'hub'},
    {'config'},
    {'task'},
    {'data'},
    {'loss', 'models', 'optim', 'evaluation', 'analysis'},
    {'utils'},
    {'errors', '_compat', 'version'},
]
ALLOWED = {('build', 'engine'), ('cli', 'run')}  # within a tier
TIER = {part: number for number, tier in enumerate(ORDER) for part in tier}


def imported(source: str, module: str, is_package: bool = False):
    """Yield the dotted names that a module imports: relative, absolute, and `from .. import x` alike."""
    package = module.split('.') if is_package else module.split('.')[:-1]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[:len(package) - node.level + 1] if node.level else []
            names = [*base, *(node.module.split('.') if node.module else [])]
            yield from ('.'.join([*names, alias.name]) for alias in node.names)


def part_of(name: str):
    """Return the part of the package that a dotted name belongs to; None for other packages."""
    words = name.split('.')
    return words[1] if words[0] == 'timm_smalldata' and len(words) > 1 and words[1] in TIER else None


@pytest.mark.parametrize('source, found', [
    ('from ..config import flags', 'config'), ('from .. import config', 'config'),
    ('import timm_smalldata.config.flags', 'config'), ('from timm_smalldata import config', 'config'),
    ('from timm_smalldata.config.flags import FLAGS', 'config'),
    ('def f():\n    from ..config.flags import x', 'config')])
def test_every_way_of_importing_is_seen(source, found):
    assert [part_of(name) for name in imported(source, 'timm_smalldata.loss.focal')] == [found]


def test_imports_go_one_way():
    wrong = []
    for path in sorted(PACKAGE.rglob('*.py')):
        module = '.'.join(path.relative_to(ROOT).with_suffix('').parts).removesuffix('.__init__')
        part = part_of(module)
        for name in imported(path.read_text(), module, path.name == '__init__.py') if part else ():
            other = part_of(name)
            if other is None or other == part or (part, other) in ALLOWED:
                continue
            if TIER[other] <= TIER[part]:
                wrong.append(f'{path.relative_to(ROOT)} imports {name}')
    assert not wrong, '\n'.join(wrong)


def test_the_order_names_every_part():
    there = {path.stem for path in PACKAGE.iterdir() if path.suffix == '.py' or (path / '__init__.py').exists()}
    assert there - {'__init__', '__main__'} == set(TIER)


def test_every_folder_says_what_lives_there():
    for path in PACKAGE.rglob('__init__.py'):
        assert ast.get_docstring(ast.parse(path.read_text())), path


def test_subpackages_import_alone():
    """Each with nothing of the package imported before it; in one interpreter, since torch takes seconds to come."""
    names = (
        'loss', 'evaluation', 'analysis', 'errors', 'utils.random', 'utils.files', 'utils.console', 'data',
        'data.samples', 'models', 'config.flags', 'config.parser', 'config.plan', 'task', 'engine.train', 'hub.export',
        'hub.push', 'optim', 'report.table', 'report.comparison', 'build.prepare', 'build.trained', 'run.stage',
        'cli.eval', 'cli.experiment')
    code = '\n'.join(
        f'import sys, importlib\n'
        f'for m in [m for m in sys.modules if m.startswith("timm_smalldata")]: del sys.modules[m]\n'
        f'importlib.import_module("timm_smalldata.{name}")' for name in names)
    code += '\nassert not {"matplotlib", "sklearn", "pandas", "datasets", "wandb"} & set(sys.modules)'
    done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_version_and_lazy_names():
    import timm_smalldata
    assert timm_smalldata.__version__
    assert timm_smalldata.create_loss('balanced-bce', [3, 1]) is not None
    with pytest.raises(AttributeError):
        timm_smalldata.nothing  # noqa: B018
