"""Where decoded images are kept changes no pixel: disk, memory, nowhere; any number of workers; on the device."""
import os
import pickle
import time

import numpy as np
import pytest
import torch

from timm_smalldata.data import memory
from timm_smalldata.data.batch.images import PackedImages
from timm_smalldata.data.cache import CachedSource, build_cache
from timm_smalldata.data.loader import create_loader
from timm_smalldata.data.memory import MemoryFolder
from timm_smalldata.data.parallel import each
from timm_smalldata.data.readers import folder_source
from timm_smalldata.data.sampler import InstanceSampler
from timm_smalldata.data.scan import scan
from timm_smalldata.data.source import Joined, Relabelled, Subset, innermost, is_encoded, is_parallel
from timm_smalldata.data.stored import DirectSource, check_images
from timm_smalldata.data.views import Augment, ViewSpec
from timm_smalldata.errors import UserError

SIDE = 24  # below that of the photographs


def sources(photos, folder):
    """Return the photographs from a cache, and decoded whenever they are drawn."""
    source, _ = folder_source(photos)
    path, sizes, _ = build_cache(source, scan(source), folder, SIDE)
    return CachedSource(source, path, sizes), DirectSource(source, SIDE)


def batches(source, **kwargs):
    views = [ViewSpec(16, augment=Augment('3a', 0.3)), ViewSpec(12)]
    loader = create_loader(source, InstanceSampler(len(source), seed=3), views, 4, seed=3, **kwargs)
    loader.set_epoch(2)
    return [tensor for batch in loader for tensor in (*batch.views, batch.target, batch.index)]


def test_off_shrinks_as_the_cache_does(photos, tmp_path):
    cached, direct = sources(photos, tmp_path / 'cache')
    for index in range(len(cached)):
        assert np.array_equal(cached.pixels(index), direct.pixels(index))
        assert min(direct.pixels(index).shape[:2]) == SIDE
        assert cached.read(index)[1] == direct.read(index)[1] and cached.raw(index) == direct.raw(index)


@pytest.mark.parametrize('augment_on', ['image', 'device'])
def test_equal_bits_for_every_place_and_number_of_workers(photos, tmp_path, augment_on):
    cached, direct = sources(photos, tmp_path / 'cache')
    wanted = batches(cached, augment_on=augment_on)
    found = [batches(direct, augment_on=augment_on, workers=workers) for workers in (0, 1, 2)]
    if augment_on == 'device':
        found.append(batches(cached, augment_on='device', held=PackedImages.held(cached, 'cpu')))
    for other in found:
        assert len(other) == len(wanted) and all(map(torch.equal, other, wanted))


def test_images_that_are_held(photos, tmp_path, monkeypatch):
    monkeypatch.setattr('timm_smalldata.data.batch.images._AT_ONCE', 5000)  # some at a time
    cached, _ = sources(photos, tmp_path / 'cache')
    held = PackedImages.held(Subset(cached, [7, 2, 5]), 'cpu')
    taken = held.take(np.array([2, 0, 2]))
    assert len(held) == 3 and taken.pixels is held.pixels
    for image, index in zip(taken, (5, 7, 5)):
        assert np.array_equal(image, cached.pixels(index))
    assert len(held.pixels) - held.offsets[-1] >= held[2].numel() + 3 * held.sizes[:, 1].max()


def test_bad_ones_are_found_without_a_cache(photos, tmp_path):
    source, _ = folder_source(photos)
    file = photos / source.names[1]
    file.write_bytes(file.read_bytes()[:-400])
    scanned = scan(source)
    sizes, bad = check_images(source, scanned, SIDE)
    kept = build_cache(source, scanned, tmp_path / 'cache', SIDE)
    assert list(bad) == [1] and bad == kept[2] and np.array_equal(sizes, kept[1])


@pytest.mark.parametrize('workers', [0, 1])
def test_an_image_that_goes_away_while_it_is_trained_on(photos, workers):
    source, _ = folder_source(photos)
    (photos / source.names[3]).unlink()
    with pytest.raises(UserError) as error:
        batches(DirectSource(source), workers=workers)
    assert str(error.value).startswith(f'{source.names[3]} can no longer be read: ')
    assert '--resume auto' in str(error.value) and '\n' not in str(error.value)


def test_order_and_errors_of_threads():
    def read(index):
        if index % 7 == 0:
            raise OSError(index)
        return index

    for parallel in (True, False):
        for sizes in (None, [1 << 24] * 200):
            found = list(each(range(3, 200), read, str, parallel, sizes))
            assert found == [(i, str(i)) for i in range(3, 200)]


def test_what_threads_may_read(photos):
    source, _ = folder_source(photos)
    wrapped = Relabelled(Joined([Subset(source, [1, 2]), source]), source.classes, [0, 1, 2])
    assert list(innermost(wrapped)) == [source, source] and is_parallel(wrapped) and is_encoded(wrapped)
    assert not is_encoded(DirectSource(source)) or list(innermost(DirectSource(source))) == [source]


def test_memory_is_free_again(photos):
    source, _ = folder_source(photos)
    keeper = MemoryFolder()
    path, sizes, _ = build_cache(source, scan(source), keeper.path)
    cached = CachedSource(source, path, sizes, keeper)
    received = pickle.loads(pickle.dumps(cached))  # as a worker process gets it
    assert np.array_equal(received.pixels(0), cached.pixels(0)) and received.keeper is None
    folder = keeper.path
    memory.remove_left_behind(folder.parent)
    assert path.exists()  # in use
    del keeper, cached
    assert not folder.exists()
    assert received.pixels(1).shape[2] == 3  # what is mapped stays


def test_what_killed_processes_left_in_memory_is_removed(tmp_path):
    folder = tmp_path / f'{memory._PREFIX}abc'
    folder.mkdir()
    (folder / 'x.u8').write_bytes(b'x')
    memory.remove_left_behind(tmp_path)
    assert folder.exists()  # just made: perhaps not locked yet
    os.utime(folder, (time.time() - 120,) * 2)
    memory.remove_left_behind(tmp_path)
    assert not folder.exists()


def test_free_memory_is_told():
    assert 0 < memory.free_memory() < 1 << 50


