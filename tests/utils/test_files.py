import csv
import json

import pytest

from timm_smalldata.utils.files import open_atomic, write_csv_atomic, write_json_atomic, write_text_atomic

ODD = ['a,b', 'two\nlines', 'cr\rlf\r\n', 'say "hi"', 'Käse 猫', '', ' x ']


def test_text_replaces_and_leaves_nothing_beside(tmp_path):
    path = tmp_path / 'a.txt'
    for text in ('first\r\n', 'zweite Zeile ß\n'):
        write_text_atomic(path, text)
        assert path.read_bytes() == text.encode()
    assert [p.name for p in tmp_path.iterdir()] == ['a.txt']


def test_an_error_keeps_the_old_file(tmp_path):
    path = tmp_path / 'a.txt'
    write_text_atomic(path, 'old')
    with pytest.raises(KeyboardInterrupt):
        with open_atomic(path) as file:
            file.write('half')
            file.flush()
            raise KeyboardInterrupt
    with pytest.raises(ValueError):
        write_json_atomic(path, {'x': float('nan')})
    assert path.read_text() == 'old'
    assert [p.name for p in tmp_path.iterdir()] == ['a.txt']


def test_binary(tmp_path):
    with open_atomic(tmp_path / 'b', binary=True) as file:
        file.write(b'\x00\r\n')
        assert not (tmp_path / 'b').exists()
    assert (tmp_path / 'b').read_bytes() == b'\x00\r\n'


def test_csv_round_trip(tmp_path):
    write_csv_atomic(tmp_path / 't.csv', ['name', 'n'], [[name, i or None] for i, name in enumerate(ODD)])
    with open(tmp_path / 't.csv', newline='', encoding='utf-8') as file:
        rows = list(csv.reader(file))
    assert rows == [['name', 'n'], *([name, str(i or '')] for i, name in enumerate(ODD))]


def test_names_that_are_no_text(tmp_path):
    """A folder name that is not UTF-8 reaches Python as a lone surrogate."""
    write_json_atomic(tmp_path / 'a.json', {'class': 'caf\udce9', 'odd': ODD})
    assert json.loads((tmp_path / 'a.json').read_text(encoding='utf-8')) == {'class': 'caf\udce9', 'odd': ODD}
    write_csv_atomic(tmp_path / 'a.csv', ['caf\udce9'], [])
    assert (tmp_path / 'a.csv').read_text(encoding='utf-8') == 'caf\\udce9\n'


def test_no_cell_is_a_formula(tmp_path):
    """A class or file called =cmd|... is text in a spreadsheet, numbers stay numbers, and the report shows the name."""
    from timm_smalldata.report.page import _table
    write_csv_atomic(tmp_path / 'f.csv', ['name', 'n'], [['=cmd|1', -1], ['@x', '-1.5'], ['+a', None], ["it's", 2]])
    assert (tmp_path / 'f.csv').read_text() == "name,n\n'=cmd|1,-1\n'@x,-1.5\n'+a,\nit's,2\n"
    assert [row['name'] for row in _table(tmp_path / 'f.csv')] == ['=cmd|1', '@x', '+a', "it's"]
