"""IDMM: instance discrimination with multi-crop and CutMix ("Training Vision Transformers with Only 2040 Images")."""
import math
import os
from argparse import Namespace
from dataclasses import replace
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

import numpy as np
import torch
from timm.layers import trunc_normal_
from torch import nn

from ..data.loader import Batch
from ..data.views import Augment, Crop, ViewSpec
from ..errors import UserError
from ..loss.instance_discrimination import instance_discrimination_loss
from .base import TaskSetting
from .headed import HeadedTask, feature_width

LARGE, SMALL = 2, 4  # crops of each group
SMALL_SCALE = (0.05, 0.4)
VIEW = ViewSpec(
    112, Crop('rrc', scale=(0.14, 1.0), interpolation='bilinear'), Augment(None, (0.8, 0.8, 0.8, 0.2), 0.8, 0.2, 0.5))


def multi_crop(view: ViewSpec, small: bool = True) -> List[ViewSpec]:
    """Return IDMM's views: 2 large crops (area 0.14 to 1), then 4 small ones (0.05 to 0.4), all at one resolution.

    Each crop in this order, with draws of its own: random resized crop, mirror image, colour jitter (0.8, 0.8, 0.8,
    0.2) with probability 0.8, greyscale 0.2, blur 0.5, built by timm. The published blur is Pillow's with a radius
    from U(0.1, 2); timm's is torchvision's with that range of sigma, on a kernel of 23 pixels (Pillow's radius is a
    sigma too, reached by box filters). So the two agree but for rounding; images must be larger than 11 px.

    Args:
        view: The large crop, with its augmentation and normalisation; mode 'rrc'.
        small: Whether to add the small crops.

    >>> [spec.crop.scale for spec in multi_crop(VIEW)][1:3]
    [(0.14, 1.0), (0.05, 0.4)]
    """
    return [view] * LARGE + [replace(view, crop=replace(view.crop, scale=SMALL_SCALE))] * (SMALL if small else 0)


def cutmix_box(height: int, width: int, lam: float) -> Tuple[int, int, int, int]:
    """Draw CutMix's box (Yun et al., ICCV 2019, https://arxiv.org/abs/1905.04899, eq. 2) from NumPy's generator.

    Its sides are sqrt(1 - lam) of the image's, cut down to whole and then to even pixels (half a side before and half
    behind the centre, as published; timm's box keeps the odd pixel). The centre is uniform, what lies outside is cut
    off. At 112 px 2.3 % of IDMM's boxes are empty.

    Returns:
        top, bottom, left, right; bottom and right excluded.
    """
    share = np.sqrt(1.0 - lam)
    half_height, half_width = int(height * share) // 2, int(width * share) // 2
    y, x = np.random.randint(height), np.random.randint(width)
    return (max(y - half_height, 0), min(y + half_height, height), max(x - half_width, 0), min(x + half_width, width))


def cutmix_(images: torch.Tensor, alpha: float = 0.5) -> Tuple[torch.Tensor, float]:
    """Mix a crop group in place, one box and one lambda for all its images, as IDMM does.

    lambda is drawn from Beta(alpha, alpha) and folded to 0.5 or more. Each image gets the box of a partner from a
    random permutation, possibly another crop of its own image. Draws from NumPy's and torch's global CPU generators.

    Args:
        images: Crops of one group (M, 3, h, w); changed.
        alpha: Parameter of the Beta distribution.

    Returns:
        The permutation (M,) and the share of own pixels, counted in the box that was really pasted.
    """
    lam = np.random.beta(alpha, alpha)
    top, bottom, left, right = cutmix_box(images.shape[2], images.shape[3], max(lam, 1.0 - lam))
    perm = torch.randperm(len(images)).to(images.device)
    images[:, :, top:bottom, left:right] = images[perm, :, top:bottom, left:right]  # indexing by perm copies first
    return perm, 1.0 - (bottom - top) * (right - left) / (images.shape[2] * images.shape[3])


class Pairs(NamedTuple):
    """Labels of a crop group: its own (M,), those of the pasted partners (M,), and the share of own pixels."""
    own: torch.Tensor
    partner: torch.Tensor
    lam: float


class InstanceDiscriminationTask(HeadedTask):
    """Every training image is a class of its own (Cao, Yu, Wu, ECCV 2022, https://arxiv.org/abs/2201.10728).

    The backbone's features go through a linear layer with one row per image, without normalisation, projector or
    temperature; the loss is the sum of two means, over the large and over the small crops. All crops go through one
    forward pass, large ones first (the same as one pass each, unless the backbone has batch norm, whose statistics
    are then those of all crops). Labels are `Batch.index`: positions in the training source.

    Args:
        model: timm model; it is used without its classifier.
        num_images: Training images N: rows of the head.
        multicrop: Use the 4 small crops beside the 2 large ones.
        cutmix: Paste boxes between the crops of a group.
        smoothing: Label smoothing over the N labels.
        device: Device of the task.
        dtype: Its dtype.
        verbose: timm's; nothing is logged here.

    >>> import timm
    >>> task = InstanceDiscriminationTask(timm.create_model('test_vit', num_classes=0, img_size=32), num_images=10)
    >>> task.configure(view=VIEW.at(32))  # doctest: +ELLIPSIS
    InstanceDiscriminationTask(...
    >>> batch = Batch([torch.randn(3, 3, 32, 32) for _ in task.views()], torch.zeros(3), torch.tensor([4, 9, 0]), 0, 0)
    >>> input, target = task.mix(batch)
    >>> input.shape, [len(pairs.own) for pairs in target]
    (torch.Size([18, 3, 32, 32]), [6, 12])
    >>> sorted(task(input, target))
    ['loss', 'loss_large', 'loss_small', 'output']
    """
    name = 'idmm'
    view: Optional[ViewSpec] = VIEW

    def __init__(
            self,
            model: nn.Module,
            num_images: int,
            multicrop: bool = True,
            cutmix: bool = True,
            smoothing: float = 0.1,
            device: Optional[torch.device] = None,
            dtype: Optional[torch.dtype] = None,
            verbose: bool = True,
    ):
        head = nn.Linear(feature_width(model), num_images)
        trunc_normal_(head.weight, std=0.02)
        nn.init.zeros_(head.bias)
        super().__init__(model, head, device, dtype, verbose)
        self.num_images, self.multicrop, self.cutmix, self.smoothing = num_images, multicrop, cutmix, smoothing
        self.chance = (1 + multicrop) * math.log(num_images)  # of all images alike, in one or two groups of crops

    @classmethod
    def from_settings(cls, args: Namespace, model: nn.Module, setting: TaskSetting) -> 'InstanceDiscriminationTask':
        """Create the task; raises a UserError when its head cannot fit into the memory of the device."""
        needed, there = head_bytes(setting.num_images, feature_width(model)), memory_bytes(setting.device)
        if there is not None and needed > there:
            raise UserError(
                f'--task {args.task}: a head with a row for each of the {setting.num_images} training images needs '
                f'{needed / 2**20:.0f} MiB with gradients and AdamW states, and {setting.device} has '
                f'{there / 2**20:.0f} MiB: train on fewer images, or use --task simclr, dino or mae.')
        return cls(
            model, setting.num_images, multicrop=args.idmm_multicrop, cutmix=args.idmm_cutmix,
            smoothing=args.idmm_smoothing, device=setting.device, verbose=False)

    def notes(self) -> List[str]:
        width = self.unwrapped().head.in_features
        return [
            f'head of {self.num_images} images x {width} features and {self.num_images} biases: '
            f'{head_bytes(self.num_images, width) / 2**20:.1f} MiB with gradients and AdamW states']

    def views(self) -> List[ViewSpec]:
        assert self.view is not None
        return multi_crop(self.view, self.multicrop)

    def mix(self, batch: Batch) -> Tuple[torch.Tensor, Any]:
        """Return all crops, crop after crop (V * B, 3, h, w), and the `Pairs` of each group."""
        images = torch.cat(batch.views)  # a copy: the batch stays as it is
        index = batch.index.to(images.device)
        crops = [min(LARGE, len(batch.views)), max(len(batch.views) - LARGE, 0)]
        target = []
        for group, count in zip(images.split([len(batch) * count for count in crops]), crops):
            if not count:
                continue
            labels, partner, lam = index.repeat(count), index.repeat(count), 1.0
            if self.cutmix:
                perm, lam = cutmix_(group)
                partner = labels[perm]
            target.append(Pairs(labels, partner, lam))
        return images, target

    def forward(self, input: torch.Tensor, target: Any) -> Dict[str, torch.Tensor]:
        """Return the sum of the groups' losses, each of them by name, and the logits as `output`."""
        logits = self.trainable_module(input)
        losses = [
            instance_discrimination_loss(part, pairs.own, pairs.partner, pairs.lam, self.smoothing)
            for part, pairs in zip(logits.split([len(pairs.own) for pairs in target]), target)]
        named = dict(zip(('loss_large', 'loss_small'), losses))
        return {'loss': torch.stack(losses).sum(), **named, 'output': logits}


def head_bytes(num_images: int, width: int) -> int:
    """Return the bytes of the head's weights, their gradients and two AdamW states, in float32.

    >>> head_bytes(50_000, 192) // 2**20
    147
    """
    return 4 * 4 * num_images * (width + 1)


def memory_bytes(device: torch.device) -> Optional[int]:
    """Return all memory of a device, used or free, or None where the system does not say."""
    if device.type == 'cuda':
        return torch.cuda.get_device_properties(device).total_memory
    try:
        return os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
    except (AttributeError, ValueError, OSError):  # Windows
        return None
