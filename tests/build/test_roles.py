"""Which images train, which choose, which judge: what the train command finds, holds out and writes down."""
import csv
import json

import numpy as np
import pytest
import torch
from PIL import Image
from timm.loss import load_class_stats

from timm_smalldata.errors import UserError


def names(data):
    """The image names of each role, as sets."""
    return [None if part is None else set(part.names) for part in (data.train, data.val, data.test)]


def sizes(data):
    return [0 if part is None else len(part) for part in (data.train, data.val, data.test)]


def all_names(photos):
    return {f.relative_to(photos).as_posix() for f in photos.glob('*/*')}


def write_table(path, photos, split=None, which=lambda i: True, columns=('path', 'label', 'split')):
    rows = [(f.relative_to(photos).as_posix(), f.parent.name, split and split(i))
            for i, f in enumerate(sorted(photos.glob('*/*'))) if which(i)]
    with open(path, 'w', newline='') as stream:
        csv.writer(stream).writerows(row[:3 if split else 2] for row in [columns, *rows])
    return path


def write_list(path, photos, which=lambda i: True):
    number = {'ant': 0, 'bee': 1, 'cat': 2}
    files = sorted(photos.glob('*/*'))
    path.write_text(''.join(
        f'{f.relative_to(photos).as_posix()} {number[f.parent.name]}\n' for i, f in enumerate(files) if which(i)))
    return path


# --- without splits -------------------------------------------------------------------------------------------------

def test_val_and_test_are_held_out_of_every_class(photos, divided):
    data = divided([photos])
    train, val, test = names(data)
    assert train | val | test == all_names(photos) and not (train & val or train & test or val & test)
    # docs/data.md: min(n - 1, max(1 if n >= 4 else 0, round(0.15 n))), test first, then val of the rest
    counts = [np.bincount(part.targets, minlength=3).tolist() for part in (data.train, data.val, data.test)]
    assert counts[2] == [2, 1, 1] and counts[1] == [2, 1, 1] and counts[0] == [8, 6, 4]
    assert data.classes.counts == [8, 6, 4] and data.classes.names == ['ant', 'bee', 'cat']
    assert '4 of 26 images held out as test, stratified by class' in data.notes
    assert names(divided([photos])) == [train, val, test]
    assert names(divided([photos, '--split-seed', '1']))[2] != test
    assert names(divided([photos, '--seed', '1'])) == [train, val, test]  # the seed of training is another one


def test_a_class_with_one_image_stays_in_training(photo_folder, divided):
    data = divided([photo_folder('p', {'ant': 12, 'bee': 8, 'cat': 1})])
    assert data.classes.counts == [8, 6, 1] and 'cat/0.png' in data.train.names
    for role in ('test', 'val'):
        assert f'too few images to hold any out for {role}, they stay in training: cat' in data.notes


def test_nothing_can_be_held_out(photo_folder, divided):
    data = divided([photo_folder('p', {'ant': 1, 'bee': 2})])
    assert sizes(data) == [3, 0, 0] and 'no image could be held out as val' in ' '.join(data.notes)


def test_fractions(photos, divided):
    assert sizes(divided([photos, '--val-fraction', '0', '--test-fraction', '0'])) == [26, 0, 0]
    assert sizes(divided([photos, '--val-fraction', '.5', '--test-fraction', '0'])) == [13, 13, 0]


def test_the_hash_is_that_of_names_bytes_and_labels(photos, photo_folder, divided):
    first = divided([photos]).classes.data_hash
    assert divided([photo_folder('copy')]).classes.data_hash == first
    (photos / 'cat' / '0.png').write_bytes((photos / 'ant' / '0.png').read_bytes())
    assert divided([photos, '--val-fraction', '0', '--test-fraction', '0']).classes.data_hash != divided(
        ['copy', '--val-fraction', '0', '--test-fraction', '0']).classes.data_hash


# --- splits that are there ------------------------------------------------------------------------------------------

@pytest.mark.parametrize('folders', [
    ('train', 'val', 'test'), ('training', 'validation', 'testing'), ('train', 'valid', 'test'),
    ('Train', 'Val', 'Test'), ('train', 'dev', None), ('train', None, 'test'), ('train', None, None)])
def test_split_folders_are_found(photo_folder, divided, folders):
    few = {'ant': 3, 'bee': 2, 'cat': 1}
    for name, counts in zip(folders, ({'ant': 12, 'bee': 8, 'cat': 6}, few, few)):
        if name:
            photo_folder(f's/{name}', counts)
    data = divided(['s'])
    held = 0 if folders[1] else 4
    assert sizes(data) == [26 - held, held or 6, 6 if folders[2] else 0]
    assert all(name.startswith(f'{folders[0]}/') for name in data.train.names)
    assert not folders[2] or all(name.startswith(f'{folders[2]}/') for name in data.test.names)


def test_split_tars_are_found(photo_folder, divided, tmp_path):
    import tarfile
    (tmp_path / 't').mkdir()
    for name in ('train', 'val', 'test'):
        with tarfile.open(tmp_path / 't' / f'{name}.tar', 'w') as tar:
            tar.add(photo_folder(f's/{name}', {'ant': 4, 'bee': 3}), '.')
    data = divided(['t'])
    assert sizes(data) == [7, 7, 7] and data.train.names[0] == 'train.tar/ant/0.png'


def test_splits_are_named(photo_folder, divided):
    for name in ('a', 'b', 'train', 'val'):
        photo_folder(f's/{name}', {'ant': 4, 'bee': 3})
    data = divided(['s', '--train-split', 'b', '--val-split', 'a', '--test-split', 'validation'])
    first = [part.names[0] for part in (data.train, data.val, data.test)]
    assert first == ['b/ant/0.png', 'a/ant/0.png', 'val/ant/0.png']


def test_joined_splits(photo_folder, divided):
    """train+val trains on both, so val is held out of both; what is named for one role is not found for another."""
    for name in ('train', 'val', 'test'):
        photo_folder(f's/{name}', {'ant': 8, 'bee': 4})
    data = divided(['s', '--train-split', 'train+val'])
    train, val, test = names(data)
    for index in (0, len(train) - 1):
        image, label = data.train.read(index)
        name = data.train.names[index]
        assert np.array_equal(image, Image.open(f's/{name}').convert('RGB'))
        assert name.split('/')[1] == data.classes.names[label]
    assert len(train) + len(val) == 24 and not train & val and {n.split('/')[0] for n in train} == {'train', 'val'}
    assert {n.split('/')[0] for n in test} == {'test'}
    data = divided(['s', '--val-split', 'test'])
    assert sizes(data) == [12, 12, 0] and data.val.names[0] == 'test/ant/0.png'


@pytest.mark.parametrize('argv, message', [
    (['--train-split', 'tarin'], '--train-split tarin: .* has no such folder; it has: ant, bee, cat'),
    (['--val-split', 'val'], '--val-split val: .* has no such folder'),
    (['--train-split', 'a.csv'], 'No such split file: a.csv'),
])
def test_splits_that_are_not_there(photos, divided, argv, message):
    with pytest.raises(UserError, match=message):
        divided([photos, *argv])


def test_a_test_folder_without_a_training_folder(photo_folder, divided):
    photo_folder('s/test'), photo_folder('s/birds')
    with pytest.raises(UserError, match='holds test but no train/; name the training folder with --train-split'):
        divided(['s'])


# --- tables and lists -----------------------------------------------------------------------------------------------

def test_a_table_with_a_split_column(photos, divided):
    table = write_table(photos / 't.csv', photos, lambda i: ('train', 'Validation', 'test', 'train', 'odd')[i % 5])
    data = divided([table])
    assert sizes(data) == [11, 5, 5] and 'rows of these splits are not used: odd' in data.notes
    assert data.train.names[0] == 'ant/0.png' and data.classes.names == ['ant', 'bee', 'cat']
    assert sizes(divided([table, '--train-split', 'train+odd', '--test-split', 'Validation'])) == [16 - 3, 3, 5]


def test_a_table_without_splits(photos, divided):
    assert sizes(divided([write_table(photos / 't.csv', photos)])) == [18, 4, 4]


def test_one_table_for_each_split(photos, divided):
    write_table(photos / 'a.csv', photos, which=lambda i: i % 2)
    write_table(photos / 'b.csv', photos, which=lambda i: i % 2 == 0)
    for argv in ([photos, '--train-split', 'a.csv', '--val-split', 'b.csv'], [photos / 'a.csv', '--val-split', 'b.csv'],
                 [photos, '--train-split', photos / 'a.csv', '--val-split', photos / 'b.csv']):
        data = divided(argv)
        assert sizes(data) == [13, 13, 0] and data.train.names[0] == 'ant/1.jpg' and data.val.names[0] == 'ant/0.png'


def test_columns_and_image_folder_are_named(photos, divided, tmp_path):
    table = write_table(
        tmp_path / 'own.csv', photos, lambda i: 'x' if i % 2 else 'y', columns=('bild', 'art', 'teil'))
    data = divided([table, '--input-key', 'bild', '--target-key', 'art', '--split-key', 'teil', '--train-split', 'x',
                    '--val-split', 'y', '--image-root', photos])
    assert sizes(data) == [13, 13, 0]
    with pytest.raises(UserError, match='--val-split z: the split column of .* holds: x, y'):
        divided([table, '--input-key', 'bild', '--target-key', 'art', '--split-key', 'teil', '--train-split', 'x',
                 '--val-split', 'z', '--image-root', photos])


def test_list_files(photos, divided):
    write_list(photos / 'train.txt', photos, lambda i: i % 2 == 0)
    write_list(photos / 'val.txt', photos, lambda i: i % 2)
    for argv in ([photos, '--train-split', 'train.txt', '--val-split', 'val.txt'],
                 [photos / 'train.txt', '--val-split', 'val.txt']):
        data = divided(argv)
        assert sizes(data) == [13, 13, 0] and data.classes.names == ['0', '1', '2']
    assert sizes(divided([write_list(photos / 'all.lst', photos)])) == [18, 4, 4]


def test_labels_of_lists_are_in_the_order_of_numbers(photos, divided):
    (photos / 'l.txt').write_text(''.join(f'ant/{i}.{"jpg" if i % 2 else "png"} {i}\n' for i in range(12)))
    assert divided([photos / 'l.txt']).classes.names == [str(i) for i in range(12)]


def test_one_image_twice_is_an_error(photos, run):
    table = write_table(photos / 't.csv', photos)
    with open(table, 'a') as stream:
        stream.write('ant/0.png,ant\n')
    code, _, err = run([table])
    assert code == 2 and "'ant/0.png' is listed twice" in err


# --- groups, folds, split files -------------------------------------------------------------------------------------

def test_groups_stay_on_one_side(photos, divided):
    animal = {name: f'{name.split("/")[0]}{int(name.split("/")[1].split(".")[0]) // 2}' for name in all_names(photos)}
    with open(photos / 'g.csv', 'w') as stream:
        stream.write('path,label,animal\n')
        stream.writelines(f'{name},{name.split("/")[0]},{animal[name]}\n' for name in sorted(animal))
    for argv in (['g.csv', '--group-column', 'animal'], ['g.csv', '--group-column', 'animal', '--fold', '2/3']):
        groups = [{animal[name] for name in part} for part in names(divided([photos / argv[0], *argv[1:]]))]
        assert all(groups) and sum(map(len, groups)) == len(set.union(*groups)) == 13


def test_groups_from_file_names(photo_folder, divided, tmp_path):
    photo_folder('p', {'ant': 12, 'bee': 12})
    for label in ('ant', 'bee'):
        for i, file in enumerate(sorted((tmp_path / 'p').glob(f'{label}/*'))):
            file.rename(file.with_name(f'nest{i // 3}_{i}{file.suffix}'))
    data = divided(['p', '--group-regex', r'(\w+/nest\d)_'])
    groups = [{name.split('_')[0] for name in part} for part in names(data)]
    assert all(groups) and sum(map(len, groups)) == len(set.union(*groups)) == 8


@pytest.mark.parametrize('argv, unused', [
    (['--split-seed', '7'], '--split-seed 7'), (['--group-regex', '(.)'], '--group-regex (.)'),
    (['--group-column', 'animal'], '--group-column animal'), (['--val-fraction', '0.2'], '--val-fraction 0.2')])
@pytest.mark.parametrize('data', [['--dataset', 'sample/digits'], ['s']], ids=['sample', 'folders'])
def test_flags_of_what_is_not_held_out_get_a_line(photo_folder, divided, data, argv, unused):
    for role in ('train', 'val', 'test'):
        photo_folder(f's/{role}')
    notes = divided([*data, *argv]).notes
    assert [note for note in notes if note.startswith(f'{unused} is not used: ')], notes
    assert not [note for note in divided(data).notes if 'not used' in note]


def test_equal_images_in_two_roles_are_counted_and_stay(photo_folder, divided, tmp_path):
    root = tmp_path / 's'
    for number, role in enumerate(('train', 'val', 'test')):  # files of their own in each role
        photo_folder(f's/{role}', {'ant': 4, 'bee': 4}, suffixes=('.png',))
        for path in (root / role).rglob('*.png'):
            with open(path, 'ab') as stream:
                stream.write(bytes([number]))
    data = divided(['s'])
    assert data.duplicates == 0 and not [note for note in data.notes if 'byte for byte' in note]

    def copy(source, target):
        (root / target).write_bytes((root / source).read_bytes())

    copy('train/ant/0.png', 'test/ant/1.png'), copy('train/bee/2.png', 'test/ant/3.png')
    copy('train/ant/0.png', 'val/bee/0.png')
    copy('train/ant/0.png', 'train/ant/1.png')  # twice in one role: none of our business
    data = divided(['s'])
    assert sizes(data) == [8, 8, 8] and data.duplicates == 3
    assert [note for note in data.notes if 'byte for byte' in note] == [
        '1 image of val is byte for byte an image of train (first: val/bee/0.png = train/ant/1.png)',
        '2 images of test are byte for byte images of train (first: test/ant/1.png = train/ant/1.png)',
        '1 image of test is byte for byte an image of val (first: test/ant/1.png = val/bee/0.png)']


def test_a_split_file_leaves_nothing_to_seeds(photos, run, divided):
    assert run([photos])[0] == 0
    notes = divided([photos, '--split-file', 'runs/e/split.json', '--split-seed', '7']).notes
    assert '--split-seed 7 is not used: --split-file names the images of each role' in notes


@pytest.mark.parametrize('argv', [
    ['--train-split', 'train'], ['--val-split', 'test'], ['--test-split', 'val'], ['--input-key', 'path'],
    ['--target-key', 'label'], ['--split-key', 'fold'], ['--image-root', '.'], ['--folder-labels', 'leaf']])
def test_flags_that_a_sample_has_no_use_for_are_refused(divided, argv):
    with pytest.raises(UserError, match=f'{argv[0]} {argv[1]} does not go with --dataset sample/digits'):
        divided(['--dataset', 'sample/digits', *argv])


def test_a_class_map_of_names_for_a_list_of_numbers(photos, divided, tmp_path):
    (photos / 'list.txt').write_text(''.join(f'{name}/{i}.png {c}\n' for c, name in enumerate(('ant', 'bee', 'cat'))
                                             for i in (0, 2, 4)))
    (tmp_path / 'map.txt').write_text('ant\nbee\ncat\n')
    with pytest.raises(UserError, match='map.txt holds ant, bee, cat, but .* are numbers, 0 to 2: list these'):
        divided([photos / 'list.txt', '--class-map', 'map.txt'])
    (tmp_path / 'map.txt').write_text('2\n1\n0\n')
    assert divided([photos / 'list.txt', '--class-map', 'map.txt']).train.classes == ['2', '1', '0']


@pytest.mark.parametrize('argv, message', [
    (['--group-column', 'animal'], 'only CSV tables have columns; for files use --group-regex'),
    (['--group-regex', '('], 'not a regular expression'), (['--group-regex', 'zzz'], 'finds no group'),
    (['--fold', '4/3'], 'not a fold'), (['--val-fraction', '1.5'], 'between 0 and 1'),
    (['--num-classes', '4'], 'the data have 3: ant, bee, cat'),
    (['--split-file', 'nope.json'], 'nope.json'), (['--imbalance-indices', 'nope.json'], 'nope.json'),
    (['--imbalance-factor', '.01'], 'at least 1'), (['--class-stats', 'nope.json'], 'nope.json'),
    (['--cache-size', 'big'], 'cache-size'), (['--cache-size', '0'], 'cache-size'),
    (['--split-seed', '-1'], 'split-seed'), (['--shot-split', 'counts:x'], 'shot-split')])
def test_divisions_that_cannot_be_made(photos, divided, argv, message):
    with pytest.raises(UserError, match=message):
        divided([photos, *argv])


def test_folds_share_the_images_among_them(photos, divided, photo_folder):
    tests = [names(divided([photos, '--fold', f'{i}/3']))[2] for i in (1, 2, 3)]
    assert set.union(*tests) == all_names(photos) and sum(map(len, tests)) == 26
    photo_folder('s/train'), photo_folder('s/test', {'ant': 2, 'bee': 2, 'cat': 2})
    data = divided(['s', '--fold', '1/3'])  # a test split is there: the fold is val
    assert sizes(data) == [26 - 9, 9, 6] and 'fold 1 of 3 is the val split' in data.notes


def test_what_a_run_wrote_gives_the_same_run_again(photos, run, divided):
    """split.json, train_images.json and class_stats.json are read back by the flags that docs/data.md names."""
    code, _, err = run([photos, '--imbalance-factor', '3', '--split-seed', '5', '--epochs', '1'])
    assert code == 0
    assert 'set by' in err and 'many/medium/few' in err
    first = divided([photos, '--imbalance-factor', '3', '--split-seed', '5'])
    folder = photos.parent / 'runs' / 'e'

    stats = json.loads((folder / 'class_stats.json').read_text())
    counts, total = load_class_stats(str(folder / 'class_stats.json'))
    assert torch.equal(counts, torch.tensor(first.classes.counts).float()) and total == sum(first.classes.counts)
    assert stats['class_names'] == ['ant', 'bee', 'cat'] and first.classes.counts == [6, 3, 2]

    split = json.loads((folder / 'split.json').read_text())['split']  # its train is that before the tail was made
    whole = divided([photos, '--split-seed', '5'])
    assert {role: set(listed) for role, listed in split.items()} == dict(zip(('train', 'val', 'test'), names(whole)))
    assert names(divided([photos, '--split-file', folder / 'split.json'])) == names(whole)
    for tail in (['--imbalance-factor', '3'], ['--imbalance-indices', folder / 'train_images.json']):
        again = divided([photos, '--split-file', folder / 'split.json', *tail])
        assert again.train.names == first.train.names and names(again) == names(first)
        assert again.classes == first.classes

    again = divided([photos, '--split-seed', '5', '--imbalance-indices', folder / 'train_images.json'])
    assert again.train.names == first.train.names and names(again) == names(first)

    given = divided([photos, '--class-stats', folder / 'class_stats.json'])
    assert given.classes.counts == [6, 3, 2] and len(given.train) == 18


def test_a_split_file_of_other_images_is_refused(photos, photo_folder, run, divided):
    assert run([photos])[0] == 0
    (photos / 'ant' / '0.png').unlink()
    with pytest.raises(UserError, match="1 of its 26 images are not in the data: 'ant/0.png'"):
        divided([photos, '--split-file', 'runs/e/split.json'])
    (photos / 'ant' / 'new.png').write_bytes((photos / 'ant' / '2.png').read_bytes())
    text = (photos.parent / 'runs/e/split.json').read_text()
    (photos.parent / 'changed.json').write_text(text.replace('ant/0.png', 'ant/new.png'))
    with pytest.raises(UserError, match='changed'):
        divided([photos, '--split-file', 'changed.json'])


@pytest.mark.parametrize('content', [
    '{', '5', '{"a": 1}', '{"pos_counts": [1, 2], "num_samples": 3}', '{"pos_counts": null, "num_samples": 3}',
    '{"pos_counts": ["x"], "num_samples": 3}'])
def test_class_stats_that_do_not_fit(photos, divided, tmp_path, content):
    (tmp_path / 'stats.json').write_text(content)
    with pytest.raises(UserError, match='--class-stats stats.json'):
        divided([photos, '--class-stats', 'stats.json'])


# --- classes --------------------------------------------------------------------------------------------------------

def test_a_class_map_fixes_the_order(photos, divided, tmp_path):
    (tmp_path / 'map.txt').write_text('cat\ndog\nant\nbee\n')
    data = divided([photos, '--class-map', 'map.txt', '--allow-missing-classes'])
    assert data.classes.names == ['cat', 'dog', 'ant', 'bee'] and data.classes.counts == [4, 0, 8, 6]
    assert all(data.classes.names[data.val.targets[i]] == name.split('/')[0] for i, name in enumerate(data.val.names))


def test_splits_that_lack_a_class_are_accepted_by_flag(photo_folder, divided):
    photo_folder('s/train'), photo_folder('s/val', {'ant': 3, 'cat': 2})
    data = divided(['s', '--allow-missing-classes'])
    assert data.classes.names == ['ant', 'bee', 'cat'] and np.bincount(data.val.targets).tolist() == [3, 0, 2]


def test_the_tail_is_made_of_what_is_left_for_training(photos, divided):
    data = divided([photos, '--imbalance-factor', '3', '--imbalance-profile', 'step'])
    assert sizes(data)[1:] == [4, 4] and data.classes.counts == [6, 2, 2]
    assert set(data.train.names) < set(divided([photos]).train.names)
    assert divided([photos, '--imbalance-factor', '3', '--imbalance-seed', '1']).train.names != divided(
        [photos, '--imbalance-factor', '3']).train.names
