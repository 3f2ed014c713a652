import csv
import json
import math

import pytest
import torch
import torch.nn.functional as F

from timm_smalldata.cli.report import main
from timm_smalldata.data.classes import ClassInfo
from timm_smalldata.evaluation import (
    LongTailEvaluator,
    balanced_accuracy_interval,
    group_interval,
    shot_groups,
    wilson_interval,
)
from timm_smalldata.report.assemble import build_report, write_report
from timm_smalldata.report.table import columns_of, format_report

NAMES = ['a,b', 'two\nlines\r', '猫' * 40, 'caf\udce9', 'esc\x1b[31m\u202e', 'plain']
COUNTS = [500, 300, 60, 40, 10, 7]
SEEN = [100, 40, 30, 8, 0, 5]
HITS = [90, 30, 30, 2, 0, 0]  # the missed ones are taken for the class before


@pytest.fixture
def classes():
    return ClassInfo(NAMES, COUNTS, 'abc123')


@pytest.fixture
def evaluator():
    evaluator = LongTailEvaluator(COUNTS)
    for c, (seen, hits) in enumerate(zip(SEEN, HITS)):
        prediction = torch.tensor([c] * hits + [(c - 1) % 6] * (seen - hits), dtype=torch.int64)
        evaluator.update(4.0 * F.one_hot(prediction, 6), torch.full((seen,), c))
    evaluator.compute()
    return evaluator


def report_of(evaluator, classes, **kw):
    return build_report(evaluator, classes, **{'split': 'test', 'selected_on': 'val', 'epoch': 7, **kw})


def test_fields(evaluator, classes):
    report = report_of(evaluator, classes)
    assert report == json.loads(json.dumps(report, allow_nan=False))
    assert report['top1'] == pytest.approx(100 * 152 / 183)
    assert report['balanced_top1'] == pytest.approx(100 * (.9 + .75 + 1 + .25 + 0) / 5)
    assert (report['many'], report['medium'], report['few']) == pytest.approx((82.5, 62.5, 0.0))
    confidence = math.exp(4) / (math.exp(4) + 5)  # of every image: one bin
    assert report['ece'] == report['mce'] == pytest.approx(
        100 * abs(152 / 183 - confidence), abs=100 * 4 * 2 ** -24)  # the softmax is float32
    assert report['worst'] == {'class': 'plain', 'recall': 0.0}
    assert (report['split'], report['selected_on'], report['epoch']) == ('test', 'val', 7)
    assert (report['num_images'], report['classes'], report['classes_without_images']) == (183, 6, 1)
    assert report['data_hash'] == 'abc123' and report['shot_groups'] == 'counts:100,20'
    assert report['note'] == 'one run: without the spread of seeds and splits'
    assert report['groups'] == {
        'many': {'classes': 2, 'train_images': 800, 'images': 140, 'few_images': False},
        'medium': {'classes': 2, 'train_images': 100, 'images': 38, 'few_images': False},
        'few': {'classes': 2, 'train_images': 17, 'images': 5, 'few_images': True},
    }
    assert [row['class'] for row in report['weakest']] == ['plain', 'caf\udce9', 'two\nlines\r', 'a,b', '猫' * 40]


def test_intervals(evaluator, classes):
    intervals = report_of(evaluator, classes)['intervals']
    assert intervals['top1'] == pytest.approx([100 * x for x in wilson_interval(152, 183)])
    assert intervals['balanced_top1'] == pytest.approx([100 * x for x in balanced_accuracy_interval(HITS, SEEN)])
    assert intervals['many'] == pytest.approx([100 * x for x in group_interval([90, 30], [100, 40], [0, 1])])
    for name, (lo, hi) in intervals.items():
        assert 0 <= lo <= report_of(evaluator, classes)[name] <= hi <= 100


def test_undefined_is_null(classes):
    evaluator = LongTailEvaluator([500, 500, 500])
    evaluator.update(torch.full((2, 3), float('nan')), torch.tensor([0, 0]))
    report = report_of(evaluator, ClassInfo(['x', 'y', 'z'], [500] * 3))
    assert report['loss'] is report['ece'] is report['mce'] is None
    assert report['medium'] is report['few'] is report['intervals']['few'] is None
    assert report['groups']['few'] == {'classes': 0, 'train_images': 0, 'images': 0, 'few_images': False}
    empty = report_of(LongTailEvaluator([5, 5]), ClassInfo(['x', 'y'], [5, 5]))
    assert empty['balanced_top1'] is empty['worst'] is empty['intervals']['top1'] is None
    for undefined in (report, empty):
        json.dumps(undefined, allow_nan=False)
        assert ' nan' not in format_report(undefined).lower()


@pytest.mark.parametrize('split, selected_on, note', [
    ('val', 'val', 'validation, used for selection'), ('val', 'none', 'validation'), ('test', 'val', 'test'),
    ('test', 'test', 'test, used for selection'), ('test', 'none', 'test'),
])
def test_split_note(evaluator, classes, split, selected_on, note):
    report = report_of(evaluator, classes, split=split, selected_on=selected_on)
    assert report['split_note'] == note
    first = format_report(report).split('\n')[0]
    assert first.startswith(f'{note}: 183 images, 6 classes, weights of epoch 8 ')
    assert first.endswith({'none': '(not selected)'}.get(selected_on, f'chosen on {selected_on}'))


def test_groups_given(evaluator, classes):
    groups = {'many': [5], 'medium': [], 'few': [0]}
    report = report_of(evaluator, classes, groups=groups)
    assert (report['many'], report['medium'], report['few']) == (0.0, None, 90.0)
    assert report['shot_groups'] == 'custom'
    assert report_of(evaluator, classes, groups=groups, shot_split='index:1,5')['shot_groups'] == 'index:1,5'


def test_extra(evaluator, classes):
    assert report_of(evaluator, classes, extra={'model': 'vit'})['model'] == 'vit'
    with pytest.raises(ValueError, match='top1'):
        report_of(evaluator, classes, extra={'top1': 100})
    with pytest.raises(ValueError, match='2 classes, the evaluator 6'):
        report_of(evaluator, ClassInfo(['x', 'y'], [1, 1]))


def test_files_round_trip(evaluator, classes, tmp_path):
    report = report_of(evaluator, classes)
    write_report(tmp_path, report, evaluator, classes)
    assert {p.name for p in tmp_path.iterdir()} == {'report.json', 'per_class.csv', 'confusion.csv'}
    assert json.loads((tmp_path / 'report.json').read_text(encoding='utf-8')) == report
    with open(tmp_path / 'per_class.csv', newline='', encoding='utf-8') as file:
        rows = list(csv.DictReader(file))
    written = [name.replace('\udce9', '\\udce9') for name in NAMES]
    assert [row['class'] for row in rows] == written
    assert [int(row['train_images']) for row in rows] == COUNTS
    assert [int(row['images']) for row in rows] == SEEN and [int(row['hits']) for row in rows] == HITS
    assert [row['recall'] for row in rows] == ['90.0000', '75.0000', '100.0000', '25.0000', '', '0.0000']
    assert (rows[4]['lo'], rows[4]['hi']) == ('', '')
    assert float(rows[0]['lo']) == pytest.approx(100 * wilson_interval(90, 100)[0], abs=1e-4)
    assert [row['group'] for row in rows] == ['many', 'many', 'medium', 'medium', 'few', 'few']
    assert [bool(row['mark']) for row in rows] == [False, False, False, True, True, True]
    with open(tmp_path / 'confusion.csv', newline='', encoding='utf-8') as file:
        table = list(csv.reader(file))
    assert table[0] == ['class', *written] and [row[0] for row in table[1:]] == written
    assert [[int(x) for x in row[1:]] for row in table[1:]] == [
        [90, 0, 0, 0, 0, 10], [10, 30, 0, 0, 0, 0], [0, 0, 30, 0, 0, 0],
        [0, 0, 6, 2, 0, 0], [0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 5, 0]]


def test_same_numbers_same_bytes(evaluator, classes, tmp_path):
    for name in ('x', 'y'):
        (tmp_path / name).mkdir()
        write_report(tmp_path / name, report_of(evaluator, classes), evaluator, classes)
    for name in ('report.json', 'per_class.csv', 'confusion.csv'):
        assert (tmp_path / 'x' / name).read_bytes() == (tmp_path / 'y' / name).read_bytes()


def test_many_classes_write_no_confusion(tmp_path):
    evaluator, classes = LongTailEvaluator([3] * 2001), ClassInfo([str(i) for i in range(2001)], [3] * 2001)
    report = report_of(evaluator, classes)
    write_report(tmp_path, report, evaluator, classes)
    assert not (tmp_path / 'confusion.csv').exists()
    assert 'no confusion.csv: it is written for up to 2000 classes' in format_report(report)


def test_screen(evaluator, classes):
    report = report_of(evaluator, classes)
    text = format_report(report)
    lines = text.split('\n')
    assert max(map(columns_of, lines)) <= 100
    assert all(character.isprintable() for line in lines for character in line)
    assert not any(line != line.rstrip() for line in lines)
    assert 'two\\nlines\\r' in text and 'esc\\x1b[31m\\u202e' not in text  # no image: not among the weakest
    assert '猫猫...' in text and 'caf\\udce9' in text
    few = next(line for line in lines if line.startswith('few '))
    assert few.split() == ['few', '2', '17', '5', '0.00', *format_interval(report, 'few'), '*']
    assert next(line for line in lines if line.startswith('top1')).split()[1] == '83.06'
    assert '* under 30 images' in lines and lines[-1] == report['note']
    assert '1 classes have no image here' in text and 'confusion' not in text


def format_interval(report, name):
    return '{:.2f} - {:.2f}'.format(*report['intervals'][name]).split()


def test_print_again(evaluator, classes, tmp_path, capsys):
    report = {**report_of(evaluator, classes), 'timing': {'seconds': 3.0}}
    write_report(tmp_path, report, evaluator, classes)
    assert main([str(tmp_path)]) == 0
    assert capsys.readouterr().out == format_report(report) + '\n'
    assert main([str(tmp_path / 'report.json'), '--json']) == 0
    assert json.loads(capsys.readouterr().out) == report


def test_print_again_errors(tmp_path, capsys):
    (tmp_path / '1-mae').mkdir()
    (tmp_path / '1-mae' / 'report.json').write_text('[1, 2]')
    for folder, expected in (
            (tmp_path / 'nowhere', 'is this the folder of a finished run?'),
            (tmp_path, f'its stages have one: {tmp_path / "1-mae"}'),
            (tmp_path / '1-mae', 'is not a report'),
    ):
        assert main([str(folder)]) == 2
        out, err = capsys.readouterr()
        assert out == '' and err.count('\n') == 1 and expected in err and 'report.json' in err


def test_default_groups_are_the_evaluators(evaluator, classes):
    assert report_of(evaluator, classes) == report_of(evaluator, classes, groups=shot_groups(COUNTS))


def test_nothing_judged_is_null_not_zero():
    from timm_smalldata.data.classes import ClassInfo
    from timm_smalldata.evaluation import LongTailEvaluator
    evaluator = LongTailEvaluator([3, 2])
    evaluator.compute()
    report = build_report(evaluator, ClassInfo(['a', 'b'], [3, 2]), split='none', selected_on='none', epoch=0)
    assert all(report[name] is None for name in ('top1', 'top5', 'balanced_top1', 'many', 'few', 'ece', 'loss'))
    assert 'top1' in format_report(report)
