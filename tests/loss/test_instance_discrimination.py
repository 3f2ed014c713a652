import math

import pytest
import torch
import torch.nn.functional as F

from timm_smalldata.loss import instance_discrimination_loss


def make(m=6, n=9, scale=3.):
    generator = torch.Generator().manual_seed(0)
    logits = scale * torch.randn(m, n, generator=generator)
    index, partner = (torch.randint(n, (m,), generator=generator) for _ in range(2))
    partner[0] = index[0]  # another crop of the same image
    return logits, index, partner


def dense_target(index, partner, lam, smoothing, n):
    """The target as rows: what the indexed form stands for."""
    own, other = F.one_hot(index, n).double(), F.one_hot(partner, n).double()
    return (1 - smoothing) * (lam * own + (1 - lam) * other) + smoothing / n


@pytest.mark.parametrize('smoothing', [0., 0.1, 0.7])
@pytest.mark.parametrize('lam', [0., 0.3, 0.75, 1.])
def test_equals_the_dense_form_in_value_and_gradient(lam, smoothing):
    logits, index, partner = make()
    x, reference = logits.clone().requires_grad_(), logits.double().requires_grad_()
    loss = instance_discrimination_loss(x, index, partner, lam, smoothing)
    target = dense_target(index, partner, lam, smoothing, 9)
    shifted = reference - reference.exp().sum(1, keepdim=True).log()
    expected = -(target * shifted).sum() / 6
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    loss.backward(), expected.backward()
    torch.testing.assert_close(x.grad.double(), reference.grad, atol=1e-7, rtol=1e-5)


def test_is_two_cross_entropies_of_torch():
    logits, index, partner = make()
    expected = sum(weight * F.cross_entropy(logits, labels, label_smoothing=0.1)
                   for weight, labels in ((0.6, index), (0.4, partner)))
    torch.testing.assert_close(instance_discrimination_loss(logits, index, partner, 0.6, 0.1), expected)


def test_least_value_is_the_entropy_of_the_target():
    """1.087 nats for smoothing 0.1 over 2,040 images, reached by the target's own logarithm."""
    index = torch.tensor([7])
    best = dense_target(index, index, 1., 0.1, 2040).log().float()
    assert instance_discrimination_loss(best, index, index, 1., 0.1).item() == pytest.approx(1.087, abs=5e-4)


def test_starts_at_log_n():
    index = torch.arange(4)
    loss = instance_discrimination_loss(torch.zeros(4, 2040), index, index.flip(0), 0.8, 0.1)
    assert loss.item() == pytest.approx(math.log(2040), rel=1e-6)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_result_is_float32_whatever_comes_in(dtype):
    logits, index, partner = make(scale=1.)
    logits = logits.to(dtype)
    with torch.autocast('cpu', torch.bfloat16):
        loss = instance_discrimination_loss(logits, index, partner, 0.6, 0.1)
    assert loss.dtype == torch.float32 and loss.ndim == 0
    assert loss == instance_discrimination_loss(logits.float(), index, partner, 0.6, 0.1)


def test_large_logits_stay_finite_and_exact():
    logits = torch.tensor([[1e4, 1e4 - 10, -1e4]], requires_grad=True)
    loss = instance_discrimination_loss(logits, torch.tensor([0]), torch.tensor([0]), 1.)
    assert loss.item() == pytest.approx(math.log1p(math.exp(-10)), rel=1e-3)
    loss.backward()
    assert torch.isfinite(logits.grad).all()


def test_keeps_one_float_per_logit_and_no_target():
    logits, kept = torch.randn(8, 1000, requires_grad=True), {}

    def pack(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        instance_discrimination_loss(logits, torch.arange(8), torch.arange(8).flip(0), 0.7, 0.1)
    assert 8 * 1000 * 4 <= sum(kept.values()) < 1.2 * 8 * 1000 * 4


@pytest.mark.parametrize('change, words', [
    (dict(logits=torch.zeros(3)), 'logits must be'), (dict(logits=torch.zeros(0, 4)), 'logits must be'),
    (dict(index=torch.zeros(3, dtype=torch.int64)), 'index must hold'),
    (dict(index_perm=torch.zeros(2, 4)), 'index_perm must hold'), (dict(index=torch.zeros(2)), 'index must hold'),
    (dict(lam=1.1), 'lam'), (dict(lam=-0.1), 'lam'), (dict(smoothing=1.), 'smoothing')])
def test_what_does_not_fit_is_refused(change, words):
    given = dict(
        logits=torch.zeros(2, 4), index=torch.tensor([0, 1]), index_perm=torch.tensor([1, 0]), lam=0.5, smoothing=0.)
    with pytest.raises(ValueError, match=words):
        instance_discrimination_loss(**{**given, **change})
