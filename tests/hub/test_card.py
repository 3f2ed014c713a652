"""The words of a model card, its metadata as the hub reads them, and its picture."""
import io
from dataclasses import replace

import numpy as np
import pytest
import timm
from huggingface_hub import ModelCard
from PIL import Image

from timm_smalldata.data.classes import ClassInfo
from timm_smalldata.errors import UserError
from timm_smalldata.hub.card import model_card
from timm_smalldata.hub.export import export_model
from timm_smalldata.hub.picture import COLOURS, recall_picture
from timm_smalldata.hub.story import Story, read_story, reduced_command
from timm_smalldata.utils.files import write_csv_atomic

CONFIG = dict(architecture='vit_tiny_patch16_224', num_classes=2, pretrained_cfg=dict(input_size=[3, 64, 48]))
ROWS = [dict(zip(('class', 'train_images', 'images', 'recall', 'lo', 'hi', 'group'), row)) for row in (
    ('a | b', '500', '40', '90.0', '76.0', '96.0', 'many'), ('c', '5', '40', '12.5', '5.0', '26.0', 'few'))]
STORY = Story(
    CONFIG, ClassInfo(['a | b', 'c'], [500, 5], 'ef' * 32), 5_720_000, 22_900_000,
    report=dict(top1=81.25, balanced_top1=60.5, few=12.5, many=None, ece=4.2, split='val', num_images=80,
                shot_groups='counts:100,20', intervals=dict(top1=[71.3, 88.25])),
    rows=ROWS, settings=dict(data_dir='/x/y', loss='ldam', epochs=30),
    machine=dict(command='python /x/train_smalldata.py /x/y --recipe livt --loss ldam'),
    split=dict(sha256='cd' * 32, split=dict(train=['1'] * 505, val=['2'] * 80)))


def test_the_hub_reads_what_was_measured():
    data = ModelCard(model_card(STORY, 'me/x', license='mit', data_name='herbarium')).data
    assert (data.license, data.library_name, data.pipeline_tag) == ('mit', 'timm', 'image-classification')
    found = {(row.metric_type, row.metric_name): row.metric_value for row in data.eval_results}
    assert found[('accuracy', 'top-1 accuracy')] == 0.8125
    assert found[('balanced_accuracy', 'balanced accuracy')] == 0.605
    assert found[('recall', 'recall, classes with few images')] == 0.125 and len(found) == 4
    assert {(row.dataset_name, row.dataset_split, row.task_type) for row in data.eval_results} == {
        ('herbarium', 'validation', 'image-classification')}


def test_people_read_what_it_is_on_what_and_how():
    text = model_card(STORY, 'me/x', picture=True)
    assert '64 x 48 pixels, 5.72 M parameters, 22.9 MB, trained from scratch' in text and '(recall.png)' in text
    assert '| 505 | 2 | a \\| b (500) | c (5) | 100 |' in text and '| c | 5 | 40 | 12.50 | 5.00 – 26.00 |' in text
    assert 'split `val` (80 images)' in text and '| top-1 accuracy | 81.25 | 71.30 – 88.25 |' in text
    assert 'Images: train 505, val 80' in text and '`cdcdcdcdcdcdcdcd`' in text
    assert 'Loss `ldam`; epochs `30`.' in text and 'Recipe `livt`' in text
    assert 'train-smalldata IMAGES --' in text and '/x/' not in text
    assert '@software{timm_smalldata' in text and 'not published' in text


def test_no_licence_is_said_plainly_and_a_wrong_one_refused():
    text = model_card(STORY, 'me/x')
    assert 'No licence was chosen' in text and ModelCard(text).data.license is None
    with pytest.raises(UserError, match='no licence identifier'):
        model_card(STORY, 'me/x', license='mit\ntags: x')


def test_data_sets_that_everyone_can_get_are_named():
    data = ModelCard(model_card(replace(STORY, settings=dict(dataset='hfds/me/birds')), 'me/x')).data
    assert data.datasets == ['me/birds'] and {row.dataset_type for row in data.eval_results} == {'me/birds'}


def test_card_without_results():
    bare = replace(STORY, config={**CONFIG, 'num_classes': 0}, report={}, rows=[], settings={}, machine={}, split={})
    text = model_card(bare, 'me/x')
    assert 'No accuracy was recorded.' in text and 'A feature extractor' in text and 'softmax' not in text
    assert ModelCard(text).data.pipeline_tag == 'image-feature-extraction'
    assert 'no class labels' in model_card(replace(bare, classes=ClassInfo([], [])), 'me/x')


@pytest.mark.parametrize('command, reduced', [
    ('timm-smalldata train --time-budget 60s --experiment acme --workers 4', 'train-smalldata --time-budget 60s'),
    ('torchrun --nproc-per-node 4 -m train_smalldata C:/me/pets --class-map /x/c.csv',
     'train-smalldata IMAGES --class-map FILE'),
    ("train-smalldata --data-dir 'a b' --initial-checkpoint local-dir:/x/model --model resnet18",
     'train-smalldata IMAGES --initial-checkpoint PATH --model resnet18'),
    ('train-smalldata x --recipe livt --scale cpu --finetune.teacher-path /x/t.pt',
     'train-smalldata IMAGES --recipe livt --recipe-scale cpu --finetune.teacher-path FILE'),
    ('train-smalldata --flag-of-another-version 3', None), ('', None)])
def test_a_command_says_what_was_trained_and_not_where(command, reduced):
    assert reduced_command(command) == reduced


def test_picture_shows_each_class_where_it_belongs():
    picture = recall_picture(ROWS, 'test')
    assert picture == recall_picture(ROWS, 'test') and recall_picture([], 'test') is None
    pixels = np.asarray(Image.open(io.BytesIO(picture)).convert('RGB')).astype(int)

    def places(colour):
        wanted = [int(colour[i:i + 2], 16) for i in (1, 3, 5)]
        rows, columns = np.nonzero((abs(pixels - wanted).sum(-1) < 12)[:, :650])  # left of the key
        return rows, columns

    few, many = places(COLOURS['few']), np.nonzero(abs(pixels - [0, 0x72, 0xb2]).sum(-1) < 12)
    assert few[1].mean() < 400 < many[1].max() and few[0].mean() > many[0].min()  # small: left and low


def test_class_names_that_a_table_had_to_quote(tmp_path):
    """In per_class.csv an apostrophe keeps a spreadsheet from running them; the card has them as they are."""
    classes = ClassInfo(['=a', 'b'], [3, 3])
    export_model(timm.create_model('test_vit', num_classes=2), tmp_path / 'model', classes=classes,
                 data_config=dict(input_size=(3, 160, 160), mean=(.5,) * 3, std=(.5,) * 3, crop_pct=1.0,
                                  interpolation='bicubic'))
    write_csv_atomic(tmp_path / 'per_class.csv', ['class', 'recall'], [['=a', 50.0], ['b', 25.0]])
    assert "'=a" in (tmp_path / 'per_class.csv').read_text()
    assert [row['class'] for row in read_story(tmp_path / 'model').rows] == ['=a', 'b']
