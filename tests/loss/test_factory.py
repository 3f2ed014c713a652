"""What every loss promises: one scale for indices and dense rows, float32 inside, buffers, clear errors."""
import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from timm.loss import create_classification_loss

from timm_smalldata.loss import LOSS_NAMES, LOSSES, create_loss

COUNTS = [40, 3, 0, 17, 8]  # any order, one class without images
TIMM = ('bce', 'asl', 'poly', 'jsd')
OURS = [name for name in LOSS_NAMES if name not in TIMM]
WITH_COUNTS = [name for name in OURS if LOSSES[name].needs_counts]
DENSE = [name for name in OURS if not LOSSES[name].indices_only]


def logits(n=6, c=5, seed=0):
    return 2 * torch.randn(n, c, generator=torch.Generator().manual_seed(seed))


def indices(n=6, c=5, seed=1):
    return torch.randint(c, (n,), generator=torch.Generator().manual_seed(seed))


def mixed(n=6, c=5, seed=2):
    """Rows as mixup with label smoothing makes them: no entry is 0, two stand out."""
    lam, a, b = 0.7, indices(n, c, seed), indices(n, c, seed + 1)
    rows = lam * F.one_hot(a, c) + (1 - lam) * F.one_hot(b, c)
    return 0.9 * rows.float() + 0.1 / c


def value_and_grad(criterion, x, target):
    x = x.clone().requires_grad_()
    loss = criterion(x, target)
    return loss.detach(), torch.autograd.grad(loss, x)[0]


def make(name, **kw):
    if name == 'jsd':
        kw.setdefault('jsd_splits', 2)
    return create_loss(name, class_counts=COUNTS, **kw)


# The equations, one hard label at a time, in float64: x one row of logits, n the counts, pi the prior.

def nll(x, c):
    return math.log(sum(math.exp(v - x[c]) for v in x))


def ldam_row(x, c, n, max_margin=0.5, scale=30):
    margin = n[c] ** -0.25 * max_margin / max(n ** -0.25)
    return nll(scale * np.array([v - margin * (j == c) for j, v in enumerate(x)]), c)


def bce_row(x, c, bias):
    return sum(math.log1p(math.exp(-(v + b) if j == c else v + b)) for j, (v, b) in enumerate(zip(x, bias)))


def smoothed_row(x, c, n):
    eps = 0.3 * math.sin((n[c] - min(n)) / (max(n) - min(n)) * math.pi / 2)
    return (1 - eps) * nll(x, c) + eps * np.mean([nll(x, j) for j in range(len(x))])


REFERENCE = {
    'ce': lambda x, c, n, pi: nll(x, c),
    'focal': lambda x, c, n, pi: (1 - math.exp(-nll(x, c))) ** 2 * nll(x, c),
    'balanced-bce': lambda x, c, n, pi: bce_row(x, c, np.log(pi) - np.log(1 - pi)),
    'balanced-softmax': lambda x, c, n, pi: nll(x + np.log(pi), c),
    'logit-adjusted': lambda x, c, n, pi: nll(x + np.log(pi), c),
    'ldam': lambda x, c, n, pi: ldam_row(x, c, n),
    'class-balanced-ce': lambda x, c, n, pi: nll(x, c),
    'class-balanced-focal': lambda x, c, n, pi: (1 - math.exp(-nll(x, c))) ** 2 * nll(x, c),
    'label-aware-smoothing': lambda x, c, n, pi: smoothed_row(x, c, n),
    'vector-scaling': lambda x, c, n, pi: nll(x / (n ** -0.3 / min(n ** -0.3)) + np.log(pi), c),
}


def reference(name, x, t, weight=None, normalise=True):
    n = np.maximum(np.array(COUNTS, dtype=np.float64), 1)
    if name.startswith('class-balanced'):
        weight = (1 - 0.9999) / (1 - 0.9999 ** n)
        weight, normalise = weight / weight.mean(), name.endswith('ce')
    x, t = x.double().numpy(), t.double().numpy()
    rows = np.array([[REFERENCE[name](row, c, n, n / n.sum()) for c in range(len(n))] for row in x])
    tw = t if weight is None else t * np.asarray(weight, dtype=np.float64)
    return (tw * rows).sum() / (tw.sum() if weight is not None and normalise else len(x))


@pytest.mark.parametrize('name', DENSE)
def test_dense_rows_follow_the_equation(name):
    x, t = logits(), mixed()
    if name == 'ldam':
        x = x.tanh()
    loss = create_loss(name, COUNTS)(x, t)
    assert loss.item() == pytest.approx(reference(name, x, t), rel=2e-6)


@pytest.mark.parametrize('name', DENSE)
def test_smoothing_is_for_indices_only(name):
    x, y = logits(), indices()
    smooth = 0.9 * F.one_hot(y, 5) + 0.1 / 5
    expected = reference(name, x, F.one_hot(y, 5) if name == 'label-aware-smoothing' else smooth)
    criterion = create_loss(name, COUNTS, smoothing=0.1)
    assert criterion(x, y).item() == pytest.approx(expected, rel=2e-6)
    assert torch.equal(criterion(x, mixed()), create_loss(name, COUNTS)(x, mixed()))


@pytest.mark.parametrize('name', [n for n in LOSS_NAMES if n not in ('lade', 'asl')])
@pytest.mark.parametrize('dtype', [torch.float32, torch.int64])
def test_one_hot_equals_index_in_value_and_gradient(name, dtype):
    x, y = logits(), indices()
    criterion = make(name)
    index, index_grad = value_and_grad(criterion, x, y)
    dense, dense_grad = value_and_grad(criterion, x, F.one_hot(y, 5).to(dtype))
    torch.testing.assert_close(dense, index)
    torch.testing.assert_close(dense_grad, index_grad)
    assert index_grad.abs().sum() > 0


@pytest.mark.parametrize('name', LOSS_NAMES)
def test_result_is_float32_whatever_comes_in(name):
    criterion, y = make(name, smoothing=0.1), indices()
    for dtype in (torch.float32, torch.bfloat16, torch.float16, torch.float64):
        x = logits().to(dtype)
        loss, grad = value_and_grad(criterion, x, y)
        assert loss.dtype == torch.float32 and loss.ndim == 0 and grad.dtype == dtype
        assert torch.equal(loss, criterion(x.float(), y))  # upcast before anything else
    with torch.autocast('cpu', torch.bfloat16):
        assert torch.equal(criterion(logits(), y), criterion(logits().float(), y))
        inside = criterion(logits().bfloat16(), y)
    assert torch.equal(inside, criterion(logits().bfloat16(), y)) and inside.dtype == torch.float32


@pytest.mark.parametrize('name', LOSS_NAMES)
def test_many_classes_and_large_logits_stay_finite(name):
    c, n = 8142, 4
    counts = np.random.RandomState(0).zipf(1.4, c).clip(0, 1000)
    kw = {'jsd_splits': 2} if name == 'jsd' else {}
    criterion = create_loss(name, counts, **kw)
    for scale in (1., 100.) if name in OURS else (1.,):  # timm's jsd has no gradient where a p is 0
        loss, grad = value_and_grad(criterion, scale * logits(n, c), indices(n, c))
        assert torch.isfinite(loss) and torch.isfinite(grad).all()


@pytest.mark.parametrize('name', OURS)
def test_constants_are_buffers(name):
    x, y = logits(), indices()
    criterion = create_loss(name, COUNTS)
    expected = criterion(x, y)
    assert torch.equal(copy.deepcopy(criterion)(x, y), expected)
    assert not list(criterion.parameters())
    # Tensors that are no buffers would stay behind when the loss moves.
    assert not [k for k, v in vars(criterion).items() if isinstance(v, torch.Tensor)]
    assert {buffer.device.type for buffer in copy.deepcopy(criterion).to('meta').buffers()} <= {'meta'}
    for dtype in (torch.bfloat16, torch.float64):
        assert torch.equal(copy.deepcopy(criterion).to(dtype)(x, y), expected)  # still in float32
    fresh = create_loss(name, COUNTS)
    fresh.load_state_dict(criterion.state_dict())
    assert torch.equal(fresh(x, y), expected)


@pytest.mark.parametrize('name', WITH_COUNTS)
def test_counts_of_any_kind_and_order(name):
    x, y = logits(), indices()
    expected = create_loss(name, COUNTS)(x, y)
    for counts in (np.array(COUNTS), torch.tensor(COUNTS), tuple(map(float, COUNTS)), [40, 3, 1, 17, 8]):
        assert torch.equal(create_loss(name, counts)(x, y), expected)
    order = torch.tensor([3, 0, 4, 1, 2])
    moved = create_loss(name, torch.tensor(COUNTS)[order])(x[:, order], torch.argsort(order)[y])
    assert moved.item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize('name', WITH_COUNTS)
def test_equal_counts(name):
    loss, grad = value_and_grad(create_loss(name, [7] * 5), logits(), indices())
    assert torch.isfinite(loss) and torch.isfinite(grad).all()


@pytest.mark.parametrize('name', WITH_COUNTS)
def test_counts_that_cannot_be_right(name):
    with pytest.raises(ValueError, match='needs class_counts'):
        create_loss(name)
    with pytest.raises(ValueError, match='got -1 for class 1'):
        create_loss(name, [3, -1, 2])
    with pytest.raises(ValueError, match='4 classes, but the logits have 5'):
        create_loss(name, [3, 1, 2, 2])(logits(), indices())


@pytest.mark.parametrize('name', [name for name in OURS if not LOSSES[name].needs_counts])
def test_counts_are_optional_but_checked(name):
    create_loss(name)(logits(), indices())
    with pytest.raises(ValueError, match='4 classes, but the logits have 5'):
        create_loss(name, [3, 1, 2, 2])(logits(), indices())


@pytest.mark.parametrize('name', ['ce', 'focal', 'ldam', 'class-balanced-ce', 'class-balanced-focal'])
def test_class_weights_can_be_switched(name):
    x, y, w = logits(), indices(), [0.2, 1., 3., 0.5, 2.]
    normalise = not name.endswith('focal')
    criterion, plain = create_loss(name, COUNTS), name.replace('class-balanced-', '')
    criterion.set_class_weight(np.array(w))
    for t in (mixed(), F.one_hot(y, 5)):
        assert criterion(x, t).item() == pytest.approx(reference(plain, x, t, w, normalise), rel=2e-6)
    torch.testing.assert_close(criterion(x, y), criterion(x, F.one_hot(y, 5)))
    scaled = copy.deepcopy(criterion)
    scaled.set_class_weight(10 * torch.tensor(w))
    assert scaled(x, y).item() == pytest.approx((1 if normalise else 10) * criterion(x, y).item(), rel=1e-5)
    criterion.set_class_weight(None)
    assert torch.equal(criterion(x, y), create_loss(plain, COUNTS)(x, y))
    criterion.set_class_weight([1., 2.])
    with pytest.raises(ValueError, match='class_weight is for 2 classes, but the logits have 5'):
        criterion(x, y)
    with pytest.raises(ValueError, match='class_weight must hold'):
        criterion.set_class_weight([1., -2.])


@pytest.mark.parametrize('name', OURS)
def test_shapes_that_do_not_fit(name):
    criterion = create_loss(name, COUNTS)
    for target in (indices(5), indices().float()):
        with pytest.raises(ValueError, match='target must be class indices'):
            criterion(logits(), target)
    with pytest.raises(ValueError):
        criterion(logits(), indices()[:, None])
    with pytest.raises(ValueError, match='takes logits'):
        criterion(logits()[0], indices()[0])


@pytest.mark.parametrize('name', [n for n in LOSS_NAMES if n not in ('lade', 'label-aware-smoothing')])
@pytest.mark.parametrize('smoothing', [-0.1, 1.])
def test_smoothing_out_of_range(name, smoothing):
    with pytest.raises(ValueError, match='smoothing must lie in'):
        make(name, smoothing=smoothing)


@pytest.mark.parametrize('name', TIMM)
def test_timm_losses_are_timms(name):
    kw = {'jsd_splits': 2} if name == 'jsd' else {}
    x, y, t = logits(), indices(), mixed()
    criterion = create_loss(name, COUNTS, smoothing=0.1, **kw)
    assert torch.equal(criterion(x, y), create_classification_loss(name, smoothing=0.1, **kw)(x, y))
    if name == 'asl':
        with pytest.raises(ValueError, match='asl takes class indices'):
            criterion(x, t)
    else:
        unsmoothed = create_classification_loss(name, smoothing=0., soft_targets=True, **kw)
        assert torch.equal(criterion(x, t), unsmoothed(x, t))
        assert not torch.equal(criterion(x, F.one_hot(y, 5)), criterion(x, y))


def test_timm_arguments_are_handed_on():
    x, y = logits(), indices()
    for epsilon in (0., 3.):
        expected = create_classification_loss('poly', poly_epsilon=epsilon)(x, y)
        assert torch.equal(create_loss('poly', poly_epsilon=epsilon)(x, y), expected)
    with pytest.raises(ValueError, match='jsd_splits'):
        create_loss('jsd')


@pytest.mark.parametrize('name', ['twoway', 'zlpr', 'db'])
def test_multi_label_losses_are_refused(name):
    with pytest.raises(ValueError, match='multi-label'):
        create_loss(name, COUNTS)


def test_unknown_name_shows_the_nearest():
    with pytest.raises(ValueError, match="Unknown loss 'balnced-bce' .did you mean 'balanced-bce'"):
        create_loss('balnced-bce', COUNTS)
    assert len(set(LOSS_NAMES)) == len(LOSS_NAMES)
