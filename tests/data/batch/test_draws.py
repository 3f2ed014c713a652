"""Draws of a batch: a function of each image's key, with the distributions of timm and torchvision."""
import math
import random

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import ks_2samp, kstest
from timm.data.random_erasing import RandomErasing
from timm.data.transforms import RandomResizedCropAndInterpolation
from torchvision.transforms import ColorJitter

from timm_smalldata.data.batch import erase, steps
from timm_smalldata.data.batch.draws import KINDS, Draws
from timm_smalldata.data.batch.frames import frames
from timm_smalldata.data.views import Augment, Crop
from timm_smalldata.utils.random import draw_key, draw_keys, uniform

N = 2000
LEAST = 1e-3  # p-value below which two samples are not of one distribution; all draws here are fixed


def many(count=N, seed=0):
    return Draws(draw_keys(seed, np.zeros(count, dtype=int), np.arange(count)))


def test_the_generator_is_splitmix64():
    """Its first outputs from state 0, as Java's SplittableRandom and the authors' C code print them."""
    published = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F, 0xF88BB8A8724C81EC]
    found = uniform(np.zeros(1, dtype=np.uint64), 4)[0]
    assert found.tolist() == [(number >> 11) / 2 ** 53 for number in published]


def test_keys_of_many_draws_are_those_of_each():
    epochs, positions = np.array([0, 3, 3, 199]), np.array([5, 0, 2 ** 40, 17])
    for seed, view in ((0, 0), (42, 1), (2 ** 63 - 1, 9)):
        expected = [draw_key(seed, int(e), int(p), view) for e, p in zip(epochs, positions)]
        assert draw_keys(seed, epochs, positions, view).tolist() == expected


def test_what_a_key_means_is_pinned():
    """A run that is continued draws what it would have drawn: these numbers are never to change."""
    draws = Draws(np.array([1, 2], dtype=np.uint64))
    assert len(KINDS) == 27 and KINDS[0] == 'area' and KINDS[12] == 'jitter_factor' and KINDS[-1] == 'erase_noise'
    assert draws.uniform('area').round(6).tolist() == AREA
    assert draws.uniform('erase_noise').round(6).tolist() == NOISE


AREA, NOISE = [0.566562, 0.59119], [0.72344, 0.814979]


def test_an_image_has_its_numbers_in_any_company():
    alone = np.concatenate([Draws(many(9).keys[i:i + 1]).uniform('ratio', count=3) for i in range(9)])
    assert np.array_equal(many(9).uniform('ratio', count=3), alone)
    assert not np.array_equal(alone, many(9).uniform('area', count=3))


def test_numbers_are_uniform_and_not_related():
    table = np.stack([many().uniform(kind, count=2)[:, n] for kind in KINDS for n in (0, 1)])
    for row in table:
        assert kstest(row, 'uniform').pvalue > LEAST
    related = np.corrcoef(table) - np.eye(len(table))
    assert np.abs(related).max() < 5 / math.sqrt(N)
    assert many().happens('hflip', 0.25).mean() == pytest.approx(0.25, abs=0.04)
    assert not many().happens('hflip', 0.0).any() and many().happens('hflip', 1.0).all()
    orders = many().order('jitter_order', 3)
    assert set(np.unique(orders @ [9, 3, 1], return_counts=True)[1] // 100) <= {2, 3, 4}  # 333 each; sd 17


# --- frames ---------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('size', [(64, 96), (80, 80), (30, 300)])
@pytest.mark.parametrize('scale, ratio', [((0.08, 1.0), (3 / 4, 4 / 3)), ((0.3, 1.0), (0.5, 2.0))])
def test_random_areas_are_distributed_as_timms(size, scale, ratio):
    found = frames(Crop('rrc', scale, ratio), 32, np.tile(size, (N, 1)), many()).box
    image = Image.new('RGB', size[::-1])
    random.seed(0)
    expected = np.array([RandomResizedCropAndInterpolation.get_params(image, scale, ratio) for _ in range(N)])
    for name, ours, theirs in zip(('top', 'left', 'height', 'width'), found.T, expected.T):
        assert ks_2samp(ours, theirs).pvalue > LEAST, name
    assert (found[:, :2] >= 0).all() and (found[:, 0] + found[:, 2] <= size[0]).all()
    assert (found[:, 1] + found[:, 3] <= size[1]).all()


def test_the_last_resort_is_timms():
    """An area that never fits: the largest box at the centre with an allowed aspect ratio."""
    sizes = np.array([(40, 200), (200, 40), (64, 64), (61, 80)])
    found = frames(Crop('rrc', (3.0, 4.0)), 32, sizes, many(4)).box
    for (height, width), box in zip(sizes.tolist(), found.tolist()):
        image = Image.new('RGB', (width, height))
        assert tuple(box) == RandomResizedCropAndInterpolation.get_params(image, (3.0, 4.0), (3 / 4, 4 / 3))


def test_the_simple_crop_begins_everywhere_alike():
    found = frames(Crop('src'), 32, np.tile((64, 80), (N, 1)), many())
    assert (found.grid == (32, 40)).all() and (found.box == (0, 0, 64, 80)).all()
    for axis, places in ((0, 9), (1, 17)):
        starts, counts = np.unique(found.offset[:, axis], return_counts=True)
        assert starts.tolist() == list(range(-4, places - 4)) and counts.min() > 0.6 * N / places


def test_flips_and_interpolation_happen_as_told():
    found = frames(Crop('rrc', hflip=0.5, vflip=0.1, interpolation='random'), 32, np.tile((64, 80), (N, 1)), many())
    assert found.flips.mean(axis=0) == pytest.approx([0.1, 0.5], abs=0.04)
    assert found.modes.count('bilinear') / N == pytest.approx(0.5, abs=0.04)
    still = frames(Crop('rrc', hflip=0.0), 32, np.tile((64, 80), (9, 1)), many(9))
    assert not still.flips.any() and set(still.modes) == {'bicubic'}


# --- colours --------------------------------------------------------------------------------------------------------

def named(augment):
    return [(step.operation.__name__, np.array(step.drawn), [values.flatten().numpy() for values in step.told])
            for step in steps.colour_steps(augment, many())]


def test_three_augment_is_one_of_three():
    found = named(Augment('3a', auto_augment_prob=0.6))[:3]
    assert [name for name, *_ in found] == ['solarise', 'greyscale', 'pillow_blur']
    drawn = np.stack([own for _, own, _ in found])
    assert drawn.sum(axis=0).max() == 1 and drawn.mean(axis=1) == pytest.approx([0.2] * 3, abs=0.03)
    assert kstest(found[2][2][0], 'uniform', (0.1, 1.9)).pvalue > LEAST


def test_jitter_is_distributed_as_torchvisions():
    """Factors of each operation at each place of the order, beside those that torchvision draws."""
    jitter = (0.4, 0.8, 1.2, 0.1)
    found = [(name, own, told) for name, own, told in named(Augment(None, jitter)) if own.any()]
    factors = {kind: [] for kind in range(4)}
    places = np.zeros((4, 4), dtype=int)
    for number, (name, own, told) in enumerate(found):
        kinds = np.full(N, 3) if name == 'shift_hue' else np.where(told[1] == 1, 2, np.where(told[2] == 1, 1, 0))
        for kind in range(4):
            chosen = own & (kinds == kind)
            factors[kind].append(told[0][chosen])
            places[kind, number // 2] += chosen.sum()
    assert (places.sum(axis=1) == N).all() and places.min() > 0.8 * N / 4
    own = ColorJitter(*jitter)
    torch.manual_seed(0)
    theirs = [ColorJitter.get_params(own.brightness, own.contrast, own.saturation, own.hue) for _ in range(N)]
    for kind in range(4):
        assert ks_2samp(np.concatenate(factors[kind]), [drawn[kind + 1] for drawn in theirs]).pvalue > LEAST


def test_jitter_keeps_still_where_it_was_not_drawn():
    found = named(Augment(None, 0.3, 0.5))
    blended = [(own, told) for name, own, told in found if name == 'blend']
    assert len(blended) == 3 and np.mean(blended[0][0]) == pytest.approx(0.5, abs=0.04)
    for own, (factor, *_) in blended:
        assert (factor[~own] == 1).all() and (own == blended[0][0]).all()
    assert [own.mean() for name, own, _ in named(Augment(None, 0.0)) if name in ('blend', 'shift_hue')] == []


# --- erasing --------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('count', [1, 3])
def test_erased_boxes_are_distributed_as_timms(count):
    found = torch.stack([own for own in erase.boxes(count, 40, 56, many(), torch.device('cpu'))]).any(dim=0)[:, 0]
    random.seed(0)
    eraser = RandomErasing(probability=1.0, mode='const', max_count=count, device='cpu')
    expected = torch.stack([eraser(torch.ones(3, 40, 56))[0] == 0 for _ in range(N)])
    for what in (lambda own: own.sum(dim=(1, 2)), lambda own: own.any(dim=2).sum(dim=1),
                 lambda own: own.any(dim=1).float().argmax(dim=1)):
        assert ks_2samp(what(found).numpy(), what(expected).numpy()).pvalue > LEAST


def test_noise_is_normal_and_made_of_the_same_numbers_everywhere():
    draws = many(40)
    high, low = erase._bits(draws.state('erase_noise'), 6, torch.device('cpu'))
    joined = (high.numpy().astype(np.uint64) << np.uint64(32)) + low.numpy().astype(np.uint64)
    assert np.array_equal((joined >> np.uint64(11)) / 2 ** 53, draws.uniform('erase_noise', count=6))
    noise = erase.normal_pixels(draws, torch.empty(40, 3, 9, 9))
    assert kstest(noise.flatten().numpy(), 'norm').pvalue > LEAST and noise.isfinite().all()
    assert torch.equal(erase.normal_pixels(Draws(draws.keys[7:8]), torch.empty(1, 3, 9, 9))[0], noise[7])
    colours = erase.normal_colours(many(), 2, torch.device('cpu'))
    assert kstest(colours.flatten().numpy(), 'norm').pvalue > LEAST
