"""The verb benchmark: what is measured, how it is shown, and timm's script beside it."""
import json

import pytest

from timm_smalldata.cli import benchmark

FLAGS = ['--model', 'vit_pico_convstem', '--model-kwargs', 'patch_size=8', '--img-size', '32', '--batch-size', '8',
         '--epochs', '1', '--measure', '0.1s']
OTHER = """
import sys
print('Train: 0 [0/9]  Time: 9.000s,    1.00/s  (9.000s,    1.00/s)')
for _ in range(40):
    print('Train: 0 [1/9]  Time: 0.500s,   32.00/s  (1.000s,   16.00/s)  LR: 1', flush=True)
print(sys.argv, file=open(sys.argv[0] + '.words', 'w'))
"""


def test_what_is_measured(tmp_path, photos, capsys):
    before = sorted(tmp_path.iterdir())
    result = benchmark.run([str(photos), *FLAGS, '--result', str(tmp_path / 'speed.json')])
    rates = result['images_per_second']
    assert set(rates) == {name for name, _ in benchmark.ROWS}
    assert all(0 < found['lowest'] <= found['median'] <= found['highest'] for found in rates.values())
    assert set(result['ratios']) == {'end to end / step', 'evaluation / forward'} and result['views'] == 1
    assert result['conditions']['model'] == 'vit_pico_convstem' and result['machine']['versions']['torch']
    assert json.loads((tmp_path / 'speed.json').read_text()) == result
    assert sorted(tmp_path.iterdir()) == sorted([*before, tmp_path / 'speed.json'])
    shown = capsys.readouterr().out
    assert all(text in shown for _, text in benchmark.ROWS) and 'end to end / step' in shown


def test_several_views_and_two_passes(photos, capsys):
    benchmark.run([str(photos), *FLAGS, '--task', 'idmm', '--opt', 'adamw', '--json'])
    assert json.loads(capsys.readouterr().out)['views'] == 6
    benchmark.run([str(photos), *FLAGS, '--sam-rho', '0.05'])


def test_timms_script_beside_it(tmp_path, photos, capsys):
    script = tmp_path / 'train.py'
    script.write_text(OTHER)
    result = benchmark.run([str(photos), *FLAGS, '--aug', 'three-augment', '--against-timm', str(script)])
    assert result['against_timm']['images_per_second'] == 32
    assert result['ratios']['end to end / timm'] == result['images_per_second']['end_to_end']['median'] / 32
    command = result['against_timm']['command']
    assert '--device-modules timm_smalldata' in command and '--model-kwargs patch_size=8 img_size=32' in command
    assert '--aa 3a' in command and '-b 8' in command


@pytest.mark.parametrize('words, said', [
    (['--measure', 'long'], '--measure'), (['--recipe', 'idmm'], 'one stage'), (['--epoch', '3'], '--epoch'),
    (['--against-timm', 'nowhere.py'], 'no such file')])
def test_bad_input(words, said, capsys):
    assert benchmark.main(['--dataset', 'sample/shapes', *words]) == 2
    out, err = capsys.readouterr()
    assert not out and err.startswith('error: ') and said in err and err.count('\n') == 1


def test_a_task_that_timms_script_has_not(tmp_path, photos, capsys):
    (tmp_path / 'train.py').touch()
    assert benchmark.main([str(photos), *FLAGS, '--task', 'idmm', '--against-timm', str(tmp_path / 'train.py')]) == 2
    assert '--task idmm' in capsys.readouterr().err.splitlines()[-1]


def test_a_script_that_fails(tmp_path, photos, capsys):
    script = tmp_path / 'train.py'
    script.write_text('raise SystemExit("out of order")')
    assert benchmark.main([str(photos), *FLAGS, '--against-timm', str(script)]) == 2
    assert 'out of order' in capsys.readouterr().err.splitlines()[-1]
