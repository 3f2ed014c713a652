"""Deferred re-weighting in other people's loops: the same weights and the same loss as in the train command."""
import json
from argparse import Namespace
from pathlib import Path

import pytest
import timm
import torch
from timm.loss import BinaryCrossEntropy
from timm.task import ClassificationTask
from torch import nn

from timm_smalldata.build.task import reweighting
from timm_smalldata.loss import DeferredReweighting, create_loss
from timm_smalldata.task import create_task

COUNTS = [100, 10, 3]
V = json.loads((Path(__file__).parents[1] / 'vectors' / 'longtail_losses.json').read_text())


def batch():
    g = torch.Generator().manual_seed(0)
    return torch.randn(6, 3, generator=g), torch.tensor([0, 1, 2, 2, 0, 1])


@pytest.mark.parametrize('name', ['ce', 'focal', 'ldam', 'class-balanced-ce'])
def test_as_the_train_command(name):
    """Epoch for epoch the loss is that of a task which `--drw-epoch 2 --drw-beta 0.99` has set up."""
    model = timm.create_model('test_vit', num_classes=3)
    task = create_task('classification', model, criterion=create_loss(name, COUNTS), verbose=False)
    task.configure(reweight=reweighting(Namespace(drw_epoch=2, drw_beta=0.99, loss=name), task.reweighted(), COUNTS))
    criterion = create_loss(name, COUNTS)
    deferred = DeferredReweighting(criterion, COUNTS, epoch=2, beta=0.99)
    losses = []
    for epoch in (0, 1, 2, 3, 1):  # also backwards, as a resumed loop may
        task.set_epoch(epoch)
        deferred.set_epoch(epoch)
        assert torch.equal(criterion(*batch()), task.criterion(*batch()))
        losses.append(criterion(*batch()).item())
    assert losses[0] == losses[1] == losses[4] != losses[2] == losses[3]


def test_the_weights_of_ldam_drw_and_its_loss():
    counts, known = V['inputs']['cls_num'], V['ldam']
    criterion = create_loss('ldam', counts)
    deferred = DeferredReweighting(criterion, counts, epoch=160)
    for epoch, name in ((159, 'LDAM_hard_m0.5_s30'), (160, 'LDAM_DRW_hard_m0.5_s30_weight_beta0.9999')):
        deferred.set_epoch(epoch)
        loss = criterion(torch.tensor(known['cos_logits']), torch.tensor(V['inputs']['hard']))
        assert loss.item() == pytest.approx(known[name], rel=1e-6)


def test_torch_and_timm():
    ours, theirs = create_loss('ce', COUNTS), nn.CrossEntropyLoss()
    both = [DeferredReweighting(criterion, COUNTS, epoch=1, beta=0.9) for criterion in (ours, theirs)]
    for epoch in (0, 1, 0):
        for deferred in both:
            deferred.set_epoch(epoch)
        torch.testing.assert_close(theirs(*batch()), ours(*batch()))
    task = ClassificationTask(timm.create_model('test_vit', num_classes=3), BinaryCrossEntropy(), verbose=False)
    DeferredReweighting(task.criterion, COUNTS, epoch=0).set_epoch(0)
    assert task.criterion.weight.mean().item() == pytest.approx(1)


def test_what_is_refused():
    with pytest.raises(TypeError, match='BalancedSoftmax takes no class weights: give a loss with set_class_weight'):
        DeferredReweighting(create_loss('balanced-softmax', COUNTS), COUNTS, epoch=1)
    with pytest.raises(TypeError, match='LabelSmoothingCrossEntropy takes no class weights'):
        DeferredReweighting(timm.loss.LabelSmoothingCrossEntropy(), COUNTS, epoch=1)
    with pytest.raises(ValueError, match='epoch must not be negative'):
        DeferredReweighting(nn.CrossEntropyLoss(), COUNTS, epoch=-1)
    with pytest.raises(ValueError, match='beta must lie'):
        DeferredReweighting(nn.CrossEntropyLoss(), COUNTS, epoch=1, beta=1.0)
