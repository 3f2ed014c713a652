"""The line of an epoch."""
from timm_smalldata.run.log import epoch_line


def test_the_same_number_stands_once():
    row = dict(epoch=0, train_loss=1.0, eval_top1=21.0, eval_balanced_top1=21.000000000000004, eval_few=0.0)
    assert epoch_line(row, 2, False, 1.0) == 'epoch   1/2  train loss 1.0000  top1 21.0  few 0.0  1.0 s'
    assert 'top1 21.0  balanced 30.0' in epoch_line(dict(row, eval_balanced_top1=30.0), 2, False, 1.0)
