"""Batches of views: pixels are a function of (seed, epoch, position, view), not of workers, ranks or batch size."""
import random

import numpy as np
import pytest
import torch
from timm.data import ScheduledBatchSampler

from timm_smalldata.data.batch_augment import render_batch
from timm_smalldata.data.cache import CachedSource, build_cache
from timm_smalldata.data.loader import create_loader
from timm_smalldata.data.readers import folder_source
from timm_smalldata.data.sampler import InstanceSampler, RepeatedSampler, SequentialSampler
from timm_smalldata.data.scan import scan
from timm_smalldata.data.source import ArraySource
from timm_smalldata.data.views import Augment, Crop, Erase, ViewSpec, eval_view, normalise, render
from timm_smalldata.utils.random import draw_key

VIEW = ViewSpec(16, Crop('src'), Augment('3a', 0.3), Erase(0.5))
OTHER = ViewSpec(8, Crop('rrc'), Augment('rand-m9-mstd0.5-inc1'))
JUDGED = eval_view(16, 1.0, 'bicubic', VIEW.mean, VIEW.std)


@pytest.fixture
def source():
    images = np.random.RandomState(0).randint(0, 256, (20, 20, 24, 3)).astype(np.uint8)
    return ArraySource(list(images), [i % 3 for i in range(20)], ['a', 'b', 'c'])


def by_position(loader, epoch):
    """The views of each position of an epoch, with its label and image."""
    loader.set_epoch(epoch)
    positions = iter(list(loader.sampler))
    loader.set_epoch(epoch)  # served again without this, images have positions of their own
    return {
        next(positions).position: ([view[i] for view in batch.views], int(batch.target[i]), int(batch.index[i]))
        for batch in loader for i in range(len(batch))}


def same(first, second):
    assert first.keys() == second.keys()
    for position, (views, *facts) in first.items():
        assert tuple(facts) == second[position][1:]
        assert all(torch.equal(a, b) for a, b in zip(views, second[position][0]))
    return True


def test_batches(source):
    loader = create_loader(source, InstanceSampler(20, 5), [VIEW, OTHER], 6, seed=5, drop_last=True)
    loader.set_epoch(4)
    batches = list(loader)
    assert len(loader) == len(batches) == 3 and [len(batch) for batch in batches] == [6, 6, 6]
    assert [(batch.epoch, batch.step) for batch in batches] == [(4, 0), (4, 1), (4, 2)]
    for batch in batches:
        assert [tuple(view.shape) for view in batch.views] == [(6, 3, 16, 16), (6, 3, 8, 8)]
        assert all(view.dtype == torch.float32 for view in batch.views)
        assert batch.target.tolist() == [source.targets[i] for i in batch.index]
    assert not batches[0].views[0].is_contiguous(memory_format=torch.channels_last)
    loader = create_loader(source, InstanceSampler(20), [VIEW], 6, seed=5, channels_last=True)
    assert next(iter(loader)).views[0].is_contiguous(memory_format=torch.channels_last)


def test_every_view_has_the_key_of_its_draw(source):
    """What arrives is what render makes of (seed, epoch, position, view), computed here once more."""
    found = by_position(create_loader(source, InstanceSampler(20, 5), [VIEW, VIEW, OTHER], 7, seed=9), 2)
    assert sorted(found) == list(range(20))
    for position, (views, label, index) in found.items():
        assert label == source.targets[index]
        for number, (spec, view) in enumerate(zip((VIEW, VIEW, OTHER), views)):
            expected = render(source.read(index)[0], spec, draw_key(9, 2, position, number))
            assert torch.equal(view, expected if spec.erase.prob else normalise(expected, spec.mean, spec.std))
        assert not torch.equal(views[0], views[1])


@pytest.mark.parametrize('epoch', [0, 3])
def test_pixels_do_not_depend_on_workers_or_on_what_ran_before(photos, tmp_path, epoch):
    source, _ = folder_source(photos)
    path, sizes, _ = build_cache(source, scan(source), tmp_path / 'cache')
    cached = CachedSource(source, path, sizes)
    reference = by_position(create_loader(source, InstanceSampler(26, 1), [VIEW], 4, seed=1), epoch)
    for workers in (0, 1, 2):
        loader = create_loader(cached, InstanceSampler(26, 1), [VIEW], 4, seed=1, workers=workers)
        random.seed(workers), np.random.seed(workers), torch.manual_seed(workers)
        by_position(loader, epoch + 1)  # workers persist: what they drew before leaves no trace
        assert same(by_position(loader, epoch), reference)


def test_pixels_do_not_depend_on_the_batch_size(source):
    loaders = [create_loader(source, InstanceSampler(20), [VIEW], size, seed=1) for size in (3, 20)]
    assert same(*(by_position(loader, 1) for loader in loaders))


@pytest.mark.parametrize('sampler', [InstanceSampler, RepeatedSampler])
@pytest.mark.parametrize('world_size', [2, 3])
def test_a_global_position_has_the_same_pixels_in_every_world(source, sampler, world_size):
    kwargs = dict(repeats=3) if sampler is RepeatedSampler else {}
    alone = by_position(create_loader(source, sampler(20, seed=2, **kwargs), [VIEW], 4, seed=2), 1)
    shared = {}
    for rank in range(world_size):
        part = sampler(20, seed=2, rank=rank, world_size=world_size, **kwargs)
        found = by_position(create_loader(source, part, [VIEW], 4, seed=2), 1)
        assert not shared.keys() & found.keys()
        shared.update(found)
    assert same(shared, {position: alone[position] for position in shared}) and len(shared) >= 18


def test_the_repeats_of_one_image_are_drawn_apart(source):
    found = by_position(create_loader(source, RepeatedSampler(20, 3, seed=7), [VIEW], 5, seed=7, workers=1), 0)
    for first in range(0, 18, 3):
        repeats = [found[first + i] for i in range(3)]
        assert len({index for *_, index in repeats}) == 1
        for i, j in ((0, 1), (0, 2), (1, 2)):
            assert not torch.equal(repeats[i][0][0], repeats[j][0][0])


def test_seed_and_epoch_change_the_pixels(source):
    def first(seed, epoch):
        return by_position(create_loader(source, SequentialSampler(20), [VIEW], 20, seed=seed), epoch)[0][0][0]

    assert torch.equal(first(1, 0), first(1, 0))
    assert not torch.equal(first(1, 0), first(2, 0)) and not torch.equal(first(1, 0), first(1, 1))


@pytest.mark.parametrize('workers', [0, 1])
def test_evaluation_has_every_image_once_and_draws_nothing(source, workers):
    loader = create_loader(source, SequentialSampler(20), [JUDGED], 8, workers=workers)
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    state = random.getstate(), np.random.get_state()[1].tobytes(), torch.get_rng_state()
    batches = list(loader)
    assert random.getstate() == state[0] and np.random.get_state()[1].tobytes() == state[1]
    assert torch.equal(torch.get_rng_state(), state[2])
    assert [len(batch) for batch in batches] == [8, 8, 4]
    assert torch.cat([batch.index for batch in batches]).tolist() == list(range(20))
    pixels = torch.cat([batch.views[0] for batch in batches])
    expected = torch.stack([render(source.read(i)[0], JUDGED) for i in range(20)])
    assert torch.equal(pixels, normalise(expected, JUDGED.mean, JUDGED.std))


BATCHED = ViewSpec(16, Crop('rrc'), Augment('3a', 0.3), Erase(0.5))


@pytest.mark.parametrize('epoch', [0, 3])
def test_batched_pixels_do_not_depend_on_workers_or_cache(photos, tmp_path, epoch):
    """The same contract where views are made of whole batches: images travel, and the key of each draw."""
    source, _ = folder_source(photos)
    path, sizes, _ = build_cache(source, scan(source), tmp_path / 'cache')
    cached = CachedSource(source, path, sizes)

    def loader(source, workers):
        return create_loader(
            source, InstanceSampler(26, 1), [BATCHED, BATCHED.at(8)], 4, seed=1, workers=workers, augment_on='device')

    reference = by_position(loader(source, 0), epoch)
    for workers in (0, 1, 2):
        other = loader(cached, workers)
        random.seed(workers), np.random.seed(workers), torch.manual_seed(workers)
        by_position(other, epoch + 1)
        assert same(by_position(other, epoch), reference)
    assert not same_pixels(reference, by_position(loader(source, 0), epoch + 1))


def same_pixels(first, second):
    return any(torch.equal(first[position][0][0], second[position][0][0]) for position in first)


def test_batched_views_have_the_key_of_their_draw(source):
    """Computed here once more, from (seed, epoch, position, view); the same in batches of any size and any world."""
    found = by_position(create_loader(source, InstanceSampler(20, 5), [BATCHED, BATCHED], 7, seed=9,
                                      augment_on='device'), 2)
    for position, (views, label, index) in found.items():
        assert label == source.targets[index] and not torch.equal(views[0], views[1])
        image = torch.from_numpy(source.pixels(index))
        for number, view in enumerate(views):
            key = np.array([draw_key(9, 2, position, number)], dtype=np.uint64)
            assert torch.allclose(render_batch([image], BATCHED, key)[0], view, atol=1e-4)
    for sampler in (InstanceSampler(20, 5), InstanceSampler(20, 5, rank=1, world_size=2)):
        part = by_position(create_loader(source, sampler, [BATCHED, BATCHED], 3, seed=9, augment_on='device'), 2)
        for position, (views, *facts) in part.items():
            assert facts == list(found[position][1:])
            assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(views, found[position][0]))


def test_batched_views_in_the_models_memory_format_and_at_scheduled_sizes(source):
    sampler = InstanceSampler(20, 1)
    schedule = ScheduledBatchSampler(sampler, [6, 4], None, seed=1, num_batches=3)
    loader = create_loader(source, sampler, [BATCHED], 4, seed=1, drop_last=True, sizes=[8, 16], batch_sampler=schedule,
                           augment_on='device', channels_last=True)
    loader.set_epoch(1)
    for batch in loader:
        assert batch.views[0].shape[-1] == (8 if len(batch) == 6 else 16)
        assert batch.views[0].is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize('workers', [0, 1])
def test_views_of_an_evaluation_are_made_once(source, workers, monkeypatch):
    """They are the same in every epoch; a pass that was broken off leaves nothing half kept."""
    loader = create_loader(source, SequentialSampler(20), [JUDGED], 8, workers=workers, keep=True)
    next(iter(loader))
    first = list(loader)
    monkeypatch.setattr(source.__class__, 'read', None)
    again = list(loader)
    assert [len(batch) for batch in again] == [8, 8, 4] and again[1].step == 1
    for ours, theirs in zip(again, first):
        assert torch.equal(ours.views[0], theirs.views[0]) and torch.equal(ours.index, theirs.index)
        assert torch.equal(ours.target, theirs.target)
        ours.views[0].zero_()  # what a caller does with its batch stays with it
    assert all(torch.equal(ours.views[0], theirs.views[0]) for ours, theirs in zip(loader, first))


def test_more_than_the_limit_is_made_anew(source, monkeypatch):
    monkeypatch.setattr('timm_smalldata.data.loader.KEPT_LIMIT', 20 * 3 * 16 ** 2 - 1)
    loader = create_loader(source, SequentialSampler(20), [JUDGED], 8, keep=True)
    list(loader)
    assert loader.kept is None
    loader = create_loader(source, SequentialSampler(20), [VIEW], 8, seed=1, keep=True)  # drawn anew in each epoch
    assert not loader.keep


@pytest.mark.parametrize('workers', [0, 2])
def test_scheduled_sizes(source, workers):
    """timm's schedule chooses the size of each batch; the draws of an epoch stay those of the sampler."""
    sampler = InstanceSampler(20, 1)
    schedule = ScheduledBatchSampler(sampler, [6, 4], None, seed=1, num_batches=3)
    loader = create_loader(
        source, sampler, [VIEW], 4, seed=1, drop_last=True, sizes=[8, 16], batch_sampler=schedule, workers=workers)
    loader.set_epoch(1)
    batches = list(loader)
    loader.set_epoch(1)
    assert len(batches) == len(loader) == 3
    for batch in batches:
        assert batch.views[0].shape[-1] == (8 if len(batch) == 6 else 16) and batch.epoch == 1
    positions = iter(list(sampler))
    for batch in batches:
        size = batch.views[0].shape[-1]
        for i in range(len(batch)):
            draw = next(positions)
            expected = render(source.read(int(draw))[0], VIEW.at(size), draw_key(1, 1, draw.position, 0))
            assert batch.index[i] == draw and torch.equal(batch.views[0][i], expected)
