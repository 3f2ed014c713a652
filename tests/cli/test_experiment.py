"""The experiment command: what it runs, what it does with failures, and the numbers of its table."""
import csv
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from timm_smalldata.cli import experiment
from timm_smalldata.cli.experiment import main, parse
from timm_smalldata.config.plan import finish_stage, plan
from timm_smalldata.errors import UserError
from timm_smalldata.report.comparison import Run, summarise, write_tables

# Stands for the train command: notes how it was called, and "trains" to numbers that are known.
SCRIPT = '''
import json, os, sys, time
from pathlib import Path
flags = dict(zip(sys.argv[1::2], sys.argv[2::2]))
loss, seed = flags['--loss'], int(flags['--seed'])
root = Path(flags['--output'])
folder = root / flags['--experiment']
folder.mkdir(parents=True, exist_ok=True)
with open(root / 'calls', 'a') as calls:
    calls.write(json.dumps([sys.argv[1:], os.environ.get('OMP_NUM_THREADS')]) + '\\n')
(root / f'busy-{loss}-{seed}').touch()
busy = len(list(root.glob('busy-*')))
with open(root / 'busy', 'a') as file:
    file.write(f'{busy}\\n')
time.sleep(float(os.environ.get('SECONDS', 0)))
(root / f'busy-{loss}-{seed}').unlink()
if os.environ.get('FAIL') == f'{loss}-{seed}':
    print('error: the loss is not finite', file=sys.stderr)
    sys.exit(2)
value = dict(ce=40, bce=42, poly=30)[loss] + [0, 3, 1][seed] + (loss == 'bce') * [0, 2, 1][seed]
(folder / 'args.yaml').write_text(json.dumps(dict(
    dataset='sample/digits', loss=loss, seed=seed, epochs=int(flags['--epochs']),
    smoothing=0.1 if loss == 'ce' else 0.0)))
(folder / 'environment.json').write_text(json.dumps(dict(
    python='3.11', platform='Linux', processor='A CPU', cores=2, threads=1, gpu=None,
    versions=dict(timm='1.0', x=None))))
(folder / 'report.json').write_text(json.dumps(dict(
    balanced_top1=value, many=None, medium=50.0, few=10.0 * seed, top1=60.0, ece=5.0, split='test', epoch=3,
    timing=dict(seconds=[5.0, 50.0, 6.0][seed], starts=[{}]))))
'''


@pytest.fixture
def call(tmp_path, monkeypatch, capsys):
    """Call the command with the stand-in: `call(argv) -> (exit code, stdout, stderr)`; results lie in tmp_path/x."""
    script = tmp_path / 'script.py'
    script.write_text(SCRIPT)
    monkeypatch.setattr(experiment, 'SCRIPT', script)
    monkeypatch.chdir(tmp_path)

    def run(*argv, train=('--epochs', '3', '--dataset', 'sample/digits')):
        capsys.readouterr()
        code = main([*argv, '--output', 'x', '--', *train])
        return (code, *capsys.readouterr())
    return run


def rows(path):
    with open(path, newline='', encoding='utf-8') as stream:
        return list(csv.DictReader(stream))


def calls(tmp_path):
    return [json.loads(line) for line in (tmp_path / 'x' / 'runs' / 'calls').read_text().splitlines()]


def test_runs_and_table(call, tmp_path):
    code, out, err = call('--vary', 'loss=ce,bce,poly', '--seeds', '3')
    assert code == 0 and '9/9' in err
    words, threads = calls(tmp_path)[0]
    assert words[:8] == ['--epochs', '3', '--dataset', 'sample/digits', '--loss', 'ce', '--seed', '0']
    assert words[8:10] == ['--imbalance-seed', '0'] and threads == '1' and words[-2:] == ['--resume', 'auto']
    assert sorted((w[5], w[7], w[9]) for w, _ in calls(tmp_path)) == sorted(
        (loss, seed, seed) for loss in ('ce', 'bce', 'poly') for seed in '012')
    assert (tmp_path / 'x' / 'table.md').read_text(encoding='utf-8') == out

    ce, bce, poly = rows(tmp_path / 'x' / 'table.csv')
    # ce 40 43 41, bce 42 47 44: differences 2 4 3; t quantile of 2 degrees of freedom 4.302652729911275
    assert float(ce['balanced_top1']) == pytest.approx(124 / 3)
    assert float(ce['balanced_top1_sd']) == pytest.approx((14 / 3 / 2) ** 0.5)
    half = 4.302652729911275 / 3 ** 0.5
    assert [float(bce[f'difference_{k}']) for k in ('mean', 'sd', 'lo', 'hi')] == pytest.approx(
        [3, 1, 3 - half, 3 + half])
    assert [row['verdict'] for row in (ce, bce, poly)] == ['', 'above ce', 'below ce']
    assert (ce['difference_mean'], ce['many'], ce['many_sd'], ce['median_seconds']) == ('', '', '', '6.0')
    assert [float(poly[k]) for k in ('difference_lo', 'difference_hi', 'few', 'few_sd')] == [-10, -10, 10, 10]
    assert len(rows(tmp_path / 'x' / 'runs.csv')) == 9

    assert out.startswith('# A sample that shows the mechanism: --loss on sample/digits, 3 seeds\n')
    assert ('| bce | 3 of 3 | 44.3 ± 2.5 | - | 50.0 ± 0.0 | 10.0 ± 10.0 | 60.0 ± 0.0 | 5.0 ± 0.0 | +3.0 | '
            '+0.5 to +5.5 | above ce | 6.0 |') in out
    assert 'epochs=3' in out and 'smoothing: ce 0.1, bce 0, poly 0' in out
    assert 'A CPU, 2 cores' in out and 'timm 1.0 (9 of 9 runs)' in out and 'Seeds: 0, 1, 2' in out
    assert '    timm-smalldata experiment --vary loss=ce,bce,poly --seeds 3 --output x -- --epochs 3' in out


def test_an_interval_that_holds_zero_is_marked(call):
    _, out, _ = call('--vary', 'loss=ce,bce', '--seeds', '0,1,', '--baseline', 'bce')
    # ce minus bce: -2 -4, half of the interval 12.7
    assert '| -3.0 | -15.7 to +9.7 | not distinguishable from bce |' in out


def test_one_seed_has_no_interval(call, tmp_path):
    _, out, _ = call('--vary', 'loss=ce,bce', '--seeds', '1')
    assert '| 42.0 |' in out and '| +2.0 |  | no interval: fewer than two pairs |' in out
    assert rows(tmp_path / 'x' / 'table.csv')[1]['difference_lo'] == ''


def test_a_failed_run_is_told_and_tried_again(call, tmp_path, monkeypatch):
    monkeypatch.setenv('FAIL', 'ce-1')
    code, out, err = call('--vary', 'loss=ce,bce', '--seeds', '3')
    assert code == 1 and 'ce seed 1: failed: the loss is not finite' in err
    ce, bce = rows(tmp_path / 'x' / 'table.csv')
    assert (ce['runs'], ce['planned'], bce['runs'], bce['pairs']) == ('2', '3', '3', '2')
    assert float(ce['balanced_top1']) == 40.5 and float(bce['difference_mean']) == 2.5
    assert '| ce | 2 of 3 |' in out and '+2.5 (2 pairs)' in out
    assert '1 of 6 runs have no result' in out
    assert '- ce, seed 1: the loss is not finite (runs/ce-seed1.log)' in out
    assert {r['failure'] for r in rows(tmp_path / 'x' / 'runs.csv')} == {'', 'the loss is not finite'}

    monkeypatch.delenv('FAIL')
    before = len(calls(tmp_path))
    code, out, _ = call('--vary', 'loss=ce,bce', '--seeds', '3')
    assert code == 0 and '| ce | 3 of 3 |' in out and 'no result' not in out
    assert [(w[5], w[7]) for w, _ in calls(tmp_path)[before:]] == [('ce', '1')]  # finished runs are left alone


def test_when_every_run_fails(call, monkeypatch, tmp_path):
    (tmp_path / 'script.py').write_text('raise SystemExit(3)')
    code, out, _ = call('--vary', 'loss=ce,bce', '--seeds', '1')
    assert code == 1 and '| ce | 0 of 1 | - | - |' in out and 'ce, seed 0: exit code 3' in out


def test_more_values_and_seeds_later_but_the_same_flags(call, tmp_path):
    call('--vary', 'loss=ce,bce', '--seeds', '1')
    code, out, err = call('--vary', 'loss=ce,bce,poly', '--seeds', '2')
    assert code == 0 and '2 of them finished already' in err and len(calls(tmp_path)) == 6
    code, _, err = call('--vary', 'loss=ce,bce', '--seeds', '1', train=('--epochs', '4', '--dataset', 'sample/digits'))
    assert code == 2 and 'holds runs with other flags: epochs 3 -> 4.' in err
    code, _, err = call('--vary', 'smoothing=0,0.1', '--seeds', '1')
    assert code == 2 and 'vary loss -> smoothing' in err and len(calls(tmp_path)) == 6


def test_jobs_run_side_by_side(call, tmp_path, monkeypatch):
    monkeypatch.setenv('SECONDS', '0.4')
    assert call('--vary', 'loss=ce,bce', '--seeds', '2', '--jobs', '2')[0] == 0
    assert max(map(int, (tmp_path / 'x' / 'runs' / 'busy').read_text().split())) == 2


def test_an_interruption_stops_the_runs(call, tmp_path, monkeypatch):
    monkeypatch.setenv('SECONDS', '60')
    running = []
    start = experiment._start

    def note(r):
        start(r)
        running.append(r.process)
        if len(running) == 2:
            threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM)).start()

    monkeypatch.setattr(experiment, '_start', note)
    began = time.time()
    code, out, err = call('--vary', 'loss=ce,bce', '--seeds', '3', '--jobs', '2')
    assert code == 130 and time.time() - began < 30
    assert 'Continue with:\n  timm-smalldata experiment --vary loss=ce,bce --seeds 3 --jobs 2' in err
    assert len(running) == 2 and all(process.poll() is not None for process in running)


@pytest.mark.parametrize('argv, said', [
    (['--vary', 'los=ce,bce'], "no flag --los to vary (did you mean 'loss'"),
    (['--vary', 'seed=1,2'], 'no flag --seed to vary'),
    (['--vary', 'loss=ce'], 'two or more different values'),
    (['--vary', 'loss=ce,ce'], 'two or more different values'),
    (['--vary', 'model-ema=on,yes'], 'is a switch, its values are on and off'),
    (['--vary', 'loss=ce,bce', '--baseline', 'poly'], 'not among the values: ce, bce'),
    (['--vary', 'loss=ce,bce', '--seeds', 'x'], 'a number of seeds'),
    (['--vary', 'loss=ce,bce', '--seeds', '0'], 'must be 1 or more'),
    (['--vary', 'loss=ce,bce', '--seeds', '1,1'], 'no seed may come twice'),
    (['--vary', 'loss=ce,bce', '--jobs', '0'], 'must be 1 or more'),
    (['--vary', 'loss=ce,bce', '--epochs', '3'], 'Unknown flag --epochs; flags of the train command come after --'),
    (['--vary', 'loss=ce,balnced-bce'], "did you mean 'balanced-bce'"),
    (['--vary', 'epochs=3,many'], 'invalid int value'),
    (['--vary', 'loss=ce,bce', '--', '--loss', 'ce'], '--loss is set by the experiment itself'),
    (['--vary', 'loss=ce,bce', '--', '--seed', '3'], '--seed is set by the experiment itself'),
    (['--vary', 'loss=ce,bce', '--', '--epoch', '3'], "did you mean '--epochs'"),
    (['--vary', 'loss=ce,bce', '--', 'nowhere'], 'No such folder or file: nowhere'),
    (['--vary', 'loss=ce,bce', '--', '--smoothing', '0.1'], 'would turn every class into a positive'),
    ([], 'one of the arguments --vary --arms --transfer is required'),
    (['--arms', 'nowhere.yaml'], 'nowhere.yaml: no such file'),
])
def test_wrong_words_start_nothing(argv, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(experiment, '_start', lambda r: pytest.fail('started'))
    assert main(argv) == 2
    err = capsys.readouterr().err
    assert said in err and err.count('\n') == 1
    assert not list(tmp_path.iterdir())


def test_switches_and_values_of_several_words():
    args = parse(['--vary', 'model-ema=on,off'])
    assert [experiment._varied(args, value) for value in args.values] == [['--model-ema'], ['--no-model-ema']]
    args = parse(['--vary', 'scale=0.08 1.0,0.3 1.0'])
    assert experiment._varied(args, args.values[0]) == ['--scale', '0.08', '1.0']
    assert str(args.output) in ('output/scale', r'output\scale')


def test_nothing_is_filled_in(tmp_path):
    """Null metrics, the time of an interrupted run, and a run that measured nothing."""
    args = parse(['--vary', 'loss=ce,bce', '--seeds', '2', '--output', str(tmp_path)])
    runs = [Run(value, seed, tmp_path / f'{value}{seed}', tmp_path / 'log') for value in args.values for seed in (0, 1)]
    report = dict(balanced_top1=50.0, many=None, medium=1.0, few=2.0, top1=3.0, ece=4.0, split='val', epoch=1,
                  timing=dict(seconds=9.0, starts=[{}, {}]))
    for r, changes in zip(runs, ({}, dict(many=80.0), {}, dict(balanced_top1=None))):
        r.folder.mkdir()
        (r.folder / 'report.json').write_text(json.dumps({**report, **changes}))
        (r.folder / 'args.yaml').write_text('data_dir: photos\n')
        (r.folder / 'environment.json').write_text(json.dumps(dict(
            python='3', platform='p', processor='c', cores=1, threads=1, gpu=None, versions={})))
    assert [r.read() for r in runs] == [True, True, True, False]
    ce, bce = (summarise(args, runs, value) for value in args.values)
    assert (ce['many'], ce['many_sd'], bce['many'], bce['runs']) == (80.0, None, None, 1)
    assert (ce['median_seconds'], bce['pairs'], bce['difference_mean'], bce['difference_lo']) == (None, 1, 0.0, None)
    text = write_tables(args, runs, 'command')
    assert text.startswith('# Comparison: --loss on photos, 2 seeds') and 'A sample' not in text
    assert 'The split val also chose the weights' in text
    assert '- bce, seed 1: nothing was measured: no test and no validation split (log)' in text


def test_with_the_train_command(tmp_path, monkeypatch, capsys):
    """Two real runs, each in its own process, from another folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv('PYTHONPATH', raising=False)
    assert main([
        '--vary', 'loss=ce,balanced-bce', '--seeds', '3,', '--jobs', '2', '--', '--dataset', 'sample/digits',
        '--device', 'cpu', '--model', 'vit_tiny_patch16_224', '--model-kwargs', 'patch_size=8', 'embed_dim=24',
        'num_heads=2', 'depth=1', '--epochs', '1']) == 0, capsys.readouterr().err
    table = rows(tmp_path / 'output' / 'loss' / 'table.csv')
    for row, name in zip(table, ('ce', 'balanced-bce')):
        folder = tmp_path / 'output' / 'loss' / 'runs' / f'{name}-seed3'
        report = json.loads((folder / 'report.json').read_text())
        assert report['split'] == 'test' and float(row['balanced_top1']) == report['balanced_top1']
        assert f'loss: {name}\n' in (folder / 'args.yaml').read_text()
        assert json.loads((folder / 'environment.json').read_text())['threads'] == 1
    kept = [(tmp_path / 'output' / 'loss' / 'runs' / f'{name}-seed3' / 'train_images.json').read_text()
            for name in ('ce', 'balanced-bce')]
    assert kept[0] == kept[1]  # one seed, one selection
    assert sys.version.split()[0] in (tmp_path / 'output' / 'loss' / 'table.md').read_text(encoding='utf-8')


def test_arms(call, tmp_path):
    arms = tmp_path / 'arms.yaml'
    arms.write_text('plain: --loss ce\nsmoother: --loss bce\n')
    code, out, err = call('--arms', 'arms.yaml', '--seeds', '3')
    assert code == 0 and '2 arms x 3 seeds' in err and '+0.5 to +5.5 | above plain |' in out
    assert '- smoother: `--loss bce`' in out and out.startswith('# A sample that shows the mechanism: arms on')
    assert calls(tmp_path)[1][0][4:6] == ['--loss', 'bce']
    arms.write_text('plain: --loss ce\nthird: --loss poly\n')  # one arm leaves, another comes
    assert call('--arms', 'arms.yaml', '--seeds', '3')[0] == 0 and len(calls(tmp_path)) == 9
    arms.write_text('plain: --loss poly\nthird: --loss ce\n')
    code, _, err = call('--arms', 'arms.yaml', '--seeds', '3')
    assert code == 2 and 'arm plain --loss ce -> --loss poly' in err
    arms.write_text('plain: --loss ce\nlong: --loss ce --epochs 5\n')
    code, _, err = call('--arms', 'arms.yaml', '--seeds', '1', '--reach', '50')
    assert code == 2 and 'long: --epochs is set elsewhere' in err
    arms.write_text('plain: --loss ce')
    code, _, err = call('--arms', 'arms.yaml')
    assert code == 2 and 'two or more lines' in err


def test_arms_that_set_a_flag_of_one_stage(tmp_path, photos):
    """The benchmark of pretraining on a long tail or on as many images of each class alike, up to a dry run."""
    import train_smalldata
    path = Path(__file__).parents[2] / 'benchmarks' / 'pretraining-balance.yaml'
    train = [str(photos), '--recipe', 'livt', '--scale', 'cpu', '--imbalance-factor', '3']
    args = parse(['--arms', str(path), '--seeds', '1', '--output', str(tmp_path / 'x'), '--', *train])
    runs = experiment.plan_runs(args)
    assert [r.value for r in runs] == ['long-tailed', 'balanced'] and args.baseline == 'long-tailed'
    stages = [plan(r.flags) for r in runs]
    for stage in sum(stages, []):
        finish_stage(stage)
        assert stage.settings.get('imbalance_factor') == 3
    profiles = [[stage.settings.get('imbalance_profile') for stage in both] for both in stages]
    assert profiles == [['exp', 'exp'], ['balanced', 'exp']]
    for r in runs:
        assert r.folder.name == '2-finetune'
        assert train_smalldata.main([*r.flags, '--dry-run', '--device', 'cpu', '--workers', '0']) == 0
    twice = parse(['--arms', str(path), '--seeds', '1', '--output', str(tmp_path / 'y'), '--', *train,
                   '--pretrain.imbalance-profile', 'step'])
    with pytest.raises(UserError, match='imbalance-profile is set elsewhere'):
        experiment.plan_runs(twice)


def test_how_fast_runs_converge(tmp_path):
    from argparse import Namespace
    report = dict(balanced_top1=50.0, many=None, medium=None, few=None, top1=50.0, ece=1.0)
    runs = []
    for seed, values in enumerate(([10, '', 60, 55], [60, 70, 80, 90], [1, 2, 3, 4])):
        folder = tmp_path / str(seed)
        folder.mkdir()
        (folder / 'summary.csv').write_text('epoch,eval_balanced_top1\n' + '\n'.join(
            f'{epoch},{value}' for epoch, value in enumerate(values)))
        runs.append(Run('a', seed, folder, folder, report=report))
    assert [r.reached(55.0) for r in runs] == [3, 1, None]
    args = Namespace(values=['a'], baseline='a', seeds=[0, 1, 2], flag='loss', reach=55.0, arms=None)
    row = summarise(args, runs, 'a')
    assert (row['epochs_to_reach'], row['reached']) == (2, 2)
    assert summarise(args, runs[1:], 'a')['epochs_to_reach'] is None  # not more than half of them came there


def test_tools_after_training_are_rows_of_their_own(tmp_path):
    from timm_smalldata.report.comparison import beside_rows
    report = dict(balanced_top1=50.0, many=1.0, medium=1.0, few=1.0, top1=50.0, ece=9.0)
    runs = [Run('ce', seed, tmp_path, tmp_path, report=dict(
        report, posthoc=dict(tau_norm=dict(tau=1.0, balanced_top1=55.0 + seed, ece=8.0)))) for seed in (0, 1)]
    beside = beside_rows(runs)
    assert [(r.value, r.seed) for r in beside] == [('ce, tau norm', 0), ('ce, tau norm', 1)]
    args = parse(['--vary', 'loss=ce,bce', '--seeds', '2', '--output', str(tmp_path)])
    row = summarise(args, [*runs, *beside], 'ce, tau norm')
    assert (row['balanced_top1'], row['ece'], row['difference_mean'], row['many']) == (55.5, 8.0, 5.5, 1.0)


MEASURED = '''
import json, sys
from pathlib import Path
words = sys.argv[1:]
folder = Path(words[words.index('--output') + 1]) / words[words.index('--experiment') + 1]
folder.mkdir(parents=True, exist_ok=True)
if '--dry-run' in words:
    (folder / 'choice.json').write_text(json.dumps(dict(chosen_for='ce', values=dict(epochs=7))))
else:
    (folder / 'args.yaml').write_text('{}')
    (folder / 'environment.json').write_text(json.dumps(dict(
        python='3.11', platform='Linux', processor='A CPU', cores=2, threads=1, gpu=None, versions={})))
    seen = json.loads((folder / 'choice.json').read_text())
    (folder / 'report.json').write_text(json.dumps(dict(
        balanced_top1=float(seen['values']['epochs']), many=None, medium=None, few=None, top1=1.0, ece=1.0,
        split='test', epoch=1, timing=dict(seconds=1.0, starts=[{}]))))
'''


def test_a_length_that_is_measured_is_measured_once_for_all_runs(call, tmp_path, photos):
    (tmp_path / 'script.py').write_text(MEASURED)
    code, out, err = call('--vary', 'loss=ce,bce', '--seeds', '2', train=(str(photos), '--time-budget', '10s'))
    assert code == 0 and err.count('measuring once') == 1, err
    reports = [json.loads(path.read_text()) for path in (tmp_path / 'x' / 'runs').glob('*/report.json')]
    assert [report['balanced_top1'] for report in reports] == [7.0] * 4
    assert call('--vary', 'loss=ce,bce', '--seeds', '2', train=('--epochs', '3', '--dataset', 'sample/digits'))[0] == 2
