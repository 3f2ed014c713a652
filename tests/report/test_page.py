"""report.html: all of a run on one page that needs no network and takes any class name; and runs side by side."""
import json
import re
import shutil
from html.parser import HTMLParser

import pytest
import torch

from timm_smalldata.cli.report import main
from timm_smalldata.config.flags import BY_DEST
from timm_smalldata.data.classes import ClassInfo
from timm_smalldata.data.source import ArraySource
from timm_smalldata.evaluation import LongTailEvaluator
from timm_smalldata.evaluation.mistakes import ConfidentMistakes
from timm_smalldata.report.assemble import build_report, write_report
from timm_smalldata.report.mistakes import write_mistakes
from timm_smalldata.report.page import write_page
from timm_smalldata.report.side_by_side import compare_runs
from timm_smalldata.report.svg import Scale, heatmap
from timm_smalldata.utils.files import write_csv_atomic, write_json_atomic

NAMES = ['<script>alert(1)</script>', 'a & "b"', 'class', 'plain']
COUNTS = [300, 60, 12, 3]
TARGETS = torch.tensor([0] * 10 + [1] * 6 + [2] * 4 + [3] * 4)


class Reader(HTMLParser):
    """Collect tags, attributes and text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.words, self.open = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes
        if tag not in ('meta', 'img', 'br'):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def make_run(folder, shift=0, **settings):
    """A run folder as the train command leaves it, with made-up class scores."""
    folder.mkdir(parents=True)
    evaluator, watch = LongTailEvaluator(COUNTS), ConfidentMistakes()
    said = TARGETS.clone()
    said[::5 - shift] = 0
    logits = 4 * torch.eye(4)[said] + torch.rand(len(said), 4, generator=torch.Generator().manual_seed(0))
    evaluator.update(logits, TARGETS)
    watch(logits, TARGETS, torch.arange(len(TARGETS)))
    evaluator.compute()
    classes = ClassInfo(NAMES, COUNTS, 'ab' * 32)
    report = build_report(evaluator, classes, split='test', selected_on='val', epoch=1)
    write_report(folder, dict(report, timing=dict(seconds=75.0, epochs=[1.0])), evaluator, classes)
    images = ArraySource([torch.zeros(20, 30, 3, dtype=torch.uint8).numpy()] * len(TARGETS), TARGETS.tolist(), NAMES)
    write_mistakes(folder, watch.kept, images, NAMES)
    write_csv_atomic(folder / 'summary.csv', ['epoch', 'train_loss', 'eval_loss', 'eval_top1', 'eval_balanced_top1'], [
        [0, 2.0, None, None, None], [1, 1.5, 1.7, 50.0, 40.0]])
    values = {**{dest: flag.default for dest, flag in BY_DEST.items() if flag.in_file}, **settings}
    import yaml
    (folder / 'args.yaml').write_text(yaml.safe_dump(values))
    write_json_atomic(folder / 'environment.json', dict(
        python='3.11', cores=2, threads=1, processor='<cpu>', gpu=None, processes=1, versions=dict(timm='1.0'),
        command='train-smalldata "<photos>"'))
    write_json_atomic(
        folder / 'split.json', dict(sha256='cd' * 32, extra={}, split=dict(train=['x'] * 375, test=['y'])))
    return folder, report, watch


def test_the_page_holds_the_run(tmp_path):
    folder, report, watch = make_run(tmp_path / 'e <1>', loss='balanced-bce')
    page = Reader(write_page(folder).read_text(encoding='utf-8'))
    text = ' '.join(''.join(page.words).split())
    assert f'{report["balanced_top1"]:.1f} %' in text and 'weights of epoch 2, chosen on val' in text
    assert 'balanced-bce' in text and '1 min 15 s' in text and 'cdcdcdcd' in text and '<photos>' in text
    assert 'train 375 images, test 1 images' in text and 'were trained on' not in text
    for part in ('Recall by class size', 'Classes with most to gain', 'Most confident mistakes', 'Training',
                 'Confusion and calibration', 'Data', 'How it was made'):
        assert part in text
    assert page.tags.count('svg') == 6  # recall, two curves, confusion, reliability, histogram
    assert page.tags.count('img') == len(watch.kept) > 2
    assert page.open == []


def test_a_long_tail_is_told_from_its_pool_and_dark_squares_are_readable(tmp_path):
    folder, *_ = make_run(tmp_path / 'e')
    split = json.loads((folder / 'split.json').read_text())
    split['split']['train'] += ['another.png']
    (folder / 'split.json').write_text(json.dumps(split))
    raw = write_page(folder).read_text(encoding='utf-8')
    assert 'test 1 images. 375 of the train images were trained on' in ' '.join(''.join(Reader(raw).words).split())
    cells = [[9, 1], [6, 4]]
    drawn = str(heatmap(cells, ['a', 'b']))
    assert [f' class="over">{count}<' in drawn for row in cells for count in row] == [True, False, True, False]


def test_names_are_text_and_nothing_is_fetched(tmp_path):
    folder, *_ = make_run(tmp_path / 'e')
    raw = write_page(folder).read_text(encoding='utf-8')
    page = Reader(raw)
    assert 'script' not in page.tags and all(name in ''.join(page.words) for name in NAMES)
    links = [value for name, value in page.attributes if name in ('src', 'href', 'data', 'srcset')]
    assert links and all(value.startswith('data:image/jpeg;base64,') for value in links)
    assert not re.search(r'url\(|@import|https?://', raw)
    assert 'prefers-color-scheme: dark' in raw and '@media print' in raw


def test_mistakes_are_the_surest_ones(tmp_path):
    folder, _, watch = make_run(tmp_path / 'e')
    rows = json.loads((folder / 'mistakes.json').read_text())
    assert [row['confidence'] for row in rows] == sorted((row['confidence'] for row in rows), reverse=True)
    assert all(row['class'] != row['predicted'] for row in rows) and len(rows) == len(watch.kept)
    few = ConfidentMistakes(2)
    few.add(watch.kept)
    assert few.kept == watch.kept[:2]


def test_reliability_is_that_of_the_calibration_error(tmp_path):
    """The mean gap, weighted by images, is the expected calibration error."""
    _, report, _ = make_run(tmp_path / 'e')
    bins = report['reliability']
    gap = sum(b['images'] * abs(b['accuracy'] - b['confidence']) for b in bins) / sum(b['images'] for b in bins)
    assert gap == pytest.approx(report['ece'], abs=0.01) and sum(b['images'] for b in bins) == len(TARGETS)
    assert all(b['lo'] - 0.01 <= b['confidence'] <= b['hi'] + 0.01 for b in bins)  # rounded to hundredths


@pytest.mark.parametrize('gone', [
    'mistakes.json', 'summary.csv', 'confusion.csv', 'split.json', 'environment.json', 'args.yaml', 'per_class.csv'])
def test_a_page_of_an_older_run(tmp_path, gone):
    folder, report, _ = make_run(tmp_path / 'e')
    (folder / gone).unlink()
    old = json.loads((folder / 'report.json').read_text())
    old.pop('reliability')
    write_json_atomic(folder / 'report.json', old)
    page = Reader(write_page(folder).read_text(encoding='utf-8'))
    assert f'{report["balanced_top1"]:.1f} %' in ''.join(page.words) and page.open == []


def test_the_command_prints_the_table_and_writes_the_page(tmp_path, capsys):
    folder, *_ = make_run(tmp_path / 'e')
    assert main([str(folder)]) == 0
    out, err = capsys.readouterr()
    assert 'balanced_top1' in out and err == f'page: {folder / "report.html"}\n' and (folder / 'report.html').is_file()
    assert main([str(folder / 'report.json'), '--json']) == 0
    assert json.loads(capsys.readouterr().out)['top1'] is not None


def test_runs_side_by_side(tmp_path, capsys):
    for seed in (0, 1):
        make_run(tmp_path / f'ce{seed}', 0 if seed else 1, loss='ce', seed=seed)
        make_run(tmp_path / f'bce{seed}', 2, loss='bce', seed=seed, output='elsewhere')
    folders = [tmp_path / name for name in ('ce0', 'ce1', 'bce1', 'bce0')]
    first, second = compare_runs(folders)['rows']
    assert (first['settings'], second['settings']) == ('loss=ce', 'loss=bce')
    score = {p.name: json.loads((p / 'report.json').read_text())['balanced_top1'] for p in folders}
    assert first['balanced_top1'] == pytest.approx((score['ce0'] + score['ce1']) / 2) and first['balanced_top1_sd'] > 0
    assert 'difference' not in first and second['difference']['pairs'] == 2
    assert second['difference']['mean'] == pytest.approx(
        (score['bce0'] + score['bce1'] - score['ce0'] - score['ce1']) / 2)
    assert second['difference']['interval'][0] < second['difference']['mean'] < second['difference']['interval'][1]
    assert main([str(folder) for folder in folders]) == 0
    out = capsys.readouterr().out
    assert 'loss=bce' in out and '2 pairs' in out and '±' in out
    assert main([str(folders[0]), str(folders[2])]) == 0
    assert 'no paired difference' in capsys.readouterr().out


def test_what_does_not_compare_is_said(tmp_path, capsys):
    a, b = make_run(tmp_path / 'a')[0], make_run(tmp_path / 'b')[0]
    report = json.loads((b / 'report.json').read_text())
    write_json_atomic(b / 'report.json', {**report, 'data_hash': 'other', 'num_images': 3})
    notes = ' '.join(compare_runs([a, b])['notes'])
    assert 'trained on the same images' in notes and 'judged on the same images' in notes and 'one seed' in notes
    shutil.rmtree(b)
    assert main([str(a), str(b)]) == 2
    err = capsys.readouterr().err
    assert err.startswith('error: cannot read') and err.count('\n') == 1


def test_ticks_are_round():
    assert Scale(0, 100).ticks() == [0, 20, 40, 60, 80, 100]
    assert Scale(3, 40, log=True).ticks() == [5, 10, 20]
    assert Scale(1, 5000, log=True).ticks() == [1, 10, 100, 1000]
    assert len(Scale(2, 2).ticks()) >= 1


def test_curves_name_what_they_show_and_mark_whole_epochs():
    from timm_smalldata.report.page import _curves
    from timm_smalldata.report.svg import Scale
    (title, chart, names), = _curves([dict(epoch=str(epoch), train_loss=str(3 - epoch)) for epoch in range(2)], {})
    assert (title, names) == ('Loss', ['training'])
    assert chart.count('<polyline') == 1
    assert Scale(1, 2, whole=True).ticks() == [1, 2] and Scale(1, 60, whole=True).ticks() == [10, 20, 30, 40, 50, 60]
