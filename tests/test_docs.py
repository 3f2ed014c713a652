"""What README and docs say can be typed is true: commands parse, Python blocks run, links lead somewhere.

A block that needs more than the tests have (a network, a cluster, a file of one's own) has a line
`<!-- needs: what -->` before it; its own commands are parsed all the same.
"""
import argparse
import re
import shlex
import sys
from itertools import takewhile
from pathlib import Path
from types import SimpleNamespace

import pytest

import train_smalldata
from timm_smalldata import __main__ as cli
from timm_smalldata.config.flags import BY_DEST
from timm_smalldata.config.parser import parse_flags
from timm_smalldata.config.recipe import recipe_names
from timm_smalldata.loss import LOSS_NAMES

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / 'README.md', *sorted((ROOT / 'docs').rglob('*.md'))]
OURS = 'https://github.com/timm-smalldata/timm-smalldata/blob/main/'
RAW = 'https://raw.githubusercontent.com/timm-smalldata/timm-smalldata/main/'
RUN = {'README.md', 'start.md', 'report.md', 'sweeps.md', 'extend.md', 'use-in-your-own-loop.md', 'optimisers.md',
       'analysis.md', 'predict.md', 'self-supervised.md', 'upstream.md'}  # pages whose Python blocks a test below runs
SHELL = ('pip install', 'pytest', 'for ', 'done', 'python benchmarks/')  # beside our own commands


def name_of(page):
    return page.relative_to(ROOT).as_posix()


def blocks_of(page, kind):
    """Return the blocks of one kind ('': without a language), each with whether it is marked with what it needs."""
    found, lines, before = [], None, ''
    for line in page.read_text(encoding='utf-8').splitlines():
        if not line.startswith('```'):
            if lines is not None:
                lines.append(line)
        elif lines is None:
            lines, language, marked = [], line[3:].strip(), before.startswith('<!-- needs: ')
        else:
            if language == kind:
                found.append((marked, '\n'.join(lines)))
            lines = None
        before = line
    return found


class Parsed(Exception):
    """Raised where a verb has read its words, with those that it did not know."""


def check_command(line, monkeypatch):
    """Let the command that a line means read its words; returns whether it is one of ours."""
    words = list(takewhile(lambda word: not word.startswith('#'), shlex.split(line.replace('$seed', '0'))))
    while words and '=' in words[0]:
        words.pop(0)  # PYTHONPATH=.
    train = [k for k, word in enumerate(words) if word in ('train_smalldata.py', 'train_smalldata', 'train-smalldata')]
    if train:
        parse_flags(words[train[0] + 1:])
    elif words[:1] == ['timm-smalldata'] and words[1:] != ['--version'] and words[1:] != ['VERB', '--help']:
        real = argparse.ArgumentParser.parse_known_args

        def parse(self, args=None, namespace=None):
            raise Parsed(real(self, args, namespace)[1])
        monkeypatch.setattr(argparse.ArgumentParser, 'parse_known_args', parse)
        with pytest.raises(Parsed) as parsed:
            cli.import_module(cli.VERBS[cli.ALIASES.get(words[1], words[1])][0]).main(
                list(takewhile(lambda word: word != '--', words[2:])))
        monkeypatch.undo()
        rest = parsed.value.args[0]
        assert not rest or (words[1] == 'benchmark' and parse_flags(rest)), f'{line}: {rest}'
        if '--' in words:
            parse_flags(words[words.index('--') + 1:])
    return bool(train) or words[:1] == ['timm-smalldata']


@pytest.mark.parametrize('page', PAGES, ids=name_of)
def test_commands_parse(page, monkeypatch):
    for marked, block in blocks_of(page, 'bash'):
        for line in re.sub(r'\\\n', ' ', block).strip().splitlines():
            for command in filter(None, (c.strip() for c in line.split('&&'))):
                ours = check_command(command, monkeypatch) if not command.startswith('#') else True
                assert ours or marked or command.startswith(SHELL), f'{page.name}: {command} needs a mark'
    for _, block in blocks_of(page, ''):  # beside commands these hold what was printed
        for line in re.sub(r'\\\n', ' ', block).splitlines():
            if re.match(r'(timm-smalldata|train-smalldata|(python )?train_smalldata\.py) (?! )', line):
                check_command(line, monkeypatch)


def test_readme_has_the_two_commands_of_a_checkout():
    text = '\n'.join(block for _, block in blocks_of(ROOT / 'README.md', 'bash'))
    assert text.count('python train_smalldata.py') == 2 and "pip install -e '.[test]' && pytest -n 2" in text


def test_every_python_block_is_run_or_marked():
    for page in PAGES:
        if page.name not in RUN:
            assert all(marked for marked, _ in blocks_of(page, 'python')), f'{page.name} has Python that nothing runs'


@pytest.mark.parametrize('page', PAGES, ids=name_of)
def test_flags_and_links_exist(page):
    text = page.read_text()
    known = {f'--{flag.name}' for flag in BY_DEST.values()} | {f'--no-{flag.name}' for flag in BY_DEST.values()}
    other = {'--vary', '--arms', '--transfer', '--train', '--reach', '--seeds', '--baseline', '--jobs', '--data-dir',
             '--nproc-per-node',
             '--help', '--help-all', '--version', '--finetune', '--student', '--STAGE', '--no-NAME', '--flag',
             '--split', '--json', '--output', '--checkpoint', '--images', '--group', '--threshold', '--mass', '--html',
             '--least', '--csv', '--top-k', '--min-confidence', '--format', '--prune', '--measure', '--against-timm',
             '--sigkill', '--only', '--result', '--license', '--data-name', '--replace-card', '--allow', '--public',
             '--strict', '--nnodes', '--rdzv-backend', '--rdzv-endpoint', '--rdzv-id',  # of torchrun
             '--job-name', '--nodes', '--ntasks-per-node', '--gpus-per-node', '--time', '--requeue',  # of SLURM
             '--probe-scale', '--probe-epochs', '--probe-batch-size', '--multi-scale', '--crop-queries',
             '--deep', '--folds', '--runs', '--of', '--timm', '--examples'}
    body = text.split('## Flags of timm that are left out')[0]  # that table names flags we do not have
    for word in set(re.findall(r'(?<![\w-])--[a-zA-Z][\w-]*', body)):
        assert word in known | other, f'{page.name} speaks of {word}'
    for target in re.findall(r'\]\((?!http)([^)#]+)', text):
        assert (page.parent / target).exists(), f'{page.name} links to {target}'
        assert page.name != 'README.md', 'a package index shows the README: its links are whole'
    for target in re.findall(rf'(?:{OURS}|{RAW})([^)#\s]+)', text):
        assert (ROOT / target).exists(), f'{page.name} links to {target}'


def test_the_site_has_every_page():
    nav = (ROOT / 'mkdocs.yml').read_text(encoding='utf-8')
    assert set(re.findall(r'[\w/-]+\.md$', nav, re.M)) == {
        page.relative_to(ROOT / 'docs').as_posix() for page in PAGES if page.name != 'README.md'}


def test_the_python_of_the_first_pages_runs(photo_folder, run):
    photo_folder('photos')
    assert run([Path('photos').resolve(), '--output', 'output', '--experiment', 'RUN'])[0] == 0
    Path('output/birds').symlink_to('RUN')
    names = {}
    for page in (ROOT / 'README.md', ROOT / 'docs/start.md', ROOT / 'docs/report.md'):
        for _, block in blocks_of(page, 'python'):
            exec(block, names)
    assert names['names'] == ['ant', 'bee', 'cat'] and names['model'].num_classes == 3
    assert names['report']['intervals']['balanced_top1']


def test_the_sweeps_run(photo_folder, monkeypatch, capsys):
    monkeypatch.chdir(photo_folder('photos').parent)
    tiny = ['--model', 'test_vit', '--img-size', '32', '--epochs', '1', '--batch-size', '4', '--device', 'cpu']
    real, calls = train_smalldata.main, []

    def main(words):
        calls.append(words)
        return real([*tiny, *words])

    class Tuner:
        def __init__(self, trial, param_space, tune_config):
            self.config = {key: low for key, (low, high) in param_space.items()}
            self.result = trial(self.config)

        def fit(self):
            return SimpleNamespace(get_best_result=lambda: SimpleNamespace(config=self.config))

    class AutoExecutor(SimpleNamespace):
        def update_parameters(self, **parameters):
            assert parameters

        def map_array(self, function, lists):
            return [SimpleNamespace(result=lambda code=function(lists[k]): code) for k in (0, -1)]  # first and last

    monkeypatch.setattr(train_smalldata, 'main', main)
    tune = SimpleNamespace(Tuner=Tuner, loguniform=lambda low, high: (low, high), TuneConfig=dict)
    monkeypatch.setitem(sys.modules, 'ray', SimpleNamespace(tune=tune))
    monkeypatch.setitem(sys.modules, 'submitit', SimpleNamespace(AutoExecutor=AutoExecutor))
    for _, block in blocks_of(ROOT / 'docs/sweeps.md', 'python'):
        names = {}
        exec(block, names)
    assert len(calls) == 3 and Path('output/ce-0/report.json').exists()
    assert [job.result() for job in names['jobs']] == [0, 0]


def test_the_loss_of_the_extending_page_is_a_loss(monkeypatch):
    import torch

    from timm_smalldata.loss import LOSSES, create_loss
    monkeypatch.setitem(LOSSES, 'rare-first', None)  # so that it goes again
    (_, block), = blocks_of(ROOT / 'docs/extend.md', 'python')
    exec(block, {'__name__': 'my_loss'})
    loss = create_loss('rare-first', [90, 10])
    common, rare = (loss(torch.zeros(1, 2), torch.tensor([k])).item() for k in (0, 1))
    assert rare == pytest.approx(3 * common)


def test_the_python_of_the_page_without_labels_runs():
    names = {}
    for _, block in blocks_of(ROOT / 'docs/self-supervised.md', 'python'):
        exec(block, names)
    assert names['loss'].ndim == 0 and len(names['views']) == 10


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


def test_the_lines_for_timms_script_run(photo_folder, tmp_path, monkeypatch):
    """The page's lines between what timm's train.py makes: its loader, loss, task, optimizer, and an update."""
    import timm
    import torch
    from timm.data import create_dataset, create_loader
    from timm.optim import create_optimizer_v2
    photo_folder('photos', {'ant': 12, 'bee': 4})
    monkeypatch.chdir(tmp_path)
    device, dataset = torch.device('cpu'), create_dataset('', root='photos')
    names = dict(
        args=SimpleNamespace(seed=0, img_size=32, smoothing=0.1, epochs=2), device=device, dataset_train=dataset,
        epoch=1, loader_train=create_loader(
            dataset, (3, 32, 32), 4, is_training=True, num_workers=0, persistent_workers=False, device=device),
        model=timm.create_model('test_vit', num_classes=2, img_size=32, drop_path_rate=0.1))
    names['optimizer'] = create_optimizer_v2(names['model'], 'adamw', lr=1e-3)
    block, = re.findall(r'```python\n(.*?)```', (ROOT / 'docs' / 'upstream.md').read_text(), re.S)
    before, update = block.split('# an update with SAM')
    exec(before, names)
    names['input'], names['target'] = next(iter(names['loader_train']))
    assert names['input'].shape == (4, 3, 32, 32)
    weights = names['model'].head.weight.clone()
    exec('#' + update, names)
    assert names['loss'].item() > 0 and not torch.equal(weights, names['model'].head.weight)
    assert 'balanced_top1' in names['task'].create_evaluator().metric_names
    assert names['train_loss_fn'].class_weight is not None  # they begin in the middle of the run


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
