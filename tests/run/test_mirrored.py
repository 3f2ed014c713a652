"""What the screen says of mirror images: on or off at the beginning, and at the end where they have done harm."""
import json

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def arrows(tmp_path):
    """Lines that rise or fall, 60 images each: each class is the mirror image of the other."""
    rng = np.random.RandomState(0)
    for number in range(120):
        y, x = np.mgrid[:32, :32] + rng.randint(0, 8, 2)[:, None, None]
        phase = x + y if number % 2 else x - y
        folder = tmp_path / 'arrows' / ('falling', 'rising')[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        noise = rng.randint(0, 50, (32, 32))
        Image.fromarray(((phase // 4 % 2) * 200 + noise).astype(np.uint8)).save(folder / f'{number}.png')
    return tmp_path / 'arrows'


def test_harm_is_told_with_the_command_that_avoids_it(run, arrows, tmp_path):
    argv = [arrows, '--epochs', '1', '--test-fraction', '0.25']
    code, _, err = run([*argv, '--hflip', '0.5'])
    assert code == 0 and 'mirror images: 50 %, --hflip 0 turns them off' in err
    line = next(line for line in err.splitlines() if 'to train without mirror images' in line)
    assert 'images of falling and rising are taken for the other one' in line and line.endswith('--hflip 0.0')
    assert f'train_smalldata.py {arrows} ' in line and '--experiment' not in line and '--hflip 0.5' not in line
    report = json.loads((tmp_path / 'runs/e/report.json').read_text())
    found, = report['mirrored']
    assert found['classes'] == ['falling', 'rising'] and found['images'] == 30 and found['confused'] >= 3


def test_nothing_is_told_of_a_run_without_them(run, arrows, tmp_path):
    code, _, err = run([arrows, '--epochs', '1', '--test-fraction', '0.25', '--hflip', '0'])
    assert code == 0 and 'mirror images: none, --hflip 0.5 turns them on' in err
    assert 'train without' not in err and 'mirrored' not in json.loads((tmp_path / 'runs/e/report.json').read_text())
