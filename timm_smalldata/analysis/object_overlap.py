"""How well what the heads look at meets the objects of an image, as DINO is judged on PASCAL VOC.

Caron et al., ICCV 2021, https://arxiv.org/abs/2104.14294, figure 4; which head counts:
https://github.com/facebookresearch/dino/issues/54.
"""
from typing import Dict

import torch

from .attention_maps import mask_overlap

VOID = 255


def object_overlap(marked: torch.Tensor, objects: torch.Tensor) -> Dict[int, torch.Tensor]:
    """Return the Jaccard index of each object with what each head marks.

    The published number takes, for each object, the head that meets it best; its mean over the objects of an image, and
    over images, is the result.

    Args:
        marked: What each head marks (H, height, width), such as the patches that hold 60 % of its attention.
        objects: The object of each pixel (height, width): 0 is the ground, 255 belongs to nothing.

    Returns:
        By number of the object, values (H,) from 0 to 1.

    Raises:
        ValueError: Shapes do not fit.

    >>> marked = torch.tensor([[[1, 1, 0, 0]], [[0, 0, 0, 1]]])
    >>> {label: best.max().item() for label, best in object_overlap(marked, torch.tensor([[7, 7, 255, 2]])).items()}
    {2: 1.0, 7: 1.0}
    """
    if marked.ndim != 3 or marked.shape[1:] != objects.shape:
        raise ValueError(f'Marks of shape {tuple(marked.shape)} for objects of shape {tuple(objects.shape)}.')
    labels = [int(label) for label in objects.unique() if int(label) not in (0, VOID)]
    return {label: mask_overlap(marked, objects == label) for label in labels}
