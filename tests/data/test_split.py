import json
import random

import numpy as np
import pytest
import torch

from timm_smalldata.data.split import (
    classes_without_held,
    folds,
    group_keys,
    held_per_class,
    hold_out,
    parse_fold,
)
from timm_smalldata.data.split_file import read_indices, read_split, write_indices, write_split
from timm_smalldata.errors import UserError


def random_labels(seed):
    """Labels with gaps between them and classes from one image up."""
    rng = np.random.RandomState(seed)
    sizes = rng.choice([1, 1, 2, 3, 4, 5, 9, 10, 40, 150], rng.randint(2, 12))
    labels = rng.choice(1000, len(sizes), replace=False)
    return rng.permutation(np.repeat(labels, sizes))


def random_groups(labels, seed, mixed):
    """Groups of one to ten images, of one class each or across classes."""
    rng = np.random.RandomState(seed + 100)
    group = rng.randint(0, max(len(labels) // 4, 2), len(labels))
    return [f'{g}' if mixed else f'{label}/{g % (1 + label % 9)}' for g, label in zip(group, labels)]


def count(labels, c):
    return int(np.sum(labels == c))


@pytest.mark.parametrize('n, fraction, expected', [
    (1, 0.9, 0), (2, 0.2, 0), (2, 0.25, 1), (2, 0.9, 1), (3, 0.1, 0), (3, 0.2, 1), (3, 0.99, 2), (4, 0.01, 1),
    (5, 0.1, 1), (10, 0.25, 3), (100, 0.2, 20), (5, 0.99, 4)])
def test_held_per_class(n, fraction, expected):
    assert held_per_class([n], fraction).tolist() == [expected]
    if n * fraction >= 0.5 and n >= 2:
        assert expected >= 1


@pytest.mark.parametrize('fraction', [0.05, 0.2, 0.5, 0.9])
@pytest.mark.parametrize('seed', range(8))
def test_hold_out(seed, fraction):
    targets = random_labels(seed)
    kept, held = hold_out(targets, fraction, seed)
    assert kept.dtype == held.dtype == np.int64
    assert sorted([*kept, *held]) == list(range(len(targets)))
    assert (np.diff(kept) > 0).all() and (np.diff(held) > 0).all()
    for c in set(targets.tolist()):
        n = count(targets, c)
        assert count(targets[held], c) == held_per_class([n], fraction)[0]
        assert count(targets[kept], c) >= 1
        assert (c in classes_without_held(targets, held)) == (count(targets[held], c) == 0)


def test_hold_out_depends_on_the_seed_alone():
    targets = random_labels(3)
    first = hold_out(targets, 0.2, 5)[1]
    np.random.rand(7)
    assert (hold_out(targets.tolist(), 0.2, 5)[1] == first).all()
    assert (hold_out(torch.tensor(targets), 0.2, 5)[1] == first).all()
    assert any((hold_out(targets, 0.2, other)[1] != first).any() for other in range(4))


def test_hold_out_is_even_over_images():
    times = sum(np.bincount(hold_out([0] * 10 + [1] * 10, 0.3, seed)[1], minlength=20) for seed in range(400))
    assert times.sum() == 400 * 6
    assert (np.abs(times - 120) < 5 * np.sqrt(400 * 0.3 * 0.7)).all()  # five standard deviations


@pytest.mark.parametrize('mixed', [False, True])
@pytest.mark.parametrize('seed', range(12))
def test_hold_out_groups(seed, mixed):
    targets = random_labels(seed)
    groups = random_groups(targets, seed, mixed)
    kept, held = hold_out(targets, 0.2, seed, groups)
    assert sorted([*kept, *held]) == list(range(len(targets)))
    assert not {groups[i] for i in kept} & {groups[i] for i in held}
    assert (hold_out(targets, 0.2, seed, groups)[1] == held).all()
    for c in set(targets.tolist()):
        of_class = np.flatnonzero(targets == c)
        assert count(targets[kept], c) >= 1
        if not mixed:  # every group is of one class: nothing stands in the way of the promised numbers
            sizes = sorted(sum(groups[i] == g for i in of_class) for g in {groups[i] for i in of_class})
            wanted = held_per_class([len(of_class)], 0.2)[0]
            got = count(targets[held], c)
            if len(sizes) == 1 or wanted == 0:
                assert got == 0
            else:
                assert got >= 1
                assert abs(got - wanted) <= max(sizes)


def test_groups_that_cannot_move():
    # One animal per class: all stay. With a second animal of class 0, one of the two is held.
    kept, held = hold_out([0] * 6 + [1] * 6, 0.2, 0, ['a'] * 6 + ['b'] * 6)
    assert len(kept) == 12 and len(held) == 0
    kept, held = hold_out([0] * 6 + [1] * 6, 0.2, 0, ['a'] * 4 + ['c'] * 2 + ['b'] * 6)
    assert held.tolist() == [4, 5]


def test_group_choice_varies_and_comes_near_the_fraction():
    targets = np.repeat([0, 1], 500)
    groups = np.repeat(np.arange(200), 5)
    held = [hold_out(targets, 0.2, seed, groups)[1] for seed in range(3)]
    assert all(np.bincount(targets[h]).tolist() == [100, 100] for h in held)
    assert held[0].tolist() != held[1].tolist() != held[2].tolist()


@pytest.mark.parametrize('k', [2, 3, 5, 20])
@pytest.mark.parametrize('seed', range(6))
def test_folds(seed, k):
    targets = random_labels(seed)
    parts = folds(targets, k, seed)
    assert len(parts) == k
    every = np.concatenate(parts)
    alone = [i for i, c in enumerate(targets) if count(targets, c) == 1]
    assert sorted([*every, *alone]) == list(range(len(targets)))
    for part in parts:
        assert part.dtype == np.int64 and (np.diff(part) > 0).all()
        assert abs(len(part) - len(every) / k) < 1
        for c in set(targets.tolist()):
            n, held = count(targets, c), count(targets[part], c)
            assert held < n
            assert n == 1 or abs(held - n / k) < 1
    assert all((a == b).all() for a, b in zip(parts, folds(targets, k, seed)))


@pytest.mark.parametrize('mixed', [False, True])
@pytest.mark.parametrize('k', [2, 5])
@pytest.mark.parametrize('seed', range(6))
def test_group_folds(seed, k, mixed):
    targets = random_labels(seed)
    groups = random_groups(targets, seed, mixed)
    parts = folds(targets, k, seed, groups)
    assert len(parts) == k
    held = np.concatenate(parts)
    assert len(set(held.tolist())) == len(held)
    for part in parts:
        assert part.dtype == np.int64 and (np.diff(part) > 0).all()
        kept = np.setdiff1d(np.arange(len(targets)), part)
        assert not {groups[i] for i in part} & {groups[i] for i in kept}
        assert set(targets[kept].tolist()) == set(targets.tolist())  # no class is held out entirely
    if not mixed:
        for c in set(targets.tolist()):
            animals = {g for g, label in zip(groups, targets) if label == c}
            assert count(targets[held], c) == 0 if len(animals) == 1 else count(targets[held], c) > 0


def test_group_folds_where_every_class_is_smaller_than_k():
    parts = folds([0, 0, 1, 1, 2], 4, 0, ['a', 'b', 'c', 'd', 'e'])
    assert sorted(np.concatenate(parts).tolist()) == [0, 1, 2, 3]


def test_group_folds_are_stratified():
    targets = np.repeat([0, 1, 2], [400, 200, 100])
    for part in folds(targets, 5, 1, np.arange(700) // 5):
        assert np.bincount(targets[part]).tolist() == [80, 40, 20]


def test_global_generators_stay_untouched():
    targets = random_labels(1)
    groups = random_groups(targets, 1, False)
    before = np.random.get_state()[1].copy(), random.getstate(), torch.get_rng_state()
    for g in (None, groups):
        hold_out(targets, 0.2, 0, g)
        folds(targets, 3, 0, g)
    assert (np.random.get_state()[1] == before[0]).all()
    assert random.getstate() == before[1]
    assert torch.equal(torch.get_rng_state(), before[2])


@pytest.mark.parametrize('call, words', [
    (lambda: hold_out([0, 1], 0, 0), 'between 0 and 1'),
    (lambda: hold_out([0, 1], 20, 0), 'between 0 and 1'),
    (lambda: hold_out([0, 1], 0.5, 0, ['a']), '1 group keys for 2 images'),
    (lambda: folds([0, 1], 2, 0, ['a']), '1 group keys for 2 images'),
    (lambda: folds([0, 1], 1, 0), '--fold'),
    (lambda: group_keys(['a_1.jpg', 'b.jpg'], r'(\w)_'), r"'b\.jpg'"),
    (lambda: group_keys(['a_1.jpg'], r'(x)?a_'), r"'a_1\.jpg'"),
    (lambda: group_keys(['a_1.jpg'], '('), 'not a regular expression'),
])
def test_errors_are_one_clear_line(call, words):
    with pytest.raises(UserError, match=words) as e:
        call()
    assert '\n' not in str(e.value)


def test_parse_fold():
    assert parse_fold('1/2') == (1, 2)
    assert parse_fold(' 5 / 5 ') == (5, 5)
    for text in ('0/5', '6/5', '1/1', '2', 'a/b', '1/5/2', '-1/5', '', '1.5/5'):
        with pytest.raises(UserError, match='--fold'):
            parse_fold(text)


def test_group_keys():
    names = ['n1/cat7_a.jpg', 'n1/cat7_b.jpg', 'n2/dog1_a.jpg']
    assert group_keys(names, r'/([^_]+)_(.)').tolist() == ['cat7', 'cat7', 'dog1']
    assert group_keys(names, r'[a-z]+\d(?=_)').tolist() == ['cat7', 'cat7', 'dog1']
    assert len(hold_out([0, 0, 1], 0.5, 0, group_keys(names, r'/([^_]+)_'))[1]) == 0


NAMES = ['a/1.png', 'a/2.png', 'b/é.png', 'b/4.png', 'b/\udce9.png']


def test_split_file_round_trip(tmp_path):
    path = str(tmp_path / 'deep' / 'split.json')
    (tmp_path / 'deep').mkdir()
    split = {'train': [NAMES[3], NAMES[0]], 'val': [NAMES[4], NAMES[2]], 'test': []}
    digest = write_split(path, split, {'fraction': 0.2})
    content = json.load(open(path))
    assert content['sha256'] == digest and len(digest) == 64 and content['extra'] == {'fraction': 0.2}
    read = read_split(path, NAMES[::-1])
    assert {role: [NAMES[::-1][i] for i in indices] for role, indices in read.items()} == {
        'train': [NAMES[3], NAMES[0]], 'val': [NAMES[4], NAMES[2]], 'test': []}
    assert all(indices.dtype == np.int64 for indices in read.values())
    assert [p.name for p in (tmp_path / 'deep').iterdir()] == ['split.json']
    reordered = {'val': split['val'][::-1], 'train': split['train'][::-1], 'test': []}
    assert write_split(path, reordered) == digest
    assert write_split(path, {**split, 'test': ['c']}) != digest


def tampered(path, change):
    content = json.load(open(path))
    change(content['split'])
    json.dump(content, open(path, 'w'))


@pytest.mark.parametrize('change, words', [
    (lambda s: s['val'].append(s['train'].pop()), 'sha256'),
    (lambda s: s['val'].append(s['train'][0]), 'listed twice'),
    (lambda s: s.update(train='a/1.png'), 'not a split file'),
])
def test_changed_split_files_are_refused(tmp_path, change, words):
    path = str(tmp_path / 'split.json')
    write_split(path, {'train': NAMES[:2], 'val': NAMES[2:]}, {})
    tampered(path, change)
    with pytest.raises(UserError, match=words):
        read_split(path, NAMES)


def test_split_file_errors(tmp_path):
    path = str(tmp_path / 'split.json')
    with pytest.raises(UserError, match=r"'a'.*'train'.*'val'"):
        write_split(path, {'train': ['a'], 'val': ['a']}, {})
    with pytest.raises(UserError, match='listed twice'):
        write_split(path, {'train': ['a', 'a']}, {})
    with pytest.raises(UserError, match='cannot be read'):
        read_split(path, NAMES)
    write_split(path, {'train': NAMES}, {})
    with pytest.raises(UserError, match=r"4 of its 5 images.*'a/1.png', 'a/2.png', 'b/é.png', \.\.\."):
        read_split(path, NAMES[3:4])
    with pytest.raises(UserError, match='1 image names repeat'):
        read_split(path, NAMES + NAMES[:1])
    with pytest.raises(UserError, match="no 'names'"):
        read_indices(path, NAMES)
    for text in ('[]', '{', '{"sha256": "x"}'):
        open(path, 'w').write(text)
        with pytest.raises(UserError, match='split.json'):
            read_split(path, NAMES)


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = str(tmp_path / 'split.json')
    digest = write_split(path, {'train': NAMES}, {})
    with pytest.raises(TypeError):
        write_split(path, {'train': NAMES}, {'not': object()})
    assert json.load(open(path))['sha256'] == digest
    assert [p.name for p in tmp_path.iterdir()] == ['split.json']


def test_index_file_keeps_the_order(tmp_path):
    path = str(tmp_path / 'tail.json')
    digest = write_indices(path, np.array([4, 0, 2]), NAMES)
    read = read_indices(path, NAMES)
    assert read.dtype == np.int64 and read.tolist() == [4, 0, 2]
    assert read_indices(path, NAMES[::-1]).tolist() == [0, 4, 2]
    assert write_indices(path, [0, 4, 2], NAMES) != digest
    with pytest.raises(UserError, match='1 of its 3 images'):
        read_indices(path, NAMES[1:])
    content = json.load(open(path))
    content['names'].pop()
    json.dump(content, open(path, 'w'))
    with pytest.raises(UserError, match='sha256'):
        read_indices(path, NAMES)
