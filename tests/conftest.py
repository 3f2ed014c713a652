"""What many tests share: photographs made from a seed, and the train command called in this process at its smallest."""
import random
from pathlib import Path
from typing import Callable, Dict, List, Sequence, Tuple

import numpy as np
import pytest
import torch
from PIL import Image

torch.set_num_threads(1)  # equal bits need an equal thread count, and models this small are fastest with one

COUNTS = {'ant': 12, 'bee': 8, 'cat': 6}
TINY = ['--model', 'test_vit', '--img-size', '32', '--epochs', '1', '--batch-size', '4', '--device', 'cpu',
        '--workers', '0', '--output', 'runs', '--experiment', 'e']


def draw_photo(label: int, number: int, size: Tuple[int, int] = (44, 36)) -> Image.Image:
    """Return a photograph of a class: noise around the colour of the class, different for each number."""
    rng = np.random.RandomState(1000 * label + number)
    colour = np.array([[200, 60, 60], [60, 200, 60], [60, 60, 200], [180, 180, 40]])[label % 4]
    pixels = np.clip(colour + rng.normal(0, 40, (size[1], size[0], 3)), 0, 255)
    return Image.fromarray(pixels.astype(np.uint8))


def make_photos(root: Path, counts: Dict[str, int] = COUNTS, suffixes: Sequence[str] = ('.png', '.jpg')) -> Path:
    """Write ROOT/CLASS/NUMBER.SUFFIX for each class; suffixes take turns."""
    for label, (name, count) in enumerate(counts.items()):
        (root / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            draw_photo(label, number).save(root / name / f'{number}{suffixes[number % len(suffixes)]}')
    return root


def train(argv: List[str]) -> int:
    """Call the train command in this process with the smallest settings; flags in `argv` take their place."""
    import train_smalldata
    return train_smalldata.main([*TINY, *map(str, argv)])


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Each test draws the same numbers, alone and in any order."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of 26 photographs in three classes, without splits."""
    return make_photos(tmp_path / 'photos')


@pytest.fixture
def photo_folder(tmp_path: Path) -> Callable[..., Path]:
    """Make folders of photographs: `photo_folder('name/train', {'ant': 3}, suffixes=('.JPG',))`."""
    return lambda name, counts=COUNTS, suffixes=('.png', '.jpg'): make_photos(tmp_path / name, counts, suffixes)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> Callable:
    """Call the train command inside tmp_path: `run(argv) -> (exit code, stdout, stderr)`; results lie in runs/e."""
    monkeypatch.chdir(tmp_path)

    def call(argv: List[str]) -> Tuple[int, str, str]:
        capsys.readouterr()
        code = train(argv)
        return (code, *capsys.readouterr())

    return call


@pytest.fixture
def divided(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable:
    """Let the train command find and divide its data, and stop there: `divided(argv) -> Data`, its notes included."""
    monkeypatch.chdir(tmp_path)

    def call(argv: List[str]):
        from timm_smalldata.build.prepare import prepare
        from timm_smalldata.config.plan import finish_stage, plan
        from timm_smalldata.utils.console import Voice
        from timm_smalldata.utils.distributed import World
        stage = plan([*TINY, *map(str, argv)])[0]
        finish_stage(stage)
        return prepare(stage, World(), torch.device('cpu'), Voice(False))[1]

    return call
