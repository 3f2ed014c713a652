"""SimCLR and SupCon on the views of IDMM: the baselines that its tables compare it with."""
import math
from argparse import Namespace
from typing import Dict, List, Optional, Tuple

import torch
from torch import nn

from ..data.loader import Batch
from ..data.views import ViewSpec
from ..loss.contrastive import nt_xent_loss, supervised_contrastive_loss
from .base import TaskSetting
from .headed import HeadedTask, feature_width
from .idmm import VIEW, multi_crop


class SimCLRTask(HeadedTask):
    """Contrastive learning without labels (Chen et al., ICML 2020, https://arxiv.org/abs/2002.05709).

    A projection (linear, ReLU, linear to `dim`) of the features and NT-Xent. The crops are IDMM's, for a comparison
    on equal views: 2 large and 4 small ones; SimCLR itself, and IDMM's tables, use 2 crops (`multicrop=False`).

    Args:
        model: timm model; it is used without its classifier.
        temperature: Of the loss.
        dim: Width of the projection.
        multicrop: Use the 4 small crops beside the 2 large ones.
        device: Device of the task.
        dtype: Its dtype.
        verbose: timm's; nothing is logged here.
    """
    name = 'simclr'
    view: Optional[ViewSpec] = VIEW

    def __init__(
            self,
            model: nn.Module,
            temperature: float = 0.5,
            dim: int = 128,
            multicrop: bool = True,
            device: Optional[torch.device] = None,
            dtype: Optional[torch.dtype] = None,
            verbose: bool = True,
    ):
        width = feature_width(model)
        head = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, dim))
        super().__init__(model, head, device, dtype, verbose)
        self.temperature, self.multicrop = temperature, multicrop

    @classmethod
    def from_settings(cls, args: Namespace, model: nn.Module, setting: TaskSetting) -> 'SimCLRTask':
        task = cls(
            model, temperature=args.contrastive_temperature, dim=args.contrastive_dim, multicrop=args.idmm_multicrop,
            device=setting.device, verbose=False)
        crops = len(multi_crop(setting.view, args.idmm_multicrop)) * args.batch_size * setting.world_size
        task.chance = math.log(max(crops - 1, 1))  # of all other crops alike
        return task

    def views(self) -> List[ViewSpec]:
        assert self.view is not None
        return multi_crop(self.view, self.multicrop)

    def mix(self, batch: Batch) -> Tuple[torch.Tensor, torch.Tensor]:
        """Return all crops, crop after crop (V * B, 3, h, w), and the class of each image (B,)."""
        return torch.cat(batch.views), batch.target

    def forward(self, input: torch.Tensor, target: torch.Tensor) -> Dict[str, torch.Tensor]:
        """Return the loss and the projections (V * B, dim) as `output`."""
        output = self.trainable_module(input)
        return {'loss': self.compare(output.split(len(target)), target), 'output': output}

    def compare(self, views: Tuple[torch.Tensor, ...], target: torch.Tensor) -> torch.Tensor:
        """Return the loss of the views' projections, each (B, dim)."""
        return nt_xent_loss(views, self.temperature)


class SupConTask(SimCLRTask):
    """Contrastive learning with class labels (Khosla et al., NeurIPS 2020, https://arxiv.org/abs/2004.11362).

    As `SimCLRTask`, but all crops of all images of a class belong together. The classifier that the paper trains
    afterwards is a stage of its own.
    """
    name = 'supcon'

    def compare(self, views: Tuple[torch.Tensor, ...], target: torch.Tensor) -> torch.Tensor:
        return supervised_contrastive_loss(views, target, self.temperature)
