import ast
import math
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F
from timm.task import ClassificationEvaluator

import timm_smalldata.evaluation
from timm_smalldata.evaluation import LongTailEvaluator, calibration_error, shot_groups
from timm_smalldata.evaluation.evaluator import LOSS_SCALE


def case(num_classes=12, n=400, seed=0, empty=(3,)):
    """Logits, targets without the classes in `empty`, and training counts that make all three groups."""
    g = torch.Generator().manual_seed(seed)
    target = torch.randint(num_classes, (n,), generator=g)
    for c in empty:
        target[target == c] = (c + 1) % num_classes
    logits = torch.randn(n, num_classes, generator=g) * 2 + 2 * F.one_hot(target, num_classes)
    counts = [int(300 * 0.6 ** i) for i in range(num_classes)]
    return logits, target, counts


def run(evaluator, logits, target, sizes=(64, 1, 100, 7)):
    """Feed ragged batches."""
    start, i = 0, 0
    while start < len(target):
        size = sizes[i % len(sizes)]
        evaluator.update(logits[start:start + size], target[start:start + size])
        start, i = start + size, i + 1
    return evaluator


@pytest.mark.parametrize('num_classes', [3, 5, 12, 130])
def test_against_sklearn(num_classes):
    from sklearn.metrics import balanced_accuracy_score, confusion_matrix, recall_score, top_k_accuracy_score
    logits, target, counts = case(num_classes, empty=(1,))
    evaluator = run(LongTailEvaluator(counts), logits, target)
    metrics, state = evaluator.compute(), evaluator.state()
    prediction, labels = logits.argmax(1).numpy(), np.arange(num_classes)
    present = np.unique(target)

    assert tuple(metrics) == LongTailEvaluator.metric_names
    assert metrics['balanced_top1'] == pytest.approx(
        100 * recall_score(target, prediction, labels=present, average='macro'), abs=1e-9)
    if np.isin(prediction, present).all():
        assert metrics['balanced_top1'] == pytest.approx(100 * balanced_accuracy_score(target, prediction), abs=1e-9)
    assert (state['confusion'].numpy() == confusion_matrix(target, prediction, labels=labels)).all()
    if num_classes > 5:
        assert metrics['top5'] == pytest.approx(
            100 * top_k_accuracy_score(target, logits.numpy(), k=5, labels=labels), abs=1e-9)
    else:
        assert metrics['top5'] == 100
    recall = recall_score(target, prediction, labels=labels, average=None, zero_division=np.nan)
    for name, group in shot_groups(counts).items():
        values = recall[group][~np.isnan(recall[group])]
        assert metrics[name] == (pytest.approx(100 * values.mean()) if len(values) else None)
    assert metrics['worst'] == pytest.approx(100 * np.nanmin(recall))
    calibration = calibration_error(logits.softmax(1), target)
    assert (metrics['ece'], metrics['mce']) == pytest.approx((100 * calibration['ece'], 100 * calibration['mce']))


def test_same_as_timm_where_timm_has_it():
    logits, target, counts = case()
    ours = run(LongTailEvaluator(counts), logits, target)
    theirs = run(ClassificationEvaluator(), logits, target)
    for method in ('compute', 'summary'):
        got, expected = getattr(ours, method)(), getattr(theirs, method)()
        assert (got['top1'], got['top5']) == (expected['top1'], expected['top5'])
        assert got['loss'] == pytest.approx(expected['loss'], abs=1e-6)
    assert isinstance(ours, ClassificationEvaluator)
    assert ours.decreasing < set(ours.metric_names) and ours.default_metric in ours.metric_names


@pytest.mark.parametrize('num_classes', [3, 12, 130])
def test_order_and_batches_change_nothing(num_classes):
    logits, target, counts = case(num_classes, n=700)
    expected = run(LongTailEvaluator(counts), logits, target).compute()
    for seed, sizes in ((1, (700,)), (2, (3, 50)), (3, (1,))):
        order = torch.randperm(700, generator=torch.Generator().manual_seed(seed))
        assert run(LongTailEvaluator(counts), logits[order], target[order], sizes).compute() == expected


def test_class_missing_in_group_and_in_data():
    logits = torch.tensor([[2.0, 0, 0, 0], [2.0, 0, 0, 0], [0, 2.0, 0, 0]])
    evaluator = LongTailEvaluator([500, 400, 50, 3])
    evaluator.update(logits, torch.tensor([0, 1, 1]))
    metrics = evaluator.compute()
    assert (metrics['balanced_top1'], metrics['many'], metrics['worst']) == (75.0, 75.0, 50.0)
    assert metrics['medium'] is None and metrics['few'] is None


def test_groups_given():
    logits, target, counts = case()
    groups = {'many': [0, 5], 'medium': [], 'few': [1]}
    evaluator = run(LongTailEvaluator(counts, groups=groups), logits, target)
    metrics = evaluator.compute()
    hit = (logits.argmax(1) == target).double()
    recall = [100 * hit[target == c].mean().item() for c in (0, 5, 1)]
    assert metrics['many'] == pytest.approx((recall[0] + recall[1]) / 2)
    assert metrics['few'] == pytest.approx(recall[2]) and metrics['medium'] is None


def test_no_image_at_all():
    metrics = LongTailEvaluator([5, 200]).compute()
    assert metrics['loss'] == metrics['top1'] == metrics['ece'] == 0.0
    assert all(metrics[name] is None for name in ('balanced_top1', 'many', 'medium', 'few', 'worst'))


def test_padding_is_dropped():
    logits, target, counts = case(n=100)
    padded = run(LongTailEvaluator(counts, max_samples=90), logits, target, (64, 36))
    assert padded.compute() == run(LongTailEvaluator(counts), logits[:90], target[:90]).compute()


def test_reset_forgets():
    logits, target, counts = case()
    evaluator = run(LongTailEvaluator(counts), logits, target)
    first = evaluator.compute()
    evaluator.reset()
    assert evaluator.compute()['top1'] == 0 and not evaluator.state()['confusion'].any()
    assert run(evaluator, logits, target).compute() == first


def test_state_is_that_of_the_last_images():
    logits, target, counts = case(n=20)
    evaluator = LongTailEvaluator(counts)
    evaluator.update(logits[:8], target[:8])
    assert evaluator.state()['counts'][0] == 8
    evaluator.compute()
    evaluator.update(logits[8:], target[8:])
    state = evaluator.state()
    assert state['counts'][0] == 20 == state['seen'].sum() == state['bins'][0].sum()
    assert (state['confusion'].sum(1) == state['seen']).all() and (state['confusion'].diag() == state['hits']).all()
    assert all(total.dtype == torch.int64 for total in state.values())


def test_many_classes_have_no_confusion_matrix():
    target = torch.tensor([0, 2000, 7])
    evaluator = LongTailEvaluator([1] * 2001)
    evaluator.update(F.one_hot(target, 2001).float(), target)
    assert evaluator.compute()['balanced_top1'] == 100.0
    assert 'confusion' not in evaluator.state() and evaluator.state()['hits'].sum() == 3


def test_criterion_of_a_batch_is_weighted_by_its_size():
    logits, target, counts = case()
    criterion = nn.CrossEntropyLoss(label_smoothing=0.1)
    evaluator = run(LongTailEvaluator(counts, criterion=criterion), logits, target)
    assert evaluator.compute()['loss'] == pytest.approx(criterion(logits, target).item(), abs=1e-6)


def test_default_loss_is_exact_to_its_step():
    logits, target, counts = case(n=50)
    loss = F.cross_entropy(logits.double(), target).item()
    assert run(LongTailEvaluator(counts), logits, target).compute()['loss'] == pytest.approx(loss, abs=1e-6)
    evaluator = LongTailEvaluator([1, 1], criterion=lambda x, y: torch.full((len(y),), 3 / LOSS_SCALE))
    evaluator.update(torch.eye(2), torch.tensor([0, 1]))
    assert evaluator.compute()['loss'] == 3 / LOSS_SCALE


@pytest.mark.parametrize('bad', [float('nan'), float('inf')])
def test_divergence_shows(bad):
    logits, target, counts = case(n=30)
    logits[17] = bad
    metrics = run(LongTailEvaluator(counts), logits, target).compute()
    assert all(math.isnan(metrics[name]) for name in ('loss', 'ece', 'mce'))
    assert metrics['top1'] > 0


def test_half_precision_is_computed_in_float32():
    logits, target, counts = case()
    half = logits.bfloat16()
    assert run(LongTailEvaluator(counts), half, target).compute() == \
        run(LongTailEvaluator(counts), half.float(), target).compute()


@pytest.mark.parametrize('criterion', [None, nn.CrossEntropyLoss()])
def test_update_never_waits_for_the_device(criterion):
    """Tensors on the meta device have no values: whatever would read one on the host raises."""
    evaluator = LongTailEvaluator([200, 50, 5], device='meta', criterion=criterion)
    evaluator.update(torch.empty(8, 3, device='meta'), torch.empty(8, dtype=torch.int64, device='meta'))
    with pytest.raises((RuntimeError, NotImplementedError)):
        evaluator.compute()


@pytest.mark.parametrize('output, target', [
    (torch.zeros(2, 4), torch.zeros(2, dtype=torch.long)),
    (torch.zeros(2, 3), torch.zeros(2, 3)),
    (torch.zeros(2, 3), torch.zeros(3, dtype=torch.long)),
])
def test_wrong_shapes(output, target):
    with pytest.raises(ValueError, match=r'expects \(N, 3\) logits'):
        LongTailEvaluator([1, 2, 3]).update(output, target)


def _rank(_, rank, folder):
    """One of two processes: every second image, in batches of another size."""
    torch.distributed.init_process_group(
        'gloo', init_method=f'file://{folder}/init', rank=rank, world_size=2, timeout=timedelta(seconds=120))
    try:
        logits, target, counts = case()
        evaluator = run(LongTailEvaluator(counts), logits[rank::2], target[rank::2], (30 + rank,))
        metrics = evaluator.compute(distributed=True)
        torch.save((metrics, evaluator.state(), evaluator.summary()), f'{folder}/{rank}.pt')
    finally:
        torch.distributed.destroy_process_group()


def test_two_processes_agree_with_one_to_the_bit(tmp_path):
    other = torch.multiprocessing.spawn(_rank, (1, str(tmp_path)), nprocs=1, join=False)
    _rank(None, 0, str(tmp_path))
    assert other.join(timeout=120)
    logits, target, counts = case()
    single = run(LongTailEvaluator(counts), logits, target)
    expected, state = single.compute(), single.state()
    for rank in range(2):
        metrics, reduced, local = torch.load(tmp_path / f'{rank}.pt', weights_only=False)
        assert metrics == expected
        assert reduced.keys() == state.keys() and all(torch.equal(reduced[k], state[k]) for k in state)
        assert local == run(LongTailEvaluator(counts), logits[rank::2], target[rank::2]).compute()


def test_imports_of_the_package():
    """Anyone can lift evaluation/ out: of ours it needs the errors only, and nothing heavy before it is used."""
    folder = Path(timm_smalldata.evaluation.__file__).parent
    for path in set(folder.glob('*.py')) - {folder / '__main__.py'}:  # a script, which nothing imports
        tree = ast.parse(path.read_text())
        above = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level > 1}
        assert above <= {'errors'}, path.name
        top = {alias.name.split('.')[0] for node in tree.body if isinstance(node, ast.Import) for alias in node.names}
        top |= {node.module.split('.')[0] for node in tree.body if isinstance(node, ast.ImportFrom) and not node.level}
        assert not top & {'sklearn', 'scipy', 'matplotlib', 'timm_smalldata'}, path.name
