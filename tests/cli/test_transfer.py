"""The transfer matrix: what is run from what, what is kept, and its table."""
import csv
import json
from pathlib import Path

import pytest

from timm_smalldata.cli import experiment
from timm_smalldata.config.plan import plan

# Stands for the train command: makes what a run leaves, with a number that tells what it was called with.
SCRIPT = '''
import json, sys
from pathlib import Path
argv = sys.argv[1:]
get = {name: argv[argv.index(name) + 1] for name in ('--data-dir', '--seed', '--output', '--experiment')}
with open('words', 'a') as words:
    words.write(' '.join(argv) + '\\n')
names = ' '.join(argv).rpartition('--skip-stage ')[2].partition(' --')[0].split() if '--skip-stage' in argv else []
skipped = ''.join(name for name in names if name != 'high')
model = argv[argv.index('--finetune.initial-checkpoint') + 1] if not skipped else ''
if skipped == 'finetune' and get['--data-dir'] == 'dogs' and Path('fail').exists():
    print('error: no memory', file=sys.stderr)
    sys.exit(2)
what = 'pretrain' if skipped == 'finetune' else 'finetune'
place = {'finetune': '', 'pretrain': '2-high', '': '3-high'}[skipped]
if 'high' in names:
    place = '' if skipped else '2-finetune'
folder = Path(get['--output']) / get['--experiment'] / place
(folder / 'model').mkdir(parents=True)
start = Path(model).parent.name if model and Path(model).is_dir() else ''
with open('calls', 'a') as calls:
    calls.write(f"{what} on {get['--data-dir']} from {start or 'scratch'} with {get['--seed']}\\n")
value = len(start) + 10 * int(get['--seed'])
(folder / 'report.json').write_text(json.dumps(dict(
    balanced_top1=value, many=None, medium=None, few=None, top1=value, ece=1.0, split='test', epoch=0)))
'''
TRAIN = ['--', '--recipe', 'idmm', '--scale', 'cpu']


@pytest.fixture
def call(tmp_path, monkeypatch, capsys):
    """Call the command with the stand-in; results lie in tmp_path/output/transfer."""
    script = tmp_path / 'script.py'
    script.write_text(SCRIPT)
    monkeypatch.setattr(experiment, 'SCRIPT', script)
    monkeypatch.chdir(tmp_path)
    for name in ('ants', 'dogs'):
        (tmp_path / name).mkdir()

    def run(*argv):
        capsys.readouterr()
        code = experiment.main([*argv])
        return (code, *capsys.readouterr())

    return run


def test_each_on_each(call):
    code, out, err = call('--transfer', 'ants', 'dogs', *TRAIN)
    assert code == 0, err
    calls = Path('calls').read_text().splitlines()
    assert calls[:2] == [f'pretrain on {name} from scratch with 0' for name in ('ants', 'dogs')]  # once each
    assert sorted(calls[2:]) == sorted(
        f'finetune on {target} from {source} with 0' for target in ('ants', 'dogs')
        for source in ('scratch', 'on-ants-seed0', 'on-dogs-seed0'))
    assert '| pretrained on | ants | dogs |' in out and '| scratch | 0.0 | 0.0 |' in out
    assert '| ants | 13.0 | 13.0 |' in out and out == Path('output/transfer/transfer.md').read_text()
    rows = list(csv.DictReader(open('output/transfer/transfer.csv')))
    assert [(row['pretrained_on'], row['finetuned_on']) for row in rows[:3]] == [
        ('scratch', 'ants'), ('ants', 'ants'), ('dogs', 'ants')]
    code, again, err = call('--transfer', 'ants', 'dogs', *TRAIN)  # nothing is trained twice
    assert code == 0 and again == out and len(Path('calls').read_text().splitlines()) == 8
    code, out, err = call('--transfer', 'ants', 'dogs', '--seeds', '2', *TRAIN)
    assert code == 0 and '| ants | 18.0 ± 7.1 | 18.0 ± 7.1 |' in out, err


def test_stages_that_the_user_leaves_out(call):
    code, _, err = call('--transfer', 'ants', 'dogs', *TRAIN, '--skip-stage', 'high')
    assert code == 0, err
    calls = [line for line in Path('words').read_text().splitlines() if '--skip-stage' in line]
    assert {line.rpartition('--skip-stage ')[2].partition(' --')[0] for line in calls} == {
        'high finetune', 'high pretrain', 'high'}


def test_a_failure_is_a_cell(call):
    Path('fail').touch()
    code, out, err = call('--transfer', 'ants', 'dogs', *TRAIN)
    assert code == 1 and '| dogs | failed | failed |' in out and '| ants | 13.0 | 13.0 |' in out
    assert 'dogs -> ants, seed 0: failed: pretrain on dogs: no memory' in out


def test_the_real_train_command_knows_the_flags():
    """The stand-in believes what the matrix asks for; this asks the train command's plan."""
    stage, = plan(['--recipe', 'idmm', '--scale', 'cpu', '--data-dir', 'ants', '--skip-stage', 'finetune', 'high'])
    assert stage.name == 'pretrain' and stage.folder == ''
    stages = plan(['--recipe', 'idmm', '--data-dir', 'ants', '--finetune.initial-checkpoint', 'x/model'])
    assert [(stage.folder, stage.start_from) for stage in stages] == [('2-finetune', None), ('3-high', 'finetune')]
    stages = plan(['--recipe', 'idmm', '--data-dir', 'ants', '--skip-stage', 'pretrain'])
    assert [(stage.folder, stage.start_from) for stage in stages] == [('1-finetune', None), ('2-high', 'finetune')]


@pytest.mark.parametrize('argv, words', [
    (['--transfer', 'ants', *TRAIN], 'two or more folders'),
    (['--transfer', 'ants', './ants', *TRAIN], 'another one is called ants'),
    (['--transfer', 'ants', 'dogs', '--', '--loss', 'ce'], 'a recipe whose second stage starts from the first'),
    (['--transfer', 'ants', 'dogs', '--', '--recipe', 'idmm', '--seed', '3'], '--seed is set by the experiment'),
    (['--transfer', 'ants', 'dogs', '--reach', '50', *TRAIN], '--reach does not go with --transfer')])
def test_what_it_cannot_do(call, argv, words):
    code, _, err = call(*argv)
    assert code == 2 and words in err.splitlines()[-1]


def test_other_flags_need_another_folder(call):
    assert call('--transfer', 'ants', 'dogs', *TRAIN)[0] == 0
    code, _, err = call('--transfer', 'ants', 'dogs', '--', '--recipe', 'idmm')
    assert code == 2 and 'holds runs with other flags: --recipe idmm --scale cpu' in err
    assert json.loads(Path('output/transfer/transfer.json').read_text())['train'] == TRAIN[1:]
