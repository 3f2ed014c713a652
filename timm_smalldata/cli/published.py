"""Evaluations of papers on folders in the layout of their data: `timm-smalldata eval MODEL DIR --probe KIND`.

KIND is landmarks (revisited Oxford and Paris), copies (Copydays) or video (DAVIS).
"""
import math
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Sequence

import numpy as np
import torch
from PIL import Image

from ..build.trained import TrainedModel
from ..data.pixels import PixelRule, decode
from ..data.readers import read_file
from ..data.views import normalise
from ..errors import UserError
from ..models.any_size import take_any_size
from ..utils.console import Voice
from ..utils.device import resolve_device
from ..utils.files import write_json_atomic
from . import model_flags

ALLOWED = {'model', 'data_dir', 'probe', 'output', 'json', 'img_size', 'device', 'batch_size', 'checkpoint',
           'validation_batch_size', 'model_kwargs', 'alpha', 'grey_range', 'channels_last', 'workers'}


class Viewer:
    """A trained model without its classifier, that is shown images of any size, and the folder that it is judged on.

    Args:
        given: Flags of the verb, by argparse destination.
        side: Of the images in pixels, where `--img-size` does not say; None: the model's own.
        own: Flags that go with this kind alone.

    Attributes:
        side: Of the images in pixels.
        multiple: What height and width are cut down to multiples of.
        root: The folder.

    Raises:
        UserError: Flags that do not go with such an evaluation, no folder, or a model of one size.
    """

    def __init__(self, given: Dict[str, Any], side: Optional[int] = None, own: Sequence[str] = ()):
        kind = given['probe']
        other = [dest for dest in given if dest not in ALLOWED and dest not in own]
        if other:
            raise UserError(f'--{other[0].replace("_", "-")} does not go with --probe {kind}.')
        if 'data_dir' not in given:
            raise UserError(f'--probe {kind} needs a folder in the published layout: MODEL DIR --probe {kind}.')
        self.root = Path(given['data_dir'])
        if not self.root.is_dir():
            raise UserError(f'No such folder: {self.root}.')
        sizeless = {dest: value for dest, value in given.items() if dest != 'img_size'}
        trained: TrainedModel = model_flags.load(sizeless, scores=False)[0]
        self.args = model_flags.settings(sizeless, trained, None, 'eval')
        self.device, self.config = resolve_device(self.args.device), trained.config
        self.model = trained.model.to(self.device).float().eval()
        self.model.reset_classifier(0)
        try:
            self.multiple = max(take_any_size(self.model))
        except ValueError as error:
            raise UserError(f'{given["model"]}: {error}') from error
        self.name, self.rule = given['model'], PixelRule.of(self.args)
        self.side: int = given.get('img_size') or side or self.config['input_size'][-1]

    def read(self, path: Path) -> Image.Image:
        """Return an image in RGB; one that cannot be read is a UserError: a benchmark leaves none out."""
        try:
            return decode(read_file(path), self.rule)
        except (OSError, ValueError) as error:
            raise UserError(f'{path} cannot be read: {error}') from error

    def pixels(self, images: List[Image.Image]) -> torch.Tensor:
        """Return images of one size as normalised pixels (B, 3, height, width)."""
        batch = torch.stack([torch.from_numpy(np.array(image)).permute(2, 0, 1) for image in images])
        return normalise(batch.to(self.device), self.config['mean'], self.config['std'])

    def cut(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return pixels without the rows below and the columns on the right that fill no patch."""
        height, width = (side // self.multiple * self.multiple for side in pixels.shape[-2:])
        if not height or not width:
            raise UserError(f'An image of {pixels.shape[-2]} x {pixels.shape[-1]} pixels is smaller than a patch of '
                            f'{self.name}: see --img-size.')
        return pixels[..., :height, :width]

    def squares(self, paths: List[Path], bar: Any = None) -> Iterator[torch.Tensor]:
        """Yield batches of images, each brought to a square (not cut), which changes its proportions."""
        side = max(self.side // self.multiple, 1) * self.multiple
        for start in range(0, len(paths), self.args.validation_batch_size):
            part = paths[start:start + self.args.validation_batch_size]
            yield self.pixels([self.read(path).resize((side, side), Image.Resampling.BICUBIC) for path in part])
            if bar is not None:
                bar.update(len(part))


def finish(report: Dict[str, Any], output: Optional[Path], say: Voice) -> Dict[str, Any]:
    """Write the report to OUTPUT/KIND.json, where there is an output, and return it."""
    if output is not None:
        path = output / f'{report["probe"]["kind"]}.json'
        write_json_atomic(path, report)
        say(f'written: {path}')
    return report


def percent(value: Optional[float]) -> Optional[float]:
    """Return a fraction in percent; None stays.

    >>> percent(0.25), percent(None)
    (25.0, None)
    """
    return None if value is None or math.isnan(value) else 100 * value


def number(value: Optional[float]) -> str:
    """Return a number of a table, or a dash."""
    return f'{"-":>8}' if value is None else f'{value:8.2f}'
