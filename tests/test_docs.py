"""What README and docs say can be typed is true: commands parse, Python blocks run, links lead somewhere."""
import re
import shlex
from pathlib import Path
from types import SimpleNamespace

import pytest

from timm_smalldata.config.flags import BY_DEST
from timm_smalldata.config.parser import parse_flags
from timm_smalldata.config.recipe import recipe_names
from timm_smalldata.loss import LOSS_NAMES

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / 'README.md', *sorted((ROOT / 'docs').glob('*.md'))]


def test_commands_of_the_readme_parse():
    commands = [c for block in re.findall(r'```bash\n(.*?)```', (ROOT / 'README.md').read_text(), re.S)
                for line in block.strip().splitlines() for c in line.split('&&') if 'train_smalldata.py' in c]
    assert len(commands) >= 2
    for command in commands:
        parse_flags(shlex.split(command)[2:])


@pytest.mark.parametrize('page', PAGES, ids=lambda p: p.name)
def test_flags_and_links_exist(page):
    text = page.read_text()
    known = {f'--{flag.name}' for flag in BY_DEST.values()} | {f'--no-{flag.name}' for flag in BY_DEST.values()}
    other = {'--vary', '--arms', '--reach', '--seeds', '--baseline', '--jobs', '--data-dir', '--nproc-per-node',
             '--help', '--help-all', '--version', '--finetune', '--student', '--STAGE', '--no-NAME', '--flag',
             '--split', '--json', '--output', '--checkpoint', '--images', '--group', '--threshold', '--mass', '--html',
             '--least', '--csv', '--top-k', '--min-confidence', '--format', '--prune', '--measure', '--against-timm',
             '--sigkill', '--only', '--result', '--license', '--data-name', '--replace-card', '--allow', '--public'}
    body = text.split('## Flags of timm that are left out')[0]  # that table names flags we do not have
    for word in set(re.findall(r'(?<![\w-])--[a-zA-Z][\w-]*', body)):
        assert word in known | other, f'{page.name} speaks of {word}'
    for target in re.findall(r'\]\((?!http)([^)#]+)', text):
        assert (page.parent / target).exists(), f'{page.name} links to {target}'


def test_python_of_the_readme_runs():
    block = next(b for b in re.findall(r'```python\n(.*?)```', (ROOT / 'README.md').read_text(), re.S)
                 if 'create_loss' in b)
    names = dict(dataset=SimpleNamespace(targets=[0, 0, 1, 2]))
    exec(block, names)
    import torch
    assert names['criterion'](torch.zeros(2, 3), torch.tensor([0, 2])).ndim == 0
    from PIL import Image
    assert names['transform'](Image.new('RGB', (300, 250))).shape == (3, 224, 224)


def test_every_loss_and_recipe_has_its_place():
    text = (ROOT / 'docs' / 'losses.md').read_text()
    assert all(f'`{name}`' in text for name in LOSS_NAMES)
    for name in recipe_names():
        first = (ROOT / 'timm_smalldata' / 'recipes' / f'{name}.yaml').read_text().splitlines()[0]
        assert first.startswith('#') and 'arXiv' in first  # a recipe opens with its source


def test_the_blocks_of_the_own_loop_page_run(photo_folder, tmp_path, monkeypatch, capsys):
    for split in ('train', 'val'):
        photo_folder(f'photos/{split}')
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r'```python\n(.*?)```', (ROOT / 'docs' / 'use-in-your-own-loop.md').read_text(), re.S)
    assert len(blocks) >= 3
    names = {}
    for block in blocks:  # one after the other, as a reader would type them
        exec(block, names)
    assert set(names['metrics']) >= {'balanced_top1', 'many', 'medium', 'few', 'ece'}
    assert not any('._' in block or 'import _' in block for block in blocks)  # no private names


def test_the_blocks_of_the_optimisers_page_run():
    blocks = re.findall(r'```python\n(.*?)```', (ROOT / 'docs' / 'optimisers.md').read_text(), re.S)
    names = {}
    for block in blocks:
        exec(block, names)
    assert len(blocks) == 2 and names['optimizer'].rho == 1.0 and names['optimizer'].param_groups[0]['lr'] == 0
    commands = re.findall(r'train_smalldata.py (.*)', (ROOT / 'docs' / 'optimisers.md').read_text())
    assert [parse_flags(shlex.split(command))[0].get('sam_rho') for command in commands] == [0.05, 0.5, None]


def test_the_python_of_the_analysis_page_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    for block in re.findall(r'```python\n(.*?)```', (ROOT / 'docs' / 'analysis.md').read_text(), re.S):
        exec(block, names)
    assert names['far'].shape == (2,) and names['mask'].shape == (4, 2, 10, 10) and names['rank'] <= 3


def test_the_python_of_the_predict_page_runs(photo_folder, run, monkeypatch, capsys):
    folder = photo_folder('new_photos', {'bird': 2})
    (folder / 'bird' / '0.png').rename(folder.parent / 'another.jpg')
    assert run([photo_folder('photos'), '--output', 'output', '--experiment', 'RUN'])[0] == 0
    block, = re.findall(r'```python\n(.*?)```', (ROOT / 'docs' / 'predict.md').read_text(), re.S)
    exec(block, {})
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == [
        str(Path('new_photos/bird/1.jpg')), 'another.jpg']
