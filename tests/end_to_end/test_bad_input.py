"""Whatever a user gets wrong is one clear line on stderr, exit code 2, and nothing that was saved is lost."""
import csv
import json
import os

import numpy as np
import pytest
import torch
from PIL import Image

from timm_smalldata.engine import checkpoint


@pytest.fixture
def refused(run):
    """`refused(argv, words...)`: the command ends with code 2 and one line with all the words; returns the line."""
    def check(argv, *words):
        code, out, err = run(argv)
        lines = err.rstrip('\n').split('\n')
        assert code == 2, err
        assert 'Traceback' not in err and 'Traceback' not in out
        assert [line for line in lines if line.startswith('error:')] == lines[-1:]
        for word in words:
            assert word in lines[-1], f'{word!r} is not in {lines[-1]!r}'
        return lines[-1]

    return check


# --- images and folders ---------------------------------------------------------------------------------------------

def test_no_such_folder(refused):
    refused(['photoz'], 'photoz', '--data-dir')


def test_empty_folder(refused, tmp_path):
    (tmp_path / 'empty').mkdir()
    refused(['empty'], 'No images found in empty', 'CLASS/*.jpg')


def test_neither_folder_nor_table(refused, tmp_path):
    (tmp_path / 'photos.zip').write_bytes(b'PK')
    refused(['photos.zip'], 'photos.zip', '.tar, .csv, .tsv or .txt')


def test_one_class(refused, photo_folder):
    photo_folder('p', {'ant': 8})
    refused(['p'], 'Only one class (ant)', 'two or more folders')


@pytest.mark.parametrize('role', ['val', 'test'])
def test_splits_that_lack_a_class(refused, photo_folder, role):
    photo_folder('s/train'), photo_folder(f's/{role}', {'ant': 3, 'bee': 2})
    refused(['s'], f'The {role} split has no image of cat', 'Class list (3): ant, bee, cat', f'{role} (2): ant, bee',
            '--allow-missing-classes')


@pytest.mark.parametrize('role', ['val', 'test'])
def test_splits_with_a_class_that_training_lacks(refused, photo_folder, role):
    photo_folder('s/train'), photo_folder(f's/{role}', {'ant': 3, 'bee': 2, 'cat': 1, 'dog': 1})
    refused(['s'], 'dog not in the class list', 'Class list (3): ant, bee, cat', '(4): ant, bee, cat, dog',
            '--class-map')


def test_a_label_outside_the_class_list(refused, photos, tmp_path):
    (tmp_path / 'map.txt').write_text('ant\nbee\n')
    refused([photos, '--class-map', 'map.txt'], 'cat not in the class list', '(2): ant, bee', '(3): ant, bee, cat')


def test_a_class_without_training_images(refused, run, photos, tmp_path):
    (tmp_path / 'map.txt').write_text('ant\nbee\ncat\ndog\n')
    refused([photos, '--class-map', 'map.txt'], 'Classes without a training image: dog', '--allow-missing-classes')
    assert run([photos, '--class-map', 'map.txt', '--allow-missing-classes', '--loss', 'balanced-bce'])[0] == 0
    config = json.loads((tmp_path / 'runs/e/model/config.json').read_text())
    assert config['label_names'] == ['ant', 'bee', 'cat', 'dog']


def test_a_tail_so_long_that_classes_vanish(refused, photos):
    refused([photos, '--imbalance-factor', '1000'], 'Classes without a training image: bee, cat')


def test_one_image_with_two_labels(refused, tmp_path, photos):
    (photos / 't.csv').write_text('path,label\n' + ''.join(f'ant/{i}.png,{c}\n' for i in (0, 2, 4) for c in 'ab'))
    refused([photos / 't.csv'], 'ant/0.png', 'listed twice')


# --- images that cannot be read -------------------------------------------------------------------------------------

def spoil(path, how):
    content = path.read_bytes()
    if how == 'gone':
        path.unlink()
        path.symlink_to('nowhere.png')
        return
    path.write_bytes({
        'corrupt': content[:200] + b'\0' * 80 + content[280:], 'truncated': content[:len(content) // 2],
        'zero bytes': b'', 'no image': b'<html>404</html>',
        'postscript': b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n'}[how])


BAD = ['corrupt', 'truncated', 'zero bytes', 'no image', 'gone', 'postscript']


@pytest.mark.parametrize('how', BAD)
def test_a_bad_image_stops_the_run_before_it_begins(refused, photos, tmp_path, how):
    spoil(photos / 'bee' / '2.png', how)
    line = refused([photos], '1 image cannot be read: bee/2.png: ', '--on-bad-image skip')
    assert 'object at' not in line and '0x' not in line
    assert not (tmp_path / 'runs/e/last.pth.tar').exists()


@pytest.mark.skipif(os.geteuid() == 0, reason='root reads everything')
def test_an_image_without_permission(refused, photos):
    (photos / 'bee' / '2.png').chmod(0)
    refused([photos], 'bee/2.png', 'Permission denied')


@pytest.mark.parametrize('how', BAD)
def test_a_bad_image_is_skipped_when_told(run, divided, photos, tmp_path, how):
    spoil(photos / 'bee' / '2.png', how)
    code, _, err = run([photos, '--on-bad-image', 'skip'])
    assert code == 0 and '1 bad image left out (listed in bad_images.csv)' in err
    with open(tmp_path / 'runs/e/bad_images.csv', newline='') as stream:
        header, *rows = csv.reader(stream)
    assert header == ['image', 'reason'] and len(rows) == 1 and rows[0][0] == 'bee/2.png' and rows[0][1]
    data = divided([photos, '--on-bad-image', 'skip'])
    parts = (data.train, data.val, data.test)
    assert sum(map(len, parts)) == 25 and all('bee/2.png' not in part.names for part in parts)
    assert sum(np.bincount(part.targets, minlength=3) for part in parts).tolist() == [12, 7, 6]
    stats = json.loads((tmp_path / 'runs/e/class_stats.json').read_text())
    assert stats['pos_counts'] == data.classes.counts == np.bincount(data.train.targets).tolist()
    for part in parts:  # no other image took its place: each one is the file that its name says
        for index, name in enumerate(part.names):
            image, label = part.read(index)
            assert np.array_equal(image, Image.open(photos / name).convert('RGB'))
            assert data.classes.names[label] == name.split('/')[0]


def test_many_bad_images_are_counted(refused, photos):
    for number in (0, 2, 4):
        spoil(photos / 'ant' / f'{number}.png', 'truncated')
    refused([photos], '3 images cannot be read: ant/0.png')


@pytest.mark.parametrize('action', ['stop', 'skip'])
def test_all_images_bad(refused, photos, action):
    for path in photos.rglob('*.*'):
        path.write_bytes(b'')
    refused([photos, '--on-bad-image', action], 'No image can be read', 'ant/0.png')


def test_a_table_whose_images_lie_elsewhere(refused, photos, tmp_path):
    (tmp_path / 't.csv').write_text('path,label\nant/0.png,ant\nbee/0.png,bee\n')
    refused(['t.csv', '--on-bad-image', 'skip'], 'No image can be read; the first: ant/0.png', '--image-root')


def test_a_class_of_bad_images_only(refused, photos):
    for path in photos.glob('cat/*'):
        path.write_bytes(b'')
    refused([photos, '--on-bad-image', 'skip'], 'Classes without a training image: cat')


def test_a_split_of_bad_images_is_not_replaced_by_another(refused, run, photo_folder):
    photo_folder('s/train')
    val = photo_folder('s/val', {'ant': 3, 'bee': 2, 'cat': 1})
    (val / 'cat' / '0.png').write_bytes(b'')
    code, _, err = run(['s', '--on-bad-image', 'skip'])
    assert code == 0 and 'val has no readable image of cat' in err
    for path in val.rglob('*.*'):
        path.write_bytes(b'')
    refused(['s', '--on-bad-image', 'skip', '--experiment', 'f'], 'No readable image in the val split')


# --- names that nobody knows ----------------------------------------------------------------------------------------

@pytest.mark.parametrize('argv, words', [
    (['--loss', 'balnced-bce'], ["Unknown --loss 'balnced-bce'", "'balanced-bce'"]),
    (['--recipe', 'long-tial'], ["Unknown --recipe 'long-tial'", "'long-tail'"]),
    (['--eval-metric', 'balanced_top'], ["Unknown --eval-metric 'balanced_top'", "'balanced_top1'"]),
    (['--model', 'vit_tiny_patch16_244'], ["Unknown model 'vit_tiny_patch16_244'", "'vit_tiny_patch16_224'"]),
    (['--opt', 'adamv'], ["Unknown --opt 'adamv'", "'adam"]),
    (['--opt', 'nosuch'], ["Unknown --opt 'nosuch' (did you mean", 'list_optimizers']),
    (['--opt', 'sam_adamw'], ["Unknown --opt 'sam_adamw'", '--opt adamw --sam-rho 0.05']),
    (['--opt', 'adam_adamw'], ["Unknown --opt 'adam_adamw'"]), (['--opt', 'lookahead_sgdd'], ["'sgd"]),
    (['--opt', 'lookahead_lookahead_adam'], ["Unknown --opt"]), (['--opt', 'adam_'], ["Unknown --opt 'adam_'"]),
    (['--aug', 'three-augmnt'], ["Unknown --aug 'three-augmnt'", "'three-augment'"]),
    (['--task', 'clasification'], ["Unknown --task 'clasification'", "'classification'"]),
    (['--train-crop-mode', 'scr'], ["Unknown --train-crop-mode 'scr'", "'src'"]),
    (['--epoch', '3'], ['Unknown flag --epoch', "'--epochs'"]),
    (['--aa', '3b'], ['--aa', '3b']), (['--sched', 'cosin'], ['--sched', 'cosin']),
    (['--train-interpolation', 'bicubik'], ['--train-interpolation', 'bicubik']),
    (['--on-bad-image', 'ignore'], ['--on-bad-image', 'ignore', 'skip']),
    (['--device', 'gpu'], ['--device gpu', 'cuda']), (['--stage9.lr', '1'], ['stage9']),
])
def test_unknown_names_show_the_nearest(refused, photos, argv, words):
    refused([photos, *argv], *words)


def test_unknown_data_sets(refused):
    refused(['--dataset', 'sample/digit'], "'digit'", "'digits'")
    refused(['--dataset', 'cifar10'], "'cifar10'", 'torch/NAME')
    refused(['--dataset', 'torch/cifar10', '--data-dir', 'nope'], 'torch/cifar10', '--dataset-download')


def test_a_split_without_data_is_not_the_sample(refused):
    """--train-split without --data-dir must not train on the embedded digits."""
    refused(['--train-split', 'a.csv', '--val-split', 'b.csv'], '--train-split', '--data-dir')


# --- contradictions and values out of range -------------------------------------------------------------------------

@pytest.mark.parametrize('argv, words', [
    (['--aug', 'three-augment', '--aa', 'rand-m9-mstd0.5-inc1'], ['--aug three-augment contradicts --aa rand-m9']),
    (['--aug', 'none', '--reprob', '0.2'], ['--aug none contradicts --reprob 0.2']),
    (['--train-crop-mode', 'src', '--scale', '.2', '1'], ['--train-crop-mode src contradicts --scale 0.2 1.0']),
    (['--time-budget', '1m'], ['--epochs 1 contradicts --time-budget 1m']),
    (['--imbalance-factor', '3', '--imbalance-indices', 'x.json'], ['--imbalance-factor', '--imbalance-indices']),
    (['--fold', '1/3', '--test-fraction', '.2'], ['--fold', '--test-fraction']),
    (['--split-file', 'x.json', '--fold', '1/3'], ['--split-file', '--fold']),
    (['--split-file', 'x.json', '--val-fraction', '.1'], ['--split-file', '--val-fraction']),
    (['--group-column', 'a', '--group-regex', 'b'], ['--group-column', '--group-regex']),
    (['--dataset', 'sample/digits'], ['--data-dir', '--dataset']),
    (['--loss', 'ce', '--bce-loss'], ['--bce-loss contradicts --loss ce']),
    (['--loss', 'ce', '--loss-tau', '2'], ['--loss-tau', 'not with ce']),
    (['--loss', 'ce', '--bce-pos-weight', '2'], ['--bce-pos-weight', '--loss bce']),
    (['--loss', 'bce', '--smoothing', '.1'], ['--smoothing 0.1', '--bce-target-thresh']),
    (['--loss', 'asl', '--mixup', '.8'], ['--loss asl', '--mixup']),
    (['--aug-splits', '3'], ['--aug-splits', '--loss jsd']),
    (['--mixup', '.8', '--batch-size', '5'], ['batch of 5 images is odd', 'mixup', '--batch-size']),
    (['--cutmix', '1', '--batch-size', '3'], ['batch of 3 images is odd', 'cutmix', '--batch-size']),
    (['--num-classes', '7'], ['--num-classes 7', '3: ant, bee, cat']),
    (['--eval-metric', 'many', '--shot-split', 'counts:100,20'], ['--eval-metric many', 'no class']),
    (['--data-dir', 'other'], ['given twice']),
    (['--sched', 'plateau'], ['--sched plateau', 'cosine']),
])
def test_contradictions(refused, photos, argv, words):
    refused([photos, *argv], *words)


@pytest.mark.parametrize('argv', [
    '--epochs 0', '--epochs two', '--epochs 1.5', '--batch-size 0', '--validation-batch-size -1', '--img-size 0',
    '--workers -1', '--val-interval 0', '--grad-accum-steps 0', '--stop-epoch 0', '--lr -1', '--lr nan', '--mixup -1',
    '--clip-grad -1', '--hflip 2', '--reprob -0.1', '--drop 1.5', '--drop-path 2', '--smoothing 3', '--crop-pct 0',
    '--mean .5 .5', '--std 1 2', '--seed -1', '--seed 99999999999999999999', '--split-seed -1', '--scale 0.5',
    '--imbalance-factor .01', '--cache-size big', '--shot-split counts:5', '--fold 3/2', '--initial-checkpoint nope',
    '--experiment ../x', '--experiment ..', '--experiment a/b', '--experiment a\\b',
    '--class-stats nope.json', '--loss-class-weight nope --loss bce', '--model-ema-decay 2 --model-ema',
    '--model-kwargs depth', '--smoothing 1', '--val-fraction 1', '--test-fraction -0.5'])
def test_values_that_mean_nothing_name_their_flag(refused, photos, argv):
    refused([photos, *argv.split()], argv.split()[0])


@pytest.mark.parametrize('argv, words', [
    ('--model-kwargs in_chans=1', ['in_chans=1', 'grey ones as three equal channels']),
    ('--opt adahessian', ['--opt adahessian', 'second derivatives']),
    ('--model-kwargs nope=1', ['test_vit', 'nope']), ('--opt-kwargs nope=1', ['--opt', 'nope']),
    ('--gp nope', ['nope']), ('--pretrained --pretrained-path nope.pth', ['nope.pth'])])
def test_values_that_do_not_go_on(refused, photos, argv, words):
    refused([photos, *argv.split()], *words)


# --- files ----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('content, words', [
    ('epoch: 3\n', ["unknown key 'epoch'", "'epochs'"]),
    ('batch-size: four\n', ['batch-size must be int, not str', "'four'"]),
    ('mixup: true\n', ['mixup must be float, not bool']), ('model-ema: 1\n', ['model-ema must be bool, not int']),
    ('scale: [0.1]\n', ['scale takes 2 values']), ('on-bad-image: ignore\n', ['on-bad-image', 'stop, skip']),
    ('lr: 1e-3\n', ['lr must be float', "'1e-3'"]),  # YAML reads that as text
    ('a: [1\n', ['not valid YAML']), ('a: b: c\n', ['not valid YAML']), ('- a\n', ['expected lines of the form']),
    (b'\xff\xfe\x00', ['c.yaml']), (None, ['Cannot read c.yaml']),
    ('epochs: 0\n', ['--epochs 0']), ('aug: three-augment\naa: augmix-m3\n', ['--aug three-augment contradicts --aa']),
])
def test_yaml_is_strict(refused, photos, tmp_path, content, words):
    if content is not None:
        (tmp_path / 'c.yaml').write_bytes(content if isinstance(content, bytes) else content.encode())
    argv = ['--data-dir', str(photos), '-c', 'c.yaml']
    import train_smalldata
    main = train_smalldata.main
    try:  # the file alone speaks: flags on the command line would silence it
        train_smalldata.main = lambda _: main([*argv, '--output', 'runs', '--experiment', 'e', '--device', 'cpu'])
        refused(argv, 'c.yaml', *[word for word in words])
    finally:
        train_smalldata.main = main


@pytest.mark.parametrize('where', ['output', 'experiment', 'cache'])
def test_output_that_cannot_be_written(refused, photos, tmp_path, where):
    """A file where a folder should be stops root as well."""
    (tmp_path / 'taken').write_text('mine')
    (tmp_path / 'runs').mkdir()
    (tmp_path / 'runs' / 'taken').write_text('mine')
    argv, flag = {'output': (['--output', 'taken'], '--output'), 'experiment': (['--experiment', 'taken'], '--output'),
                  'cache': (['--cache-dir', 'taken/x'], '--cache-dir')}[where]
    refused([photos, *argv], 'Cannot write', 'taken', flag)
    assert (tmp_path / 'taken').read_text() == (tmp_path / 'runs' / 'taken').read_text() == 'mine'


def test_an_existing_run_without_resume(run, refused, photos, tmp_path):
    assert run([photos])[0] == 0
    before = {path: path.read_bytes() for path in (tmp_path / 'runs/e').rglob('*') if path.is_file()}
    refused([photos], 'runs/e already holds a run', '--resume auto', '--experiment')
    assert {path: path.read_bytes() for path in (tmp_path / 'runs/e').rglob('*') if path.is_file()} == before


def test_a_start_from_weights_that_do_not_fit(refused, run, photos, photo_folder, tmp_path):
    assert run([photos])[0] == 0
    model = tmp_path / 'runs/e/model'
    photo_folder('four', {'ant': 6, 'bee': 6, 'cat': 6, 'dog': 6})
    argv = ['four', '--experiment', 'f', '--initial-checkpoint']
    # with other classes timm leaves the head out and takes what fits: of another model, nothing
    refused([*argv, model, '--model', 'test_resnet'], '--initial-checkpoint', 'is of another model', 'test_resnet')
    refused([*argv, model, '--model-kwargs', 'embed_dim=32'], 'test_vit', 'embed_dim')
    assert run([*argv, model])[0] == 0
    for name, said in (('model.safetensors', 'model.safetensors is damaged or was replaced'),
                       ('config.json', 'cannot be read')):
        (model / name).write_bytes((model / name).read_bytes()[:500])
        refused([*argv, model, '--experiment', 'g'], said)


# --- while it runs --------------------------------------------------------------------------------------------------

def test_a_loss_that_is_not_finite_from_the_start(refused, photos, tmp_path):
    refused([photos, '--lr', '1e30', '--epochs', '3'], 'not finite in epoch 1', '--lr')
    assert not list((tmp_path / 'runs/e').glob('*.pth.tar')) and not (tmp_path / 'runs/e/model').exists()


def test_a_loss_that_is_not_finite_later_leaves_the_last_good_checkpoint(refused, run, photos, tmp_path):
    argv = [photos, '--epochs', '4', '--sched', 'multistep', '--decay-milestones', '2', '--decay-rate', '1e30',
            '--warmup-epochs', '0']
    refused(argv, 'the loss is not finite in epoch 3', 'last good checkpoint stays: runs/e/last.pth.tar')
    state = checkpoint.load(tmp_path / 'runs/e/last.pth.tar')
    assert state['epoch'] == 1 and all(value.isfinite().all() for value in state['state_dict'].values())
    assert len((tmp_path / 'runs/e/summary.csv').read_text().splitlines()) == 3
    assert not (tmp_path / 'runs/e/report.json').exists()
    code, _, err = run([*argv, '--resume', 'auto', '--decay-rate', '0.1', '--force'])
    assert code == 0 and 'continuing runs/e at epoch 3' in err


@pytest.mark.skipif(torch.cuda.is_available(), reason='this machine has a GPU')
def test_no_gpu(refused, photos):
    refused([photos, '--device', 'cuda'], '--device cuda', 'no such device', '--device cpu')
    refused([photos, '--device', 'cuda:7'], '--device cuda:7')


def test_extras_that_are_not_installed(refused, photos, monkeypatch):
    import sys
    for flag, module in (('--log-wandb', 'wandb'), ('--log-tensorboard', 'torch.utils.tensorboard')):
        monkeypatch.setitem(sys.modules, module, None)
        refused([photos, flag, '--experiment', flag.strip('-')], flag, 'pip install', 'timm-smalldata[')
