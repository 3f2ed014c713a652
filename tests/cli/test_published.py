"""eval on folders in the layouts of published benchmarks, made so that the answer is known."""
import json
import pickle

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from timm_smalldata.cli.eval import main
from timm_smalldata.data.classes import ClassInfo
from timm_smalldata.data.samples.shapes import draw
from timm_smalldata.hub.export import export_model

CONFIG = dict(input_size=(3, 32, 32), mean=(0.5,) * 3, std=(0.25,) * 3, crop_pct=1.0, interpolation='bicubic')


@pytest.fixture(scope='module')
def model(tmp_path_factory):
    """A transformer that nobody trained and that does not know where a patch is: equal patches have equal features."""
    torch.manual_seed(0)
    built = timm.create_model('vit_tiny_patch16_224', img_size=32, patch_size=4, embed_dim=48, depth=1, num_heads=2,
                              num_classes=2)
    torch.nn.init.zeros_(built.pos_embed)
    folder = tmp_path_factory.mktemp('published') / 'model'
    export_model(built, folder, classes=ClassInfo(['x', 'y'], [1, 1]), data_config=CONFIG, metadata={})
    return folder


@pytest.fixture
def judge(model, tmp_path, capsys, monkeypatch):
    def call(*argv):
        monkeypatch.chdir(tmp_path)
        capsys.readouterr()
        assert main([str(model), *map(str, argv), '--json', '--device', 'cpu']) == 0, capsys.readouterr().err
        return json.loads(capsys.readouterr().out)
    return call


@pytest.fixture
def refuse(model, tmp_path, capsys, monkeypatch):
    def call(*argv):
        monkeypatch.chdir(tmp_path)
        capsys.readouterr()
        assert main([str(model), *map(str, argv), '--device', 'cpu']) == 2
        out, err = capsys.readouterr()
        line, = err.splitlines()
        assert not out and line.startswith('error: ')
        return line
    return call


def picture(path, seed, size=(40, 36)):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.RandomState(seed).randint(0, 255, (6, 6, 3)).astype(np.uint8)
    Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC).save(path)


# --- landmarks ------------------------------------------------------------------------------------------------------

def landmark_folder(root, suffix='pkl', **changes):
    """Five places; two queries, each of which is in the database: as it is, and cut out of something larger."""
    names = [f'place{i}' for i in range(5)]
    for i, name in enumerate(names):
        picture(root / 'jpg' / f'{name}.png', i)
    picture(root / 'jpg' / 'q0.png', 0)
    large = Image.new('RGB', (60, 50), 'red')
    large.paste(Image.open(root / 'jpg' / 'place3.png'), (10, 7))
    large.save(root / 'jpg' / 'q1.png')
    truth = dict(imlist=names, qimlist=['q0', 'q1'], gnd=[
        dict(easy=[0], hard=[], junk=[1], bbx=[0., 0., 40., 36.]),
        dict(easy=[], hard=[3], junk=[], bbx=[10., 7., 50., 43.])])
    truth.update(changes)
    if suffix == 'pkl':
        truth['gnd'] = [{**row, 'easy': np.array(row['easy'])} for row in truth['gnd']]
        (root / 'gnd_mine.pkl').write_bytes(pickle.dumps(truth, protocol=2))
    else:
        (root / 'gnd_mine.json').write_text(json.dumps(truth))
    return root


@pytest.mark.parametrize('suffix', ['pkl', 'json'])
def test_landmarks(judge, tmp_path, suffix):
    folder = landmark_folder(tmp_path / 'mine', suffix)
    report = judge(folder, '--probe', 'landmarks', '--crop-queries', '--output', 'out')
    assert [report[name]['map'] for name in ('easy', 'medium', 'hard')] == [100] * 3
    assert [report[name]['queries'] for name in ('easy', 'medium', 'hard')] == [1, 2, 1]
    assert report['medium']['mean_precision']['at_1'] == 100 and report['num_images'] == 5
    assert json.loads((tmp_path / 'out/landmarks.json').read_text()) == report
    assert judge(folder, '--probe', 'landmarks', '--img-size', '24')['easy']['map'] == 100  # the other one is not cut
    assert judge(folder, '--probe', 'landmarks', '--multi-scale', '--crop-queries')['medium']['map'] == 100


def test_a_table_of_landmarks(model, tmp_path, capsys):
    assert main([str(model), str(landmark_folder(tmp_path / 'mine')), '--probe', 'landmarks', '--device', 'cpu']) == 0
    out = capsys.readouterr().out
    assert '2 queries among 5 images' in out and 'easy        100.00  100.00  100.00  100.00        1' in out


class Evil:
    def __reduce__(self):
        import os
        return os.mkdir, ('harm',)


def test_a_pickle_that_would_do_something_else_is_refused(refuse, tmp_path):
    folder = landmark_folder(tmp_path / 'mine', gnd=[])
    assert '2 queries, 0 answers' in refuse(folder, '--probe', 'landmarks')
    (folder / 'gnd_mine.pkl').write_bytes(pickle.dumps(dict(imlist=[Evil()])))
    assert 'not a list of queries and answers' in refuse(folder, '--probe', 'landmarks')
    assert not (tmp_path / 'harm').exists()


# --- copies ---------------------------------------------------------------------------------------------------------

def copies_folder(root, distractors=0):
    for i in range(6):
        picture(root / 'original' / f'{2000 + i}00.png', i)
        picture(root / 'same' / f'{2000 + i}00.png', i)
        picture(root / 'strong' / f'{2000 + i}01.png', i, size=(30, 36))
    for i in range(distractors):
        picture(root / 'distractors' / f'{i}.png', 100 + i)
    return root


@pytest.mark.parametrize('distractors', [0, 40])
def test_copies(judge, tmp_path, distractors):
    report = judge(copies_folder(tmp_path / 'mine', distractors), '--probe', 'copies', '--img-size', '32')
    assert report['blocks']['same'] == dict(map=100, copies=6) and set(report['blocks']) == {'same', 'strong'}
    assert report['blocks']['strong']['map'] > 50  # by chance: under 25
    assert report['originals'] == 6 and report['distractors'] == distractors
    assert report['probe']['whitened_by'] == ('distractors' if distractors else None)


def test_a_table_of_copies(model, tmp_path, capsys):
    folder = copies_folder(tmp_path / 'mine')
    assert main([str(model), str(folder), '--probe', 'copies', '--img-size', '32', '--device', 'cpu']) == 0
    assert 'same                      100.00        6' in capsys.readouterr().out


# --- video ----------------------------------------------------------------------------------------------------------

def video_folder(root, positions, figure=None, level='480p'):
    """A figure of sample/shapes that is moved over plain ground; without one, noise that fills the left half."""
    image, mask = draw('circle', 'dotted', np.random.RandomState(5))
    for place, (x, y) in enumerate(positions):
        frame, true = Image.new('RGB', (96, 64), (90, 90, 90)), np.zeros((64, 96), dtype=np.uint8)
        if figure is None:
            noise = np.random.RandomState(0).randint(0, 255, (64, 48, 3)).astype(np.uint8)
            frame.paste(Image.fromarray(noise), (0, 0))
            true[:, :48] = 3
        else:
            frame.paste(image, (x, y), Image.fromarray(mask))
            canvas = Image.new('L', (96, 64))
            canvas.paste(Image.fromarray((mask > 0).astype(np.uint8)), (x, y))
            true = np.asarray(canvas)
        for part, content in (('JPEGImages', frame), ('Annotations', Image.fromarray(true))):
            folder = root / part / level / 'toy'
            folder.mkdir(parents=True, exist_ok=True)
            content.save(folder / f'{place:05d}.png')
    return root


def test_a_scene_that_stands_still(judge, tmp_path):
    folder = video_folder(tmp_path / 'mine', [(0, 0)] * 6)
    report = judge(folder, '--probe', 'video', '--img-size', '64', '--output', 'out')
    assert report['J'] == dict(mean=100, recall=100, decay=0) and report['F']['mean'] == 100 == report['jf_mean']
    assert report['by_object'] == {'toy_3': dict(J=100, F=100)}
    last = np.asarray(Image.open(tmp_path / 'out/toy/00005.png'))
    assert (last[:, :48] == 3).all() and not last[:, 48:].any()


def test_a_figure_that_moves_is_followed(judge, tmp_path):
    steps = [(8 * step, 0) for step in range(5)]  # whole patches
    folder = video_folder(tmp_path / 'mine', steps, 'circle', level='')
    report = judge(folder, '--probe', 'video', '--img-size', '64')
    masks = [np.asarray(Image.open(folder / f'Annotations/toy/0000{i}.png')) > 0 for i in range(5)]
    still = np.mean([(masks[0] & mask).sum() / (masks[0] | mask).sum() for mask in masks[1:-1]])
    assert report['J']['mean'] > 75 and report['J']['mean'] / 100 > still + 0.2
    assert report['objects'] == 1 and report['videos'] == 1


# --- what a user can get wrong --------------------------------------------------------------------------------------

@pytest.mark.parametrize('argv, words', [
    (['nowhere', '--probe', 'video'], 'No such folder: nowhere'),
    (['empty', '--probe', 'video'], 'has no videos in JPEGImages/480p/NAME/'),
    (['empty', '--probe', 'copies'], 'has no images in original/'),
    (['empty', '--probe', 'landmarks'], 'has no gnd_NAME.pkl (or .json) beside jpg/'),
    (['empty', '--probe', 'copies', '--split', 'test'], '--split does not go with --probe copies'),
    (['empty', '--probe', 'copies', '--multi-scale'], '--multi-scale does not go with --probe copies'),
    (['--probe', 'copies'], 'needs a folder in the published layout'),
    (['broken', '--probe', 'copies'], '100.png cannot be read'),
    (['stray', '--probe', 'copies'], 'is a copy of no image in original/'),
    (['small', '--probe', 'landmarks', '--img-size', '3'], 'is smaller than a patch')])
def test_what_a_user_can_get_wrong(refuse, tmp_path, argv, words):
    (tmp_path / 'empty').mkdir()
    copies_folder(tmp_path / 'broken')
    (tmp_path / 'broken/original/200100.png').write_bytes(b'no picture')
    copies_folder(tmp_path / 'stray')
    picture(tmp_path / 'stray/strong/else.png', 3)
    landmark_folder(tmp_path / 'small')
    assert words in refuse(*argv)


def test_videos_without_masks_to_judge_by(refuse, tmp_path):
    folder = video_folder(tmp_path / 'mine', [(0, 0)] * 4)
    for place in (1, 2):
        (folder / f'Annotations/480p/toy/0000{place}.png').unlink()
    assert 'nothing can be judged' in refuse(folder, '--probe', 'video', '--img-size', '32')
    (folder / 'Annotations/480p/toy/00000.png').unlink()
    assert 'a mask of the first' in refuse(folder, '--probe', 'video')


def test_a_network_without_patches(tmp_path, capsys):
    folder = copies_folder(tmp_path / 'mine')
    assert main(['resnet20_cifar', str(folder), '--probe', 'copies', '--img-size', '32', '--device', 'cpu']) == 2
    assert 'error: ' in capsys.readouterr().err
