"""The schedule as the flags ask for it: where rates drop, and where a cosine begins behind the warm-up."""
import math

import pytest
import torch

from timm_smalldata.build.optimizer import create_schedule
from timm_smalldata.config.length import total_epochs
from timm_smalldata.config.plan import finish_stage, plan


def rates(argv, updates=4, first_epoch=0):
    """Return the rate of every update of a run, and what the schedule says of its length."""
    stage, = plan(['photos', *argv.split()])
    finish_stage(stage)
    args = stage.settings.namespace()
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=args.lr)
    schedule, epochs = create_schedule(args, optimizer, updates, first_epoch)
    assert epochs == total_epochs(args)
    seen = []
    for epoch in range(first_epoch, epochs):
        for update in range(updates):
            seen.append(optimizer.param_groups[0]['lr'])
            schedule.step_update(epoch * updates + update + 1)
        schedule.step(epoch + 1)
    return seen


@pytest.mark.parametrize('when', ['', '--no-sched-on-updates'])
def test_a_milestone_is_the_first_epoch_after_the_drop(when):
    argv = f'--epochs 6 --sched multistep --decay-milestones 2 4 --decay-rate 0.1 --lr 1 --warmup-epochs 0 {when}'
    expected = [1.0] * 8 + [0.1] * 8 + [0.01] * 8
    assert rates(argv) == pytest.approx(expected)
    assert rates(argv, first_epoch=2) == pytest.approx(expected[8:])  # continued


def test_a_cosine_behind_the_warm_up():
    """As masked autoencoders and DINO count: from the peak at the end of the warm-up to the end of all epochs."""
    seen = rates('--epochs 6 --warmup-epochs 2 --warmup-prefix --lr 1 --warmup-lr 0 --min-lr 0')
    expected = [t / 8 if t < 8 else 0.5 * (1 + math.cos(math.pi * (t - 8) / 24)) for t in range(32)]
    assert seen == pytest.approx(expected)


def test_steps_that_begin_with_the_first():
    """The warm-up of LDAM's code: five epochs at a fifth, two fifths, ... of the rate."""
    argv = '--epochs 7 --sched multistep --decay-milestones 6 --warmup-epochs 4 --warmup-lr 0.02 --lr 0.1'
    assert rates(f'{argv} --no-sched-on-updates', updates=1) == pytest.approx([0.02, 0.04, 0.06, 0.08, 0.1, 0.1, 0.01])
