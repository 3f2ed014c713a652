"""Names that timm does not export at a package's top: a test for each, so that a move is seen at once."""
from importlib.util import find_spec

import pytest

from timm_smalldata import _compat


@pytest.mark.skipif(find_spec('datasets') is None, reason="the extra 'datasets' is not installed")
def test_the_reader_of_hugging_face_data_sets():
    assert hasattr(_compat.hfds_reader(), '__getitem__') and hasattr(_compat.hfds_reader(), 'iter_targets')


def test_tokens_of_a_vit_are_what_its_blocks_get():
    import timm
    import torch
    model, seen = timm.create_model('test_vit').eval(), []
    model.blocks[0].register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    images = torch.randn(1, 3, 160, 160)
    model(images)
    assert torch.equal(_compat.vit_tokens(model, images), seen[0])


def test_operation_on_an_image():
    from PIL import Image, ImageOps
    image = Image.linear_gradient('L').convert('RGB')
    assert _compat.augment_op('Solarize', 1.0, 5)(image).tobytes() == ImageOps.solarize(image, 128).tobytes()


def test_automatic_augmentation_is_known():
    from timm.data import create_transform
    chain = create_transform(32, is_training=True, auto_augment='3a', color_jitter=0.3)
    assert sum(map(_compat.is_auto_augment, chain.transforms)) == 1


def test_muon_in_another_type():
    """The update of a matrix, made orthogonal in float32, is that of float64; in bfloat16 it is another."""
    import torch
    from timm.optim import create_optimizer_v2
    updates = {}
    try:
        for dtype in (torch.bfloat16, torch.float32, torch.float64):
            _compat.set_muon_dtype(dtype)
            torch.manual_seed(0)
            layer = torch.nn.Linear(24, 16, bias=False)
            before = layer.weight.detach().clone()
            optimizer = create_optimizer_v2(layer, 'muon', lr=1.0, weight_decay=0.)
            layer(torch.randn(8, 24)).square().sum().backward()
            optimizer.step()
            updates[dtype] = before - layer.weight.detach()
    finally:
        _compat.set_muon_dtype(torch.bfloat16)
    exact = updates[torch.float64]
    assert (updates[torch.float32] - exact).norm() < 1e-3 * exact.norm() < (updates[torch.bfloat16] - exact).norm()


def test_the_processor_answers():
    assert _compat.computes_bfloat16_fast() in (True, False)
