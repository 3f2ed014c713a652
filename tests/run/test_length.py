"""The length of a run from a measurement: what counts, and what a budget leaves for training."""
from argparse import Namespace
from dataclasses import replace
from types import SimpleNamespace

import pytest

from timm_smalldata.config.settings import Settings
from timm_smalldata.run import stage
from timm_smalldata.run.length import Pace, within_budget
from timm_smalldata.run.measure import final_batches
from timm_smalldata.utils.distributed import World


def lengths(budget, last, spent=10.0):
    settings, said = Settings(), []
    settings.layer(dict(time_budget=budget, val_interval=2), 'command line')
    job = SimpleNamespace(args=settings.namespace(), settings=settings, say=said.append)
    pace = Pace(step=1.0, eval=2.0, batches=3, val_batches=1, last=last)  # an evaluation batch every other epoch
    return within_budget(job, pace, spent)['epochs'], said


def test_a_budget_holds_the_start_the_epochs_and_the_end():
    assert lengths('110s', 0)[0] == int(0.95 * 100 / 4)
    assert lengths('110s', 20)[0] == int(0.95 * 60 / 4)
    assert lengths('110s', 20, spent=30.0)[0] == int(0.95 * 40 / 4)


@pytest.mark.parametrize('last, epochs', [(0, 1), (49, 1)])
def test_a_budget_of_less_than_an_epoch_trains_one_and_says_so(last, epochs):
    number, said = lengths('13s' if not last else '110s', last)
    assert number == epochs and 'one epoch is trained' in said[0] and 'final evaluation' in said[0]


def test_what_is_evaluated_at_the_end(photo_folder, divided):
    for role, count in (('train', 9), ('val', 5), ('test', 4)):
        photo_folder(f's/{role}', {'ant': count, 'bee': count})
    data = divided(['s'])
    args = Namespace(head='linear', temperature=False, validation_batch_size=3)
    assert final_batches(args, data, World()) == 3 + 4  # 8 of test, 10 of val for the temperature
    assert final_batches(args, data, World(0, 2)) == 2 + 4
    assert final_batches(args, data, World(), probed=True) == 9  # 8 of test by 18 of train
    assert final_batches(args, replace(data, test=None), World()) == 4 + 4
    assert final_batches(args, replace(data, val=None, test=None), World()) == 0
    args.temperature = True
    assert final_batches(args, data, World(0, 2)) == 2 + 7
    args.head = 'cosine'
    assert final_batches(args, data, World(0, 2)) == 2 + 13  # 18 of train


def test_without_a_validation_split_the_end_is_measured_too(photo_folder, run, monkeypatch):
    for role in ('train', 'test'):
        photo_folder(f's/{role}')
    seen = []
    monkeypatch.setattr(stage, 'expectation', lambda args, pace: seen.append(pace) or '')
    assert run(['s', '--val-fraction', '0', '--dry-run'])[0] == 0
    assert seen[0].eval > 0
