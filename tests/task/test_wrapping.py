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


@pytest.fixture(params=TASKS)
def made(request):
    """A task, the model that it was given, and the keys of its task state."""
    kwargs, keys = TASKS[request.param]
    name = 'deit_tiny_distilled_patch16_224' if request.param == 'deit-lt' else 'vit_tiny_patch16_224'
    if request.param == 'deit-lt':
        kwargs = dict(teacher=timm.create_model('resnet20_cifar', num_classes=3))
    model = timm.create_model(name, num_classes=3, **VIT)
    return create_task(request.param, model, verbose=False, **kwargs), model, keys


def test_the_user_gets_the_model_itself_and_a_checkpoint_keeps_the_rest(made):
    task, model, keys = made
    assert task.get_eval_model() is model and unwrap_model(task.trainable_module) is task.unwrapped()
    state = task.get_checkpoint_state()
    assert set(state.get('task_state', {})) == keys and set(state['state_dict']) == set(model.state_dict())
    with torch.no_grad():
        for parameter in task.unwrapped().parameters():
            parameter.zero_()
    saved = {name: value.clone() for name, value in state['state_dict'].items()}  # zero by now: it shares memory
    task.load_checkpoint_state(saved, state.get('task_state'))
    assert not any(p.any() for p in task.unwrapped().parameters())


def test_without_an_average_there_is_no_state_of_one(made):
    task = made[0]
    if task.owns_ema:
        pytest.skip('its average of the weights is the method')
    assert task.get_eval_model(ema=True) is None and task.unwrapped(ema=True) is None
    assert task.get_task_state(ema=True) == {}


def test_compiled_and_distributed_the_model_stays_plain(made, monkeypatch):
    task, model, _ = made
    names = set(task.get_checkpoint_state()['state_dict'])
    assert task.compile(backend='eager') is model

    class Wrapper(torch.nn.Module):  # DistributedDataParallel needs processes
        def __init__(self, module, device_ids=None):
            super().__init__()
            self.module = module

    monkeypatch.setattr('timm_smalldata.task.wrapping.DistributedDataParallel', Wrapper)
    assert task.prepare_distributed() is task and isinstance(task.trainable_module, Wrapper)
    assert task.get_eval_model() is model and set(task.get_checkpoint_state()['state_dict']) == names
