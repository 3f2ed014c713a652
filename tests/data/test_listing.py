"""What lies in folders and tars: loops end, pipes are not waited for, names are clean, members stay where they are."""
import io
import os
import tarfile
import unicodedata

import numpy as np
import pytest
from PIL import Image

from timm_smalldata.data import readers
from timm_smalldata.data.listing import list_folder, list_tar
from timm_smalldata.data.readers import folder_source
from timm_smalldata.errors import UserError

NFD = unicodedata.normalize('NFD', 'Kühe')


def png(value):
    stream = io.BytesIO()
    Image.new('L', (2, 2), value).save(stream, 'PNG')
    return stream.getvalue()


def write(root, names):
    """Write one image for each name (text or bytes), each of its own grey."""
    for number, name in enumerate(names):
        path = os.path.join(os.fsencode(root), os.fsencode(name))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, 'wb') as stream:
            stream.write(png(number))
    return root


def labelled(source):
    return {name: source.classes[target] for name, target in zip(source.names, source.targets)}


# --- links, pipes, folders that cannot be opened --------------------------------------------------------------------

def test_links_in_a_circle_end(tmp_path):
    root = write(tmp_path / 'd', ['a/1.png', 'a/2.png', 'b/1.png', 'b/deep/2.png'])
    for link, target in (('a/up', '..'), ('b/self', '.'), ('b/deep/other', '../../a'), ('a/other', '../b')):
        (root / link).symlink_to(target, target_is_directory=True)
    (root / 'a' / 'loop').symlink_to('loop')  # to itself: opens as nothing
    listing = list_folder(root)
    assert listing.names == ['a/1.png', 'a/2.png', 'b/1.png', 'b/deep/2.png']
    assert '4 links lead to folders that are read already, left out (first: a/other)' in listing.notes


def test_many_links_do_not_multiply(tmp_path):
    """24 folders with a link to all the others each: 24 images, not 24 * 24 and more."""
    root = write(tmp_path / 'd', [f'c{i}/1.png' for i in range(24)])
    for i in range(24):
        for j in range(24):
            (root / f'c{i}' / f'to{j}').symlink_to(root / f'c{j}', target_is_directory=True)
    assert len(list_folder(root).names) == 24


def test_a_folder_comes_before_a_link_to_it(tmp_path):
    root = write(tmp_path / 'd', ['zebra/1.png', 'bee/1.png'])
    (root / 'ant').symlink_to('zebra', target_is_directory=True)
    assert list_folder(root).names == ['bee/1.png', 'zebra/1.png']


def test_a_link_to_an_image_is_an_image_and_one_to_nothing_is_named(tmp_path):
    root = write(tmp_path / 'd', ['a/1.png'])
    (root / 'a' / '2.png').symlink_to('1.png')
    (root / 'a' / '3.png').symlink_to('gone.png')
    source, _ = folder_source(root)
    assert source.names == ['a/1.png', 'a/2.png', 'a/3.png'] and source.raw(1) == source.raw(0)
    with pytest.raises(OSError, match='No such file'):
        source.raw(2)


def test_a_pipe_is_not_waited_for(tmp_path):
    root = write(tmp_path / 'd', ['a/1.png', 'b/1.png'])
    os.mkfifo(root / 'a' / 'f.png')
    source, note = folder_source(root)
    assert len(source) == 2 and note == f'not read in {root}: 1 no regular file (first: a/f.png)'
    with pytest.raises(OSError, match='not a regular file'):
        readers.read_file(root / 'a' / 'f.png')
    with pytest.raises(OSError, match='a folder, not a file'):
        readers.read_file(root / 'a')


@pytest.mark.skipif(os.geteuid() == 0, reason='root reads everything')
def test_a_folder_without_permission_is_named(tmp_path):
    root = write(tmp_path / 'd', ['a/1.png', 'b/1.png'])
    (root / 'b').chmod(0)
    assert 'folders that cannot be opened: b (Permission denied)' in list_folder(root).notes
    (root / 'b').chmod(0o700)


# --- names ----------------------------------------------------------------------------------------------------------

def test_names_in_latin_1_and_nfd_are_one_class(tmp_path):
    root = write(tmp_path / 'd', ['Kühe/1.png', f'{NFD}/1.png', f'{NFD}/2.png', b'K\xfche/4.png', 'ant/5.png'])
    source, note = folder_source(root)
    assert source.classes == ['ant', 'Kühe'] and np.bincount(source.targets).tolist() == [1, 4]
    assert sorted(source.names) == ['Kühe/1 (2).png', 'Kühe/1.png', 'Kühe/2.png', 'Kühe/4.png', 'ant/5.png']
    assert sorted(np.asarray(source.read(i)[0])[0, 0, 0] for i in range(5)) == [0, 1, 2, 3, 4]  # each its own file
    assert '1 name is not UTF-8 and read as Latin-1' in note and '2 names are written with separate accents' in note


def test_classes_that_look_alike_are_said(tmp_path):
    _, note = folder_source(write(tmp_path / 'd', ['ant/1.png', 'ant /1.png', 'bee/1.png']))
    assert note == "classes whose names look alike: 'ant ' is not 'ant'"


def test_a_folder_called_by_a_number_that_python_cannot_read(tmp_path):
    assert folder_source(write(tmp_path / 'd', ['²/1.png', '1/1.png', '10/1.png']))[0].classes == ['1', '10', '²']


@pytest.mark.parametrize('names, classes, rule', [
    (['photos/ant/1.png', 'photos/bee/1.png'], ['ant', 'bee'], 'innermost'),
    (['x/photos/ant/young/1.png', 'x/photos/ant/old/1.png', 'x/photos/bee/young/1.png'], ['ant', 'bee'], 'first'),
    (['photos/ant/1.png', 'photos/ant/more/1.png', 'photos/bee/1.png'], ['ant', 'bee'], 'first'),
    (['photos/1.png', 'photos/2.png'], ['photos'], '')])
def test_a_folder_that_wraps_all_others_is_no_class(tmp_path, names, classes, rule):
    source, note = folder_source(write(tmp_path / 'd', names))
    assert source.classes == classes and (f'nested folders: the {rule}' in note) == bool(rule)


# --- tars -----------------------------------------------------------------------------------------------------------

def tar_of(path, members):
    """Write a tar of (name, content) or of finished members."""
    with tarfile.open(path, 'w', format=tarfile.PAX_FORMAT) as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                tar.addfile(info, io.BytesIO(member[1]))
    return path


def link(name, target, kind):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def test_members_that_point_elsewhere_stay_inside(tmp_path):
    secret = write(tmp_path, ['secret.png']) / 'secret.png'
    path = tar_of(tmp_path / 'd.tar', [
        ('../../ant/1.png', png(7)), ('/bee/1.png', png(8)), ('./bee/../bee/2.png', png(9)),
        link('bee/3.png', str(secret), tarfile.SYMTYPE), link('bee/4.png', str(secret), tarfile.LNKTYPE),
        link('bee/p.png', '', tarfile.FIFOTYPE), ('bee/notes.txt', b'x')])
    before = sorted(tmp_path.rglob('*'))
    source, note = folder_source(path)
    assert labelled(source) == {'ant/1.png': 'ant', 'bee/1.png': 'bee', 'bee/bee/2.png': 'bee'}
    assert [np.asarray(source.read(i)[0])[0, 0, 0] for i in range(3)] == [7, 8, 9]
    assert '3 no regular file (first: bee/3.png), 1 .txt' in note
    assert sorted(tmp_path.rglob('*')) == before  # nothing was unpacked


def test_hard_links_and_repeated_members(tmp_path):
    path = tar_of(tmp_path / 'd.tar', [
        ('a/1.png', png(1)), ('b/1.png', png(2)), link('b/2.png', 'a/1.png', tarfile.LNKTYPE), ('a/1.png', png(3))])
    source, _ = folder_source(path)
    assert source.names == ['a/1.png', 'b/1.png', 'b/2.png']
    # of two members of one name the later one counts, as in unpacking
    assert [np.asarray(source.read(i)[0])[0, 0, 0] for i in range(3)] == [3, 2, 1]


def test_tars_in_a_tar(tmp_path):
    inner = [tar_of(tmp_path / f'{name}.tar', [('1.png', png(value)), ('x/2.png', png(value + 1))])
             for name, value in (('ant', 10), ('bee', 20))]
    outer = tar_of(tmp_path / 'all.tar', [(path.name, path.read_bytes()) for path in inner])
    source, _ = folder_source(outer)
    assert labelled(source) == {'ant/1.png': 'ant', 'ant/x/2.png': 'ant', 'bee/1.png': 'bee', 'bee/x/2.png': 'bee'}
    assert [np.asarray(source.read(i)[0])[0, 0, 0] for i in range(4)] == [10, 11, 20, 21]


def test_names_in_a_tar_are_clean(tmp_path):
    with tarfile.open(tmp_path / 'd.tar', 'w', format=tarfile.GNU_FORMAT) as tar:
        for name in (f'{NFD}/1.png', os.fsdecode(b'K\xfche/2.png'), 'ant/3.png'):
            info = tarfile.TarInfo(name)
            info.size = len(png(0))
            tar.addfile(info, io.BytesIO(png(0)))
    assert folder_source(tmp_path / 'd.tar')[0].classes == ['ant', 'Kühe']


@pytest.mark.parametrize('spoil', [lambda b: b[:700], lambda b: b[:20000], lambda b: b'\x1f\x8b' + b, lambda b: b''])
def test_a_damaged_tar_is_one_line(tmp_path, spoil):
    path = tar_of(tmp_path / 'd.tar', [(f'a/{i}.png', bytes(5000)) for i in range(9)])
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(UserError, match='d.tar'):
        folder_source(path)


def test_a_member_that_says_it_is_huge_is_not_read(tmp_path):
    path = tar_of(tmp_path / 'd.tar', [('a/1.png', png(1)), ('b/1.png', png(1))])
    source, _ = folder_source(path)
    source.members[0][1].size = 3 << 30
    with pytest.raises(ValueError, match='a file of 3072 MB; at most 1024 MB are read'):
        source.raw(0)
    assert list_tar(path).names == ['a/1.png', 'b/1.png']
