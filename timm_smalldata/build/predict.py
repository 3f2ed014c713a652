"""What a trained model says of images that nobody has labelled: `timm_smalldata.load(RUN).predict(paths)`."""
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Iterable, Iterator, List, Optional, Sequence, Tuple, Union

import numpy as np
import torch
from PIL import Image
from timm.data import create_transform
from torch.utils.data import DataLoader, Dataset

from ..data.formats import is_image_name, without_warnings
from ..data.pixels import PixelRule, decode, to_rgb
from ..data.readers import read_file
from ..data.scan import reason_of
from ..data.views import normalise
from ..errors import UserError
from ..utils.device import computes_bfloat16, resolve_device
from ..utils.text import natural_key
from .trained import TrainedModel, load_trained_model

UNSURE = 'unsure'
PathLike = Union[str, Path]
Picture = Union[str, Path, bytes, Image.Image, np.ndarray]


@dataclass(frozen=True)
class Prediction:
    """What a model says of one image.

    Attributes:
        path: The image; its number in the list for an image that is no file.
        name: The class; 'unsure' below the confidence that was asked for, None for an image that cannot be read.
        probability: That of the likeliest class, from 0 to 1.
        top: The likeliest classes and their probabilities, from the likeliest on.
        error: Why the image cannot be read.
    """
    path: str
    name: Optional[str] = None
    probability: Optional[float] = None
    top: List[Tuple[str, float]] = field(default_factory=list)
    error: Optional[str] = None

    @property
    def unsure(self) -> bool:
        """Whether the probability was below what was asked for."""
        return bool(self.top) and self.name is not self.top[0][0]


class Predictor:
    """A trained classifier with its own preprocessing, for single images.

    Args:
        trained: The model.
        device: Where it runs: 'auto', 'cpu', 'cuda', 'cuda:1', 'mps'.
        batch_size: Images per step.
        workers: Processes that read images; 0 reads in this one.
        amp: Compute in bfloat16; None: where the machine does so in hardware.

    Attributes:
        names: The classes, in the order of the model's outputs.
        temperature: What logits are divided by before softmax; it was fitted on validation images when the model was
            exported. None: there were none, and the probabilities are the model's own, often too sure.
    """

    def __init__(
            self,
            trained: TrainedModel,
            device: str = 'auto',
            batch_size: int = 64,
            workers: int = 0,
            amp: Optional[bool] = None,
    ):
        self.device = resolve_device(device)
        self.model = trained.model.to(self.device).float().eval()
        self.config = trained.config
        self.names = list(trained.names or map(str, range(self.model.num_classes)))
        self.temperature: Optional[float] = trained.training.get('temperature')
        self.transform = create_transform(
            self.config['input_size'], interpolation=self.config['interpolation'], crop_pct=self.config['crop_pct'],
            crop_mode=self.config['crop_mode'], use_prefetcher=True)
        self.rule = PixelRule.of_model(trained.training)
        self.batch_size, self.workers = batch_size, workers
        self.amp = computes_bfloat16(self.device) if amp is None else amp

    def predict(
            self,
            images: Union[Picture, Sequence[Picture]],
            top_k: int = 5,
            min_confidence: float = 0.0,
            progress: Optional[Callable[[int], Any]] = None,
    ) -> List[Prediction]:
        """Say what is on images; one that cannot be read has an `error` in its place.

        Args:
            images: Paths of images and of folders (all images below them, in natural order), the bytes of image
                files, PIL images or uint8 arrays (h, w, 3); one or several.
            top_k: How many classes are named.
            min_confidence: A class with less probability (0 to 1) is called 'unsure'.
            progress: Called with the number of images after each batch.

        Raises:
            UserError: There is no such file or folder, or no image in it.
        """
        asked = find_images([images] if isinstance(images, (str, Path, bytes, Image.Image, np.ndarray)) else images)
        found: List[Prediction] = []
        for number, batch in self._batches(asked):
            said = iter(self._top([view for view in batch if not isinstance(view, str)], top_k))
            for place, view in enumerate(batch, number):
                image = asked[place]
                path = str(image) if isinstance(image, (str, Path)) else str(place)
                if isinstance(view, str):
                    found.append(Prediction(path, error=view))
                    continue
                top = next(said)
                name, probability = top[0]
                found.append(Prediction(path, name if probability >= min_confidence else UNSURE, probability, top))
            if progress is not None:
                progress(len(batch))
        return found

    def _batches(self, images: Sequence[Picture]) -> Iterator[Tuple[int, List[Union[torch.Tensor, str]]]]:
        loader: DataLoader = DataLoader(
            _Rendered(images, self.transform, self.rule), self.batch_size, num_workers=self.workers, collate_fn=list)
        for number, batch in enumerate(loader):
            yield number * self.batch_size, batch

    @torch.no_grad()
    def _top(self, views: List[torch.Tensor], top_k: int) -> List[List[Tuple[str, float]]]:
        if not views:
            return []
        batch = normalise(torch.stack(views).to(self.device), self.config['mean'], self.config['std'])
        with torch.autocast(self.device.type, torch.bfloat16) if self.amp else nullcontext():
            logits = self.model(batch).float()
        values, indices = (logits / (self.temperature or 1.0)).softmax(-1).topk(min(max(top_k, 1), len(self.names)))
        return [[(self.names[c], p) for c, p in zip(*row)] for row in zip(indices.tolist(), values.tolist())]


class _Rendered(Dataset):
    """Images as the model sees them, uint8; the reason in place of one that cannot be read."""

    def __init__(self, images: Sequence[Picture], transform: Callable, rule: PixelRule):
        self.images, self.transform, self.rule = images, transform, rule

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, place: int) -> Union[torch.Tensor, str]:
        try:
            with without_warnings():
                return torch.as_tensor(self.transform(_open(self.images[place], self.rule)))
        except Exception as error:  # whatever a decoder raises: the image is bad, and the reason is kept
            return reason_of(error)


def _open(image: Picture, rule: PixelRule) -> Image.Image:
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    if isinstance(image, bytes):
        return decode(image, rule)
    return to_rgb(image, rule) if isinstance(image, Image.Image) else decode(read_file(Path(image)), rule)


def find_images(images: Iterable[Picture]) -> List[Picture]:
    """Return the images behind paths: files as they are, folders as all images below them, in natural order.

    Raises:
        UserError: There is no such file or folder, no image in a folder, or nothing at all.
    """
    found: List[Picture] = []
    for image in images:
        if not isinstance(image, (str, Path)):
            found.append(image)
            continue
        place = Path(image)
        if not place.exists():
            raise UserError(f'No such image or folder: {image}.')
        if not place.is_dir():
            found.append(image)
            continue
        inside = {path.as_posix(): path for path in place.rglob('*')
                  if is_image_name(path.name) and path.is_file()
                  and not any(part.startswith('.') for part in path.relative_to(place).parts)}
        if not inside:
            raise UserError(f'No image in the folder {image}.')
        found += [inside[name] for name in sorted(inside, key=natural_key)]
    if not found:
        raise UserError('No image was named.')
    return found


def load(
        model: PathLike,
        device: str = 'auto',
        batch_size: int = 64,
        workers: int = 0,
        amp: Optional[bool] = None,
) -> Predictor:
    """Load a trained classifier for new images.

    Args:
        model: Run folder, model folder, 'local-dir:FOLDER', 'hf-hub:OWNER/NAME' or a timm model name.
        device: Where it runs: 'auto', 'cpu', 'cuda', 'cuda:1', 'mps'.
        batch_size: Images per step.
        workers: Processes that read images; 0 reads in this one.
        amp: Compute in bfloat16; None: where the machine does so in hardware.

    Raises:
        UserError: There is no such model, or it gives no class scores.

    >>> predictor = load('output/RUN')  # doctest: +SKIP
    >>> predictor.predict('photo.jpg')[0].name  # doctest: +SKIP
    'robin'
    """
    return Predictor(load_trained_model(str(model)), device, batch_size, workers, amp)
