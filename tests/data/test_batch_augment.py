"""Views of whole batches: the pixels of Pillow and torchvision, image by image, whatever else is in the batch."""
import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageFilter, ImageOps
from torchvision import transforms
from torchvision.transforms import functional as F

from timm_smalldata.data import views
from timm_smalldata.data.batch import blur, colour
from timm_smalldata.data.batch.draws import Draws
from timm_smalldata.data.batch.frames import frames
from timm_smalldata.data.batch.images import PackedImages
from timm_smalldata.data.batch.resample import cut, cut_by_matrices
from timm_smalldata.data.batch_augment import no_batched_form, render_batch
from timm_smalldata.data.views import Augment, Crop, Erase, ViewSpec, normalise, render
from timm_smalldata.utils.random import draw_keys

SIZES = [(64, 80), (90, 70), (40, 40), (30, 120), (100, 33)]


def make_photo(height, width, seed):
    """A smooth picture with noise on it, and black and white corners."""
    rng = np.random.RandomState(seed)
    smooth = Image.fromarray(rng.randint(0, 256, (7, 6, 3)).astype(np.uint8)).resize((width, height), Image.BICUBIC)
    photo = np.clip(np.asarray(smooth).astype(int) + rng.randint(-25, 26, (height, width, 3)), 0, 255).astype(np.uint8)
    photo[:6, :6], photo[-6:, -6:] = 0, 255
    return photo


@pytest.fixture(scope='module')
def photos():
    return [make_photo(*size, seed) for seed, size in enumerate(SIZES)]


@pytest.fixture(scope='module')
def tensors(photos):
    return [torch.from_numpy(photo) for photo in photos]


def keys(count, seed=0):
    return draw_keys(seed, np.zeros(count, dtype=int), np.arange(count))


def levels(x):
    """A Pillow image, or a batch of one, as float (h, w, 3)."""
    return np.asarray(x).astype(float) if isinstance(x, Image.Image) else x[0].permute(1, 2, 0).double().numpy()


def batch_of(image):
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float()


# --- crops ----------------------------------------------------------------------------------------------------------

def seen_by_pillow(photo, shown, i):
    """What Pillow and torchvision show of a photograph in a frame; columns are resized first, as they usually are."""
    image, size = Image.fromarray(photo), shown.size
    filter = getattr(Image.Resampling, shown.modes[i].upper())
    (top, left, height, width), (rows, columns) = shown.box[i].tolist(), shown.grid[i].tolist()
    cropped = image.crop((left, top, left + width, top + height))
    resized = cropped.resize((columns, height), filter).resize((columns, rows), filter)
    y, x = shown.offset[i].tolist()
    padding = 4 if min(y, x) < 0 or y + size > rows or x + size > columns else 0
    seen = F.crop(F.pad(resized, padding, padding_mode='reflect') if padding else resized,
                  y + padding, x + padding, size, size)
    upside_down, mirrored = shown.flips[i]
    return F.hflip(F.vflip(seen) if upside_down else seen) if mirrored else F.vflip(seen) if upside_down else seen


CROPS = [Crop('rrc', vflip=0.5), Crop('rrc', (0.05, 0.4), interpolation='bilinear'), Crop('src', vflip=0.5),
         Crop('none', hflip=0.0), Crop('rrc', interpolation='random')]


@pytest.mark.parametrize('crop', CROPS, ids=lambda crop: f'{crop.mode}-{crop.interpolation}')
@pytest.mark.parametrize('size', [16, 32, 48])
def test_crops_have_pillows_pixels(photos, tensors, crop, size):
    """Up to a level; two where two roundings meet."""
    many = [i % len(photos) for i in range(20)]
    images = [tensors[i] for i in many]
    packed = PackedImages.of(images)
    shown = frames(crop, size, packed.sizes, Draws(keys(20)))
    expected = np.stack([np.asarray(seen_by_pillow(photos[n], shown, i)) for i, n in enumerate(many)])
    for found, most, mean in (
            (cut(images, shown), 2, 0.03), (cut(packed, shown), 2, 0.03), (cut_by_matrices(packed, shown), 2, 0.03),
            (cut_by_matrices(packed, shown, torch.float16), 2, 0.2)):
        apart = (found.permute(0, 2, 3, 1).numpy() - expected.astype(float))
        assert np.abs(apart).max() <= most and np.abs(apart).mean() <= mean and (np.abs(apart) > 1).mean() < 1e-3
        assert torch.equal(found, found.round())


def test_matrices_in_parts_are_the_same(tensors, monkeypatch):
    packed = PackedImages.of(tensors)
    shown = frames(Crop('rrc'), 24, packed.sizes, Draws(keys(5)))
    whole = cut_by_matrices(packed, shown)
    monkeypatch.setattr('timm_smalldata.data.batch.resample.WINDOW_LIMIT', 1)
    assert (cut_by_matrices(packed, shown) - whole).abs().max() <= 1


def test_no_crop_is_the_image_path_without_chance(photos, tensors):
    spec = ViewSpec(32, Crop('none', hflip=0.0))
    found = render_batch(tensors, spec, keys(5))
    expected = torch.stack([render(Image.fromarray(photo), spec, 1) for photo in photos])
    apart = (found - normalise(expected, spec.mean, spec.std)).abs() * 255 * 0.225
    assert apart.max() < 8 and apart.mean() < 0.1  # Pillow may resize rows first: not the same at black and white


# --- colours, one operation at a time -------------------------------------------------------------------------------

@pytest.fixture(params=range(3), ids=lambda i: f'{SIZES[i][0]}x{SIZES[i][1]}')
def photo(request, photos):
    return Image.fromarray(photos[request.param])


def one(value):
    return torch.full((1, 1, 1, 1), float(value))


@pytest.mark.parametrize('factor', [0.0, 0.2, 0.71, 1.0, 1.3, 1.8])
@pytest.mark.parametrize('enhance, grey, mean', [
    (ImageEnhance.Brightness, 0, 0), (ImageEnhance.Contrast, 0, 1), (ImageEnhance.Color, 1, 0)])
def test_brightness_contrast_and_saturation_are_a_level_from_pillow(photo, enhance, grey, mean, factor):
    found = levels(colour.blend(batch_of(photo), one(factor), one(grey), one(mean)))
    apart = found - levels(enhance(photo).enhance(factor))  # Pillow cuts the fraction off
    assert -0.51 < apart.min() and apart.max() < 1.51 and abs(apart.mean()) < 1
    if factor == 1:
        assert not apart.any()


def test_greyscale_and_solarise(photo):
    assert np.abs(levels(colour.greyscale(batch_of(photo))) - levels(F.rgb_to_grayscale(photo, 3))).max() <= 0.51
    assert np.array_equal(levels(colour.solarise(batch_of(photo))), levels(ImageOps.solarize(photo, 128)))


@pytest.mark.parametrize('shift', [-0.5, -0.13, 0.0, 0.02, 0.1, 0.37, 0.5])
def test_hue_is_torchvisions_and_near_pillows(photo, shift):
    """Pillow's hue and saturation have 8 bits, so its colours are a few levels off, also where nothing is shifted."""
    found = colour.shift_hue(batch_of(photo), one(shift))
    assert (found / 255 - F.adjust_hue(batch_of(photo) / 255, shift)).abs().max() < 1e-4
    shifted = colour.shift_hue(batch_of(photo), one(int(shift * 255) / 256))  # what 8 bits make of it
    apart = np.abs(levels(shifted) - levels(F.adjust_hue(photo, shift)))
    assert apart.max() < 10 and apart.mean() < 0.8


@pytest.mark.parametrize('radius', [0.1, 0.35, 0.7, 1.0, 1.4, 1.75, 2.0])
def test_blurs_have_the_radius_of_each_image(photo, radius):
    """Pillow rounds after each of six passes: up to 3 levels; torchvision once."""
    found = levels(blur.pillow_blur(batch_of(photo), one(radius)))
    apart = np.abs(found - levels(photo.filter(ImageFilter.GaussianBlur(radius))))
    assert apart.max() < 3 and apart.mean() < 0.9
    found = levels(blur.gaussian_blur(batch_of(photo), one(radius)))
    assert np.abs(found - levels(F.gaussian_blur(photo, [23, 23], [radius, radius]))).max() <= 0.51


@pytest.mark.parametrize('function', [blur.pillow_blur, blur.gaussian_blur])
def test_blurs_of_large_images_and_of_each_its_own(function):
    x = torch.rand(3, 3, 120, 31) * 255
    told = torch.tensor([0.3, 1.1, 2.0]).view(3, 1, 1, 1)
    together = function(x.clone(), told)
    for i in range(3):
        assert torch.allclose(function(x[i:i + 1].clone(), told[i:i + 1]), together[i:i + 1], atol=1e-3)
    assert not torch.allclose(function(x.clone(), told.flip(0)), together, atol=1)


# --- whole views ----------------------------------------------------------------------------------------------------

IDMM = Augment(None, (0.8, 0.8, 0.8, 0.2), 0.8, 0.2, 0.5)
SPECS = [
    ViewSpec(24, Crop('rrc'), Augment('3a', 0.3)), ViewSpec(24, Crop('src'), Augment(None, 0.4), Erase(0.5)),
    ViewSpec(24, Crop('rrc', interpolation='random'), IDMM, Erase(0.5, 'rand', 3)),
    ViewSpec(24, Crop('none', vflip=0.3), Augment(None, (0.4, 0.4, 0.2, 0.1), 0.8, 0.2, 0.0, 0.5, 0.2)),
    ViewSpec(24, Crop('rrc', (0.3, 1.0)), Augment('3a', auto_augment_prob=0.5), Erase(0.3, 'const'))]


@pytest.mark.parametrize('spec', SPECS, ids=range(len(SPECS)))
def test_a_view_is_a_function_of_image_and_key(tensors, spec):
    """Not of its neighbours, its place, how many cores there are, or of the form that images travel in."""
    images = [tensors[i % 5] for i in range(50)]
    together = render_batch(images, spec, keys(50))
    assert together.shape == (50, 3, 24, 24) and together.dtype == torch.float32 and together.isfinite().all()
    assert torch.equal(render_batch(PackedImages.of(images), spec, keys(50)), together)
    assert torch.equal(render_batch(images, spec, keys(50), 'cpu'), together)
    for part in (slice(0, 1), slice(7, 8), slice(30, 50)):
        alone = render_batch(images[part], spec, keys(50)[part])
        assert torch.allclose(alone, together[part], atol=1e-4)
    backwards = render_batch(images[::-1], spec, keys(50)[::-1].copy()).flip(0)
    assert torch.allclose(backwards, together, atol=1e-4)
    others = render_batch(images, spec, keys(50, seed=1))
    assert (others - together).abs().flatten(1).amax(dim=1).gt(0.05).float().mean() > 0.5
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(images, [tensors[i % 5] for i in range(50)]))


@pytest.mark.parametrize('spec', SPECS, ids=range(len(SPECS)))
def test_views_look_as_those_of_the_image_path(photos, tensors, spec):
    """Mean and spread of brightness, of contrast and of colour over many draws of one photograph."""
    count = 400
    batched = render_batch([tensors[0]] * count, spec, keys(count))
    image = Image.fromarray(photos[0])
    single = [render(image, spec, int(key)) for key in keys(count, seed=5)]
    single = torch.stack([normalise(x, spec.mean, spec.std) if x.dtype == torch.uint8 else x for x in single])

    def described(x):
        grey = x.mean(dim=1)
        return torch.stack([grey.mean(dim=(1, 2)), grey.std(dim=(1, 2)), x.std(dim=1).mean(dim=(1, 2)),
                            (grey[:, :, 1:] - grey[:, :, :-1]).abs().mean(dim=(1, 2))])

    ours, theirs = described(batched), described(single)
    error = ((ours.var(dim=1) + theirs.var(dim=1)) / count).sqrt()
    assert ((ours.mean(dim=1) - theirs.mean(dim=1)).abs() < 4 * error + 0.005).all()
    spread = ours.std(dim=1) / theirs.std(dim=1)
    assert (spread > 0.75).all() and (spread < 1.33).all()


def test_erasing_is_told_by_its_key_and_of_its_kind(tensors):
    plain, images = ViewSpec(32, Crop('none', hflip=0.0)), [tensors[0]] * 60
    before = render_batch(images, plain, keys(60))
    for erase in (Erase(0.5, 'pixel'), Erase(0.5, 'rand'), Erase(0.5, 'const')):
        after = render_batch(images, views.replace(plain, erase=erase), keys(60))
        changed = (after != before).any(dim=1)
        assert 15 < changed.any(dim=(1, 2)).sum() < 45
        for inside, view in zip(changed, after):
            values = view[:, inside]
            rows, columns = inside.any(dim=1).sum(), inside.any(dim=0).sum()
            assert len(values[0]) == rows * columns  # one box
            if erase.mode != 'pixel' and rows:
                assert (values == values[:, :1]).all() and (values[:, 0] == 0).all() == (erase.mode == 'const')


def test_nothing_of_the_batch_touches_global_generators(tensors):
    import random
    before = random.getstate(), np.random.get_state()[1].tobytes(), torch.get_rng_state()
    render_batch(tensors, SPECS[2], keys(5))
    assert random.getstate() == before[0] and np.random.get_state()[1].tobytes() == before[1]
    assert torch.equal(torch.get_rng_state(), before[2])


@pytest.mark.parametrize('spec, lacking', [
    (ViewSpec(32, augment=Augment('rand-m9-mstd0.5-inc1')), '--aa rand-m9-mstd0.5-inc1'),
    (ViewSpec(32, Crop('rkrr')), '--train-crop-mode rkrr'), (ViewSpec(32, Crop('pad')), '--train-crop-mode pad'),
    (ViewSpec(32, augment=Augment(cutout=8)), '--cutout 8'),
    (ViewSpec(32, augment=Augment('3a', 0.3, force_color_jitter=True)), '--force-color-jitter'),
    (ViewSpec(32, Crop(interpolation='lanczos')), '--train-interpolation lanczos')])
def test_what_has_no_batched_form_is_named(tensors, spec, lacking):
    assert no_batched_form(spec) == lacking
    with pytest.raises(ValueError, match=f'{lacking} has no batched form'):
        render_batch(tensors, spec, keys(5))
    assert all(no_batched_form(own) is None for own in SPECS)


def test_transforms_are_those_of_timm():
    """What `colour_steps` draws stands in timm's training transform, in this order."""
    spec = ViewSpec(32, Crop('rrc'), Augment('3a', 0.4, 0.8, 0.2, 0.5, 0.5, 0.2))
    names = [type(part).__name__ for part in views._train_transform(spec).transforms]
    assert names == ['RandomResizedCropAndInterpolation', 'RandomHorizontalFlip', 'AutoAugment', 'RandomApply',
                     'RandomGrayscale', 'RandomApply', 'AugmentOp', 'AugmentOp', 'MaybePILToTensor']
    assert isinstance(views._train_transform(spec).transforms[3].transforms[0], transforms.ColorJitter)
