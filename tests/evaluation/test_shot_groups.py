import numpy as np
import pytest
import torch

from timm_smalldata.errors import UserError
from timm_smalldata.evaluation import auto_shot_split, parse_shot_split, shot_groups


@pytest.mark.parametrize('kind', [list, np.array, torch.tensor])
def test_cuts_of_the_reference(kind):
    # LiVT's own function on these counts
    assert shot_groups(kind([101, 100, 50, 20, 19, 5])) == {'many': [0], 'medium': [1, 2, 3], 'few': [4, 5]}


def test_any_order_and_other_cuts():
    assert shot_groups([0, 300, 7, 40], many=39, few=7) == {'many': [1, 3], 'medium': [2], 'few': [0]}
    assert shot_groups([20, 20]) == {'many': [], 'medium': [0, 1], 'few': []}
    with pytest.raises(ValueError, match='overlap'):
        shot_groups([1, 2], many=20, few=100)


def test_parse_counts():
    counts = [3, 500, 90, 19, 101]
    assert parse_shot_split('counts:100,20', counts) == shot_groups(counts)
    assert parse_shot_split(' counts:400,90 ', counts) == {'many': [1], 'medium': [2, 4], 'few': [0, 3]}


def test_parse_index_is_stable():
    counts = torch.tensor([7, 50, 7, 900, 7, 50])  # falling: 3, 1, 5, 0, 2, 4
    assert parse_shot_split('index:2,4', counts) == {'many': [1, 3], 'medium': [0, 5], 'few': [2, 4]}
    assert parse_shot_split('index:0,6', counts) == {'many': [], 'medium': [0, 1, 2, 3, 4, 5], 'few': []}


def test_parse_index_of_cifar100_lt():
    # DeiT-LT cuts CIFAR-100 with imbalance 100 at 36 and 71: one class more than 'over 100 images' has
    counts = [int(500 * 0.01 ** (i / 99.0)) for i in range(100)]
    groups = parse_shot_split('index:36,71', counts)
    assert [len(groups[name]) for name in ('many', 'medium', 'few')] == [36, 35, 29]
    assert [len(g) for g in shot_groups(counts).values()] == [35, 35, 30]


@pytest.mark.parametrize('text', [
    '', 'counts', 'counts:100', 'counts:100,20,5', 'counts:20,100', 'index:3,1', 'index:1,5', 'index:-1,2', 'shots:1,2',
    'counts:1.5,1',
])
def test_bad_text_names_the_flag_and_both_forms(text):
    with pytest.raises(UserError) as error:
        parse_shot_split(text, [5, 4, 3, 2])
    message = str(error.value)
    assert '--shot-split' in message and 'counts:100,20' in message and 'index:36,71' in message
    assert repr(text) in message and '\n' not in message


def test_shares_of_the_classes():
    """DeiT-LT's cuts, by class on each of its data sets (36, 71 and 3, 7 and 390, 835 and 842, 4543)."""
    for text, classes, cuts in (
            ('0.36,0.71', 100, (36, 71)), ('0.36,0.71', 10, (3, 7)), ('0.39,0.835', 1000, (390, 835)),
            ('0.10342,0.55798', 8142, (842, 4543)), ('0.29,0.57', 100, (29, 57))):
        groups = parse_shot_split(f'index:{text}', list(range(classes, 0, -1)))
        assert (len(groups['many']), len(groups['many']) + len(groups['medium'])) == cuts
    for text in ('index:0.7,0.3', 'index:1.5,2', 'counts:0.5,0.2', 'index:0.3,7'):
        with pytest.raises(UserError, match='--shot-split'):
            parse_shot_split(text, [3, 2, 1])


@pytest.mark.parametrize('counts, split', [
    ([500, 60, 5], 'counts:100,20'), ([101, 20, 19], 'counts:100,20'),  # no group is empty
    ([12, 8, 6], 'counts:8,8'), (list(range(1, 10)), 'counts:6,4'), ([300, 250, 200, 150], 'counts:250,200'),
    ([9, 9, 9, 9, 5, 4], 'counts:5,5'), ([9, 9, 3], 'counts:3,4'), ([7, 7], 'counts:100,20'), ([7], 'counts:100,20')])
def test_auto_cuts_thirds_where_a_group_were_empty(counts, split):
    assert auto_shot_split(counts) == auto_shot_split(counts[::-1]) == split
    groups = parse_shot_split('auto', counts)
    assert groups == parse_shot_split(split, counts)
    assert sorted(groups['many'] + groups['medium'] + groups['few']) == list(range(len(counts)))
    of = {count: name for name, members in groups.items() for count in {counts[c] for c in members}}
    assert len(of) == len(set(counts))  # classes of equal counts stay together
    assert len(set(of.values())) == min(3, len(set(counts)))
