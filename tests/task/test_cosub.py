"""Two submodels that learn from each other: the published number, its gradient, and a run."""
import csv
import json
from pathlib import Path

import pytest
import timm
import torch
import torch.nn.functional as F
from timm.loss import BinaryCrossEntropy

from timm_smalldata.models.stochastic_depth import set_constant_drop_path
from timm_smalldata.task import CoSubTask

V = json.loads((Path(__file__).parents[1] / 'vectors' / 'cosub.json').read_text())


class Says(torch.nn.Module):
    """Gives the logits of the first submodel for the first half of what it sees, those of the second for the rest."""
    drop_rate = 0.1

    def __init__(self, *logits):
        super().__init__()
        self.logits = torch.nn.Parameter(torch.cat([torch.tensor(rows) for rows in logits]))

    def forward(self, x):
        assert torch.equal(*x.chunk(2))
        return self.logits


def test_published_number():
    task = CoSubTask(Says(V['cosub']['out0'], V['cosub']['out1']), BinaryCrossEntropy(0.0, 0.0), sigmoid=True)
    target = torch.tensor(V['binarised_targets'])
    soft = target * torch.tensor([0.7, 0.3, 1.0, 0.3, 0.75])  # as mixing leaves them: what is over 0 counts
    for rows in (target, soft):
        result = task(torch.zeros(3, 3, 8, 8), rows)
        assert result['loss'].item() == pytest.approx(V['cosub']['loss'], rel=1e-6)
    result['loss'].backward()
    x0, x1 = (torch.tensor(V['cosub'][name]) for name in ('out0', 'out1'))
    by_hand = [((x.sigmoid() - target) + (x.sigmoid() - y.sigmoid())) / 4 / x.numel() for x, y in ((x0, x1), (x1, x0))]
    torch.testing.assert_close(task.trainable_module.logits.grad, torch.cat(by_hand))  # none through the other


def test_with_softmax_and_with_sums():
    x0, x1, y = torch.randn(4, 5), torch.randn(4, 5), torch.tensor([0, 3, 3, 1])
    task = CoSubTask(Says(x0.tolist(), x1.tolist()), torch.nn.CrossEntropyLoss())
    other = (F.cross_entropy(x0, x1.softmax(1)) + F.cross_entropy(x1, x0.softmax(1))) / 2
    result = task(torch.zeros(4, 3, 8, 8), y)
    torch.testing.assert_close(result['loss_other'], other)
    torch.testing.assert_close(result['loss'], (F.cross_entropy(x0, y) + F.cross_entropy(x1, y)) / 4 + other / 2)
    torch.testing.assert_close(result['output'], (x0 + x1) / 2)
    plain, summed = (CoSubTask(Says(x0.tolist(), x1.tolist()), torch.nn.CrossEntropyLoss(), True, sums)
                     for sums in (False, True))
    torch.testing.assert_close(summed.agreement(x0, x1), 5 * plain.agreement(x0, x1))


def test_the_two_are_submodels():
    model = set_constant_drop_path(timm.create_model('test_vit', num_classes=3, img_size=32), 0.5)
    task = CoSubTask(model, torch.nn.CrossEntropyLoss()).train()
    x = torch.randn(8, 3, 32, 32)
    seen = []
    model.register_forward_hook(lambda module, args, output: seen.append(output))
    task(x, torch.zeros(8, dtype=torch.long))
    one, two = seen[0].chunk(2)
    assert len(seen) == 1 and not torch.allclose(one, two)
    assert torch.equal(task.get_eval_model().eval()(x), model(x))
    with pytest.raises(ValueError, match='one and the same'):
        CoSubTask(timm.create_model('test_vit', num_classes=3), torch.nn.CrossEntropyLoss())


def test_from_the_command_line(photos, run):
    code, _, err = run([photos, '--task', 'cosub', '--loss', 'bce', '--drop-path', '0.2', '--mixup', '0.2'])
    assert code == 0, err
    row, = csv.DictReader(open('runs/e/summary.csv'))
    labels, other = float(row['train_loss_labels']), float(row['train_loss_other'])
    assert float(row['train_loss']) == pytest.approx((labels + other) / 2, rel=1e-4) and other > 0
    code, _, err = run([photos, '--task', 'cosub', '--drop-path', '0', '--experiment', 'x'])
    assert code == 2 and 'neither stochastic depth nor dropout' in err.splitlines()[-1]
