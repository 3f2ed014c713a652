"""Models that timm lacks; importing this package registers them."""
import timm

from . import convstem_vit, resnet_cifar  # noqa: F401  (registration)
from .convstem_vit import ConvEmbed
from .cosine import CosineClassifier, fold_cosine_head, mean_feature_norms, set_cosine_head, set_directions
from .resnet_cifar import CifarResNet

__all__ = [
    'CifarResNet', 'ConvEmbed', 'CosineClassifier', 'fold_cosine_head', 'is_ours', 'mean_feature_norms',
    'set_cosine_head', 'set_directions']


def is_ours(architecture: str) -> bool:
    """Return whether a model opens only where this package is imported.

    >>> is_ours('vit_nano_convstem'), is_ours('vit_tiny_patch16_224')
    (True, False)
    """
    return timm.is_model(architecture) and timm.model_entrypoint(architecture).__module__.startswith(__name__)
