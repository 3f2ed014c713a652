"""Views: transforms drawn by key; 3-Augment and simple random crop against the numbers of DeiT III's code."""
import random
from collections import Counter
from itertools import product

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import create_transform
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.data.random_erasing import RandomErasing
from torchvision import transforms

from timm_smalldata.data import views
from timm_smalldata.data.views import Augment, Crop, Erase, SimpleRandomCrop, ViewSpec, eval_view, render, three_augment
from timm_smalldata.utils.random import draw_key

# Made with the original repository's code (facebookresearch/deit) and timm 1.0.31.
SUMS = {'Solarize': 979411, 'Desaturate': 1961955, 'GaussianBlurRand': 1949870}
PIPELINE = (
    'Compose(\n'
    '    RandomResizedCropAndInterpolation(size=(224, 224), scale=(0.08, 1.0), ratio=(0.75, 1.3333), '
    'interpolation=bicubic)\n'
    '    RandomHorizontalFlip(p=0.5)\n'
    '    AutoAugment(policy=\n'
    '\t[AugmentOp(name=Solarize, p=1.0, m=5, mstd=0)]\n'
    '\t[AugmentOp(name=Desaturate, p=1.0, m=10, mstd=0)]\n'
    '\t[AugmentOp(name=GaussianBlurRand, p=1.0, m=10, mstd=0)])\n'
    '    ColorJitter(brightness=(0.7, 1.3), contrast=(0.7, 1.3), saturation=(0.7, 1.3), hue=None)\n'
    '    MaybeToTensor()\n'
    '    Normalize(mean=tensor([0.4850, 0.4560, 0.4060]), std=tensor([0.2290, 0.2240, 0.2250]))\n'
    ')')
GEOMETRY = [  # width, height; resized; padded; offsets in x, in y; all at 224 px
    ((500, 375), (298, 224), (306, 232), (83, 9)),
    ((375, 500), (224, 298), (232, 306), (9, 83)),
    ((300, 300), (224, 224), (232, 232), (9, 9)),
    ((1000, 333), (672, 224), (680, 232), (457, 9)),
]


@pytest.fixture
def photo():
    return Image.fromarray(np.random.RandomState(0).randint(0, 256, (64, 80, 3)).astype(np.uint8))


def policy(transform):
    """The three operations of the automatic augmentation in a pipeline."""
    return next(t for t in transform.transforms if type(t).__name__ == 'AutoAugment').policy


# --- 3-Augment ------------------------------------------------------------------------------------------------------

def test_three_augment_is_timms_pipeline():
    assert repr(three_augment(224)) == PIPELINE


def test_three_augment_has_the_pixels_of_the_original(photo, monkeypatch):
    monkeypatch.setattr('timm.data.auto_augment.random.uniform', lambda low, high: 1.0)  # radius of the blur
    sums = {ops[0].name: int(np.asarray(ops[0](photo)).astype(np.int64).sum()) for ops in policy(three_augment(64))}
    assert sums == SUMS


def test_three_augment_takes_one_of_three_each_time(monkeypatch):
    """A coloured ramp tells the three apart: greyscale takes its colour, solarise turns its bright half."""
    ramp = Image.fromarray(np.tile(np.arange(0, 256, 4, dtype=np.uint8)[None, :, None], (64, 1, 3)))
    ramp = Image.merge('RGB', (ramp.split()[0], ramp.split()[1].point(lambda v: v // 2), ramp.split()[2]))
    transform = next(t for t in three_augment(64).transforms if type(t).__name__ == 'AutoAugment')
    seen = Counter()
    for draw in range(600):
        random.seed(draw)
        out = np.asarray(transform(ramp)).astype(int)
        grey = (out[..., 0] == out[..., 1]).all()
        turned = out[0, -1, 0] < 100
        seen['grey' if grey else 'solarise' if turned else 'blur'] += 1
    assert min(seen.values()) > 160 and max(seen.values()) < 240 and len(seen) == 3  # 200 each; sd 11.5


@pytest.mark.parametrize('crop', ['rrc', 'src'])
def test_three_augment_gives_a_normalised_view(photo, crop):
    random.seed(0), torch.manual_seed(0)
    view = three_augment(32, crop=crop)(photo)
    assert view.shape == (3, 32, 32) and view.dtype == torch.float32 and view.min() < 0
    assert three_augment(32, crop=crop, normalize=False)(photo).dtype == torch.uint8
    still = repr(three_augment(32, crop=crop, hflip=0.0, color_jitter=0.0))
    assert 'Flip' not in still and 'brightness=None, contrast=None, saturation=None' in still


# --- simple random crop ---------------------------------------------------------------------------------------------

def crop_at(monkeypatch, top, left):
    """Make RandomCrop cut there; returns where the sizes of what it cuts from are noted."""
    sizes = []

    def get_params(image, size):
        sizes.append(image.size)
        return top, left, *size

    monkeypatch.setattr(transforms.RandomCrop, 'get_params', staticmethod(get_params))
    return sizes


@pytest.mark.parametrize('size, resized, padded, offsets', GEOMETRY)
def test_simple_random_crop_has_the_geometry_of_the_original(monkeypatch, size, resized, padded, offsets):
    photo = Image.fromarray(np.random.RandomState(0).randint(0, 256, (size[1], size[0], 3)).astype(np.uint8))
    sizes = crop_at(monkeypatch, 4, 4)
    cut = SimpleRandomCrop(224)(photo)
    assert sizes == [padded] and (padded[0] - 224 + 1, padded[1] - 224 + 1) == offsets
    # at offset (4, 4) nothing of the margin is seen: the corner of the photograph, resized bicubically
    corner = photo.resize(resized, Image.Resampling.BICUBIC).crop((0, 0, 224, 224))
    assert np.array_equal(cut, corner)


def test_simple_random_crop_cuts_at_every_offset():
    """On an image of 8 x 10 px that is not resized there are 9 x 11 places, each as likely as any other."""
    pixels = np.arange(80, dtype=np.uint8).reshape(10, 8)
    margin = np.pad(pixels, 4, mode='reflect')
    places = {margin[y:y + 8, x:x + 8].tobytes(): (y, x) for y, x in product(range(11), range(9))}
    assert len(places) == 99
    torch.manual_seed(0)
    crop, photo = SimpleRandomCrop(8), Image.fromarray(pixels).convert('RGB')
    seen = Counter(places[np.asarray(crop(photo))[..., 0].tobytes()] for _ in range(3000))
    assert len(seen) == 99 and max(seen.values()) < 60  # 30 each; sd 5.5


@pytest.mark.parametrize('name, resample', [
    ('bilinear', Image.Resampling.BILINEAR), ('bicubic', Image.Resampling.BICUBIC)])
def test_simple_random_crop_interpolates_as_told(monkeypatch, photo, name, resample):
    crop_at(monkeypatch, 4, 4)
    cut = SimpleRandomCrop(32, interpolation=name)(photo)
    assert np.array_equal(cut, photo.resize((40, 32), resample).crop((0, 0, 32, 32)))


# --- rendering ------------------------------------------------------------------------------------------------------

SPECS = [
    ViewSpec(32), ViewSpec(32, Crop('src'), Augment('3a', 0.3)), ViewSpec(32, Crop('rkrr', scale=(0.5, 1.0))),
    ViewSpec(32, Crop('rkrc'), Augment('rand-m9-mstd0.5-inc1', (0.4, 0.4, 0.4)), Erase(0.5)),
    ViewSpec(32, Crop('none', vflip=0.5), Augment(None, 0.4, 0.8, 0.2, 0.5), Erase(1.0)),
    ViewSpec(32, Crop(interpolation='random'), Augment('augmix-m3')),
]


@pytest.mark.parametrize('spec', SPECS, ids=lambda spec: spec.crop.mode)
def test_pixels_are_a_function_of_the_key(photo, spec):
    keys = [draw_key(0, 0, position) for position in range(6)]
    first = [render(photo, spec, key) for key in keys]
    random.seed(5), np.random.seed(5), torch.manual_seed(5)
    again = [render(photo, spec, key) for key in reversed(keys)][::-1]
    assert all(torch.equal(a, b) for a, b in zip(first, again))
    assert sum(torch.equal(first[i], first[j]) for i in range(6) for j in range(i)) <= (
        15 if spec.crop.mode == 'none' and not spec.erase.prob else 0)


def generators():
    _, words, place, *_ = np.random.get_state()
    return random.getstate(), words.tobytes(), place, torch.get_rng_state().numpy().tobytes()


def test_evaluation_draws_nothing(photo):
    spec = eval_view(32, 0.875, 'bicubic', IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
    before = generators()
    view = render(photo, spec)
    assert generators() == before
    expected = create_transform((3, 32, 32), crop_pct=0.875, interpolation='bicubic')(photo)
    assert torch.allclose(views.normalise(view[None], spec.mean, spec.std)[0], expected, atol=1e-5)


@pytest.mark.parametrize('mode', ['rrc', 'rkrc', 'rkrr'])
def test_training_views_are_timms(photo, mode):
    spec = ViewSpec(32, Crop(mode, scale=(0.3, 1.0), ratio=(0.8, 1.25)), Augment('rand-m9-mstd0.5-inc1', 0.4))
    key = draw_key(3, 1, 4)
    view = render(photo, spec, key)
    views.seed_draw(key)
    expected = create_transform(
        (3, 32, 32), is_training=True, train_crop_mode=mode, scale=(0.3, 1.0), ratio=(0.8, 1.25), color_jitter=0.4,
        auto_augment='rand-m9-mstd0.5-inc1', interpolation='bicubic')(photo)
    assert torch.allclose(views.normalise(view[None], spec.mean, spec.std)[0], expected, atol=1e-5)


@pytest.mark.parametrize('policy', ['rand-m10-n6-inc1', 'augmix-m10', 'v0r', 'original'])
def test_the_strongest_posterize_is_black_and_no_error(photo, policy):
    """rand-m9-mstd0.5-inc1 reaches 0 bits now and then; newer versions of Pillow refuse that."""
    spec = ViewSpec(32, Crop('none', hflip=0.0), Augment(policy))
    for position in range(60):
        render(photo, spec, draw_key(0, 0, position))
    transform = views._train_transform(ViewSpec(32, augment=Augment('rand-m10-inc1')))
    op = next(op for part in transform.transforms for op in getattr(part, 'ops', ()) if op.name.startswith('Posterize'))
    op.prob = 1.0
    assert not np.asarray(op(photo)).any()
    op.magnitude = 5  # 2 bits
    assert np.array_equal(np.asarray(op(photo)), np.asarray(photo) & 0b11000000)


def test_no_crop_is_the_centre_without_chance(photo):
    spec = ViewSpec(32, Crop('none', hflip=0.0))
    view = render(photo, spec, draw_key(0, 0, 0))
    assert torch.equal(view, render(photo, spec, draw_key(0, 0, 1)))
    centre = photo.resize((40, 32), Image.Resampling.BICUBIC).crop((4, 0, 36, 32))
    assert np.array_equal(view.permute(1, 2, 0), centre)


def test_random_erasing_belongs_to_the_view(photo):
    """It is drawn by the same key, after everything else, on the normalised view, as timm's own is."""
    plain, erased = ViewSpec(32), ViewSpec(32, erase=Erase(1.0, 'pixel', 2))
    key = draw_key(0, 0, 7)
    before, after = render(photo, plain, key), render(photo, erased, key)
    assert before.dtype == torch.uint8 and after.dtype == torch.float32
    normal = views.normalise(before, erased.mean, erased.std)
    changed = (normal != after).any(0)
    assert 0.02 < changed.float().mean() < 0.6
    views.seed_draw(key)
    create_transform((3, 32, 32), is_training=True, color_jitter=None, interpolation='bicubic')(photo)
    eraser = RandomErasing(probability=1.0, mode='pixel', max_count=2, device='cpu')
    assert torch.equal(eraser(normal.clone()), after)
    assert not torch.equal(render(photo, erased, draw_key(0, 0, 8)), after)


def test_erasing_happens_as_often_as_told(photo):
    spec = ViewSpec(32, Crop('none', hflip=0.0), erase=Erase(0.25))
    normal = views.normalise(render(photo, ViewSpec(32, Crop('none', hflip=0.0))), spec.mean, spec.std)
    erased = sum(not torch.equal(render(photo, spec, draw_key(0, 0, i)), normal) for i in range(400))
    assert 65 < erased < 135  # 100; sd 8.7


def test_normalise_is_timms_order_of_operations():
    pixels = torch.arange(256, dtype=torch.uint8).repeat(3).reshape(1, 3, 16, 16)
    mean = torch.tensor([m * 255 for m in IMAGENET_DEFAULT_MEAN]).view(1, 3, 1, 1)
    std = torch.tensor([s * 255 for s in IMAGENET_DEFAULT_STD]).view(1, 3, 1, 1)
    batch = pixels.clone()
    assert torch.equal(
        views.normalise(batch, IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD), pixels.float().sub(mean).div(std))
    assert torch.equal(batch, pixels)


def test_specs_are_plain_data():
    spec = SPECS[3]
    assert spec == ViewSpec(32, Crop('rkrc'), Augment('rand-m9-mstd0.5-inc1', (0.4, 0.4, 0.4)), Erase(0.5))
    assert spec.at(48).size == 48 and spec.at(48).crop == spec.crop and len({spec, spec.at(32), spec.at(48)}) == 2
    assert spec.clean() == ViewSpec(32, Crop('rkrc')) and eval('views.' + repr(spec), {
        'views': views, **{name: getattr(views, name) for name in ('Crop', 'Augment', 'Erase')}}) == spec


@pytest.mark.parametrize('argv, crop', [
    ('', 'src scale=None'), ('--aug three-augment', 'src scale=None'),  # a short run
    ('--epochs 200', 'rrc scale=(0.3, 1.0)'), ('--epochs 200 --aug three-augment', 'rrc scale=(0.08, 1.0)'),
    ('--scale .5 .9', 'rrc scale=(0.5, 0.9)'), ('--train-crop-mode src', 'src scale=None'),
    ('--train-crop-mode rkrr', 'rkrr scale=None'), ('--aug none', 'none scale=None'),
    ('--train-crop-mode rkrc --scale .6 1', 'rkrc scale=(0.6, 1.0)')])
def test_the_train_command_makes_the_view_that_its_flags_name(run, photos, monkeypatch, argv, crop):
    seen = []
    from timm_smalldata.run import job
    create_views = job.create_views
    monkeypatch.setattr(job, 'create_views', lambda *args: seen.append(create_views(*args)) or seen[-1])
    code, _, err = run([photos, '--dry-run', *argv.split()])
    assert code == 0, err
    (train, judged), = seen
    assert f'{train.crop.mode} scale={train.crop.scale}' == crop
    assert judged == eval_view(32, 1.0, 'bicubic', judged.mean, judged.std)


@pytest.mark.parametrize('spec', [
    ViewSpec(32, augment=Augment('3b')), ViewSpec(32, Crop(interpolation='bicubik')),
    ViewSpec(32, Crop('src', interpolation='random')), ViewSpec(32, erase=Erase(0.5, 'foo'))])
def test_views_that_cannot_be_built_say_so_at_once(spec):
    with pytest.raises((AssertionError, KeyError, ValueError)):
        views.check_view(spec)
