"""Names that timm does not export at a package's top: a test for each, so that a move is seen at once."""
from timm_smalldata import _compat


def test_readers_have_samples_and_open_files(photos):
    reader = _compat.reader('folder')(str(photos))
    stream, target = reader[0]
    with stream:
        assert stream.read(2) in (b'\xff\xd8', b'\x89P')
    assert target == reader.samples[0][1]


def test_tar_reader_exists():
    assert hasattr(_compat.reader('tar'), '__getitem__')


def test_class_map(tmp_path):
    path = tmp_path / 'classes.txt'
    path.write_text('b\na\n')
    assert _compat.load_class_map(str(path)) == {'b': 0, 'a': 1}


def test_readme_text():
    assert 'library_name: timm' in _compat.generate_readme({'details': {}}, 'name')


def test_tokens_of_a_vit_are_what_its_blocks_get():
    import timm
    import torch
    model, seen = timm.create_model('test_vit').eval(), []
    model.blocks[0].register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    images = torch.randn(1, 3, 160, 160)
    model(images)
    assert torch.equal(_compat.vit_tokens(model, images), seen[0])


def test_operation_on_an_image():
    from PIL import Image, ImageOps
    image = Image.linear_gradient('L').convert('RGB')
    assert _compat.augment_op('Solarize', 1.0, 5)(image).tobytes() == ImageOps.solarize(image, 128).tobytes()
