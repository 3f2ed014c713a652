"""Folders called like splits, folders beside splits, wrapped splits, splits in a tar: read rightly, or said."""
import shutil
import tarfile

import pytest

from timm_smalldata.errors import UserError

FEW = {'ant': 4, 'bee': 4}


def roles(data):
    """Number of images of each role."""
    return [0 if part is None else len(part) for part in (data.train, data.val, data.test)]


def said(data, *words):
    return any(all(word in note for word in words) for note in data.notes)


@pytest.mark.parametrize('name', ['train', 'test', 'val', 'dev', 'Training'])
def test_a_class_called_like_a_split(photo_folder, divided, name):
    photo_folder('d', {'car': 8, name: 8, 'plane': 8})
    data = divided(['d'])
    assert sorted(data.classes.names) == sorted(['car', name, 'plane']) and sum(roles(data)) == 24
    assert said(data, f'{name}: a class, not a split, since images lie directly in it')


def test_two_classes_called_like_splits(photo_folder, divided):
    photo_folder('d', {'train': 8, 'test': 8, 'car': 8})
    data = divided(['d'])
    assert sorted(data.classes.names) == ['car', 'test', 'train'] and said(data, 'test, train: a class')


def test_splits_and_classes_of_such_names_inside_them(photo_folder, divided):
    photo_folder('d/train', {'train': 6, 'car': 6}), photo_folder('d/test', {'train': 3, 'car': 2})
    data = divided(['d', '--val-fraction', '0'])
    assert data.classes.names == ['car', 'train'] and roles(data) == [12, 0, 5]


def test_only_folders_called_like_splits_without_classes(photo_folder, divided):
    photo_folder('d', {'train': 8, 'test': 8})
    with pytest.raises(UserError, match='8 images lie directly in d/train .* If train is itself a class: --tr'):
        divided(['d'])
    data = divided(['d', '--train-split', '.'])
    assert data.classes.names == ['test', 'train'] and sum(roles(data)) == 16


def test_folders_beside_the_splits_are_named(photo_folder, divided, tmp_path):
    photo_folder('d/train'), photo_folder('d/val'), photo_folder('d', {'more': 3}), photo_folder('d/extra', FEW)
    (tmp_path / 'd/docs').mkdir(), (tmp_path / 'd/docs/a.txt').write_text('x')
    shutil.copy(tmp_path / 'd/more/0.png', tmp_path / 'd/cover.png')
    data = divided(['d'])
    assert roles(data) == [26, 26, 0]
    assert said(data, 'beside the splits (train, val) and not read: extra, more (if all', '--train-split .')
    assert said(data, '1 image directly in d, beside the splits, not read')


def test_a_second_folder_for_the_same_role_is_named(photo_folder, divided):
    photo_folder('d/train'), photo_folder('d/val'), photo_folder('d/dev')
    assert said(divided(['d']), 'beside the splits (train, val) and not read: dev')
    data = divided(['d', '--train-split', 'train', '--val-split', 'dev'])
    assert data.val.names[0].startswith('dev/') and not said(data, 'not read')  # that was a choice


def test_test_images_without_labels_are_left_out_and_said(photo_folder, divided):
    photo_folder('d/train'), photo_folder('d', {'test': 5})
    data = divided(['d'])
    assert roles(data) == [22, 4, 0]
    assert said(data, 'test: not read, since its images lie in no folder named after a class')


@pytest.mark.parametrize('wrap', ['dataset', 'a/b c/dataset'])
def test_a_folder_that_wraps_the_splits(photo_folder, divided, wrap):
    photo_folder(f'd/{wrap}/train'), photo_folder(f'd/{wrap}/test', {'ant': 2, 'bee': 2, 'cat': 2})
    data = divided(['d', '--val-fraction', '0'])
    assert roles(data) == [26, 0, 6] and data.train.names[0] == 'train/ant/0.png'
    assert said(data, f'the splits lie in d/{wrap}')
    named = divided(['d', '--train-split', 'test', '--val-fraction', '0'])
    assert roles(named)[0] == 6 and named.train.names[0].startswith('test/')


@pytest.mark.parametrize('wrap', ['.', 'x/dataset'])
def test_splits_in_a_tar(photo_folder, divided, tmp_path, wrap):
    photo_folder(f's/{wrap}/train'), photo_folder(f's/{wrap}/validation', {'ant': 2, 'bee': 2, 'cat': 2})
    photo_folder(f's/{wrap}/extra', {'ant': 3, 'bee': 2, 'cat': 1})
    with tarfile.open(tmp_path / 't.tar', 'w') as tar:
        tar.add(tmp_path / 's', '.')
    data = divided(['t.tar'])
    assert roles(data) == [26, 6, 0] and data.classes.names == ['ant', 'bee', 'cat']
    assert data.train.names[0] == 'train/ant/0.png' and said(data, 'beside the splits in t.tar and not read: extra')
    assert roles(divided(['t.tar', '--train-split', 'train+extra'])) == [32, 6, 0]
    with pytest.raises(UserError, match='--train-split tarin: t.tar holds no such folder; it has: extra, train, valid'):
        divided(['t.tar', '--train-split', 'tarin'])


def test_a_class_called_train_in_a_tar(photo_folder, divided, tmp_path):
    photo_folder('s', {'train': 8, 'car': 8})
    with tarfile.open(tmp_path / 't.tar', 'w') as tar:
        tar.add(tmp_path / 's', '.')
    assert divided(['t.tar']).classes.names == ['car', 'train']


def test_the_verb_eval_reads_the_same(photo_folder, run, tmp_path, capsys):
    """A wrapped split, and one in a tar, are judged as the folder itself is."""
    import json

    from timm_smalldata.cli.eval import main
    photo_folder('d/x/train'), photo_folder('d/x/test', {'ant': 3, 'bee': 2, 'cat': 1})
    with tarfile.open(tmp_path / 't.tar', 'w') as tar:
        tar.add(tmp_path / 'd', '.')
    assert run(['d', '--val-fraction', '0'])[0] == 0
    found = []
    for place in ('d/x', 'd', 't.tar'):
        capsys.readouterr()
        assert main(['runs/e', place, '--json']) == 0
        report = json.loads(capsys.readouterr().out)
        found.append([report[name] for name in ('split', 'num_images', 'top1', 'loss')])
    assert found[0][:2] == ['test', 6] and found[0] == found[1] == found[2]
