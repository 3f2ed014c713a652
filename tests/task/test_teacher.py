"""A teacher comes from a run, a folder, a file or timm; its classes are matched by name; what does not fit is told."""
import pytest
import timm
import torch

from timm_smalldata.build.trained import load_teacher
from timm_smalldata.data.classes import ClassInfo
from timm_smalldata.errors import UserError
from timm_smalldata.hub.export import export_model
from timm_smalldata.task.teacher import check_size, match_classes

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


def test_from_a_run_or_its_model(trained):
    folder, model = trained
    x = torch.randn(2, 3, 32, 32)
    for name in (str(folder / 'run'), f"local-dir:{folder / 'run' / 'model'}"):
        teacher, names = load_teacher(name, None, 2)
        assert names == NAMES and torch.equal(teacher(x), model(x)) and not teacher.training
        assert not any(p.requires_grad for p in teacher.parameters())


def test_from_the_hub(trained, monkeypatch):
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


def test_from_a_file_nothing_is_downloaded(tmp_path):
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


def test_classes_are_matched_by_name():
    assert match_classes(NAMES, 2, ['ant', 'bee'], 'x') == [1, 0]
    assert match_classes(NAMES, 2, NAMES, 'x') is None and match_classes(None, 2, NAMES, 'x') is None
    for names in (['bee', 'cat'], ['bee'], ['ant', 'bee', 'cat']):
        with pytest.raises(UserError, match=f'(?=.*{", ".join(names)})(?=.*ant, bee)'):
            match_classes(names, len(names), ['ant', 'bee'], 'x')
    with pytest.raises(UserError, match='1000 outputs.*2 classes: bee, ant'):
        match_classes(None, 1000, NAMES, 'x')


def test_a_size_that_it_cannot_take():
    model = timm.create_model('test_vit', num_classes=2, img_size=32)
    check_size(model, (32, 32), 2, 'x')
    with pytest.raises(UserError, match='--teacher x cannot take RGB images of 24 x 24 pixels'):
        check_size(model, (24, 24), 2, 'x')
    with pytest.raises(UserError, match='not .1, 3. logits'):
        check_size(model, (32, 32), 3, 'x')
