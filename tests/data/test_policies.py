"""Policies that timm lacks: what they change, where they stand in a view, and that a draw repeats."""
import random
from collections import Counter

import numpy as np
import pytest
from PIL import Image
from torchvision import transforms

from timm_smalldata._compat import is_auto_augment
from timm_smalldata.data import policies
from timm_smalldata.data.policies import POLICIES, Cutout, RandomOperations, cutout, is_policy
from timm_smalldata.data.views import Augment, Crop, SimpleRandomCrop, ViewSpec, _train_transform, render

PHOTO = Image.fromarray(np.random.default_rng(0).integers(1, 255, (40, 56, 3), dtype=np.uint8))


def kinds(**augment):
    spec = ViewSpec(32, Crop('rrc'), Augment(**augment))
    return [type(part).__name__ for part in _train_transform(spec).transforms]


def test_a_cut_out_square():
    random.seed(0)
    white = Image.new('RGB', (32, 32), 'white')
    areas = [(np.array(cutout(white, 16)) == 0).all(axis=2).sum() for _ in range(500)]
    assert max(areas) == 256 and 64 <= min(areas) < 100  # whole, or about a quarter of it in a corner
    expected = np.mean([min(c + 8, 32) - max(c - 8, 0) for c in range(32)]) ** 2
    assert np.mean(areas) == pytest.approx(expected, rel=0.05)
    assert white.getextrema() == ((255, 255),) * 3


def test_two_operations_each_in_half_of_the_cases(monkeypatch):
    done, sides = Counter(), Counter()

    def operation(name, prob, magnitude):
        assert prob == 1.0 and magnitude * 0.9 == pytest.approx(round(magnitude * 0.9))
        done[name] += 1
        return lambda image: image

    def cut(image, side, fill):
        done['Cutout'] += 1
        sides[side] += 1
        return image

    monkeypatch.setattr(policies, 'augment_op', operation)
    monkeypatch.setattr(policies, 'cutout', cut)
    random.seed(0)
    for _ in range(3000):
        RandomOperations()(PHOTO)
    assert len(done) == 15 and all(150 < count < 250 for count in done.values())  # 3000 * 2 / 2 / 15
    assert sorted(sides) == [2, 4, 7, 9, 11, 13, 16, 18, 20]


def test_every_operation_runs():
    random.seed(0)
    for name in (name for name in RandomOperations.names if name != 'Cutout'):
        assert policies.augment_op(name, 1.0, 10)(PHOTO).size == PHOTO.size


def test_where_they_stand_in_a_view():
    jitter = dict(color_jitter=0.4)
    assert kinds(auto_augment='rand-m9', **jitter)[2:-1] == ['RandAugment']  # timm's rule
    assert kinds(auto_augment='rand-m9', force_color_jitter=True, **jitter)[2:-1] == ['ColorJitter', 'RandAugment']
    assert kinds(auto_augment='idmm', **jitter)[2:-1] == ['RandomOperations']
    assert kinds(auto_augment='idmm', force_color_jitter=True, grayscale_prob=0.2, **jitter)[2:-1] == [
        'ColorJitter', 'RandomGrayscale', 'RandomOperations']
    assert kinds(auto_augment='cifar10', cutout=16)[2:-1] == ['AutoAugment', 'Cutout']
    assert kinds(force_color_jitter=True, **jitter)[2:-1] == ['ColorJitter']
    assert kinds(auto_augment='idmm', auto_augment_prob=0.5)[2:-1] == ['RandomApply']
    assert not any(map(is_auto_augment, (Cutout(1), RandomOperations())))
    assert all(is_policy(create()) for create in POLICIES.values())


@pytest.mark.parametrize('name', POLICIES)
def test_a_draw_repeats(name):
    spec = ViewSpec(32, Crop('pad'), Augment(name, cutout=8))
    views = [render(PHOTO, spec, key) for key in range(20)]
    assert all((render(PHOTO, spec, key) == view).all() for key, view in enumerate(views))
    assert len({view.numpy().tobytes() for view in views}) > 15


def test_the_cifar_policy_is_torchvisions():
    policy = POLICIES['cifar10']()
    assert policy.policy is transforms.AutoAugmentPolicy.CIFAR10 and len(policy.policies) == 25


def test_a_black_border():
    random.seed(0)
    crop = SimpleRandomCrop(32, padding_mode='constant')
    shares = [(np.array(crop(Image.new('RGB', (32, 32), 'white'))) == 0).all(axis=2).mean() for _ in range(200)]
    assert min(shares) == 0 and max(shares) == pytest.approx(1 - (28 / 32) ** 2)
    built = _train_transform(ViewSpec(32, Crop('pad'))).transforms[0]
    assert [crop.padding_mode for crop in built.transforms if hasattr(crop, 'padding_mode')] == ['constant']
