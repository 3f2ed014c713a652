"""Stages and their precedence; recipes are strict."""
import pytest

from timm_smalldata.config import recipe as module
from timm_smalldata.config.plan import finish_stage, plan
from timm_smalldata.config.recipe import load_recipe, recipe_names
from timm_smalldata.errors import UserError


def test_a_plain_command_is_one_stage_without_a_folder():
    stage, = plan(['photos', '--lr', '1e-3'])
    assert (stage.name, stage.folder, stage.given) == ('', '', dict(data_dir='photos', lr=1e-3))


def test_stage_flag_over_flag_over_file_over_recipe_over_default(tmp_path, monkeypatch):
    monkeypatch.setattr(module, 'RECIPES', tmp_path)
    (tmp_path / 'two.yaml').write_text(
        'flags: {epochs: 1, seed: 1, batch-size: 1, lr: 0.1}\n'
        'stages:\n- name: a\n- name: b\n  from: a\n  flags: {lr: 0.2}\n')
    config = tmp_path / 'c.yaml'
    config.write_text('epochs: 2\nseed: 2\nbatch-size: 2\n')
    a, b = plan(['photos', '--recipe', 'two', '-c', str(config), '--seed', '3', '--batch-size', '3',
                 '--b.batch-size', '4'])
    values = [[s.settings.get(k) for k in ('epochs', 'seed', 'batch_size', 'lr', 'weight_decay')] for s in (a, b)]
    assert values == [[2, 3, 3, 0.1, 0.05], [2, 3, 4, 0.2, 0.05]]
    assert (a.folder, b.folder, b.start_from) == ('1-a', '2-b', 'a')
    assert b.settings.source('batch_size').startswith('--b.') and b.settings.source('lr') == 'recipe two'


def test_every_recipe_reads_and_finishes():
    assert {'long-tail', 'fixres'} <= set(recipe_names())
    for name in recipe_names():
        for stage in plan(['photos', '--recipe', name]):
            finish_stage(stage)


@pytest.mark.parametrize('text, words', [
    ('flagz: {}', "'flags'"), ('flags: {epochz: 1}', "'epochs'"), ('flags: {epochs: x}', 'int'),
    ('stages: [{name: a, from: b}]', 'no earlier stage'), ('stages: [{name: a, flagz: {}}]', 'flagz')])
def test_recipes_are_strict(tmp_path, monkeypatch, text, words):
    monkeypatch.setattr(module, 'RECIPES', tmp_path)
    (tmp_path / 'r.yaml').write_text(text)
    with pytest.raises(UserError, match=words):
        load_recipe('r')


def test_flags_of_a_stage_that_is_not_there():
    with pytest.raises(UserError, match="'high'"):
        plan(['photos', '--recipe', 'fixres', '--hihg.epochs', '3'])
    with pytest.raises(UserError, match='--recipe'):
        plan(['photos', '--low.epochs', '3'])


def test_a_stage_left_out():
    finetune, high = plan(['photos', '--recipe', 'idmm', '--scale', 'cpu', '--skip-stage', 'pretrain'])
    whole = plan(['photos', '--recipe', 'idmm', '--scale', 'cpu'])
    assert (finetune.name, finetune.start_from, finetune.folder) == ('finetune', None, '1-finetune')
    assert finetune.settings.values == whole[1].settings.values | dict(skip_stage=['pretrain'])
    assert (high.start_from, high.settings.get('recipe_scale')) == ('finetune', 'cpu')
    pretrain, finetune = plan(['photos', '--recipe', 'idmm', '--skip-stage', 'high'])
    assert (pretrain.name, finetune.start_from) == ('pretrain', 'pretrain')
    finetune, = plan(['photos', '--recipe', 'idmm', '--skip-stage', 'pretrain', 'high'])
    assert (finetune.name, finetune.start_from, finetune.folder) == ('finetune', None, '')


@pytest.mark.parametrize('argv, words', [
    (['--skip-stage', 'a'], '--recipe'),
    (['--recipe', 'idmm', '--skip-stage', 'pretrian'], "'pretrain'.*finetune, high"),
    (['--recipe', 'long-tail', '--skip-stage', 'train'], 'no other stage'),
    (['--recipe', 'deit-lt', '--skip-stage', 'teacher'], 'student learns from it.*--teacher')])
def test_a_stage_that_cannot_be_left_out(argv, words):
    with pytest.raises(UserError, match=words):
        plan(['photos', *argv])
