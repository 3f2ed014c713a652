import math
import os
import sys

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from timm_smalldata.loss import create_loss
from timm_smalldata.loss.base import as_counts, log_prior, log_softmax_pair, to_dense


def test_counts():
    assert as_counts(np.array([4, 0])).tolist() == [4, 1]
    assert as_counts([0.25, 0.75]).tolist() == [0.25, 0.75]  # proportions stay what they are
    assert log_prior([3, 0, 0]).tolist() == pytest.approx([math.log(3 / 5), math.log(1 / 5), math.log(1 / 5)])


@pytest.mark.parametrize('bad', [None, [], [[1, 2]], [1, -1], [1, float('nan')], [float('inf')], ['a'], {'cat': 3}])
def test_bad_counts_are_one_line(bad):
    with pytest.raises(ValueError, match='class_counts') as error:
        as_counts(bad)
    assert '\n' not in str(error.value)


def test_dense_rows_are_used_as_given():
    rows = torch.rand(3, 4)
    assert torch.equal(to_dense(rows, torch.zeros(3, 4), smoothing=0.5), rows)
    assert torch.equal(to_dense(torch.tensor([2, 0]), torch.zeros(2, 3)), torch.eye(3)[[2, 0]])
    square = torch.tensor([1, 0])  # N = C: the shape still tells indices from rows
    assert to_dense(square, torch.zeros(2, 2)).tolist() == [[0, 1], [1, 0]]


def test_softmax_pair_against_float64():
    x = 5 * torch.randn(200, 6, generator=torch.Generator().manual_seed(0))
    x[0] = 1.  # all equal
    x[1, :2] = 20.  # two at the top
    log_p, log_not_p = log_softmax_pair(x)
    wide = x.double()
    others = torch.stack([wide[:, [j for j in range(6) if j != c]].logsumexp(1) for c in range(6)], 1)
    torch.testing.assert_close(log_p.double(), wide.log_softmax(1), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(log_not_p.double(), others - wide.logsumexp(1, keepdim=True), rtol=1e-5, atol=1e-6)


def test_softmax_pair_has_the_right_gradient():
    x = 3 * torch.randn(8, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.autograd.gradcheck(log_softmax_pair, x.requires_grad_())
    certain = torch.tensor([[200., 0., 0.]], requires_grad=True)
    log_softmax_pair(certain)[1][0, 0].backward()
    assert certain.grad[0].tolist() == pytest.approx([-1., 0.5, 0.5])


def test_a_batch_without_weight_is_worth_nothing():
    criterion = create_loss('ce')
    criterion.set_class_weight([0., 1.])
    x = torch.zeros(2, 2, requires_grad=True)
    loss = criterion(x, torch.tensor([0, 0]))
    loss.backward()
    assert loss == 0 and torch.equal(x.grad, torch.zeros(2, 2))


def test_weights_are_copied():
    weight, criterion = torch.tensor([1., 3.]), create_loss('ce')
    criterion.set_class_weight(weight)
    weight.zero_()
    assert criterion.class_weight.tolist() == [1., 3.]


CASES = [('class-balanced-ce', {}), ('ldam', {'class_weight': [1., 9., 4.]})]
X = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
Y = torch.tensor([0, 0, 0, 1, 2, 1])  # the first rank sees frequent images only


def _train_on_one_rank(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group('gloo', init_method=f'file://{folder}/store', rank=rank, world_size=2)
    rows = slice(3 * rank, 3 * rank + 3)
    grads = []
    for name, kw in CASES:
        x = X[rows].clone().requires_grad_()
        criterion = create_loss(name, [50, 5, 2], **kw)
        criterion(x, Y[rows]).backward()
        grads.append(x.grad)
        if rank == 0:
            with torch.no_grad():
                criterion(x, Y[rows])  # in evaluation one rank may be alone: must not wait for the other
    torch.save(grads, f'{folder}/{rank}.pt')
    dist.destroy_process_group()


@pytest.mark.skipif(sys.platform != 'linux', reason='forks, to be quick')
def test_two_ranks_give_the_gradient_of_one(tmp_path):
    context = mp.get_context('fork')
    ranks = [context.Process(target=_train_on_one_rank, args=(rank, tmp_path), daemon=True) for rank in range(2)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(60)
        assert process.exitcode == 0
    parts = [torch.load(os.path.join(tmp_path, f'{rank}.pt')) for rank in range(2)]
    for i, (name, kw) in enumerate(CASES):
        x = X.clone().requires_grad_()
        create_loss(name, [50, 5, 2], **kw)(x, Y).backward()
        mean = torch.cat([part[i] for part in parts]) / 2  # DDP averages over ranks
        torch.testing.assert_close(mean, x.grad)
