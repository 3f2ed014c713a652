"""The exported folder."""
import json
import os
from copy import deepcopy
from pathlib import Path

import pytest
import timm
import torch
from torch import nn

from timm_smalldata.data.classes import ClassInfo
from timm_smalldata.errors import UserError
from timm_smalldata.hub import export as exporting
from timm_smalldata.utils.model_folder import find_model, is_complete

CLASSES = ClassInfo(['Acer', 'Bär | x', 'Carex', 'Dahlia', 'Erica'], [200, 150, 40, 19, 4], 'ab' * 32)
DATA = dict(input_size=(3, 32, 32), mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.1), crop_pct=1.0, interpolation='bilinear')


def make_model(seed=0, **kwargs):
    torch.manual_seed(seed)
    return timm.create_model('vit_tiny_patch16_224', **{
        **dict(img_size=32, patch_size=4, embed_dim=96, depth=2, num_heads=3, num_classes=5), **kwargs}).eval()


def export(model, folder, **kwargs):
    exporting.export_model(model, folder, classes=CLASSES, data_config=DATA, **kwargs)
    return folder


def logits_of(model):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in the processes that are compared with
    try:
        with torch.no_grad():
            return model(torch.linspace(-2, 2, 2 * 3 * 32 * 32).view(2, 3, 32, 32)).tolist()
    finally:
        torch.set_num_threads(threads)


def read_config(folder):
    return json.loads((folder / 'config.json').read_text())


# ---------------------------------------------------------------------------------------------- the exported folder


def test_config_holds_what_a_user_needs_and_nothing_else(tmp_path):
    config = read_config(export(make_model(), tmp_path / 'model', metadata={'recipe': 'livt'}))
    assert config['label_names'] == CLASSES.names
    assert len(config['timm_smalldata'].pop('weights_sha256')) == 64
    assert config['timm_smalldata'] == {
        'recipe': 'livt', 'class_counts': CLASSES.counts, 'data_hash': CLASSES.data_hash}
    stored = config['pretrained_cfg']
    assert {key: tuple(stored[key]) if key in ('mean', 'std', 'input_size') else stored[key] for key in DATA} == DATA
    # the registry's words on weights that these are not
    assert not {'tag', 'license', 'url', 'file', 'hf_hub_id', 'origin_url'} & set(stored)
    assert sorted(p.name for p in tmp_path.rglob('*')) == ['config.json', 'model', 'model.safetensors']
    assert exporting.load_classes(tmp_path / 'model') == CLASSES


def test_fine_tuned_weights_keep_their_origin(tmp_path):
    config = read_config(export(make_model(), tmp_path / 'model', fine_tuned=True))
    assert config['pretrained_cfg']['tag'] == timm.models.get_pretrained_cfg('vit_tiny_patch16_224').tag


def test_equal_weights_give_equal_bytes(tmp_path):
    model = make_model()
    wrapped = nn.Module()  # like DDP: the model is its attribute `module`
    wrapped.module = deepcopy(model).double().to(memory_format=torch.channels_last).train()
    wrapped.module.head.weight.data = wrapped.module.head.weight.data.t().contiguous().t()
    assert not wrapped.module.head.weight.is_contiguous()
    before = deepcopy(wrapped.module.state_dict())
    folders = [export(model, tmp_path / 'a'), export(wrapped, tmp_path / 'b')]
    for name in ('config.json', 'model.safetensors'):
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()
    content = (folders[0] / 'model.safetensors').read_bytes()
    header = json.loads(content[8:8 + int.from_bytes(content[:8], 'little')])
    assert '__metadata__' not in header and {entry['dtype'] for entry in header.values()} == {'F32'}
    # the model itself is as it was
    assert wrapped.module.training and wrapped.module.head.weight.dtype == torch.float64
    assert all(torch.equal(before[key], value) for key, value in wrapped.module.state_dict().items())
    assert (export(make_model(seed=1), tmp_path / 'c') / 'model.safetensors').read_bytes() != content


@pytest.mark.parametrize('num_classes', [0, 7])  # a backbone; a head over instances
def test_heads_that_are_not_over_the_classes_get_no_label_names(tmp_path, num_classes):
    model = make_model(num_classes=num_classes)
    folder = export(model, tmp_path / 'model')
    config = read_config(folder)
    assert 'label_names' not in config and 'label_names' not in config['pretrained_cfg']
    assert exporting.load_classes(folder) == CLASSES
    exporting.export_model(model, tmp_path / 'unlabelled', classes=ClassInfo([], []), data_config=DATA)
    assert exporting.load_classes(tmp_path / 'unlabelled') == ClassInfo([], [])
    assert logits_of(timm.create_model(f'local-dir:{folder}', pretrained=True).eval()) == logits_of(model)


def test_next_stage_does_not_inherit_labels_or_paths(tmp_path):
    first = export(make_model(), tmp_path / 'first')
    model = timm.create_model(f'local-dir:{first}', pretrained=True)
    assert model.pretrained_cfg['label_names'] and model.pretrained_cfg['file'] == str(first)
    renamed = ClassInfo(list('VWXYZ'), CLASSES.counts)
    exporting.export_model(model, tmp_path / 'second', classes=renamed, data_config=DATA)
    text = (tmp_path / 'second' / 'config.json').read_text()
    assert 'Acer' not in text and str(tmp_path) not in text
    assert json.loads(text)['label_names'] == renamed.names


def test_absolute_path_is_refused_before_the_folder_appears(tmp_path):
    with pytest.raises(ValueError, match='data_dir is the absolute path'):
        export(make_model(), tmp_path / 'model', metadata={'args': [{'data_dir': str(tmp_path)}]})
    assert not (tmp_path / 'model').exists()


class Killed(BaseException):
    """Ends the export where it is, as SIGKILL would: nothing in it catches or cleans up."""


def test_killed_at_any_step_the_folder_is_complete_or_absent(tmp_path, monkeypatch):
    models = [make_model(seed) for seed in (1, 2)]
    folder = tmp_path / 'model'
    weights = {(export(m, tmp_path / f'reference{i}') / 'model.safetensors').read_bytes() for i, m in enumerate(models)}
    states = []

    def kill_before(step):
        export(models[0], folder)
        left = iter(range(step))

        def watch(call):
            def wrapper(*args, **kwargs):
                if next(left, None) is None:
                    raise Killed
                return call(*args, **kwargs)
            return wrapper

        def save_half(model, where, **kwargs):  # a kill in the midst of timm's writing
            Path(where).mkdir()
            if next(left, None) is None:
                (Path(where) / 'model.safetensors').write_bytes(b'half')
                raise Killed
            Path(where).rmdir()
            save(model, where, **kwargs)

        save = exporting.save_for_hf
        with monkeypatch.context() as patch:
            patch.setattr(exporting, 'save_for_hf', save_half)
            patch.setattr(exporting.os, 'rename', watch(os.rename))
            patch.setattr(exporting.os, 'fsync', watch(os.fsync))
            patch.setattr(exporting.shutil, 'rmtree', watch(exporting.shutil.rmtree))
            try:
                export(models[1], folder)
            except Killed:
                return True
        return False

    step = 0
    while kill_before(step):
        states.append(folder.exists())
        if folder.exists():
            assert is_complete(folder)
            assert (folder / 'model.safetensors').read_bytes() in weights
        step += 1
    assert step >= 9 and states.count(False) == 1  # only between the two renames
    assert sorted(p.name for p in tmp_path.iterdir()) == ['model', 'reference0', 'reference1']  # leftovers are cleared


def test_is_complete(tmp_path):
    folder = export(make_model(), tmp_path / 'model')
    assert is_complete(folder) and not is_complete(tmp_path) and not is_complete(tmp_path / 'none')
    config, weights = folder / 'config.json', folder / 'model.safetensors'
    for path, spoilt in ((weights, weights.read_bytes()[:-1]), (weights, b''), (config, config.read_bytes()[:-1]),
                         (config, b'{}')):
        whole = path.read_bytes()
        path.write_bytes(spoilt)
        assert not is_complete(folder)
        path.write_bytes(whole)
    weights.unlink()
    assert not is_complete(folder)


def test_find_model(tmp_path):
    one = export(make_model(), tmp_path / 'model')
    assert find_model(one) == find_model(tmp_path) == one
    run = tmp_path / 'recipe'
    for stage in ('2-finetune', '10-classifier'):
        (run / stage).mkdir(parents=True)
    export(make_model(), run / '2-finetune' / 'model')
    with pytest.raises(UserError, match='holds no complete model'):  # the last stage is not done
        find_model(run)
    assert find_model(run / '2-finetune') == run / '2-finetune' / 'model'
    last = export(make_model(), run / '10-classifier' / 'model')
    assert find_model(run) == last
