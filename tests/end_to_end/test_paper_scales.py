"""Two updates of every stage at every paper's scale, with a small model on small images: its settings can run."""
import math

import pytest
import timm
import torch

from timm_smalldata.config.length import total_epochs
from timm_smalldata.config.plan import finish_stage, plan
from timm_smalldata.config.recipe import load_recipe, recipe_names
from timm_smalldata.run.job import build_parts, create_job
from timm_smalldata.run.starts import Starts
from timm_smalldata.run.trainer import Trainer
from timm_smalldata.utils.console import Voice
from timm_smalldata.utils.distributed import World

COUNTS = {'ant': 7, 'bee': 5, 'cat': 4}
SMALLER = dict(img_size=48, dino_out_dim=16, mae_decoder_dim=16, mae_decoder_depth=1, mae_decoder_heads=2)
SCALES = [
    (name, scale) for name in recipe_names() for scale in load_recipe(name)['scales'] if scale.startswith('paper')]


def shrink(stage):
    """Make model, images and batches of a stage small; all other settings stay."""
    settings = stage.settings
    vit = 'vit' in settings.get('model') or 'deit' in settings.get('model')
    width = dict(embed_dim=24, depth=2, num_heads=2) if vit else {}
    width = dict(layers=(1, 1, 1, 1), base_width=8) if settings.get('model') == 'resnet50' else width
    if settings.get('model').startswith('pvt'):
        width = dict(depths=(1, 1, 1, 1), embed_dims=(8, 16, 16, 16), num_heads=(1, 1, 1, 1))
    settings.values['model_kwargs'] = {**settings.get('model_kwargs'), **width}
    settings.values['batch_size'] = sum(COUNTS.values()) // 2 // settings.get('grad_accum_steps')
    settings.sources['batch_size'] = 'command line'
    for dest, value in SMALLER.items():
        if settings.is_set(dest) and not (dest == 'img_size' and settings.get(dest) < value):
            settings.values[dest] = value


@pytest.mark.parametrize('name, scale', SCALES)
def test_two_updates(name, scale, photo_folder, tmp_path, monkeypatch):
    teacher = timm.create_model('resnet20_cifar', num_classes=3).eval()
    monkeypatch.setattr('timm_smalldata.build.task.load_teacher', lambda *args: (teacher, None))
    photos = photo_folder('photos', COUNTS)
    for stage in plan([str(photos), '--recipe', name, '--scale', scale, '--device', 'cpu', '--val-fraction', '0',
                       '--test-fraction', '0', '--output', str(tmp_path), '--experiment', 'e']):
        finish_stage(stage)
        shrink(stage)
        folder = tmp_path / 'e' / (stage.folder or 'one')
        folder.mkdir(parents=True)
        job = create_job(stage, folder, World(), torch.device('cpu'), Voice(False))
        parts = build_parts(job)
        assert parts.updates == 2
        trainer = Trainer(job, parts)
        trainer.starts = Starts(None, 0)
        before = {key: value.clone() for key, value in parts.task.trainable_module.state_dict().items()}
        assert math.isfinite(trainer.train(0)['loss'])
        after = parts.task.trainable_module.state_dict()
        moved = [key for key, value in before.items() if not torch.equal(value, after[key])]
        assert len(moved) > len(before) / 2
        assert trainer.num_epochs == total_epochs(job.args)
