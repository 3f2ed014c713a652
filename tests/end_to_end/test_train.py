"""The train command from start to finish, in this process, on the sample and on folders, at its smallest."""
import csv
import json
import subprocess
import sys

import pytest
import timm
import torch
from safetensors import safe_open

SMALL = ['--model', 'vit_tiny_patch16_224', '--model-kwargs', 'patch_size=8', 'embed_dim=24', 'num_heads=2', 'depth=1']
FILES = {'last.pth.tar', 'model_best.pth.tar', 'summary.csv', 'args.yaml', 'environment.json', 'per_class.csv',
         'confusion.csv', 'report.json', 'model'}


def rows(path):
    with open(path, newline='') as stream:
        return list(csv.DictReader(stream))


def test_the_sample_without_any_data_named(run, tmp_path):
    import train_smalldata
    argv = [*SMALL, '--loss', 'balanced-bce', '--aug', 'three-augment', '--epochs', '2', '--val-interval', '1',
            '--experiment', 'sample', '--device', 'cpu', '--shot-split', 'counts:60,10']
    assert train_smalldata.main(argv) == 0
    folder = tmp_path / 'output' / 'sample'
    assert FILES <= {p.name for p in folder.iterdir()}
    report = json.loads((folder / 'report.json').read_text())
    assert {'top1', 'balanced_top1', 'many', 'medium', 'few', 'ece', 'split', 'epoch', 'selected_on',
            'timing'} <= set(report)
    assert report['split'] == 'test' and report['selected_on'] == 'val' and report['num_images'] == 500
    assert 0 <= report['balanced_top1'] <= 100 and report['shot_groups'] == 'counts:60,10'
    summary = rows(folder / 'summary.csv')
    assert [row['epoch'] for row in summary] == ['0', '1']
    assert {'train_loss', 'eval_loss', 'eval_top1', 'eval_top5', 'eval_balanced_top1', 'eval_many', 'eval_medium',
            'eval_few', 'eval_worst', 'eval_ece', 'eval_mce', 'lr'} <= set(summary[0])
    assert len(rows(folder / 'per_class.csv')) == 10 and len(rows(folder / 'confusion.csv')) == 10
    config = json.loads((folder / 'model' / 'config.json').read_text())
    assert config['label_names'] == [str(i) for i in range(10)]
    with safe_open(folder / 'model' / 'model.safetensors', 'pt') as weights:
        assert not weights.metadata() or set(weights.metadata()) <= {'format'}


def test_the_screen(run):
    import train_smalldata
    argv = [*SMALL, '--epochs', '1', '--experiment', 'screen', '--device', 'cpu']
    import contextlib
    import io
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        assert train_smalldata.main(argv) == 0
    lines = err.getvalue().splitlines()
    assert 'sample/digits' in lines[0] and 'train_smalldata.py FOLDER' in lines[0]
    text = err.getvalue()
    for words in ('ratio', 'many/medium/few', '--hflip', 'per epoch', 'until about', 'set by sample/digits',
                  'one run: without the spread of seeds and splits'):
        assert words in text, words
    assert out.getvalue().startswith('--result\n')
    result = json.loads(out.getvalue().partition('\n')[2])
    assert set(result) == {'all', 'best'} and result['all'][0]['epoch'] == 0


def test_a_folder_and_stock_timm_loads_the_model(run, photos, tmp_path):
    code, out, err = run([photos, '--loss', 'balanced-softmax', '--mixup', '0.2', '--model-ema', '--epochs', '2'])
    assert code == 0, err
    folder = tmp_path / 'runs' / 'e' / 'model'
    model = timm.create_model(f'local-dir:{folder}', pretrained=True).eval()
    x = torch.linspace(-1, 1, 2 * 3 * 32 * 32).reshape(2, 3, 32, 32)
    torch.save((x, model(x)), tmp_path / 'expected.pt')
    code = (
        'import sys; sys.modules["timm_smalldata"] = None\n'
        'import timm, torch\n'
        'torch.set_num_threads(1)\n'
        f'x, expected = torch.load(r"{tmp_path / "expected.pt"}")\n'
        f'model = timm.create_model(r"local-dir:{folder}", pretrained=True).eval()\n'
        'assert torch.equal(model(x), expected)\n'
        'assert model.pretrained_cfg["label_names"] == ["ant", "bee", "cat"], model.pretrained_cfg\n')
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_validation_without_a_test_split_is_called_what_it_is(run, photo_folder, tmp_path):
    photo_folder('data/train')
    photo_folder('data/val')
    code, out, err = run([tmp_path / 'data'])
    assert code == 0 and 'validation, used for selection' in err
    report = json.loads((tmp_path / 'runs/e/report.json').read_text())
    assert report['split'] == 'val' and report['split_note'] == 'validation, used for selection'


@pytest.mark.parametrize('argv', [
    '--loss bce --mixup 0.8 --cutmix 1 --mixup-off-epoch 1 --epochs 2',
    '--loss jsd', '--loss asl', '--loss poly --opt lamb --clip-grad 1',
    '--loss logit-adjusted --loss-tau 0.5 --aug rand-augment --grad-accum-steps 2',
    '--aug none --select last --val-interval 2 --epochs 2 --sched step --no-sched-on-updates',
    '--aug three-augment --train-crop-mode src --aug-repeats 3 --layer-decay 0.75',
    '--train-img-sizes 32 64 --train-size-schedule progressive --epochs 2 --model resnet10t --opt sgd',
    '--model resnet10t --bn-momentum 0.05 --sched none --lr 0.01',
    '--amp --log-tensorboard --save-epochs 1', '--torchcompile eager --model-ema', '--eval-metric ece --channels-last'])
def test_flags_train_to_the_end(run, photos, tmp_path, argv):
    code, out, err = run([photos, *argv.split()])
    assert code == 0, err
    report = json.loads((tmp_path / 'runs/e/report.json').read_text())
    assert report['num_images'] > 0
    if '--save-epochs' in argv:
        assert (tmp_path / 'runs/e/milestone-1.pth.tar').exists() and any((tmp_path / 'runs/e/tensorboard').iterdir())


def test_two_stages_pass_only_the_model_on(run, photos, tmp_path):
    code, out, err = run([photos, '--recipe', 'fixres', '--high.img-size', '64', '--high.epochs', '1'])
    assert code == 0, err
    low, high = tmp_path / 'runs/e/1-low', tmp_path / 'runs/e/2-high'
    assert json.loads((high / 'model/config.json').read_text())['pretrained_cfg']['input_size'] == [3, 64, 64]
    code, out, err = run([photos, '--recipe', 'fixres', '--high.img-size', '64', '--high.epochs', '1'])
    assert code == 0 and f'{low.relative_to(tmp_path)} is finished' in err  # a finished stage is not trained again


def test_time_budget_sets_the_epochs_once(run, photos, tmp_path):
    import train_smalldata
    argv = [str(photos), *SMALL, '--img-size', '32', '--device', 'cpu', '--time-budget', '0.001s', '--output', 'runs',
            '--experiment', 'budget']
    assert train_smalldata.main(argv) == 0  # less than one epoch: one is trained
    saved = torch.load(tmp_path / 'runs/budget/last.pth.tar', weights_only=False)
    assert saved['args'].epochs == 1 and saved['epoch'] == 0


def test_dry_run_prints_the_plan_and_trains_nothing(run, photos, tmp_path):
    code, out, err = run([photos, '--dry-run', '--loss', 'balanced-bce'])
    assert code == 0
    for words in ('set by', 'updates an epoch', 'per epoch', 'MiB', 'nothing was trained'):
        assert words in err, words
    assert not (tmp_path / 'runs/e/last.pth.tar').exists()


def test_the_checkpoint_is_timms(run, photos, tmp_path):
    from timm.task import ClassificationTask, resume_task_checkpoint
    assert run([photos, '--epochs', '2'])[0] == 0
    path = tmp_path / 'runs/e/last.pth.tar'
    task = ClassificationTask(timm.create_model('test_vit', img_size=32, num_classes=3), verbose=False)
    assert resume_task_checkpoint(task, str(path)) == 2
    model = timm.create_model('test_vit', img_size=32, num_classes=3, checkpoint_path=str(path))
    torch.testing.assert_close(model.head.weight, task.trainable_module.head.weight)


def test_help_is_grouped(capsys):
    import train_smalldata
    with pytest.raises(SystemExit) as stop:
        train_smalldata.main(['--help-all'])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    for group in ('Your images:', 'Long tail:', 'Task and loss:', 'Augmentation:', 'Where results go:', 'Recipes:'):
        assert group in text


@pytest.mark.parametrize('terminal', [False, True])
def test_what_comes_last_and_what_goes_to_a_pipe_only(terminal, run, photos, monkeypatch):
    from timm_smalldata.run import finish
    monkeypatch.setattr(finish, 'is_terminal', lambda stream: terminal)
    code, out, err = run([photos, '--epochs', '2'])
    assert code == 0 and out.startswith('--result\n') != terminal and (not terminal or not out)
    lines = err.splitlines()
    assert lines[-2].startswith('model: ') and lines[-1].startswith('load:  ')
    if not terminal:
        assert [line.split()[:2] for line in lines if line.startswith('epoch ')] == [['epoch', '1/2'], ['epoch', '2/2']]
        assert [row['epoch'] for row in json.loads(out.partition('\n')[2])['all']] == [0, 1]  # timm's
