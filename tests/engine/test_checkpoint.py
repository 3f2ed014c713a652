"""A checkpoint is whole or refused: written atomically, checksums looked at, the one before it taken, and said."""
import errno
import os
import random
import threading
from argparse import Namespace

import pytest
import torch

from timm_smalldata.engine import checkpoint
from timm_smalldata.engine.writer import Writer
from timm_smalldata.errors import StorageError, UserError


def state(epoch=0):
    torch.manual_seed(epoch)
    weights = {f'layer{i}.weight': torch.randn(6, 7) for i in range(3)}
    return dict(epoch=epoch, state_dict=weights, args=Namespace(lr=0.1), history=[dict(epoch=epoch, loss=0.5)])


def same(first, second):
    return first['epoch'] == second['epoch'] and first['history'] == second['history'] and all(
        torch.equal(value, second['state_dict'][name]) for name, value in first['state_dict'].items())


def test_a_flipped_bit_anywhere_is_refused_or_means_nothing(tmp_path):
    path, chance, refused = tmp_path / 'last.pth.tar', random.Random(0), 0
    checkpoint.save(state(), path)
    whole = path.read_bytes()
    for _ in range(400):
        at, bit = chance.randrange(len(whole)), 1 << chance.randrange(8)
        path.write_bytes(whole[:at] + bytes([whole[at] ^ bit]) + whole[at + 1:])
        try:
            assert same(checkpoint.load(path), state()), at
        except UserError as error:
            assert str(path) in str(error)
            refused += 1
    assert refused > 200  # the rest is padding and entries of the archive that nobody reads


def test_a_flipped_bit_of_a_tensor_is_named_and_the_one_before_is_taken(tmp_path):
    path = tmp_path / 'last.pth.tar'
    for epoch in range(2):
        checkpoint.save(state(epoch), path)
    content = bytearray(path.read_bytes())
    at = content.find(state(1)['state_dict']['layer1.weight'].numpy().tobytes())
    content[at + 3] ^= 64
    path.write_bytes(content)
    with pytest.raises(UserError, match='last.pth.tar is damaged: the checksum of its part .*/data/'):
        checkpoint.load(path)
    said = []
    assert same(checkpoint.load_last(tmp_path, said.append), state(0))
    assert len(said) == 1 and 'is damaged' in said[0] and 'last.previous.pth.tar, epoch 1' in said[0]
    checkpoint.save(state(1), path)  # what is damaged does not push out what is whole
    assert same(checkpoint.load(checkpoint.previous(path)), state(0)) and same(checkpoint.load(path), state(1))


def test_a_whole_one_is_taken_without_a_word(tmp_path):
    for epoch in range(2):
        checkpoint.save(state(epoch), tmp_path / 'last.pth.tar')
    said = []
    assert checkpoint.load_last(tmp_path, said.append)['epoch'] == 1 and not said
    assert checkpoint.load(tmp_path / 'last.previous.pth.tar')['epoch'] == 0
    assert sorted(os.listdir(tmp_path)) == ['last.previous.pth.tar', 'last.pth.tar']


def test_a_folder_in_its_place_is_an_error(tmp_path):
    (tmp_path / 'last.pth.tar').mkdir()
    for read in (lambda: checkpoint.load_last(tmp_path), lambda: checkpoint.load(tmp_path / 'last.pth.tar')):
        with pytest.raises(UserError, match='last.pth.tar is a folder'):
            read()


def test_stock_torch_and_timm_read_it(tmp_path):
    from timm.models import load_state_dict
    checkpoint.save(state(), tmp_path / 'last.pth.tar')
    loaded = torch.load(tmp_path / 'last.pth.tar', weights_only=False)
    assert same(loaded, state()) and loaded['args'].lr == 0.1
    assert set(load_state_dict(str(tmp_path / 'last.pth.tar'))) == set(state()['state_dict'])


class FullDisk:
    """A file on a disk that takes some bytes and no more."""

    def __init__(self, file, left):
        self.file, self.left = file, left

    def __getattr__(self, name):
        return getattr(self.file, name)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.file.close()

    def write(self, content):
        self.left -= len(content)
        if self.left < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return self.file.write(content)


@pytest.mark.parametrize('left', [0, 100, 1500])
def test_a_full_disk_is_one_line_and_spoils_nothing(tmp_path, monkeypatch, left):
    path = tmp_path / 'last.pth.tar'
    for epoch in range(2):
        checkpoint.save(state(epoch), path)
    monkeypatch.setattr('builtins.open', lambda *args, real=open, **kw: FullDisk(real(*args, **kw), left) if str(
        args[0]).endswith('.tmp') else real(*args, **kw))
    with pytest.raises(StorageError, match=r'Cannot write .*last.pth.tar: No space left .* needs 0.0 MB, .* are free'):
        checkpoint.save(state(2), path)
    monkeypatch.undo()
    assert sorted(os.listdir(tmp_path)) == ['last.previous.pth.tar', 'last.pth.tar']
    assert checkpoint.load(path)['epoch'] == 1 and checkpoint.load(checkpoint.previous(path))['epoch'] == 0


def test_a_copy_does_not_change_with_what_it_was_made_of():
    weight = torch.ones(3)
    original = dict(a=weight, tied=weight.detach(), part=weight[:2], rows=[dict(x=1)], nested=dict(b=torch.zeros(2)))
    copy = checkpoint.copied(original)
    weight.fill_(5), original['rows'].append(dict(x=2)), original['nested']['b'].fill_(1)
    assert copy['a'].tolist() == [1, 1, 1] and copy['part'].tolist() == [1, 1] and copy['rows'] == [dict(x=1)]
    assert copy['nested']['b'].tolist() == [0, 0] and copy['a'].data_ptr() == copy['tied'].data_ptr()
    assert checkpoint.num_bytes(copy) == 4 * (3 + 3 + 2 + 2)


# --- writing beside training ----------------------------------------------------------------------------------------

def test_one_write_is_in_flight_and_the_next_waits_for_it():
    go, order = threading.Event(), []
    with Writer() as writer:
        writer.submit(lambda: (go.wait(10), order.append(1)))
        assert order == []  # the caller goes on
        threading.Timer(0.05, go.set).start()
        writer.submit(lambda: order.append(2))
        assert order[0] == 1
    assert order == [1, 2]


def test_its_error_reaches_who_waits_once():
    def fail():
        raise StorageError('the disk is full')

    with Writer() as writer:
        writer.submit(fail)
        with pytest.raises(StorageError, match='the disk is full'):
            writer.submit(lambda: None)
        writer.submit(lambda: None)
    with pytest.raises(StorageError):
        with Writer() as writer:
            writer.submit(fail)
    with pytest.raises(KeyError):  # what ended the block is told
        with Writer() as writer:
            writer.submit(fail)
            raise KeyError
