"""Patches and the masked pixel loss: published numbers, the equation written out, gradients."""
import json
import math
from pathlib import Path

import pytest
import torch

from timm_smalldata.loss import masked_pixel_loss
from timm_smalldata.task.mae import patchify, unpatchify

V = json.loads((Path(__file__).parents[1] / 'vectors' / 'mae.json').read_text())['mae_loss']
IMAGE = torch.tensor([i / 10 + math.sin(i) for i in range(48)], dtype=torch.float64).float().view(1, 3, 4, 4)
PRED = torch.tensor([math.cos(0.3 * i) for i in range(48)], dtype=torch.float64).float().view(1, 4, 12)
MASK = torch.tensor(V['mask'], dtype=torch.float32)


def test_order_inside_a_patch():
    patches = patchify(IMAGE, 2)
    torch.testing.assert_close(patches[0, 0], torch.tensor(V['patch0']), atol=1e-6, rtol=0)
    torch.testing.assert_close(patches[0, 3], torch.tensor(V['patch3']), atol=1e-6, rtol=0)


def test_patches_of_an_oblong_image_and_back():
    images = torch.randn(2, 3, 6, 9, generator=torch.Generator().manual_seed(0))
    patches = patchify(images, 3)
    assert patches.shape == (2, 6, 27)
    row, column, y, x, channel = 1, 2, 2, 0, 1
    assert patches[1, row * 3 + column, (y * 3 + x) * 3 + channel] == images[1, channel, row * 3 + y, column * 3 + x]
    assert torch.equal(unpatchify(patches, 3, (2, 3)), images)
    with pytest.raises(ValueError, match='multiples of the patch size 4'):
        patchify(images, 4)


@pytest.mark.parametrize('norm_pix, key', [(False, 'loss_raw'), (True, 'loss_norm_pix')])
@pytest.mark.parametrize('dtype', [torch.float32, torch.bool])
def test_values(norm_pix, key, dtype):
    loss = masked_pixel_loss(PRED, IMAGE, MASK.to(dtype), 2, norm_pix)
    assert loss.item() == pytest.approx(V[key], rel=1e-6) and loss.dtype == torch.float32 and loss.ndim == 0


def test_against_the_equation():
    generator = torch.Generator().manual_seed(1)
    images, pred = torch.randn(3, 3, 4, 4, generator=generator), torch.randn(3, 4, 12, generator=generator)
    mask = torch.tensor([[1, 0, 0, 0], [1, 1, 1, 0], [0, 1, 0, 1]])  # weighted by patches, not by images
    total, patches = 0., 0
    for n in range(3):
        for place in range(4):
            if mask[n, place]:
                r, c = place // 2 * 2, place % 2 * 2
                values = [images[n, k, r + y, c + x].item() for y in range(2) for x in range(2) for k in range(3)]
                mean = sum(values) / 12
                deviation = math.sqrt(sum((v - mean) ** 2 for v in values) / 11 + 1e-6)
                errors = [(v - mean) / deviation - p for v, p in zip(values, pred[n, place].tolist())]
                total += sum(error ** 2 for error in errors) / 12
                patches += 1
    assert masked_pixel_loss(pred, images, mask, 2).item() == pytest.approx(total / patches, rel=1e-5)


def test_visible_patches_get_no_gradient():
    pred = PRED.clone().requires_grad_()
    masked_pixel_loss(pred, IMAGE, MASK, 2).backward()
    assert torch.count_nonzero(pred.grad[0, 1]) == 0
    assert all(torch.count_nonzero(pred.grad[0, i]) == 12 for i in (0, 2, 3))


def test_half_precision_and_autocast_change_nothing_inside():
    images, pred = IMAGE.bfloat16(), PRED.bfloat16()
    expected = masked_pixel_loss(pred.float(), images.float(), MASK, 2)
    assert torch.equal(masked_pixel_loss(pred, images, MASK, 2), expected)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        assert torch.equal(masked_pixel_loss(pred, images, MASK, 2), expected)


def test_shapes_that_do_not_fit():
    with pytest.raises(ValueError, match=r'\(1, 4, 12\)'):
        masked_pixel_loss(PRED[:, :3], IMAGE, MASK, 2)
    with pytest.raises(ValueError, match='a mask'):
        masked_pixel_loss(PRED, IMAGE, MASK[:, :3], 2)
