"""What a GPU does otherwise: views by matrix products, images that lie on it, steps that wait for nothing, its memory.

Without a GPU the same runs on the CPU, so that it is known to work where there is one.
"""
from contextlib import ExitStack

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from timm_smalldata.cli import eval as eval_verb
from timm_smalldata.data.batch.draws import Draws
from timm_smalldata.data.batch.frames import frames
from timm_smalldata.data.batch.images import PackedImages
from timm_smalldata.data.batch.resample import cut, cut_by_matrices
from timm_smalldata.data.batch_augment import render_batch
from timm_smalldata.data.views import Augment, Crop, Erase, ViewSpec
from timm_smalldata.run import trainer
from timm_smalldata.utils.random import draw_keys

DEVICE = torch.device('cuda', 0) if torch.cuda.is_available() else torch.device('cpu')
WAITS = {torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default, torch.ops.aten.equal.default}


def smooth_images(count):
    rng = np.random.RandomState(0)
    return [torch.nn.functional.interpolate(
        torch.from_numpy(rng.randint(0, 256, (1, 3, 6, 6)).astype(np.float32)), tuple(rng.randint(40, 90, 2).tolist()),
        mode='bilinear')[0].permute(1, 2, 0).round().to(torch.uint8).contiguous() for _ in range(count)]


@pytest.mark.parametrize('spec', [
    ViewSpec(32, Crop('rrc')), ViewSpec(48, Crop('src'), Augment(None, 0.3)), ViewSpec(32, augment=Augment('3a', 0.3)),
    ViewSpec(32, augment=Augment(None, (0.4, 0.4, 0.2, 0.1), 0.8, 0.2, 0.5)), ViewSpec(32, erase=Erase(0.5, 'const'))])
def test_views_are_those_of_the_cpu(spec):
    images, keys = smooth_images(24), draw_keys(1, np.zeros(24, dtype=int), np.arange(24))
    host = render_batch(images, spec, keys, 'cpu')
    there = render_batch(images, spec, keys, DEVICE).cpu()
    apart = (host - there).abs() * 255 * min(spec.std)
    assert apart.mean() < 0.5 and apart.quantile(0.99) < 3  # levels of 255


def test_frames_by_matrix_products():
    images = PackedImages.of(smooth_images(16))
    shown = frames(Crop('rrc'), 32, images.sizes, Draws(draw_keys(0, np.zeros(16, dtype=int), np.arange(16))))
    assert (cut_by_matrices(images.to(DEVICE), shown).cpu() - cut(images, shown)).abs().max() <= 2


def test_images_that_lie_on_the_device():
    class Source:
        images = [image.numpy() for image in smooth_images(10)]

        def __len__(self):
            return 10

        def pixels(self, index):
            return self.images[index]

    held, keys = PackedImages.held(Source(), DEVICE), draw_keys(0, np.zeros(3, dtype=int), np.arange(3))
    index = np.array([9, 0, 4])
    chosen = [torch.from_numpy(Source.images[i]) for i in index]
    for spec in (ViewSpec(32), ViewSpec(100, Crop('src'))):  # the second one reaches to the ends of images
        there = render_batch(held.take(index), spec, keys, DEVICE)
        assert torch.equal(there, render_batch(PackedImages.of(chosen).to(DEVICE), spec, keys, DEVICE))


class NothingWaits(TorchDispatchMode):
    """Refuse what makes the host wait for the device: reading a number, or a size that depends on numbers."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function in WAITS:
            raise AssertionError(f'{function} makes the host wait')
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize('flags', [
    ['--mixup', '0.8', '--cutmix', '1', '--clip-grad', '1', '--model-ema', '--aug', 'three-augment'],
    ['--loss', 'balanced-bce', '--grad-accum-steps', '2'], ['--loss', 'ldam', '--head', 'cosine', '--drw-epoch', '0'],
    ['--task', 'idmm'], ['--task', 'dino'], ['--task', 'mae'], ['--task', 'simclr'], ['--task', 'supcon'],
    ['--reprob', '0.3', '--color-jitter', '0.4', '0.4', '0.4', '0.1']], ids=' '.join)
def test_no_step_waits_for_the_device(run, photos, monkeypatch, flags):
    train_epoch, done = trainer.train_epoch, []

    def watched(*args, progress=None, **kwargs):
        """Watch all updates but the first one, before which the loader starts; what comes after the last one, reads."""
        with ExitStack() as stack:
            def after(update, meters):
                done.append(update)
                if len(done) == 1:
                    stack.enter_context(NothingWaits())
                    if DEVICE.type == 'cuda':
                        torch.cuda.set_sync_debug_mode('error')
                        stack.callback(torch.cuda.set_sync_debug_mode, 'default')
                if len(done) == kwargs['updates_per_epoch']:
                    stack.close()

            return train_epoch(*args, progress=after, **kwargs)

    monkeypatch.setattr(trainer, 'train_epoch', watched)
    code, _, err = run([photos, '--device', DEVICE.type, '--opt', 'sgd', '--lr', '0.01', '--val-fraction', '0',
                        '--augment-on', 'device', '--model', 'vit_tiny_patch16_224', '--model-kwargs', 'patch_size=8',
                        'embed_dim=48', 'num_heads=2', 'depth=1', *flags])
    assert code == 0 and len(done) > 2, err


def test_a_run_from_start_to_report(run, photos, capsys):
    code, _, err = run([photos, '--device', DEVICE.type, '--epochs', '2', '--model-ema', '--aug', 'three-augment'])
    assert code == 0 and f'on {DEVICE.type}' in err, err
    assert run([photos, '--device', DEVICE.type, '--epochs', '2', '--resume', 'auto'])[0] == 0
    assert eval_verb.main(['runs/e', '--device', DEVICE.type]) == 0
    if DEVICE.type == 'cuda':
        assert 'views: made in batches on cuda' in err


@pytest.mark.skipif(DEVICE.type == 'cpu', reason='needs a GPU')
def test_a_full_device_names_the_batch(run, photo_folder):
    photos = photo_folder('many', {'ant': 300, 'bee': 300})
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(0.01)
    try:
        code, _, err = run([photos, '--device', 'cuda', '--model', 'vit_base_patch16_224', '--img-size', '224',
                            '--batch-size', '256'])
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert code == 2 and 'is full' in err.splitlines()[-1]


@pytest.mark.skipif(DEVICE.type == 'cpu', reason='needs a GPU')
@pytest.mark.parametrize('mode', ['default', 'reduce-overhead'])
def test_compiled(run, photos, mode):
    code, _, err = run([photos, '--device', 'cuda', '--torchcompile', '--torchcompile-mode', mode, '--epochs', '3'])
    assert code == 0, err
