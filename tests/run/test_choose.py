"""What a time budget buys: candidates measured, one chosen, written down, and read again."""
import json

import pytest

from timm_smalldata.config import auto
from timm_smalldata.config.length import LONG
from timm_smalldata.run import choose
from timm_smalldata.run.length import Pace


@pytest.fixture
def budget(tmp_path, monkeypatch, photos, capsys):
    """Train on photos for a budget, with steps of a known length; returns what was chosen and what was said."""
    import train_smalldata
    monkeypatch.chdir(tmp_path)

    def call(seconds, *argv, steps=None):
        asked = []

        def pace(job, parts):
            asked.append(job.args.model)
            return Pace((steps or {}).get(job.args.model, 1.0), 0.1, len(parts.loader), 0, 1)
        monkeypatch.setattr(choose, 'measured_pace', pace)
        capsys.readouterr()
        (tmp_path / 'runs/b').mkdir(parents=True, exist_ok=True)
        (tmp_path / 'runs/b/choice.json').touch()  # asks for the choice of a dry run, too
        code = train_smalldata.main([
            str(photos), '--time-budget', f'{seconds}s', '--img-size', '32', '--device', 'cpu', '--output', 'runs',
            '--experiment', 'b', '--allow-missing-classes', *argv])
        said = capsys.readouterr()
        assert code == 0, said.err
        return json.loads((tmp_path / 'runs/b/choice.json').read_text())['values'], asked, said.err
    return call


def test_many_epochs_are_given_to_a_larger_model(budget):
    steps = {c.model: 0.5 * 1.5 ** number for number, c in enumerate(auto.CANDIDATES)}
    chosen, asked, said = budget(100_000, '--dry-run', steps=steps)
    assert chosen['model'] == asked[-1] == auto.CANDIDATES[-1].model and chosen['epochs'] > LONG
    assert chosen['train_crop_mode'] == 'rrc' and f'measured {asked[0]}' in said


def test_few_epochs_are_given_to_the_smallest_model(budget):
    chosen, asked, _ = budget(40, '--dry-run', steps={c.model: 2.0 for c in auto.CANDIDATES})
    assert asked == [auto.CANDIDATES[0].model] and chosen['model'] == asked[-1]
    assert chosen['train_crop_mode'] == 'src'


def test_a_larger_model_that_turns_out_too_slow_is_not_taken(budget):
    steps = dict(zip([c.model for c in auto.CANDIDATES], (0.1, 50.0, 50.0)))
    chosen, asked, _ = budget(200, '--dry-run', steps=steps)
    assert len(asked) == 2 and chosen['model'] == asked[0]


def test_a_named_model_stays(budget):
    chosen, asked, _ = budget(100_000, '--dry-run', '--model', 'test_vit')
    assert asked == ['test_vit'] and 'model' not in chosen


def test_other_tasks_keep_their_model_however_long_they_are(budget):
    steps = {'vit_tiny_patch16_224': 0.001}
    chosen, asked, _ = budget(100, '--dry-run', '--task', 'mae', steps=steps)
    assert asked == ['vit_tiny_patch16_224'] and chosen['epochs'] > 1000


def test_any_model_can_be_named(budget):
    assert budget(1, '--model', 'vgg11', '--dry-run')[1] == ['vgg11']  # one that takes no stochastic depth


def test_what_was_chosen_is_read_and_not_measured_again(budget, monkeypatch):
    first, asked, _ = budget(100, '--dry-run')
    assert asked
    again, asked, said = budget(100, '--dry-run')
    assert again == first and not asked and 'nothing is measured' in said
    other, asked, _ = budget(200, '--dry-run')
    assert asked and other['epochs'] > first['epochs'], 'another budget is another choice'


def test_no_validation_images_are_held_out_and_that_is_said(budget, tmp_path):
    chosen, _, said = budget(1, '--model', 'test_vit')
    assert chosen['val_fraction'] == 0 and '--val-fraction 0.15' in said
    assert ', val' not in said.partition('images: ')[2].splitlines()[0]
    report = json.loads((tmp_path / 'runs/b/report.json').read_text())
    assert report['split'] == 'test' and report['selected_on'] == 'none'
