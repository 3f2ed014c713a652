"""Tasks that hold the user's model in a larger module: what users get, what a checkpoint keeps, what is wrapped."""
import pytest
import timm
import torch
from timm.utils import unwrap_model

from timm_smalldata.task import create_task

VIT = dict(img_size=32, patch_size=8, embed_dim=24, num_heads=2, depth=1)
# task: its arguments, and the keys of its task state
TASKS = {
    'idmm': (dict(num_images=4), {'head'}),
    'simclr': ({}, {'head'}),
    'dino': (dict(out_dim=8), {'head', 'center'}),
    'paco': (dict(class_counts=[2, 1, 1]), {'head', 'key_encoder', 'queue_feats', 'queue_targets'}),
    'mae': ({}, {'decoder'}),
    'deit-lt': ({}, set()),
}


def make(name):
    """A task, and the model that it was given."""
    kwargs = dict(TASKS[name][0])
    if name == 'deit-lt':
        kwargs['teacher'] = timm.create_model('resnet20_cifar', num_classes=3)
    model = timm.create_model(
        'deit_tiny_distilled_patch16_224' if name == 'deit-lt' else 'vit_tiny_patch16_224', num_classes=3, **VIT)
    return create_task(name, model, verbose=False, **kwargs), model


@pytest.mark.parametrize('name', TASKS)
def test_the_user_gets_the_model_itself_and_a_checkpoint_keeps_the_rest(name):
    (task, model), (other, _) = make(name), make(name)
    assert task.get_eval_model() is model and unwrap_model(task.trainable_module) is task.unwrapped()
    state = task.get_checkpoint_state()
    assert set(state.get('task_state', {})) == TASKS[name][1] and set(state['state_dict']) == set(model.state_dict())
    other.load_checkpoint_state(state['state_dict'], state.get('task_state'))
    for ours, theirs in zip(task.unwrapped().parameters(), other.unwrapped().parameters()):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize('name', [name for name in TASKS if name != 'dino'])  # its average is the method
def test_without_an_average_there_is_no_state_of_one(name):
    task = make(name)[0]
    assert task.get_eval_model(ema=True) is None and task.unwrapped(ema=True) is None
    assert task.get_task_state(ema=True) == {}


@pytest.mark.parametrize('name', TASKS)
def test_compiled_and_distributed_the_model_stays_plain(name, monkeypatch):
    task, model = make(name)
    names = set(task.get_checkpoint_state()['state_dict'])
    assert task.compile(backend='eager') is model

    class Wrapper(torch.nn.Module):  # DistributedDataParallel needs processes
        def __init__(self, module, device_ids=None):
            super().__init__()
            self.module = module

    monkeypatch.setattr('timm_smalldata.task.wrapping.DistributedDataParallel', Wrapper)
    assert task.prepare_distributed() is task and isinstance(task.trainable_module, Wrapper)
    assert task.get_eval_model() is model and set(task.get_checkpoint_state()['state_dict']) == names
