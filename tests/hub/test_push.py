"""A push to a hub on this machine: what arrives, what does not, and that it loads again."""
import getpass
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / 'helpers'))
from fake_hub import FakeHub  # noqa: E402

from timm_smalldata.cli import push  # noqa: E402
from timm_smalldata.data.classes import ClassInfo  # noqa: E402
from timm_smalldata.errors import UserError  # noqa: E402
from timm_smalldata.hub.export import export_model  # noqa: E402

CLASSES = ClassInfo(['Acer', 'Bär | x', 'Carex', 'Dahlia', 'Erica'], [200, 150, 40, 19, 4], 'ab' * 32)
DATA = dict(input_size=(3, 32, 32), mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.1), crop_pct=1.0, interpolation='bilinear')
ROOT = Path(__file__).parents[2]
IMAGES = ['Acer/herbarium sheet 81.jpg', 'Carex/IMG_20240131.jpg']


def make_run(folder, architecture='vit_tiny_patch16_224', **kwargs):
    """Return a run folder and its model; the command and the settings speak of private places."""
    torch.manual_seed(0)
    small = dict(img_size=32, patch_size=4, embed_dim=96, depth=2, num_heads=3) if 'tiny' in architecture else dict(
        img_size=32)
    model = timm.create_model(architecture, num_classes=5, **{**small, **kwargs}).eval()
    folder.mkdir()
    export_model(model, folder / 'model', classes=CLASSES, data_config=DATA, metadata=dict(temperature=1.25))
    data = folder.parent / 'secret client' / 'plants'
    write_report(folder, 71.5)
    (folder / 'args.yaml').write_text(json.dumps(dict(data_dir=str(data), loss='balanced-bce', epochs=3, opt='adamw')))
    (folder / 'split.json').write_text(json.dumps(dict(sha256='cd' * 32, split=dict(train=IMAGES, test=[]))))
    (folder / 'environment.json').write_text(json.dumps(dict(
        command=f"python {ROOT}/train_smalldata.py '{data}' --loss balanced-bce --output {folder.parent} --recipe livt",
        versions={'timm': '1.0.31'})))
    (folder / 'per_class.csv').write_text(
        'class,train_images,images,hits,recall,lo,hi,group,mark\n' + ''.join(
            f'{name},{count},40,{20 + i},{50 + 2.5 * i},{35 + i},{65 + i},{group},\n' for i, (name, count, group) in
            enumerate(zip(CLASSES.names, CLASSES.counts, ['many', 'many', 'medium', 'few', 'few']))))
    return model


def write_report(folder, top1):
    (folder / 'report.json').write_text(json.dumps(dict(
        top1=top1, balanced_top1=60.25, many=80.0, medium=55.0, few=None, split='test', num_images=200,
        intervals=dict(top1=[65.0, 77.0]), shot_groups='counts:100,20')))


def logits_of(model):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in the processes that are compared with
    try:
        with torch.no_grad():
            return model(torch.linspace(-2, 2, 2 * 3 * 32 * 32).view(2, 3, 32, 32)).tolist()
    finally:
        torch.set_num_threads(threads)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub that this process pushes to, with a good token."""
    import huggingface_hub.constants
    import huggingface_hub.utils._http as http
    with FakeHub() as server:
        monkeypatch.setattr(huggingface_hub.constants, 'ENDPOINT', server.url)
        monkeypatch.setattr(huggingface_hub.constants, 'HF_HUB_DISABLE_XET', True)
        monkeypatch.setattr(http.time, 'sleep', lambda seconds: None)  # between its tries
        monkeypatch.setenv('NO_PROXY', '127.0.0.1')
        monkeypatch.setenv('HF_TOKEN', 'hf_good')
        yield server


@pytest.fixture
def run(tmp_path):
    make_run(tmp_path / 'run')
    return tmp_path / 'run'


def pushed(capsys, *argv):
    push.main([str(word) for word in argv])
    return capsys.readouterr().out


def refused(*argv):
    with pytest.raises(UserError) as error:
        push.main([str(word) for word in argv])
    assert '\n' not in str(error.value) and 'hf_' not in str(error.value)
    return str(error.value)


# ----------------------------------------------------------------------------------------------------- what arrives


def test_every_file_is_listed_first_and_arrives_as_it_was_exported(hub, run, capsys):
    said = pushed(capsys, run, 'me/plants')
    repo = hub.repos['me/plants']
    assert set(repo.files) == {'README.md', 'recall.png', 'config.json', 'model.safetensors'}
    for name, content in repo.files.items():
        assert re.search(rf'{name} +{len(content):,} bytes', said)
    for name in ('config.json', 'model.safetensors'):
        assert repo.files[name] == (run / 'model' / name).read_bytes()
    from PIL import Image
    assert Image.open(io.BytesIO(repo.files['recall.png'])).format == 'PNG'
    assert len(repo.revisions) == 2  # the empty one, and one with all files
    assert pushed(capsys, run, 'me/plants', '--dry-run').count(' bytes\n') == 4 and len(repo.revisions) == 2


def test_private_unless_asked(hub, run, capsys):
    pushed(capsys, run, 'me/plants'), pushed(capsys, run, 'me/open', '--public')
    assert hub.repos['me/plants'].private and not hub.repos['me/open'].private
    open_before = hub.add('me/known', private=False)
    assert 'me/known exists and is public, so nothing was sent' in refused(run, 'me/known')
    assert open_before.files == {}


def test_card_stays_until_it_is_replaced(hub, run, capsys):
    pushed(capsys, run, 'me/plants')
    write_report(run, 99.0)
    said = pushed(capsys, run, 'me/plants')
    repo = hub.repos['me/plants']
    assert 'me/plants has a README.md already' in said and '71.50' in repo.files['README.md'].decode()
    pushed(capsys, run, 'me/plants', '--replace-card')
    assert '99.00' in repo.files['README.md'].decode() and '71.50' not in repo.files['README.md'].decode()
    oid = [line['value']['oid'] for _, path, lines in hub.requests if path.endswith('/commit/main') for line in lines
           if line['key'] == 'lfsFile' and line['value']['path'] == 'model.safetensors']
    assert len(oid) == 1  # equal weights are sent once


# ---------------------------------------------------------------------------------------------- nothing private leaves


def test_nothing_private_is_sent(hub, run, capsys, monkeypatch):
    monkeypatch.setattr(getpass, 'getuser', lambda: 'annabel')
    monkeypatch.setattr('platform.node', lambda: 'lab-7.example.org')
    pushed(capsys, run, 'annabel-x/plants')
    sent = b'\n'.join([*hub.bodies, *hub.stored.values(), *hub.repos['annabel-x/plants'].files.values()])
    for word in (str(run.parent), 'secret client', str(ROOT), str(Path.home()) + '/', 'lab-7', 'herbarium',
                 'IMG_20240131'):
        assert word.encode() not in sent, word
    assert not re.search(rb'annabel(?!-x)', sent)


@pytest.mark.parametrize('leak, what', [
    ('{home}/x', 'your home folder'), ('annabel', 'your user name'), ('lab-7.example.org', 'the name of this machine'),
    ('{data}', 'the path of the images'), ('IMG_20240131.jpg', 'the name of an image')])
def test_what_is_private_is_found_in_each_file(hub, run, capsys, monkeypatch, leak, what):
    monkeypatch.setattr(getpass, 'getuser', lambda: 'annabel')
    monkeypatch.setattr('platform.node', lambda: 'lab-7.example.org')
    leak = leak.format(home=Path.home(), data=run.parent / 'secret client' / 'plants')
    config, clean = run / 'model' / 'config.json', (run / 'model' / 'config.json').read_text()
    config.write_text(json.dumps({**json.loads(clean), 'note': f'of {leak}'}))
    said = refused(run, 'me/plants')
    assert said.startswith(f'config.json would tell {what} (') and 'so nothing was sent' in said
    assert not hub.requests
    config.write_text(clean)
    weights = run / 'model' / 'model.safetensors'
    content = weights.read_bytes()
    end = 8 + int.from_bytes(content[:8], 'little')
    header = json.dumps({'__metadata__': {'from': leak}, **json.loads(content[8:end])}).encode()
    weights.write_bytes(len(header).to_bytes(8, 'little') + header + content[end:])
    assert refused(run, 'me/plants').startswith(f'model.safetensors would tell {what} (')


def test_a_word_that_is_no_secret_can_be_allowed(hub, run, capsys, monkeypatch):
    monkeypatch.setattr(getpass, 'getuser', lambda: 'Carex')  # a class is called like that, too
    assert "would tell your user name ('Carex')" in refused(run, 'me/plants')
    pushed(capsys, run, 'me/plants', '--allow', 'Carex')
    assert 'Carex' in hub.repos['me/plants'].files['README.md'].decode()


# ------------------------------------------------------------------------------------------------------- what fails


@pytest.mark.parametrize('where', ['/storage/', '/preupload/', '/commit/'])
def test_a_push_that_is_cut_off_leaves_no_half_revision(hub, run, capsys, where):
    pushed(capsys, run, 'me/plants')
    repo = hub.repos['me/plants']
    before = list(repo.revisions)
    write_report(run, 99.0)
    content = bytearray((run / 'model' / 'model.safetensors').read_bytes())
    content[-1] ^= 1
    (run / 'model' / 'model.safetensors').write_bytes(content)
    hub.cut = [where]
    assert 'Nothing of it is in the repository' in refused(run, 'me/plants', '--replace-card')
    assert repo.revisions == before
    hub.cut = []
    pushed(capsys, run, 'me/plants', '--replace-card')
    assert len(repo.revisions) == len(before) + 1 and repo.files['model.safetensors'] == content


@pytest.mark.parametrize('token, reason', [
    ('hf_bad', 'does not accept the token (401)'), ('hf_read', 'the token may not write there (403)'),
    ('', 'needs a token: set HF_TOKEN')])
def test_a_token_that_will_not_do_is_said_with_the_command_for_later(hub, run, monkeypatch, token, reason):
    monkeypatch.setenv('HF_TOKEN', token)
    monkeypatch.setattr('huggingface_hub.get_token', lambda: token or None)
    said = refused(run, 'me/plants')
    assert reason in said and said.endswith(
        f'The training results are saved; push them later with: timm-smalldata push {run} me/plants')
    assert not hub.repos


def test_a_hub_out_of_reach_and_a_name_that_is_none(hub, run):
    hub.cut = ['/api/']
    assert 'is out of reach' in refused(run, 'me/plants')
    assert "'plants' is not a repository name" in refused(run, 'plants')


# ------------------------------------------------------------------------------------------------------ loaded again

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


def elsewhere(hub, folder, code, *argv, ours):
    """Run code in a fresh process that can import this package, or not; returns what it prints."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(('HF_', 'PYTHON'))}
    environment.update(HF_HOME=str(folder / 'home'), HF_ENDPOINT=hub.url, HF_TOKEN='hf_read', HF_HUB_DISABLE_XET='1',
                       HF_HUB_DISABLE_TELEMETRY='1', OMP_NUM_THREADS='1', NO_PROXY='127.0.0.1')
    if ours:
        environment['PYTHONPATH'] = str(ROOT)
    done = subprocess.run([sys.executable, *([] if ours else ['-I']), '-c', code, *map(str, argv)], env=environment,
                          cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def snippet(repo):
    return re.search('```python\n(.+?)```', repo.files['README.md'].decode(), re.S)[1]


def test_stock_timm_loads_it_where_this_package_is_not(hub, tmp_path, capsys):
    model = make_run(tmp_path / 'run')
    pushed(capsys, tmp_path / 'run', 'me/plants')
    from PIL import Image
    Image.new('RGB', (50, 40), 'green').save(tmp_path / 'your-image.jpg')
    code = snippet(hub.repos['me/plants'])
    assert 'timm_smalldata' not in code and 'softmax' in code
    said = elsewhere(hub, tmp_path, LOAD + code, tmp_path / 'loaded.json', f'local-dir:{tmp_path / "run" / "model"}',
                     'hf-hub:me/plants', ours=False)
    assert len(re.findall(r'^(?:Acer|Bär \| x|Carex|Dahlia|Erica): \d+\.\d%$', said, re.M)) == 3
    for logits, names, data in json.loads((tmp_path / 'loaded.json').read_text()):  # from the folder, from the hub
        assert logits == logits_of(model) and names == CLASSES.names
        assert {key: tuple(data[key]) if isinstance(data[key], list) else data[key] for key in DATA} == DATA


def test_a_model_of_ours_loads_with_the_pasted_snippet_alone(hub, tmp_path, capsys):
    make_run(tmp_path / 'run', 'vit_pico_convstem')
    pushed(capsys, tmp_path / 'run', 'me/plants')
    from PIL import Image
    Image.new('RGB', (50, 40), 'green').save(tmp_path / 'your-image.jpg')
    said = elsewhere(hub, tmp_path, snippet(hub.repos['me/plants']), ours=True)
    assert len(re.findall(r'^.+: \d+\.\d%$', said, re.M)) == 3
