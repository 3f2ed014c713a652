"""Sources behind names and paths: what is found, in which order, under which label."""
import hashlib
import pickle
import tarfile
from importlib.util import find_spec

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import CIFAR10

from timm_smalldata.data import readers
from timm_smalldata.errors import UserError


def labelled(source):
    """Class name by image name."""
    return {name: source.classes[target] for name, target in zip(source.names, source.targets)}


def write_tar(path, folder, arcname):
    with tarfile.open(path, 'w') as tar:
        tar.add(folder, arcname=arcname)
    return path


def touch(root, names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


# --- folders and tars -----------------------------------------------------------------------------------------------

def test_folder(photos):
    source, note = readers.folder_source(photos)
    assert source.classes == ['ant', 'bee', 'cat'] and note == ''
    assert np.bincount(source.targets).tolist() == [12, 8, 6]
    assert labelled(source) == {f.relative_to(photos).as_posix(): f.parent.name for f in photos.glob('*/*')}
    for index in (0, 25):
        assert source.raw(index) == (photos / source.names[index]).read_bytes()
        image, label = source.read(index)
        assert image.mode == 'RGB' and label == source.targets[index]
        assert np.array_equal(image, Image.open(photos / source.names[index]).convert('RGB'))


def test_suffixes_in_upper_case_count_as_well(photo_folder):
    source, _ = readers.folder_source(photo_folder('up', {'a': 3, 'b': 3}, suffixes=('.JPG', '.PNG', '.Jpeg')))
    assert len(source) == 6


def test_other_files_are_no_images(photos):
    (photos / 'ant' / 'notes.txt').write_text('x')
    (photos / 'README.md').write_text('x')
    assert len(readers.folder_source(photos)[0]) == 26


def test_classes_are_in_natural_order(photo_folder):
    source, _ = readers.folder_source(photo_folder('n', {'10': 1, '9': 1, '1': 2, 'b 2': 1, 'b 10': 1, 'Ähre': 1}))
    assert source.classes == ['1', '9', '10', 'b 2', 'b 10', 'Ähre']
    assert labelled(source)['10/0.png'] == '10'


def test_an_empty_class_folder_is_no_class(photos):
    (photos / 'dog').mkdir()
    assert readers.folder_source(photos)[0].classes == ['ant', 'bee', 'cat']


def test_links_to_folders_are_followed(photos, tmp_path):
    (tmp_path / 'linked').mkdir()
    for name in ('ant', 'bee'):
        (tmp_path / 'linked' / name).symlink_to(photos / name, target_is_directory=True)
    assert len(readers.folder_source(tmp_path / 'linked')[0]) == 20


@pytest.mark.parametrize('arcname, prefix', [('', ''), ('.', ''), ('photos', 'photos/')])
def test_tar_holds_what_the_folder_holds(photos, tmp_path, arcname, prefix):
    path = tmp_path / 'p.tar'
    with tarfile.open(path, 'w') as tar:
        for file in sorted(photos.glob('*/*')):
            tar.add(file, f'{arcname}/{file.relative_to(photos)}' if arcname else str(file.relative_to(photos)))
    folder, (source, _) = readers.folder_source(photos)[0], readers.folder_source(path)
    assert source.classes == folder.classes
    assert labelled(source) == {prefix + name: label for name, label in labelled(folder).items()}
    where = {name: i for i, name in enumerate(folder.names)}
    for index in (0, 11, 25):
        assert source.raw(index) == folder.raw(where[source.names[index].removeprefix(prefix)])


@pytest.mark.parametrize('rule, names, labels, said', [
    ('auto', ['insects/ant/1.jpg', 'insects/bee/1.jpg', 'mammals/cat/1.jpg'], ['ant', 'bee', 'cat'], 'innermost'),
    ('first', ['insects/ant/1.jpg', 'insects/b/1.jpg', 'mammals/c/1.jpg'], ['insects', 'insects', 'mammals'], 'first'),
    # the same innermost name below two parents
    ('auto', ['ant/young/1.jpg', 'ant/old/1.jpg', 'bee/young/1.jpg'], ['ant', 'ant', 'bee'], 'first'),
    ('leaf', ['ant/young/1.jpg', 'ant/old/1.jpg', 'bee/young/1.jpg'], ['young', 'old', 'young'], 'innermost'),
    # images both in a folder and below it
    ('auto', ['ant/1.jpg', 'ant/more/1.jpg', 'bee/1.jpg'], ['ant', 'ant', 'bee'], 'first'),
    ('auto', ['ant/a/b/1.jpg', 'ant/a/2.jpg', 'bee/1.jpg'], ['ant', 'ant', 'bee'], 'first'),
    ('auto', ['ant/1.jpg', 'bee/1.jpg'], ['ant', 'bee'], ''),
])
def test_labels_of_nested_folders(tmp_path, rule, names, labels, said):
    touch(tmp_path / 'd', names)
    source, note = readers.folder_source(tmp_path / 'd', rule)
    assert labelled(source) == dict(zip(names, labels))
    assert note.startswith(f'nested folders: the {said}') if said else note == ''


@pytest.mark.parametrize('kind', ['folder', 'tar'])
def test_images_without_a_class_folder_are_an_error(tmp_path, kind):
    touch(tmp_path / 'd', ['ant/1.jpg', 'bee/1.jpg', 'lost.jpg'])
    path = tmp_path / 'd' if kind == 'folder' else write_tar(tmp_path / 'd.tar', tmp_path / 'd', '.')
    with pytest.raises(UserError, match=r'1 images lie directly in .* \(first: lost.jpg\)'):
        readers.folder_source(path)


@pytest.mark.parametrize('content', [b'', b'no tar' * 999, None])
def test_a_tar_that_cannot_be_read(tmp_path, photos, content):
    path = write_tar(tmp_path / 'p.tar', photos, 'photos')
    path.write_bytes(path.read_bytes()[:20000] if content is None else content)
    with pytest.raises(UserError, match='p.tar'):
        readers.folder_source(path)


def test_a_folder_without_images(tmp_path):
    touch(tmp_path, ['d/ant/notes.txt'])
    with pytest.raises(UserError, match=r'No images found in .*d: expected .*CLASS/\*.jpg'):
        readers.folder_source(tmp_path / 'd')


# --- named data sets ------------------------------------------------------------------------------------------------

CIFAR_NAMES = ['airplane', 'automobile', 'bird', 'cat', 'deer', 'dog', 'frog', 'horse', 'ship', 'truck']


@pytest.fixture
def cifar(tmp_path, monkeypatch):
    """CIFAR-10's official layout with 20 + 10 made-up images; torchvision is told the checksums of these files."""
    rng, folder = np.random.RandomState(0), tmp_path / 'cifar' / CIFAR10.base_folder
    folder.mkdir(parents=True)

    def write(name, content):
        (folder / name).write_bytes(pickle.dumps(content))
        return hashlib.md5((folder / name).read_bytes()).hexdigest()

    def batch(labels):
        return {'labels': labels, 'data': rng.randint(0, 256, (len(labels), 3072)).astype(np.uint8)}

    batches = {f'data_batch_{i}': batch([(4 * i + j) % 10 for j in range(4)]) for i in range(1, 6)}
    monkeypatch.setattr(CIFAR10, 'train_list', [[name, write(name, content)] for name, content in batches.items()])
    monkeypatch.setattr(CIFAR10, 'test_list', [['test_batch', write('test_batch', batch(list(range(10))))]])
    checksum = write('batches.meta', {'label_names': CIFAR_NAMES})
    monkeypatch.setattr(CIFAR10, 'meta', {'filename': 'batches.meta', 'key': 'label_names', 'md5': checksum})
    return tmp_path / 'cifar', batches


def test_cifar(cifar):
    root, batches = cifar
    source = readers.torch_source('torch/cifar10', str(root), 'train', False)
    assert source.classes == CIFAR_NAMES
    assert source.targets.tolist() == [label for content in batches.values() for label in content['labels']]
    pixels = batches['data_batch_3']['data'][1].reshape(3, 32, 32).transpose(1, 2, 0)  # image 9 of the official order
    image, label = source.read(9)
    assert np.array_equal(image, pixels) and label == source.targets[9] and source.raw(9) == pixels.tobytes()
    assert len(readers.torch_source('torch/cifar10', str(root), 'validation', False)) == 10


def test_cifar_through_the_train_command(cifar, divided):
    """Training images are held out for val; torchvision's test part is the test split, used once."""
    data = divided(['--dataset', 'torch/cifar10', '--data-dir', str(cifar[0])])
    assert (len(data.train), data.val, len(data.test)) == (20, None, 10)  # two images a class: none is held out
    data = divided(['--dataset', 'torch/cifar10', '--data-dir', str(cifar[0]), '--val-split', 'validation'])
    assert (len(data.train), len(data.val), data.test) == (20, 10, None)
    assert data.classes.names == CIFAR_NAMES


def test_torchvision_folder(photo_folder, tmp_path):
    photo_folder('d/train'), photo_folder('d/validation', {'ant': 2, 'bee': 2, 'cat': 2})
    train = readers.torch_source('torch/image_folder', str(tmp_path / 'd'), 'train', False)
    assert np.bincount(train.targets).tolist() == [12, 8, 6] and train.classes == ['ant', 'bee', 'cat']
    assert len(readers.torch_source('torch/image_folder', str(tmp_path / 'd'), 'validation', False)) == 6


@pytest.mark.parametrize('name, message', [
    ('torch/cifar10', '--dataset-download'), ('torch/image_folder', 'image_folder'), ('torch/cifar11', 'cifar11')])
def test_torchvision_data_that_are_not_there(tmp_path, name, message):
    with pytest.raises(UserError, match=message):
        readers.torch_source(name, str(tmp_path / 'nope'), 'train', False)


def test_hugging_face_without_the_extra(monkeypatch):
    import sys
    monkeypatch.setitem(sys.modules, 'datasets', None)
    with pytest.raises(UserError, match=r"hfds/me/photos needs the extra: pip install 'timm-smalldata\[hfds\]'"):
        readers.hfds_source('hfds/me/photos', None, 'train', '', '', False)


@pytest.mark.skipif(find_spec('datasets') is None, reason="the extra 'datasets' is not installed")
def test_hugging_face(tmp_path):
    import datasets
    images = [Image.fromarray(np.full((8, 8, 3), 40 * i, dtype=np.uint8)) for i in range(4)]
    features = datasets.Features({'image': datasets.Image(), 'label': datasets.ClassLabel(names=['ant', 'bee'])})
    folder = tmp_path / 'hf'
    folder.mkdir()
    datasets.Dataset.from_dict({'image': images, 'label': [0, 1, 1, 0]}, features=features).to_parquet(
        str(folder / 'train.parquet'))
    source = readers.hfds_source(f'hfds/{folder}', None, 'train', '', '', False)
    assert source.targets.tolist() == [0, 1, 1, 0] and source.classes == ['ant', 'bee']
    assert [np.asarray(source.read(i)[0])[0, 0, 0] for i in range(4)] == [0, 40, 80, 120]


# --- classes ----------------------------------------------------------------------------------------------------------

def test_relabel_puts_names_where_the_list_has_them(photos):
    source, _ = readers.folder_source(photos)
    assert readers.relabel(source, ['ant', 'bee', 'cat']) is source
    moved = readers.relabel(source, ['cat', 'dog', 'ant', 'bee'])
    assert labelled(moved) == labelled(source) and np.bincount(moved.targets).tolist() == [6, 0, 12, 8]


def test_hidden_files_are_no_images(photo_folder, divided, tmp_path):
    root = photo_folder('photos', {'ant': 8, 'bee': 8})
    photo_folder('photos/.ipynb_checkpoints', {'ant': 2})
    (root / 'ant' / '._0.png').write_bytes(b'resource fork')
    data = divided([root])
    assert data.classes.names == ['ant', 'bee']
    assert sum(map(len, (data.train, data.val, data.test))) == 16
    assert any('3 hidden files' in note for note in data.notes)
