"""Every stage of every recipe at its paper's scale, as docs/published.md says: no default slips in.

The page is read: its column *ours* is what the stage builds, and where that is not what was published it says why.
"""
import re
import sys
from functools import cache
from pathlib import Path

import pytest

from timm_smalldata.config.plan import plan
from timm_smalldata.config.recipe import load_recipe, recipe_names

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / 'tests' / 'helpers'))
from settled import settle, settled  # noqa: E402

COLUMNS = ['setting', 'published', 'where', 'ours', 'why not the same']
HEADING = re.compile(r'### `([\w-]+)`, stage `(\w+)`(?:: as `([\w-]+)` `([\w-]+)` `(\w+)`)?(?:, but)?')


def stages():
    """Return (recipe, scale, stage) of every stage at a paper's scale."""
    return [
        (name, scale, stage['name']) for name in recipe_names() for scale in load_recipe(name)['scales']
        if scale.startswith('paper') for stage in load_recipe(name)['stages']]


@cache
def page():
    """Return the rows of each stage as they are written, and the stage that they add to."""
    rows, based_on, recipe, key = {}, {}, '', None
    for line in (ROOT / 'docs' / 'published.md').read_text(encoding='utf-8').splitlines():
        if line.startswith('## '):
            recipe = line[3:].strip('`')
        elif line.startswith('### '):
            match = HEADING.fullmatch(line)
            assert match, line
            key = (recipe, match[1], match[2])
            assert key not in rows, line
            rows[key], based_on[key] = {}, match.groups()[2:] if match[3] else None
        elif line.startswith('|') and key and not line.startswith('|---'):
            cells = [cell.strip() for cell in line.strip('|').split('|')]
            assert len(cells) == len(COLUMNS), line
            if cells != COLUMNS:
                assert cells[0] not in rows[key], line
                rows[key][cells[0]] = cells[1:]
    return rows, based_on


def table(key):
    """Return the whole table of a stage: its rows over those of the stage that it adds to; '-' takes one away."""
    rows, based_on = page()
    merged = {**(table(based_on[key]) if based_on[key] else {}), **rows[key]}
    return {name: cells for name, cells in merged.items() if cells[2] != '-'}


def test_the_page_has_every_stage_and_no_other():
    assert sorted(page()[0]) == sorted(stages()) and len(stages()) >= 24


@pytest.mark.parametrize('key', stages(), ids='-'.join)
def test_what_a_stage_trains_with(key):
    name, scale, wanted = key
    stage, = (stage for stage in plan(['photos', '--recipe', name, '--scale', scale]) if stage.name == wanted)
    assert {row: cells[2] for row, cells in table(key).items()} == settled(settle(stage), stage.start_from is None)


@pytest.mark.parametrize('key', stages(), ids='-'.join)
def test_what_is_not_as_published_says_why(key):
    for name, (published, where, ours, why) in page()[0][key].items():
        assert published and where and ours, name
        assert bool(why) == (published != ours), f'{name}: {published} and {ours}: {why!r}'


def test_a_default_that_slips_in_is_found():
    """The mistakes that once were: Nesterov's momentum, a normalisation that is timm's, a jitter that timm drops."""
    def built(recipe, *argv, stage=0):
        chosen = plan(['photos', '--recipe', recipe, *argv])[stage]
        return settled(settle(chosen), chosen.start_from is None)

    for recipe, argv, stage, row in (
            ('ldam-drw-sam', ['--opt', 'sgd'], 0, 'optimizer'), ('dino', ['--mean', '0.5', '--std', '0.5'], 0, 'mean'),
            ('idmm', ['--finetune.no-force-color-jitter'], 1, 'view'), ('livt', ['--no-warmup-prefix'], 0, 'epochs'),
            ('deit3', ['--no-drop-path-constant'], 0, 'stochastic depth'),
            ('paco', ['--no-paco-norm'], 0, 'projection'), ('dino', ['--select', 'best'], 0, 'weights'),
            ('livt', ['--crop-pct', '1'], 1, 'evaluation')):
        assert built(recipe, *argv, stage=stage)[row] != built(recipe, stage=stage)[row], row
