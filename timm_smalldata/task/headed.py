"""Tasks that train a backbone under a head which is thrown away: the user gets the backbone."""
from typing import Any, Optional, Tuple, Type

import torch
from torch import nn

from .wrapping import WrappedModelTask


class HeadedModel(nn.Module):
    """A timm model without classifier and a head on its features, as one module with one forward.

    What the backbone names in `no_weight_decay` (position embedding, class token) is decayed like everything else, as
    IDMM does; with `filter_bias_and_bn=True` timm's optimizer factory still leaves out biases and norms.

    Args:
        backbone: A timm model; a classifier that it has is taken off.
        head: Takes features (M, `feature_width(backbone)`).
    """

    def __init__(self, backbone: nn.Module, head: nn.Module):
        super().__init__()
        self.backbone = backbone
        self.head = head

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.backbone(x))


def pooled_width(model: Any) -> int:
    """Return the width of the features that a timm model hands to its classifier."""
    return getattr(model, 'head_hidden_size', None) or model.num_features


def feature_width(model: Any) -> int:
    """Return the width of what a timm model without classifier gives; a classifier that it has is taken off."""
    if model.num_classes:
        model.reset_classifier(0)
    return pooled_width(model)


class HeadedTask(WrappedModelTask):
    """Base of tasks whose `trainable_module` is a `module_class`: a backbone, which users get, and a head."""
    predicted: Tuple[str, ...] = ('features',)
    supervised = False
    module_class: Type[HeadedModel] = HeadedModel

    def __init__(
            self,
            backbone: nn.Module,
            head: nn.Module,
            device: Optional[torch.device] = None,
            dtype: Optional[torch.dtype] = None,
            verbose: bool = True,
    ):
        super().__init__(device=device, dtype=dtype, verbose=verbose)
        self.trainable_module = self.module_class(backbone, head).to(device=self.device, dtype=self.dtype)
