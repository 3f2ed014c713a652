"""The analyse command: every kind writes its picture and its table; what a user can get wrong is one line."""
import csv

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from timm_smalldata.analysis import collect
from timm_smalldata.cli.analyse import main
from timm_smalldata.data.classes import ClassInfo
from timm_smalldata.hub import export

COUNTS = {'ant': 200, 'bee': 50, 'cat': 7}  # one class in each of many, medium and few; the photos are 12, 8 and 6
SMALL = dict(img_size=32, patch_size=8, embed_dim=24, depth=2, num_heads=2)
CONFIG = dict(input_size=(3, 32, 32), mean=(0.5,) * 3, std=(0.5,) * 3, crop_pct=1.0, interpolation='bicubic')


@pytest.fixture(scope='module')
def models(tmp_path_factory):
    """Exported models: `distilled`, `plain`, `headless`, and `unknown` without training counts."""
    root, made = tmp_path_factory.mktemp('models'), {}
    for name, arch, classes, number in (
            ('distilled', 'deit_tiny_distilled_patch16_224', COUNTS, 3), ('plain', 'vit_tiny_patch16_224', COUNTS, 3),
            ('headless', 'vit_tiny_patch16_224', COUNTS, 0), ('unknown', 'deit_tiny_distilled_patch16_224', {}, 3)):
        torch.manual_seed(0)
        model = timm.create_model(arch, **SMALL, num_classes=number)
        for parameter in model.parameters():
            if parameter.ndim == 2:
                torch.nn.init.normal_(parameter, std=0.3)
        made[name] = root / name
        export.export_model(
            model, made[name], classes=ClassInfo(list(classes), list(classes.values())), data_config=CONFIG)
    return made


@pytest.fixture
def analyse(photos, tmp_path, capsys):
    """Call the command, on the photos: `analyse(kind, model, ...) -> (rows of the table, stdout, stderr)`."""
    def call(kind, model, *argv, data=(photos,)):
        capsys.readouterr()
        folder = tmp_path / 'out'
        where = [*data, '--device', 'cpu', '--workers', '0'] if data is not None else []
        assert main([kind, *map(str, [model, *where, '--output', folder, *argv])]) == 0, capsys.readouterr().err
        assert sorted(p.name for p in folder.iterdir() if p.stem == kind) == [f'{kind}.csv', f'{kind}.png']
        pixels = np.asarray(Image.open(folder / f'{kind}.png').convert('RGB'))
        assert pixels.shape[0] > 150 and pixels.shape[1] > 400 and (pixels < 100).any() and (pixels > 250).any()
        with open(folder / f'{kind}.csv', newline='') as stream:
            return (list(csv.DictReader(stream)), *capsys.readouterr())
    return call


@pytest.fixture
def refuse(photos, tmp_path, capsys):
    """Call the command: `refuse(...) -> the one line of the error`."""
    def call(*argv):
        capsys.readouterr()
        assert main([*map(str, argv)]) == 2
        out, err = capsys.readouterr()
        errors = [line for line in err.splitlines() if not line.startswith('note: ')]
        assert not out and len(errors) == 1 and errors[0].startswith('error: ')
        return errors[0]
    return call


def test_attention_distance(models, analyse):
    rows, out, _ = analyse('attention-distance', models['plain'])
    assert [(row['block'], row['head']) for row in rows] == [('1', '1'), ('1', '2'), ('2', '1'), ('2', '2')]
    assert all(0 < float(row['distance_px']) < 34 for row in rows)
    assert '26 images' in out and '16.1 px where attention is uniform' in out


def test_feature_rank_of_rare_classes(models, analyse):
    rows, out, _ = analyse('feature-rank', models['distilled'])
    assert [(row['token'], row['block']) for row in rows] == [
        (token, block) for token in ('CLS', 'DIST') for block in ('1', '2', 'norm')]
    assert {(row['images'], row['dimensions']) for row in rows} == {('6', '24')} and 'classes: few' in out
    assert all(1 <= int(row['rank']) <= 5 for row in rows) and 'cannot span the 24 dimensions' in out
    everything, out, _ = analyse('feature-rank', models['distilled'], '--group', 'all', '--threshold', '1')
    assert everything[0]['images'] == '26' and int(everything[-1]['rank']) > 5 and 'cannot span' not in out


def test_a_model_without_a_head(models, analyse):
    rows, _, _ = analyse('feature-rank', models['headless'], '--group', 'medium', '--images', '5')
    assert {(row['token'], row['images']) for row in rows} == {('CLS', '5')}


def test_attention(models, analyse):
    rows, out, _ = analyse('attention', models['plain'], '--images', '3', '--mass', '0.5')
    assert [row['class'] for row in rows] == ['ant', 'ant', 'bee', 'bee', 'cat', 'cat']  # evenly spaced
    assert {row['head'] for row in rows} == {'1', '2'} and rows[0]['image'].startswith('ant/')
    for row in rows:
        assert 0 < float(row['share_on_patches']) < 1 and 1 <= int(row['patches_in_mask']) <= 9  # 8 hold half if alike
    assert '50 % of the attention lies on' in out


def test_attention_measured_on_figures(models, analyse, monkeypatch):
    from timm_smalldata.data.samples import sample_source
    from timm_smalldata.data.views import eval_view, render

    def look(model, batches):  # heads: everywhere, and exactly on the figure
        images = torch.cat([images for images, _ in batches])
        return images, torch.stack([torch.full((len(images), 32, 32), 1 / 1024), figures.float()], dim=1)

    test = sample_source('shapes', 'test')
    view = eval_view(32, 1.0, 'bicubic', CONFIG['mean'], CONFIG['std'])
    whole = [Image.fromarray(test.mask(i)).convert('RGB') for i in (0, 100, 199, 299)]
    figures = torch.stack([torch.as_tensor(render(image, view))[0] > 127 for image in whole])
    monkeypatch.setattr(collect, 'maps_of_last_block', look)
    rows, out, _ = analyse('attention', models['plain'], '--images', '4', '--mass', '1',
                           data=['--dataset', 'sample/shapes'])
    everywhere, exact = ([float(row['overlap']) for row in rows if row['head'] == head] for head in '12')
    assert exact == [1] * 4
    assert everywhere == pytest.approx(figures.float().mean((1, 2)).tolist(), abs=1e-4)
    assert 'head 2, the best one: 1.000 (anywhere: ' in out


def test_images_without_classes(models, analyse, photos, tmp_path):
    folder = tmp_path / 'loose'
    folder.mkdir()
    for i, path in enumerate(sorted((photos / 'ant').iterdir())[:3]):
        path.rename(folder / f'{i}{path.suffix}')
    (folder / 'notes.txt').write_text('no image')
    rows, out, _ = analyse('attention', models['plain'], data=[folder])
    assert [row['image'][0] for row in rows[::2]] == ['0', '1', '2'] and {row['class'] for row in rows} == {''}
    rows, out, _ = analyse('attention', models['plain'], data=[next(folder.glob('0.*'))])
    assert len(rows) == 2 and '1 image of' in out
    assert {row['images'] for row in analyse('feature-rank', models['plain'], data=[folder])[0]} == {'3'}


def test_divergence(tmp_path, analyse):
    stage = tmp_path / 'run' / '2-student'
    stage.mkdir(parents=True)
    (stage / 'summary.csv').write_text(
        'epoch,train_loss,train_token_cosine,train_disagreement\n0,2,1.0,50\n1,1,0.75,40\n2,1,0.5,30\n')
    (stage / 'args.yaml').write_text('drw_epoch: 2\n')
    for folder in (stage, stage.parent):
        rows, out, _ = analyse('divergence', folder, data=None)
        assert [float(row['distance']) for row in rows] == [0, 0.25, 0.5] and rows[2]['disagreement'] == '30'
        assert '0.5000 in epoch 2' in out and 'class weights begin (epoch 2): 0.2500' in out


def test_tokens(models, analyse):
    rows, out, _ = analyse('tokens', models['distilled'])
    assert [(row['group'], row['block']) for row in rows] == [
        (group, block) for group in ('all', 'many', 'medium', 'few') for block in ('1', '2', 'norm')]
    assert [row['images'] for row in rows[::3]] == ['26', '12', '8', '6']
    final = {row['group']: float(row['distance']) for row in rows if row['block'] == 'norm'}
    assert final['all'] == pytest.approx((12 * final['many'] + 8 * final['medium'] + 6 * final['few']) / 26, abs=1e-5)
    assert 0 < final['all'] < 2 and 'after the final norm, few' in out
    rows, _, err = analyse('tokens', models['unknown'])
    assert {row['group'] for row in rows} == {'all'} and 'training counts are not known' in err


def test_experts(models, analyse, photos):
    rows, out, _ = analyse('experts', models['distilled'])
    model = timm.create_model(f'local-dir:{models["distilled"]}', pretrained=True).eval()
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
    for row, (name, count) in zip(rows, COUNTS.items()):
        images = torch.stack([transform(Image.open(path).convert('RGB')) for path in (photos / name).iterdir()])
        with torch.no_grad():
            features = model.forward_features(images)
            cls, dist = (head(features[:, i]).argmax(-1) for i, head in enumerate((model.head, model.head_dist)))
            both = model(images).argmax(-1)
        label = list(COUNTS).index(name)
        expected = [100 * float((guess == label).float().mean()) for guess in (cls, dist, both)]
        assert (row['class'], int(row['train_images']), int(row['images'])) == (name, count, len(images))
        found = [float(row[key]) for key in ('cls_recall', 'dist_recall', 'avg_recall')]
        assert found == pytest.approx(expected, abs=0.01)
        assert float(row['disagreement']) == pytest.approx(100 * float((cls != dist).float().mean()), abs=0.01)
    assert 'the two tokens predict different classes for' in out


def test_experts_where_a_class_has_no_images(models, analyse):
    rows, out, _ = analyse('experts', models['distilled'], '--group', 'few')
    assert [row['cls_recall'] == '' for row in rows] == [True, True, False] and 'nan' not in out


def test_what_a_user_can_get_wrong(models, photos, tmp_path, refuse):
    to = ('--output', tmp_path / 'out', '--device', 'cpu', '--workers', '0')
    plain, distilled = models['plain'], models['distilled']
    assert "did you mean 'attention'" in refuse('attenton', plain, photos, *to)
    assert 'Name a folder for tokens.png' in refuse('tokens', distilled, photos)
    assert '--mass goes with attention and overlap, not' in refuse('tokens', distilled, photos, *to, '--mass', '0.5')
    assert 'share over 0' in refuse('attention', plain, photos, *to, '--mass', '2')
    assert 'whole number from 1 on' in refuse('attention', plain, photos, *to, '--images', '0')
    assert "did you mean '--group'" in refuse('attention', plain, photos, *to, '--grup', 'few')
    assert 'Which images?' in refuse('attention', plain, *to)
    for kind in ('tokens', 'experts'):
        assert f'has no distillation token; {kind} goes with distilled models' in refuse(kind, plain, photos, *to)
    assert 'gives features, no class scores' in refuse('experts', models['headless'], photos, *to)
    for argv in (['tokens', '--group', 'few'], ['experts']):
        error = refuse(argv[0], models['unknown'], photos, *to, *argv[1:])
        assert 'training' in error and '--class-stats FILE' in error
    assert 'not the folder of a run' in refuse('divergence', plain, *to[:2])
    assert 'shows it no images: leave out --data-dir' in refuse('divergence', plain, photos, *to[:2])
    (tmp_path / 'summary.csv').write_text('epoch,train_loss\n0,2\n')
    assert 'has no column train_token_cosine' in refuse('divergence', tmp_path, *to[:2])
    assert 'has no decoder' in refuse('reconstruction', plain, photos, *to)
    assert '--img-size does not go' in refuse('reconstruction', plain, photos, *to, '--img-size', '64')
    (tmp_path / 'torn.png').write_bytes(b'torn')
    assert 'torn.png: no image of a kind' in refuse('attention', plain, tmp_path / 'torn.png', *to)
    (tmp_path / 'empty').mkdir()
    assert 'No images found' in refuse('attention', plain, tmp_path / 'empty', *to)
    assert 'no image of such a class' in refuse(
        'tokens', distilled, photos, *to, '--group', 'few', '--shot-split', 'counts:5,1')


def test_models_that_cannot_be_looked_into(tmp_path, photos, refuse):
    to = ('--output', tmp_path / 'out', '--device', 'cpu', '--workers', '0')
    config = ClassInfo(list(COUNTS), list(COUNTS.values()))
    export.export_model(timm.create_model('test_resnet', num_classes=3), tmp_path / 'cnn', classes=config, data_config={
        **CONFIG, 'input_size': (3, 160, 160)})
    assert 'has no attention between patches' in refuse('attention-distance', tmp_path / 'cnn', photos, *to)
    pooled = timm.create_model('vit_tiny_patch16_224', **SMALL, num_classes=3, class_token=False, global_pool='avg')
    export.export_model(pooled, tmp_path / 'pooled', classes=config, data_config=CONFIG)
    assert 'has no class token' in refuse('attention', tmp_path / 'pooled', photos, *to)


def test_reconstruction(run, photos, tmp_path, capsys):
    code, _, err = run([photos, '--task', 'mae', '--model', 'vit_tiny_patch16_224', '--model-kwargs', 'patch_size=8',
                        'embed_dim=24', 'depth=1', 'num_heads=2', '--mae-decoder-dim', '16', '--warmup-epochs', '0'])
    assert code == 0, err
    assert main(['reconstruction', 'runs/e', str(photos), '--output', 'out', '--images', '3', '--device', 'cpu',
                 '--workers', '0']) == 0, capsys.readouterr().err
    with open('out/reconstruction.csv', newline='') as stream:
        rows = list(csv.DictReader(stream))
    assert [row['class'] for row in rows] == ['ant', 'bee', 'cat']
    assert all(float(row['loss_of_zero']) == pytest.approx(191 / 192, abs=1e-4) for row in rows)  # variances, unbiased
    assert all(0 < float(row['loss']) < 10 for row in rows)
    assert np.asarray(Image.open('out/reconstruction.png')).shape[0] > 300


@pytest.fixture
def voc(photos, tmp_path):
    """Photographs in the layout of PASCAL VOC: two objects and void in each, as a palette image."""
    root = tmp_path / 'voc'
    for folder in ('JPEGImages', 'SegmentationObject', 'ImageSets/Segmentation'):
        (root / folder).mkdir(parents=True)
    for number, file in enumerate(sorted(photos.glob('*/*'))[:4]):
        image = Image.open(file).convert('RGB').resize((32, 32))
        image.save(root / f'JPEGImages/{number}.jpg')
        objects = np.zeros((32, 32), dtype=np.uint8)
        objects[:8, :8], objects[16:, :], objects[10:12, :] = 1, 2, 255
        mask = Image.fromarray(objects, 'P')
        mask.putpalette([(7 * i) % 256 for i in range(768)])
        mask.save(root / f'SegmentationObject/{number}.png')
    (root / 'ImageSets/Segmentation/val.txt').write_text('0\n2\n3\n')
    return root


def test_overlap_with_the_objects_of_a_folder(models, analyse, voc, monkeypatch):
    """Heads that look exactly at one object each: whole overlap; one that looks elsewhere: none of the first object."""
    def look(model, batches):
        images = torch.cat([images for images, _ in batches])
        maps = torch.zeros(len(images), 2, 4, 4)
        maps[:, 0, 0, 0], maps[:, 1, 2:] = 1, 1
        return images, maps

    monkeypatch.setattr(collect, 'maps_of_last_block', look)
    rows, out, _ = analyse('overlap', models['headless'], '--mass', '1', data=[voc])
    assert [(row['image'], row['object'], row['pixels'], row['best_head'], row['overlap']) for row in rows] == [
        (f'{i}.jpg', *rest) for i in (0, 2, 3) for rest in (('1', '64', '1', '1.0000'), ('2', '512', '2', '1.0000'))]
    assert '6 objects in 3 images: 100.0 %, of the best head for each object' in out


def test_overlap_of_a_model(models, analyse, voc):
    rows, out, _ = analyse('overlap', models['plain'], '--images', '2', data=[voc])
    assert len(rows) == 4 and all(0 <= float(row['overlap']) <= 1 for row in rows) and 'as many patches anywhere' in out


def test_what_overlap_cannot_be_measured_on(models, refuse, voc, photos, tmp_path):
    def line(*argv):
        return refuse('overlap', models['plain'], *argv, '--output', tmp_path / 'out', '--device', 'cpu')

    assert 'needs images in JPEGImages/ and a mask' in line(photos)
    assert 'without --split' in line(voc, '--split', 'val')
    assert 'layout of PASCAL VOC' in line('--dataset', 'sample/shapes')
    (voc / 'SegmentationObject/2.png').unlink()
    assert '2 lacks one' in line(voc)
    Image.new('RGB', (32, 32)).save(voc / 'SegmentationObject/2.png')
    assert 'is no indexed mask' in line(voc)
