"""benchmarks/minutes.py: the tables of the pages are those of the results."""
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / 'benchmarks'))
import minutes  # noqa: E402

LINE = dict(
    data='a', arm='default', minutes=8.0, threads=1, seed=0, metric='top1', top1=50.0, balanced=40.0, seconds=9.0,
    commit='c', machine='m')


@pytest.mark.parametrize('page', minutes.PAGES, ids=lambda page: page.name)
def test_pages_have_the_tables_of_the_results(page):
    text = page.read_text()
    assert minutes.with_table(text, minutes.PAGES[page](minutes.read(minutes.RESULTS))) == text


def test_seeds_become_mean_and_deviation():
    lines = [LINE, dict(LINE, seed=1, top1=52.0, seconds=11.0), dict(LINE, arm='cnn', top1=1.0)]
    assert '| a, top-1 | 8 x 1 | 51.0 ± 1.4 (2; 10 s) | 1.0 (1; 9 s) | c |' in minutes.table(lines).splitlines()
    assert '| a, mean recall | 8 x 1 | 40.0 (1; 9 s) | c |' in minutes.table([dict(LINE, metric='balanced')])
