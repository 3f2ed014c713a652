"""The exported folder, its card, and a push to a hub on this machine, read back by stock timm."""
import json
import os
import re
import subprocess
import sys
from copy import deepcopy
from pathlib import Path

import pytest
import timm
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1] / 'helpers'))
from fake_hub import FakeHub  # noqa: E402

from timm_smalldata.cli import push  # noqa: E402
from timm_smalldata.data.classes import ClassInfo  # noqa: E402
from timm_smalldata.errors import UserError  # noqa: E402
from timm_smalldata.hub import export as exporting  # noqa: E402
from timm_smalldata.utils.model_folder import find_model, is_complete  # noqa: E402

CLASSES = ClassInfo(['Acer', 'Bär | x', 'Carex', 'Dahlia', 'Erica'], [200, 150, 40, 19, 4], 'ab' * 32)
DATA = dict(input_size=(3, 32, 32), mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.1), crop_pct=1.0, interpolation='bilinear')
REPORT = dict(top1=71.5, balanced_top1=60.25, many=80.0, medium=55.0, few=None, split='test', num_images=200)
ROOT = Path(__file__).parents[2]


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


# ------------------------------------------------------------------------------------------------------------ card


def test_card_says_what_was_measured_on_what(tmp_path, capsys):
    export(make_model(), tmp_path / 'model')
    (tmp_path / 'report.json').write_text(json.dumps(REPORT))
    push.main([str(tmp_path), 'me/plants', '--dry-run', '--license', 'mit'])
    said = capsys.readouterr().out
    assert 'me/plants (private)' in said and 'license: mit\n' in said
    assert '| 413 | 5 | Acer (200) | Erica (4) | 50 |' in said
    assert 'split `test` (200 images)' in said and '| 71.50 | 60.25 | 80.00 | 55.00 | – |' in said
    assert "timm.create_model('hf-hub:me/plants', pretrained=True)" in said
    assert 'import timm_smalldata' not in said  # a stock architecture needs nothing of ours


# ------------------------------------------------------------------------------------------------------------- hub

PUSH = '''
import json, os, sys
from timm_smalldata.cli.push import main
from timm_smalldata.errors import UserError
run = sys.argv[1]
results = {}

def push(name, *args):
    try:
        results[name] = main([run, *args])
    except UserError as error:
        results[name] = str(error)

push('first', 'me/plants')
(open(os.path.join(run, 'report.json'), 'w')).write('{"top1": 99.0, "split": "val"}')
push('again', 'me/plants')
push('replace', 'me/plants', '--replace-card')
push('leak', 'me/public')
push('open', 'me/open', '--public')
push('bad name', 'plants')
os.environ['HF_TOKEN'] = 'hf_bad'
push('bad token', 'me/plants')
del os.environ['HF_TOKEN']
push('no token', 'me/plants')
os.environ['HF_TOKEN'] = 'hf_good'
print('STOP', flush=True)
input()
push('down', 'me/plants')
json.dump(results, open(sys.argv[2], 'w'))
'''

LOAD = '''
import json, sys
sys.modules['timm_smalldata'] = None  # an import of it fails
import timm, torch
torch.set_num_threads(1)
results = []
for name in sys.argv[2:]:
    model = timm.create_model(name, pretrained=True).eval()
    with torch.no_grad():
        logits = model(torch.linspace(-2, 2, 2 * 3 * 32 * 32).view(2, 3, 32, 32)).tolist()
    data = timm.data.resolve_model_data_config(model)
    results.append([logits, model.pretrained_cfg['label_names'], data])
json.dump(results, open(sys.argv[1], 'w'))
'''


@pytest.fixture(scope='module')
def pushed(tmp_path_factory):
    """Push a run in one process, load it in another that cannot import this package; stop the hub before the end."""
    folder = tmp_path_factory.mktemp('hub')
    run = folder / 'run'
    run.mkdir()
    model = make_model()
    export(model, run / 'model')
    (run / 'report.json').write_text(json.dumps(REPORT))
    environment = {key: value for key, value in os.environ.items() if not key.startswith('HF_')}
    environment.update(HF_HOME=str(folder / 'home'), HF_TOKEN='hf_good', HF_HUB_DISABLE_XET='1', OMP_NUM_THREADS='1',
                       HF_HUB_DISABLE_TELEMETRY='1', NO_PROXY='127.0.0.1', PYTHONPATH=str(ROOT))
    with FakeHub(token='hf_good') as server:
        environment['HF_ENDPOINT'] = server.url
        server.repos['me/public'] = {'private': False, 'files': {}, 'commits': 0}
        push = subprocess.Popen([sys.executable, '-c', PUSH, str(run), str(folder / 'pushed.json')], env=environment,
                                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        said = []
        for line in push.stdout:
            if line == 'STOP\n':
                break
            said.append(line)
        else:
            pytest.fail(push.stderr.read())
        # -I: no PYTHONPATH, no current folder
        subprocess.run([sys.executable, '-I', '-c', LOAD, str(folder / 'loaded.json'), f'local-dir:{run / "model"}',
                        'hf-hub:me/plants'], env=environment, cwd=folder, check=True)
    _, errors = push.communicate('\n')
    assert push.returncode == 0, errors
    return dict(model=model, run=run, server=server, said=''.join(said),
                results=json.loads((folder / 'pushed.json').read_text()),
                loaded=json.loads((folder / 'loaded.json').read_text()))


def test_stock_timm_loads_the_same_model(pushed):
    expected = logits_of(pushed['model'])
    for logits, names, data in pushed['loaded']:  # from the folder, from the hub
        assert logits == expected
        assert names == CLASSES.names
        assert {key: tuple(data[key]) if isinstance(data[key], list) else data[key] for key in DATA} == DATA


def test_what_arrives_is_what_was_exported(pushed):
    files = pushed['server'].repos['me/plants']['files']
    assert set(files) == {'README.md', 'config.json', 'model.safetensors'}
    for name in ('config.json', 'model.safetensors'):
        assert files[name] == (pushed['run'] / 'model' / name).read_bytes()


def test_no_local_path_is_sent(pushed):
    sent = [content for repo in pushed['server'].repos.values() for content in repo['files'].values()]
    assert len(sent) == 6
    for content in [*sent, json.dumps(pushed['server'].requests).encode()]:
        assert str(pushed['run'].parent).encode() not in content and str(ROOT).encode() not in content
    for repo in pushed['server'].repos.values():
        for name in set(repo['files']) - {'model.safetensors'}:
            assert not re.search(rb'(?<![\w:/.])/\w+/', repo['files'][name]), f'{name} seems to hold an absolute path'


def test_private_unless_asked(pushed):
    created = [lines[0] for method, path, lines in pushed['server'].requests if path == '/api/repos/create']
    private = {body['name']: body.get('visibility') == 'private' or body.get('private') is True for body in created}
    assert private == {'plants': True, 'open': False}
    assert pushed['server'].repos['me/plants']['private'] and not pushed['server'].repos['me/open']['private']


def test_public_repository_gets_nothing_private(pushed):
    assert 'me/public exists and is public, so nothing was sent' in pushed['results']['leak']
    assert pushed['server'].repos['me/public'] == {'private': False, 'files': {}, 'commits': 0}


def test_card_stays_until_it_is_replaced(pushed):
    assert pushed['results']['first'] is pushed['results']['again'] is pushed['results']['replace'] is None
    assert pushed['said'].count('me/plants had a README.md already') == 1
    cards = [line['value']['content'] for _, path, lines in pushed['server'].requests if '/me/plants/commit' in path
             for line in lines if line['key'] == 'file' and line['value']['path'] == 'README.md']
    assert len(cards) == 2
    card = pushed['server'].repos['me/plants']['files']['README.md'].decode()
    assert '99.00' in card and '71.50' not in card and 'license: other' in card


@pytest.mark.parametrize('case, reason', [
    ('bad token', 'does not accept the token (401)'),
    ('no token', 'needs a token: set HF_TOKEN'),
    ('down', 'is out of reach'),
    ('bad name', "'plants' is not a repository name"),
])
def test_failure_is_one_line_that_says_how_to_go_on(pushed, case, reason):
    said = pushed['results'][case]
    assert reason in said and '\n' not in said and 'hf_' not in said
    name = 'owner/name' if case == 'bad name' else 'me/plants'
    assert said.endswith(f'The training results are saved; push them later with: '
                         f'timm-smalldata push {pushed["run"]} {name}')
