import pickle
import random
import subprocess
import sys

import numpy as np
import pytest
import torch

from timm_smalldata.data.long_tail import long_tailed_counts, long_tailed_indices
from timm_smalldata.data.samples import SAMPLES, sample_source
from timm_smalldata.data.samples.shapes import CLASSES, OUTLINES
from timm_smalldata.errors import UserError

SPLITS = ('train', 'val', 'test')


@pytest.fixture(scope='module')
def digits():
    return {split: sample_source('digits', split) for split in SPLITS}


@pytest.fixture(scope='module')
def shapes():
    return {split: sample_source('shapes', split) for split in SPLITS}


@pytest.mark.parametrize('name', SAMPLES)
@pytest.mark.parametrize('split', SPLITS)
def test_samples_are_image_sources(name, split):
    source = sample_source(name, split)
    size = SAMPLES[name].facts['img_size']
    assert len(source) == len(source.targets) == len(source.names) == len(set(source.names))
    assert source.targets.dtype == np.int64
    assert set(source.targets.tolist()) == set(range(len(source.classes)))
    for i in (0, len(source) - 1):
        image, target = source.read(i)
        assert image.mode == 'RGB' and image.size == (size, size)
        assert target == source.targets[i] and type(target) is int
        assert source.names[i].startswith(f'{name}/{split}/{source.classes[target]}/')
        again = pickle.loads(pickle.dumps(sample_source(name, split)))
        assert again.raw(i) == source.raw(i) and again.read(i)[0].tobytes() == image.tobytes()
        assert isinstance(source.raw(i), bytes)


def test_digits_split(digits):
    assert [len(digits[split]) for split in SPLITS] == [1097, 200, 500]
    assert np.bincount(digits['val'].targets).tolist() == [20] * 10
    assert np.bincount(digits['test'].targets).tolist() == [50] * 10
    assert np.bincount(digits['train'].targets).tolist() == [108, 112, 107, 113, 111, 112, 111, 109, 104, 110]
    numbers = [int(name[-8:-4]) for source in digits.values() for name in source.names]
    assert sorted(numbers) == list(range(1797))
    assert sample_source('digits', 'val', seed=9).names == digits['val'].names


def test_digits_are_the_originals(digits):
    from sklearn.datasets import load_digits
    data = load_digits()
    for source in digits.values():
        for i in range(0, len(source), 97):
            original = int(source.names[i][-8:-4])
            assert source.targets[i] == data.target[original]
            pixels = np.asarray(source.read(i)[0], dtype=float)
            assert (pixels[..., 0] == pixels[..., 1]).all() and (pixels[..., 0] == pixels[..., 2]).all()
            means = pixels[..., 0].reshape(8, 4, 8, 4).mean(axis=(1, 3))
            assert np.corrcoef(means.ravel(), data.images[original].ravel())[0, 1] > 0.95


def test_digits_long_tail(digits):
    factor = SAMPLES['digits'].facts['imbalance_factor']
    targets = digits['train'].targets
    wanted = long_tailed_counts(10, len(targets) / 10, factor)
    assert wanted[0] == 109 and wanted[-1] == 5
    counts = np.bincount(targets[long_tailed_indices(targets, factor)])
    assert counts.tolist() == np.minimum(wanted, np.bincount(targets)).tolist()


def test_shapes_labels(shapes):
    train = np.bincount(shapes['train'].targets)
    assert train.tolist() == long_tailed_counts(20, 120, 20) and train[0] == 120 and train[-1] == 6
    assert np.bincount(shapes['val'].targets).tolist() == [8] * 20
    assert np.bincount(shapes['test'].targets).tolist() == [15] * 20
    assert len(set(CLASSES)) == 20 and len(set(shapes['train'].classes)) == 20


def test_shapes_are_functions_of_seed_split_and_index(shapes):
    last, first = shapes['test'].raw(299), shapes['test'].raw(0)
    again = sample_source('shapes', 'test')
    assert again.raw(0) == first and again.raw(299) == last  # in another order
    assert sample_source('shapes', 'test', seed=1).raw(0) != first
    pictures = [source.raw(i) for source in shapes.values() for i in range(0, len(source), 7)]
    assert len(set(pictures)) == len(pictures)


def test_shapes_masks(shapes):
    source = shapes['test']
    for i in range(0, len(source), 5):
        mask = source.mask(i)
        assert mask.shape == (64, 64) and mask.dtype == np.uint8 and set(np.unique(mask)) == {0, 255}
        inside = mask == 255
        assert 0.02 < inside.mean() < 0.5
        pixels = np.asarray(source.read(i)[0], dtype=float)
        ground = pixels[~inside]
        # The two colours of a figure lie further from the ground than the ground's own patches do.
        distance = np.abs(pixels - np.median(ground, axis=0)).mean(axis=-1)
        assert np.median(distance[inside]) > 1.5 * np.median(distance[~inside])


def test_stripes_run_one_way_and_dots_do_not(shapes):
    """Inside a striped figure the brightness changes along one direction: its gradients point that way."""
    source = shapes['test']
    alignment = {'striped': [], 'dotted': []}
    for i in range(0, len(source), 3):
        figure, texture = CLASSES[source.targets[i]]
        if figure not in ('circle', 'square', 'hexagon'):  # enough inside that no edge of the figure counts
            continue
        inside = source.mask(i) > 0
        for _ in range(3):
            inside[1:-1, 1:-1] &= inside[:-2, 1:-1] & inside[2:, 1:-1] & inside[1:-1, :-2] & inside[1:-1, 2:]
        inside[[0, -1]] = inside[:, [0, -1]] = False
        dy, dx = np.gradient(np.asarray(source.read(i)[0], dtype=float).mean(axis=-1))
        doubled = ((dx + 1j * dy) ** 2)[inside]
        alignment[texture].append(abs(doubled.sum()) / np.abs(doubled).sum())
    assert min(map(len, alignment.values())) >= 15
    assert min(alignment['striped']) > max(alignment['dotted'])


@pytest.mark.parametrize('figure', OUTLINES)
def test_figures_are_their_own_mirror_image(figure):
    """A flip must keep the class, whichever way the figure lies."""
    from PIL import Image, ImageDraw
    pictures = []
    for flip in (1, -1):
        stencil = Image.new('L', (200, 200))
        outline = OUTLINES[figure]
        if figure == 'crescent':  # its axis is the horizontal
            outline = outline[:, ::-1]
        ImageDraw.Draw(stencil).polygon([(100 + 80 * flip * x, 100 + 80 * y) for x, y in outline], fill=255)
        pictures.append(np.asarray(stencil) > 0)
    assert pictures[0].mean() > 0.1
    assert (pictures[0] != pictures[1]).mean() < 0.02


def test_global_generators_stay_untouched():
    before = np.random.get_state()[1].copy(), random.getstate(), torch.get_rng_state()
    for name in SAMPLES:
        sample_source(name, 'val').read(0)
    assert (np.random.get_state()[1] == before[0]).all()
    assert random.getstate() == before[1]
    assert torch.equal(torch.get_rng_state(), before[2])


def test_unknown_names():
    with pytest.raises(UserError, match="did you mean 'digits'"):
        sample_source('digit', 'train')
    with pytest.raises(UserError, match="no split 'tset' \\(did you mean 'test'"):
        sample_source('shapes', 'tset')


def test_import_is_cheap():
    code = ('import sys, timm_smalldata.data.samples; '
            'print([m for m in ("sklearn", "matplotlib", "PIL.ImageDraw") if m in sys.modules])')
    out = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout
    assert 'sklearn' not in out and 'matplotlib' not in out
