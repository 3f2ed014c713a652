"""Inputs of the verb analyse: the history of a run, masks of generated figures, reconstructions."""
import csv
from dataclasses import replace
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple

import numpy as np
import torch
from PIL import Image

from ..analysis.figures import Reconstruct
from ..config.yaml_file import load_config
from ..data.layouts import find_objects
from ..data.readers import PathSource
from ..data.samples import sample_source
from ..data.samples.shapes import ShapesSource
from ..data.views import ViewSpec, render
from ..errors import UserError
from ..loss.masked_pixel import masked_pixel_loss
from ..task.mae import MAETask
from ..task.masking import num_visible, random_visible, visible_to_mask
from ..utils.model_folder import stage_folders
from ..utils.text import clean_names

COSINE = 'train_token_cosine'


def read_history(name: str) -> Tuple[List[Dict[str, str]], Optional[int]]:
    """Return the rows of a run's `summary.csv`, and the epoch from which on classes are weighted.

    Args:
        name: The folder of a run (finished or not), of several stages (the last one with a history is taken), or its
            `model/`.

    Raises:
        UserError: It is no run, or its history has no cosine between the class and the distillation token.
    """
    folder = Path(name[len('local-dir:'):] if name.startswith('local-dir:') else name)
    places = [folder, *reversed(stage_folders(folder)), *([folder.parent] if folder.name == 'model' else [])]
    place = next((place for place in places if (place / 'summary.csv').is_file()), None)
    if place is None:
        raise UserError(f'{name} is not the folder of a run: divergence reads the summary.csv of a training.')
    with open(place / 'summary.csv', newline='', encoding='utf-8') as stream:
        rows = list(csv.DictReader(stream))
    if not rows or COSINE not in rows[0]:
        raise UserError(f'{place / "summary.csv"} has no column {COSINE}: only --task deit-lt, which trains a class '
                        'and a distillation token, writes it.')
    config = place / 'args.yaml'
    return rows, load_config(str(config)).get('drw_epoch') if config.is_file() else None


def figure_masks(dataset: Optional[str], names: Sequence[str], view: ViewSpec) -> Optional[torch.Tensor]:
    """Return where the figure is (N, height, width), bool, in images of `sample/shapes`; None for other images.

    Args:
        dataset: What the images are.
        names: Their names.
        view: How the model sees them; the masks are cut in the same way.
    """
    if dataset != 'sample/shapes':
        return None
    sources: Dict[str, Any] = {}
    masks = []
    for name in names:
        split = name.split('/')[1]
        if split not in sources:
            source = sample_source('shapes', split)
            assert isinstance(source, ShapesSource)
            sources[split] = source, {known: i for i, known in enumerate(source.names)}
        source, place = sources[split]
        mask = Image.fromarray(source.mask(place[name])).convert('RGB')
        masks.append(torch.as_tensor(np.asarray(render(mask, view)))[0] > 127)
    return torch.stack(masks)


def objects_of(given: Dict[str, Any]) -> Tuple[PathSource, Dict[str, Path]]:
    """Return the images of a folder in the layout of PASCAL VOC, as images of no class, and the mask of each by name.

    Raises:
        UserError: There is no such folder, or flags about classes and splits.
    """
    wrong = next((dest for dest in ('dataset', 'split', 'group', 'class_map', 'class_stats') if dest in given), None)
    if wrong is not None or 'data_dir' not in given:
        raise UserError('overlap needs a folder in the layout of PASCAL VOC: MODEL DIR'
                        + (f', without --{wrong.replace("_", "-")}.' if wrong else '.'))
    pairs = find_objects(Path(given['data_dir']))
    names = clean_names([image.name for image, _ in pairs])[0]
    source = PathSource(Path(), names, [0] * len(pairs), [''], [image for image, _ in pairs])
    return source, {name: mask for name, (_, mask) in zip(names, pairs)}


def object_masks(masks: Dict[str, Path], names: Sequence[str], view: ViewSpec) -> torch.Tensor:
    """Return the number of the object of each pixel (N, height, width), uint8, cut as the model sees the images."""
    nearest = replace(view, crop=replace(view.crop, interpolation='nearest'))
    found = []
    for name in names:
        try:
            with Image.open(masks[name]) as image:
                numbers = np.array(image)
        except (OSError, ValueError) as error:
            raise UserError(f'{masks[name]} cannot be read: {error}') from error
        if numbers.ndim != 2:
            raise UserError(f'{masks[name]} is no indexed mask: each pixel holds the number of an object, 0 is the '
                            'ground.')
        mask = Image.fromarray(numbers.astype(np.uint8)).convert('RGB')
        found.append(torch.as_tensor(np.asarray(render(mask, nearest)))[0])
    return torch.stack(found)


def reconstructor(task: MAETask) -> Reconstruct:
    """Return a function that masks images and lets a masked autoencoder predict what is hidden.

    It takes normalised images (B, 3, h, w) and the number of the first one; the mask of an image depends on its number
    alone. It returns the predicted and the masked images, normalised, and for each image the loss (that of training)
    and the loss of a prediction that is 0 everywhere.
    """
    def reconstruct(images: torch.Tensor, first: int) -> Tuple[torch.Tensor, torch.Tensor, List[float], List[float]]:
        task.eval()
        length = (images.shape[-2] // task.patch_size) * (images.shape[-1] // task.patch_size)
        num_visible(length, task.mask_ratio)
        noise = torch.stack([torch.rand(length, generator=torch.Generator().manual_seed(first + i))
                             for i in range(len(images))])
        visible = random_visible(noise, task.mask_ratio).to(images.device)
        hidden = visible_to_mask(visible, length)
        predicted, seen = task.reconstruct(images, hidden)
        losses, nothing = [], []
        with torch.no_grad():
            for image, places, mask in zip(images.split(1), visible.split(1), hidden.split(1)):
                losses.append(float(task(image, places)['loss']))
                zeros = image.new_zeros(1, length, 3 * task.patch_size ** 2)
                nothing.append(float(masked_pixel_loss(zeros, image, mask, task.patch_size, task.norm_pix)))
        return predicted.cpu(), seen.cpu(), losses, nothing
    return reconstruct
