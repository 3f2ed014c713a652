"""Trained weights are found in a run, a folder, a file, on the hub or in timm; what cannot be loaded is told."""
from argparse import Namespace

import pytest
import timm
import torch

from timm_smalldata.build.trained import load_teacher
from timm_smalldata.build.weights import Place, find_place, open_weights
from timm_smalldata.data.classes import ClassInfo
from timm_smalldata.errors import UserError
from timm_smalldata.hub.export import export_model

CONFIG = dict(input_size=(3, 32, 32), mean=(0.5,) * 3, std=(0.5,) * 3, crop_pct=1.0, interpolation='bicubic')
NAMES = ['bee', 'ant']


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError('something was to be downloaded')
    monkeypatch.setattr('timm.models._builder.load_state_dict_from_hf', refuse)
    monkeypatch.setattr('timm.models._builder.load_state_dict_from_url', refuse)


@pytest.fixture
def trained(tmp_path):
    """A run folder with a model in it, and that model."""
    model = timm.create_model('resnet20_cifar', num_classes=2, head='cosine')
    (tmp_path / 'run').mkdir()
    export_model(model, tmp_path / 'run' / 'model', classes=ClassInfo(NAMES, [3, 4]), data_config=CONFIG)
    return tmp_path, model.eval()


def test_teacher_from_a_run_or_its_model(trained):
    folder, model = trained
    x = torch.randn(2, 3, 32, 32)
    for name in (str(folder / 'run'), f"local-dir:{folder / 'run' / 'model'}"):
        teacher, names = load_teacher(name, None, 2)
        assert names == NAMES and torch.equal(teacher(x), model(x)) and not teacher.training
        assert not any(p.requires_grad for p in teacher.parameters())


def test_teacher_from_the_hub(trained, monkeypatch):
    """With the one function replaced that fetches a file."""
    import timm.models._hub
    folder, model = trained
    asked = []

    def fetch(repo_id, filename, **_):
        asked.append(repo_id)
        return str(folder / 'run' / 'model' / filename)

    monkeypatch.setattr('timm.models._hub.hf_hub_download', fetch)
    monkeypatch.setattr('timm.models._builder.load_state_dict_from_hf', timm.models._hub.load_state_dict_from_hf)
    x = torch.randn(2, 3, 32, 32)
    teacher, names = load_teacher('hf-hub:me/teacher', None, 2)
    assert names == NAMES and torch.equal(teacher(x), model(x)) and set(asked) == {'me/teacher'}


def test_teacher_from_a_file_nothing_is_downloaded(tmp_path):
    model = timm.create_model('test_resnet', num_classes=2)  # a name with weights on the hub
    x, path = torch.randn(2, 3, 32, 32), str(tmp_path / 'w.pth')
    wrapped = {f'module.{name}': value for name, value in model.state_dict().items()}
    torch.save(wrapped, path)
    teacher, names = load_teacher('test_resnet', path, 2)
    assert names is None and torch.equal(teacher(x), model.eval()(x))
    torch.save(dict(state_dict=model.state_dict(), epoch=0, classes=dict(names=NAMES, counts=[1, 2])), path)
    assert load_teacher('test_resnet', path, 5)[1] == NAMES  # a checkpoint tells its classes


@pytest.mark.parametrize('name, path, words', [
    ('nothing', None, 'neither the folder of a finished run nor a model of timm'),
    ('resnet20_cifar', None, 'no weights.*--teacher-path'), ('resnet20_cifar', 'none.pth', 'none.pth: no such file'),
    ('run', 'none.pth', 'goes with a name of timm'), ('local-dir:none', None, 'cannot be loaded'),
    ('resnet20_cifar', 'torn.pth', 'cannot be loaded'), ('resnet20_cifar', 'other.pth', 'cannot be loaded'),
    ('empty', None, 'no complete model'), ('run-features', None, 'features, not classes')])
def test_what_is_no_teacher_is_told_in_one_line(trained, monkeypatch, name, path, words):
    folder = trained[0]
    monkeypatch.chdir(folder)
    (folder / 'torn.pth').write_bytes(b'torn')
    (folder / 'empty').mkdir()
    torch.save(timm.create_model('resnet20_cifar', num_classes=3).state_dict(), 'other.pth')
    if name == 'run-features':
        export_model(timm.create_model('resnet20_cifar', num_classes=0), folder / name,
                     classes=ClassInfo(NAMES, [3, 4]), data_config=CONFIG)
    with pytest.raises(UserError, match=words) as error:
        load_teacher(name, path, 2)
    assert '--teacher' in str(error.value) or 'empty' in str(error.value)


def test_places(trained, monkeypatch):
    folder = trained[0]
    monkeypatch.chdir(folder)
    model = folder / 'run' / 'model'
    for name in ('run', 'run/model', 'local-dir:run', 'local-dir:run/model'):
        place = find_place(name)
        assert place.folder.resolve() == model and place.name == f'local-dir:{place.folder}' and not place.registered
    assert find_place('hf-hub:me/teacher') == Place('hf-hub:me/teacher')
    (folder / 'resnet18').mkdir()
    assert find_place('resnet18') == Place('resnet18', registered=True)  # also beside a folder of that name
    (folder / 'run').rename(folder / 'resnet18.runs')
    assert find_place('resnet18.runs/model').name == 'local-dir:resnet18.runs/model'
    assert find_place('resnet18.runs/weights.pth') is None  # a file goes with a name
    assert find_place('nothing') is None and find_place('weights.pth') is None
    (folder / 'empty').mkdir()
    with pytest.raises(UserError, match='no complete model'):
        find_place('empty')


def test_what_weights_say_of_their_head(trained):
    folder, model = trained
    opened = open_weights(folder / 'run' / 'model')
    assert (opened.names, opened.head, opened.saved) == (NAMES, 'cosine', None)
    assert set(opened.read()) == set(model.state_dict())

    def names_of(**args):
        torch.save(dict(state_dict=model.state_dict(), epoch=3, classes=dict(names=NAMES, counts=[1, 2]),
                        args=Namespace(**args)), folder / 'last.pth.tar')
        found = open_weights(folder / 'last.pth.tar')
        assert found.saved is not None and found.saved['epoch'] == 3
        return found.names, found.head

    assert names_of(task='classification', head='cosine') == (NAMES, 'cosine')
    assert names_of(task='classification') == (NAMES, 'linear')  # an older run, without that flag
    assert names_of(task='idmm')[0] is None  # it has classes, and no head for them
    torch.save(model.state_dict(), folder / 'alone.pth')
    assert open_weights(folder / 'alone.pth').names is None and open_weights(folder / 'alone.pth').saved is None
    with pytest.raises(FileNotFoundError):
        open_weights(folder / 'run')
    (folder / 'run' / 'model' / 'config.json').write_text('{')
    with pytest.raises(ValueError, match='its config.json cannot be read'):
        open_weights(folder / 'run' / 'model')
