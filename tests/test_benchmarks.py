"""The programs that measure: at their smallest, so that they work on the day that a quiet machine or a GPU is there."""
import importlib.util
import json
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OTHER = """
for _ in range(40):
    print('Train: 0 [1/9]  Time: 0.500s,   32.00/s  (1.000s,   16.00/s)  LR: 1', flush=True)
"""


def load(name):
    spec = importlib.util.spec_from_file_location(f'benchmark_{name}', ROOT / 'benchmarks' / f'{name}.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def speed(monkeypatch):
    module = load('speed')
    monkeypatch.setattr(module, 'TI', ['--model', 'vit_pico_convstem', '--epochs', '1'])
    return module


def rows(path):
    return [[cell.strip() for cell in line.split('|')[1:-1]] for line in path.read_text().splitlines()
            if line.startswith('| ')][1:]


def test_beside_the_model_and_beside_timm(speed, photos, tmp_path, monkeypatch, capsys):
    (tmp_path / 'train.py').write_text(OTHER)
    monkeypatch.setattr(speed, 'computes_bfloat16', lambda device: False)
    out = tmp_path / 'speed.md'
    assert speed.main([
        str(photos), '--against-timm', str(tmp_path / 'train.py'), '--measure', '0.1s', '--only', 'large', '--out',
        str(out)]) == 0
    found = rows(out)
    assert [row[1] for row in found] == [
        'end to end / model alone', 'evaluation / forward alone', "ours / timm's script, both by default",
        "ours / timm's script, both bfloat16"]
    assert all(float(row[3]) > 0 for row in found[:3]) and 'step' in found[0][4] and 'and 32 images' in found[2][4]
    assert found[3][3:] == ['-', 'missing: the processor has no bfloat16']


def test_views_a_second(speed, photos, tmp_path, capsys):
    out = tmp_path / 'speed.md'
    assert speed.main([str(photos), '--measure', '0.1s', '--only', 'views', '--out', str(out)]) == 0
    assert [row[2] for row in rows(out)] == ['8,000', '2,100'] and 'times torchvision' in rows(out)[0][4]


def test_the_rows_of_a_gpu(speed, photos, tmp_path, capsys):
    out, result = tmp_path / 'speed.md', tmp_path / 'gpu.json'
    assert speed.main([str(photos), '--only', 'gpu', '--out', str(out)]) == 0
    assert len(rows(out)) >= 5 and all(row[3] == '-' and row[4].startswith('missing') for row in rows(out))
    name = load('gpu').ROWS[0].name
    rates = {what: dict(median=rate) for what, rate in (('end_to_end', 50_000.0), ('step', 51_000.0))}
    result.write_text(json.dumps(dict(device='Card', speed={
        name: dict(images_per_second=rates, ratios={'end to end / step': 0.98})})))
    assert speed.main([str(photos), '--only', 'gpu', '--gpu', str(result), '--out', str(out)]) == 0
    assert rows(out)[0][:4] == [f'Card: {name}', 'end to end / model alone', '0.95', '0.98']
    assert rows(out)[1][3] == '50,000' and rows(out)[2][3] == '-'


def test_no_such_part(speed, photos, capsys):
    assert speed.main([str(photos), '--only', 'nothing']) == 2


def in_this_process(words, seconds, **env):
    """Do what a part does, without a process for it; the device tests are run by themselves."""
    from timm_smalldata.__main__ import main
    if words[:2] == ['-m', 'pytest']:
        assert all((ROOT / word).exists() for word in words if word.startswith('tests'))
    elif words[:2] == ['-m', 'timm_smalldata']:
        assert main(words[2:]) == 0
    else:
        assert (ROOT / words[0]).is_file()
        assert load('one_rank').main(words[1]) == 0
    return dict(outcome='ok', seconds=0.1, said='')


def test_the_script_for_a_gpu(tmp_path, monkeypatch, capsys):
    gpu = load('gpu')
    monkeypatch.setattr(gpu, 'part', in_this_process)
    monkeypatch.setattr(gpu.torch.cuda, 'is_available', lambda: False)
    assert gpu.main([str(tmp_path / 'out')]) == 2 and 'sees no GPU' in capsys.readouterr().err
    assert gpu.main([str(tmp_path / 'out'), '--small']) == 0
    found = json.loads((tmp_path / 'out' / 'gpu.json').read_text())
    assert [done['outcome'] for done in found['parts'].values()] == ['ok'] * 3 and found['device'] == 'cpu'
    rates = found['speed']['as short as it goes']['images_per_second']
    assert rates['step']['median'] > 0 and '| as short as it goes |' in capsys.readouterr().out


def test_parts_that_fail_or_take_too_long(tmp_path):
    gpu = load('gpu')
    done = gpu.part(['-c', 'raise SystemExit("no")'], 60)
    assert done['outcome'] == 'exit code 1' and done['said'] == 'no\n'
    assert gpu.part(['-c', 'pass'], 1)['outcome'] == 'no time left'


def test_the_shell_script_is_whole():
    script = ROOT / 'benchmarks' / 'gpu.sh'
    assert subprocess.run(['bash', '-n', str(script)]).returncode == 0 and script.stat().st_mode & 0o100


@pytest.mark.parametrize('row', load('gpu').ROWS + load('gpu').SMALL, ids=lambda row: row.name)
def test_rows_are_flags_of_the_train_command(row):
    from timm_smalldata.config.plan import plan
    assert len(plan(['photos', *row.flags, '--device', 'cpu'])) == 1
