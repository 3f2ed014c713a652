"""Tables, lists and class lists as people have them: what is read, and one clear line for what is not."""
import os
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


PLAIN = 'path,label,split\na.jpg,ant,train\nb.jpg,bee,val\n'


@pytest.mark.parametrize('text', [
    PLAIN.replace(',', ';'), PLAIN.replace(',', '\t'), PLAIN.replace(',', '|'), 'sep=;\n' + PLAIN.replace(',', ';'),
    PLAIN.replace(',', ', '), PLAIN.replace('\n', ' \n'), PLAIN.replace('ant', '\xa0ant\u200b'),
    PLAIN.replace('\n', '\r\n').encode('utf-16'), ('\ufeff' + PLAIN).encode(),
    b'\xfe\xff' + PLAIN.encode('utf-16-be'), '\n' + PLAIN + '\n , , \n', PLAIN.replace('path', '\ufeff"path"'),
])
def test_tables_as_programs_write_them(tmp_path, text):
    found = {name: labelled(part) for name, part in table(tmp_path, text).items()}
    assert found == {'train': {'a.jpg': 'ant'}, 'val': {'b.jpg': 'bee'}}


def test_a_separator_is_told_by_the_header_whatever_the_suffix(tmp_path):
    assert labelled(table(tmp_path, 'path;label\n"a;1, 2.jpg";ant\n')['']) == {'a;1, 2.jpg': 'ant'}
    assert labelled(table(tmp_path, 'path,label\na.jpg,ant\n', 't.tsv')['']) == {'a.jpg': 'ant'}


@pytest.mark.parametrize('labels, classes', [
    (['0', '1.0', '0.0', '10'], ['0', '1', '10']), (['0', '1.5', '0.0'], ['0', '0.0', '1.5']),
    (['v1', '1.0', '1'], ['1', '1.0', 'v1']), (['01', '1.', '01.0'], ['01', '1']), (['None', 'NA', 'null'], None)])
def test_whole_numbers_with_a_point_are_the_same_class(tmp_path, labels, classes):
    notes = []
    source = table(tmp_path, 'path,label\n' + ''.join(f'{i}.jpg,{v}\n' for i, v in enumerate(labels)), notes=notes)['']
    assert sorted(source.classes) == sorted(classes or labels)
    if classes == ['0', '1', '10']:
        assert source.targets.tolist() == [0, 1, 0, 2] and notes == ['labels are whole numbers: 1.0 is read as 1']


def test_labels_of_equal_looks_are_one_class_or_are_said(tmp_path):
    notes = []
    source = table(tmp_path, 'path,label\na.jpg,Kühe\nb.jpg,Ku\u0308he\nc.jpg,kühe\n', notes=notes)['']
    assert source.classes == ['Kühe', 'kühe'] and source.targets.tolist() == [0, 0, 1]
    assert notes == ["classes whose names look alike: 'k\\xfche' is not 'K\\xfche'"]


@pytest.mark.parametrize('header, values, splits', [
    ('is_valid', ['True', 'False', '0', '1.0'], ['val', 'train', 'train', 'val']),
    ('Is_Test', ['yes', '', 'no', 't'], ['test', 'train', 'train', 'test']),
    ('is_train', ['1', '0', '1', '0'], ['train', 'test', 'train', 'test']),
    ('fold', ['train', 'Test', 'val', 'train'], ['train', 'Test', 'val', 'train']),
    ('fold', ['1', '2', '3', '1'], ['', '', '', ''])])
def test_columns_that_mark_a_split(tmp_path, header, values, splits):
    notes = []
    rows = ''.join(f'{i},ant,{value}\n' for i, value in enumerate(values))
    parts = table(tmp_path, f'path,label,{header}\n{rows}', notes=notes)
    assert {name: split for split, part in parts.items() for name in part.names} == dict(zip('0123', splits))
    assert any(header in note for note in notes) or splits == ['train', 'Test', 'val', 'train']
    if values == ['1', '2', '3', '1']:
        assert '--split-key fold' in notes[0]


def test_a_split_column_goes_before_a_mark(tmp_path):
    assert list(table(tmp_path, 'path,label,split,is_valid\na,ant,train,1\nb,bee,test,0\n')) == ['train', 'test']


def test_paths_as_programs_write_them(tmp_path):
    for name in ('a/1.jpg', 'a/2.PNG', 'a/3.txt', 'a/b\\4.jpg', 'a/Kühe.jpg', 'a/twice.jpg', 'a/twice.png'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    notes = []
    names = ['a\\1.jpg', 'a/2', 'a/b\\4.jpg', 'a/Ku\u0308he.jpg', 'a/gone', 'a/gone.jpg', str(tmp_path / 'a/1')]
    source = table(tmp_path, 'path,label\n' + ''.join(f'"{name}",ant\n' for name in names), notes=notes)['']
    assert source.names == ['a/1.jpg', 'a/2.PNG', 'a/b\\4.jpg', 'a/Kühe.jpg', 'a/gone', 'a/gone.jpg',
                            str(tmp_path / 'a/1.jpg')]
    assert [source.raw(i).decode() for i in (0, 1, 2, 3, 6)] == [
        'a/1.jpg', 'a/2.PNG', 'a/b\\4.jpg', 'a/Kühe.jpg', 'a/1.jpg']
    assert notes == ['1 path has backslashes, read as slashes', '2 paths name their files without the suffix']
    with pytest.raises(UserError, match='a/twice names several files in .*: twice.jpg, twice.png; write the suffix'):
        table(tmp_path, 'path,label\na/twice,ant\n')


def test_a_file_whose_name_is_not_utf8_is_found(tmp_path):
    with open(os.fsencode(tmp_path) + b'/K\xfche.jpg', 'wb') as stream:
        stream.write(b'latin')
    notes = []
    source = table(tmp_path, 'path,label\nKühe.jpg,ant\n', notes=notes)['']
    assert source.names == ['Kühe.jpg'] and source.raw(0) == b'latin'
    assert notes == ['1 path is written in another form of Unicode than the name of the file']


@pytest.mark.parametrize('text, keys, message', [
    ('', {}, 'has no rows'),
    ('path,label\n', {}, 'has no rows'),
    ('bild,label\na.jpg,ant\n', {}, 'which column holds the path\\? Columns: bild, label. Name it with --input-key'),
    ('path,art\na.jpg,ant\n', {}, 'which column holds the label.*--target-key'),
    ('path,label\na.jpg,ant\n', dict(input_key='pth'), "no column 'pth' \\(did you mean 'path'\\?\\)"),
    ('path,label\na.jpg,ant\n', dict(split_key='split'), "no column 'split'"),
    ('path,label\na.jpg,ant\nb.jpg\n', {}, 'line 3: empty label'),
    ('path,label\na.jpg,ant\n,bee\n', {}, 'line 3: empty path'),
    (b'path,label\na.jpg,bee\n\xc4.jpg,ant\n', {}, "line 3 is not UTF-8 .*xc4.jpg,ant'.*: save it as UTF-8"),
    ('path,label\n' + 'x' * 200_000 + ',ant\n', {}, 'line 2: field larger than field limit'),
    ('path,label\na.jpg,ant\nb.jpg,"bee\n' + 'c.jpg,bee\n' * 20_000, {}, 'line 3: .*is a quotation mark not closed'),
    ('path,label\na.jpg,ant\nb.jpg,NaN\n', {}, 'line 3: the label is NaN, which is none'),
    ('path,label\na.jpg,ant\nb.jpg,<NA>\n', {}, 'line 3: the label is <NA>'),
    ('path,label,label\na.jpg,ant,bee\n', {}, "has two columns 'label' and 'label': give one of them another name"),
    ('path,label, Label \na.jpg,ant,bee\n', {}, "two columns 'label' and 'Label': .* with --target-key"),
    ('path,label,a,a\nx.jpg,ant,1,2\n', dict(split_key='a'), "has two columns 'a'"),
    ('path,label,is_valid\na.jpg,ant,perhaps\n', {}, "line 2: is_valid is 'perhaps'; expected true or false"),
])
def test_tables_that_cannot_be_read(tmp_path, text, keys, message):
    with pytest.raises(UserError, match=message):
        table(tmp_path, text, **keys)


def test_list(tmp_path):
    (tmp_path / 'l.txt').write_text('a/1.jpg 0\n\nb c/2.jpg 3\nd.jpg\t1\n')
    source = tables.list_source(tmp_path / 'l.txt', tmp_path)
    assert source.names == ['a/1.jpg', 'b c/2.jpg', 'd.jpg'] and source.targets.tolist() == [0, 3, 1]
    assert source.classes == ['0', '1', '2', '3']
    (tmp_path / 'l.txt').write_bytes('a.jpg 0.0\r\nb.jpg 01\r\n'.encode('utf-16'))
    assert tables.list_source(tmp_path / 'l.txt', tmp_path).targets.tolist() == [0, 1]


@pytest.mark.parametrize('text, message', [
    ('', 'lists no images'), ('a.jpg 0\nb.jpg -1\n', 'line 2: label -1 is negative'),
    ('a.jpg ant\n', 'line 1: expected "relative/path label" with a number'), ('a.jpg\n', 'line 1: expected'),
    ('a.jpg ²\n', 'line 1: expected'), ('a.jpg --5\n', 'line 1: expected'), ('a.jpg 1.5\n', 'line 1: expected'),
    ('a.jpg 0\nb.jpg 100000000000\n', 'line 2: label 100000000000 is no number of a class: .* below 1000000'),
    ('a.jpg ' + '9' * 5000 + '\n', 'line 1: label 9999'), ('a.jpg 1000000\n', 'is no number of a class'),
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
