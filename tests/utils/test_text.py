"""Names as people see them: one form, and what differs where two look alike."""
import os
import unicodedata

import pytest
from timm.utils import natural_key as natural_key_of_timm

from timm_smalldata.utils.text import alike, clean, clean_names, difference, natural_key, strip

NFC, NFD = 'Kühe', unicodedata.normalize('NFD', 'Kühe')


def test_the_order_is_that_of_timm():
    names = ['b10/2.jpg', 'b9/11.jpg', 'B9/2.jpg', 'a', '', '007', '7', '٣', 'a1b2c3', 'ä2', 'ä10']
    assert sorted(names, key=natural_key) == sorted(names, key=natural_key_of_timm)


def test_numbers_that_are_none_do_not_stop_the_order():
    assert sorted(['²', 'x²10', 'x²9', '1'], key=natural_key) == ['1', 'x²9', 'x²10', '²']
    assert natural_key('9' * 5000)  # Python converts no such number


@pytest.mark.parametrize('name, cleaned', [
    (NFC, 'Kühe'), (NFD, 'Kühe'), (os.fsdecode('Kühe'.encode('latin-1')), 'Kühe'), ('ant', 'ant'), ('²', '²'),
    (os.fsdecode(b'\xff'), 'ÿ'), ('\ud800', '\\ud800')])
def test_one_form(name, cleaned):
    assert clean(name) == cleaned == clean(cleaned)


def test_names_stay_apart():
    latin = os.fsdecode('Kühe/1.png'.encode('latin-1'))
    names, note = clean_names([f'{NFC}/1.png', f'{NFD}/1.png', latin, 'ant/1.png'])
    assert names == ['Kühe/1.png', 'Kühe/1 (2).png', 'Kühe/1 (3).png', 'ant/1.png']
    assert note == ('1 name is not UTF-8 and read as Latin-1 (first: Kühe/1.png); 1 name is written with separate '
                    'accents (Unicode NFD) and read as NFC (first: Kühe/1.png)')
    assert clean_names(['a.png', 'b.png']) == (['a.png', 'b.png'], '')


@pytest.mark.parametrize('name', ['ant ', 'ANT', 'ant\u200b', '\xa0ant', 'ａｎｔ'])
def test_what_differs_is_shown(name):
    assert difference(name, ['bee', 'ant']) == f"{ascii(name)} is not 'ant'"
    assert alike(['ant', 'bee', name]) == f"classes whose names look alike: {ascii(name)} is not 'ant'"
    assert difference(name, ['bee']) == alike([name, 'bee']) == ''


def test_ends_without_blanks():
    assert strip('\ufeff\xa0 an t\u200b \t\r\n') == 'an t'
