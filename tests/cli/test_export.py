"""The export command: a file that says what the model says, for batches of any size, with its names in it."""
import json
import sys

import pytest
import timm
import torch

from timm_smalldata.cli.export import main
from timm_smalldata.data.classes import ClassInfo
from timm_smalldata.hub.export import export_model

NAMES = ['ant', 'bee <b>', '猫']
CONFIG = dict(input_size=(3, 32, 32), mean=(.5, .4, .3), std=(.2, .2, .1), crop_pct=0.9, interpolation='bilinear')


@pytest.fixture
def trained(tmp_path):
    """A run folder, and its model."""
    torch.manual_seed(0)
    model = timm.create_model('test_vit', img_size=32, num_classes=3)
    (tmp_path / 'run').mkdir()
    (tmp_path / 'run' / 'args.yaml').write_text('{}')
    export_model(model, tmp_path / 'run' / 'model', classes=ClassInfo(NAMES, [3, 4, 5]), data_config=CONFIG,
                 metadata=dict(temperature=1.5))
    return tmp_path / 'run', model.eval()


def check(metadata):
    assert metadata['label_names'] == NAMES and metadata['temperature'] == 1.5
    assert metadata['preprocessing'] == dict(
        input_size=[3, 32, 32], mean=[.5, .4, .3], std=[.2, .2, .1], crop_pct=0.9, interpolation='bilinear',
        crop_mode='center')


def test_a_program_of_torch_export(trained, capsys):
    run, model = trained
    assert main([str(run), '--format', 'torch-export']) == 0
    assert 'checked: ' in capsys.readouterr().out
    extra = {'metadata.json': ''}
    program = torch.export.load(run / 'export' / 'model.pt2', extra_files=extra).module()
    check(json.loads(extra['metadata.json']))
    x = torch.randn(5, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(program(x), model(x), rtol=1e-4, atol=1e-5)
    assert [path.name for path in (run / 'export').iterdir()] == ['model.pt2']


def test_onnx(trained, tmp_path, capsys):
    onnx = pytest.importorskip('onnx', reason='the extra onnx is not installed')
    runtime = pytest.importorskip('onnxruntime', reason='the extra onnx is not installed')
    pytest.importorskip('onnxscript', reason='the extra onnx is not installed')
    run, model = trained
    capsys.readouterr()
    assert main([str(run), '--output', str(tmp_path / 'out'), '--json']) == 0
    file = tmp_path / 'out' / 'model.onnx'
    assert '"difference"' in capsys.readouterr().out
    check({prop.key: json.loads(prop.value) for prop in onnx.load(str(file)).metadata_props})
    x = torch.randn(5, 3, 32, 32)
    logits = runtime.InferenceSession(str(file), providers=['CPUExecutionProvider']).run(None, {'image': x.numpy()})[0]
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(logits), model(x), rtol=1e-3, atol=1e-4)


def test_without_the_extra_it_is_named(trained, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, 'onnxruntime', None)
    assert main([str(trained[0])]) == 2
    err = capsys.readouterr().err
    assert err.startswith('error: ') and err.count('\n') == 1 and "pip install 'timm-smalldata[onnx]'" in err


def test_a_file_that_says_something_else_is_not_kept(trained, monkeypatch, capsys):
    from timm_smalldata.hub import deploy
    run, model = trained
    monkeypatch.setattr(deploy, '_load_program', lambda path: lambda x: model(x) * 2)
    (run / 'export').mkdir()
    (run / 'export' / 'model.pt2').write_bytes(b'before')
    assert main([str(run), '--format', 'torch-export']) == 2
    assert 'says something else' in capsys.readouterr().err
    assert (run / 'export' / 'model.pt2').read_bytes() == b'before' and len(list((run / 'export').iterdir())) == 1


@pytest.mark.parametrize('argv, words', [(['nowhere'], 'Unknown model'), (['RUN', '--format', 'tflite'], 'tflite')])
def test_what_cannot_be_done_is_one_line(trained, argv, words, capsys):
    assert main([str(trained[0]) if word == 'RUN' else word for word in argv]) == 2
    err = capsys.readouterr().err
    assert err.startswith('error: ') and err.count('\n') == 1 and words in err
