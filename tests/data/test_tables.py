"""Tables, lists and class lists as people have them: what is read, and one clear line for what is not."""
import pickle

import pytest

from timm_smalldata.data import tables
from timm_smalldata.errors import UserError


def labelled(source):
    """Class name by image name."""
    return {name: source.classes[target] for name, target in zip(source.names, source.targets)}


# --- tables and lists -----------------------------------------------------------------------------------------------

def table(tmp_path, text, name='t.csv', **keys):
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return tables.table_source(tmp_path / name, tmp_path, **keys)


def test_table(tmp_path):
    parts = table(tmp_path, 'path,label,split\na/1.jpg,ant,train\n"b, c/2.jpg",bee,train\nx.jpg,ant,val\n')
    assert list(parts) == ['train', 'val']
    assert labelled(parts['train']) == {'a/1.jpg': 'ant', 'b, c/2.jpg': 'bee'}
    assert parts['val'].classes == ['ant', 'bee'] and parts['val'].targets.tolist() == [0]
    assert parts['train'].extra['split'] == ['train', 'train']


@pytest.mark.parametrize('text', [
    b'\xef\xbb\xbfpath,label\r\na.jpg,ant\r\nb.jpg,bee\r\n',  # as spreadsheets write it
    'File , Class\na.jpg,ant\nb.jpg,bee',
    'y,IMAGE\nant,a.jpg\nbee,b.jpg\n',
    'path,label,note\na.jpg,ant,"two\nlines"\nb.jpg,bee,\n',
])
def test_usual_headers_are_found(tmp_path, text):
    assert labelled(table(tmp_path, text)['']) == {'a.jpg': 'ant', 'b.jpg': 'bee'}


def test_tab_separated(tmp_path):
    assert labelled(table(tmp_path, 'path\tlabel\na, b.jpg\tant\n', 't.TSV')['']) == {'a, b.jpg': 'ant'}


def test_columns_can_be_named(tmp_path):
    text = 'path,bild,art,teil\nnever,a.jpg,ant,x\nnever,b.jpg,bee,y\n'
    parts = table(tmp_path, text, input_key='bild', target_key='art', split_key='teil')
    assert {name: labelled(part) for name, part in parts.items()} == {'x': {'a.jpg': 'ant'}, 'y': {'b.jpg': 'bee'}}


@pytest.mark.parametrize('text, keys, message', [
    ('', {}, 'has no rows'),
    ('path,label\n', {}, 'has no rows'),
    ('bild,label\na.jpg,ant\n', {}, 'which column holds the path\\? Columns: bild, label. Name it with --input-key'),
    ('path,art\na.jpg,ant\n', {}, 'which column holds the label.*--target-key'),
    ('path,label\na.jpg,ant\n', dict(input_key='pth'), "no column 'pth' \\(did you mean 'path'\\?\\)"),
    ('path,label\na.jpg,ant\n', dict(split_key='split'), "no column 'split'"),
    ('path,label\na.jpg,ant\nb.jpg\n', {}, 'line 3: empty label'),
    ('path,label\na.jpg,ant\n,bee\n', {}, 'line 3: empty path'),
    (b'path,label\n\xc4.jpg,ant\n', {}, 'Cannot read'),
])
def test_tables_that_cannot_be_read(tmp_path, text, keys, message):
    with pytest.raises(UserError, match=message):
        table(tmp_path, text, **keys)


def test_list(tmp_path):
    (tmp_path / 'l.txt').write_text('a/1.jpg 0\n\nb c/2.jpg 3\nd.jpg\t1\n')
    source = tables.list_source(tmp_path / 'l.txt', tmp_path)
    assert source.names == ['a/1.jpg', 'b c/2.jpg', 'd.jpg'] and source.targets.tolist() == [0, 3, 1]
    assert source.classes == ['0', '1', '2', '3']


@pytest.mark.parametrize('text, message', [
    ('', 'lists no images'), ('a.jpg 0\nb.jpg -1\n', 'line 2: label -1 is negative'),
    ('a.jpg ant\n', 'line 1: expected "relative/path label" with a number'), ('a.jpg\n', 'line 1: expected'),
])
def test_lists_that_cannot_be_read(tmp_path, text, message):
    (tmp_path / 'l.txt').write_text(text)
    with pytest.raises(UserError, match=message):
        tables.list_source(tmp_path / 'l.txt', tmp_path)


def test_missing_files_are_named(tmp_path):
    with pytest.raises(UserError, match='No such file: .*nope.csv'):
        tables.table_source(tmp_path / 'nope.csv', tmp_path)
    with pytest.raises(UserError, match='No such file: .*nope.txt'):
        tables.list_source(tmp_path / 'nope.txt', tmp_path)


# --- class lists ----------------------------------------------------------------------------------------------------

def test_class_map(tmp_path):
    (tmp_path / 'm.txt').write_text('cat\nant \nbee\n\n\n')
    (tmp_path / 'b.txt').write_bytes('\ufeffcat\r\nant\xa0\r\nbee\r\n'.encode())  # as an editor of Windows saves it
    (tmp_path / 'u.txt').write_bytes('cat\nant\nbee\n'.encode('utf-16'))
    for name in ('m.txt', 'b.txt', 'u.txt'):
        assert tables.read_class_map(str(tmp_path / name), None) == ['cat', 'ant', 'bee']
        assert tables.read_class_map(name, str(tmp_path)) == ['cat', 'ant', 'bee']  # looked for beside the data, too


@pytest.mark.parametrize('name, content, message', [
    ('m.txt', b'ant\nbee\nant\n', 'without gaps'),
    ('m.txt', b'ant\n\nbee\n', 'without gaps'),
    ('m.txt', b'\xff\xfe', 'm.txt'),
    ('m.csv', b'ant', 'extension'),
    ('nope.txt', None, 'nope.txt'),
    ('m.txt', b'\xc4hre\n', 'line 1 is not UTF-8'),
    ('m.txt', b'', 'names no classes'),
    ('m.pkl', pickle.dumps({'ant': 0, 'bee': 1}), 'a pickle may run code .* text file'),
    ('m.pickle', b'cos\nsystem\n(S"touch opened"\ntR.', 'a pickle may run code'),
])
def test_class_maps_that_cannot_be_read(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        tables.read_class_map(str(tmp_path / name), None)
