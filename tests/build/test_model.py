"""A ViT's class token at the start: as timm has it, or of the deviation that the flag names."""
import pytest

from timm_smalldata.build.model import create_model
from timm_smalldata.config.plan import finish_stage, plan


def built(*argv):
    stage, = plan(['photos', '--model', 'deit_tiny_patch16_224', '--model-kwargs', 'depth=1', *argv])
    finish_stage(stage)
    args = stage.settings.namespace()
    args.img_size = 32
    return create_model(args, ['a', 'b'])


def test_its_deviation():
    assert built().cls_token.std().item() == pytest.approx(1e-6, rel=0.2)
    assert built('--class-token-std', '0.02').cls_token.std().item() == pytest.approx(0.02, rel=0.2)
    built('--model', 'resnet20_cifar', '--model-kwargs', '--class-token-std', '0.02')
