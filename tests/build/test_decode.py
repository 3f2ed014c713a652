"""Where decoded images are kept: what `--cache` comes to, room that lacks, machines of one run."""
import shutil
from types import SimpleNamespace

import numpy as np
import pytest

from timm_smalldata.build import decode
from timm_smalldata.errors import UserError
from timm_smalldata.utils.distributed import World

GB = 10 ** 9


@pytest.mark.parametrize('needed, free, memory, place', [
    (5 * GB, 9 * GB, 1 * GB, 'disk'), (5 * GB, 6 * GB, 5 * GB, 'ram'), (5 * GB, 2 * GB, 4 * GB, 'off'),
    (0, 0, 0, 'disk')])
def test_auto(tmp_path, monkeypatch, needed, free, memory, place):
    monkeypatch.setattr(shutil, 'disk_usage', lambda path: SimpleNamespace(free=free))
    monkeypatch.setattr(decode, 'free_memory', lambda: memory)
    notes = []
    assert decode.choose_place('auto', needed, tmp_path / 'not' / 'there', notes) == place
    assert len(notes) == (place != 'disk') and all(f'--cache {place}' in note and '5.0 GB' in note for note in notes)
    for wanted in ('disk', 'ram', 'off'):
        if place == 'disk' or wanted == 'off':
            assert decode.choose_place(wanted, needed // 5, tmp_path, notes) == wanted


@pytest.mark.parametrize('wanted, said', [('disk', 'in .* 2.0 GB are free'), ('ram', '2.0 GB of memory are free')])
def test_no_room(tmp_path, monkeypatch, wanted, said):
    monkeypatch.setattr(shutil, 'disk_usage', lambda path: SimpleNamespace(free=2 * GB))
    monkeypatch.setattr(decode, 'free_memory', lambda: GB)
    with pytest.raises(UserError, match=f'take 5.0 GB, and {said}.*--cache-size 256.*--cache off'):
        decode.choose_place(wanted, 5 * GB, tmp_path, [])


def outcome(run, photos, tmp_path, name, *flags):
    code, out, err = run([photos, '--cache-size', '34', '--aug', 'three-augment', '--epochs', '2', '--experiment', name,
                          '--cache-dir', tmp_path / 'cache', *flags])
    assert code == 0, err
    folder = tmp_path / 'runs' / name
    return [(folder / file).read_bytes() for file in ('summary.csv', 'model/model.safetensors')], err


def test_equal_bits_wherever_images_are_kept(run, photos, tmp_path):
    disk, told = outcome(run, photos, tmp_path, 'disk')
    assert '0.1 MB decoded in ' in told and 'the shorter side at most 34 px (--cache disk)' in told
    files = sorted((tmp_path / 'cache').iterdir())
    ram, told = outcome(run, photos, tmp_path, 'ram', '--cache', 'ram')
    assert 'decoded in memory' in told and ram == disk
    off, told = outcome(run, photos, tmp_path, 'off', '--cache', 'off', '--workers', '1')
    assert 'decoded whenever they are drawn' in told and off == disk
    assert sorted((tmp_path / 'cache').iterdir()) == files




def machines(outcomes, rank, local_rank):
    """Return a process of a run on several machines; what the others did is given."""
    class Fake(World):
        def gather(self, value):
            return [value if number == rank else found for number, found in enumerate(outcomes)]
    return Fake(rank, len(outcomes), local_rank)


def test_each_machine_works_for_its_own_processes():
    outcomes = [(True, 'a'), None, (True, 'b'), None]  # two processes on each of two machines
    assert [machines(outcomes, rank, rank % 2).per_machine(lambda rank=rank: 'ab'[rank // 2]) for rank in range(4)] == [
        'a', 'a', 'b', 'b']
    failed = [(True, 'a'), None, (False, UserError('full')), None]
    for rank in (0, 1, 3):
        with pytest.raises(UserError, match='full') as error:
            machines(failed, rank, rank % 2).per_machine(lambda: 'a')
        assert error.value.of_rank_0  # the first process says it


def test_machines_with_other_images():
    class Other(World):
        def broadcast(self, value):
            return [(b'other', [])]

    found = [(None, np.ones((2, 2), dtype=np.int64), {})]
    decode._same_everywhere(World(), found)
    with pytest.raises(UserError, match='machines of this run do not hold the same images'):
        decode._same_everywhere(Other(), found)


def test_a_cache_of_another_version_is_said(run, photos, tmp_path, monkeypatch):
    flags = [photos, '--cache-dir', tmp_path / 'cache']
    assert run(flags)[0] == 0
    monkeypatch.setattr('timm_smalldata.data.cache.MADE_BY', 'Pillow 99')
    code, _, err = run([*flags, '--experiment', 'again'])
    lines = [line for line in err.splitlines() if 'another version' in line]
    assert code == 0 and len(lines) == 1 and 'now Pillow 99' in lines[0] and 'cache --prune' in lines[0]
