"""`--save-images`: the picture of what a task sees, and that looking changes nothing."""
import pytest
import torch
from PIL import Image

from timm_smalldata.data.loader import Batch

TASKS = {
    'classification': ['--mixup', '0.8', '--reprob', '0.5'],
    'idmm': [],
    'dino': ['--dino-local-crops', '2', '--dino-local-size', '16', '--dino-out-dim', '32'],
    'mae': [],
    'paco': ['--model', 'resnet20_cifar', '--paco-queue', '16'],
}


@pytest.mark.parametrize('task', TASKS)
def test_looking_changes_nothing(run, photos, tmp_path, task):
    flags = [photos, '--task', task, *TASKS[task]]
    assert run([*flags, '--experiment', 'plain'])[0] == 0
    code, _, err = run([*flags, '--save-images'])
    assert code == 0, err
    with Image.open(tmp_path / 'runs/e/images.png') as picture:
        assert min(picture.size) > 200
    assert not (tmp_path / 'runs/plain/images.png').exists()
    one, two = (torch.load(tmp_path / f'runs/{name}/last.pth.tar', weights_only=False)['state_dict']
                for name in ('plain', 'e'))
    assert all(torch.equal(one[name], two[name]) for name in one)


def batch_of(views):
    return Batch([torch.randn(3, 3, 16, 16) for _ in range(views)], torch.tensor([0, 1, 2]), torch.arange(3), 0, 0)


def test_views_are_told_apart(torch_model):
    from timm_smalldata.task import InstanceDiscriminationTask
    task = InstanceDiscriminationTask(torch_model(), num_images=3, cutmix=False)
    batch = batch_of(6)
    seen = task.seen(batch)
    assert list(seen) == [f'view {n}' for n in range(1, 7)]
    assert all(torch.equal(part, view) for part, view in zip(seen.values(), batch.views))


def test_hidden_patches_are_hidden(torch_model):
    from timm_smalldata.task import MAETask
    task = MAETask(torch_model(), mask_ratio=0.75)
    batch = batch_of(1)
    seen = task.seen(batch)
    blank = (seen['seen'] == 0).all(1)
    patch = task.patch_size
    assert blank.float().mean() == pytest.approx(0.75, abs=patch ** 2 / 256)
    assert torch.equal(seen['seen'][:, 0][~blank], batch.views[0][:, 0][~blank])


@pytest.fixture
def torch_model():
    import timm
    return lambda: timm.create_model(
        'vit_tiny_patch16_224', img_size=16, patch_size=4, embed_dim=32, depth=1, num_heads=2, num_classes=0)
