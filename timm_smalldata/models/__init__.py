"""Models that timm lacks; importing this package registers them."""
from . import resnet_cifar  # noqa: F401  (registration)
from .cosine import CosineClassifier, fold_cosine_head, mean_feature_norms, set_cosine_head, set_directions
from .resnet_cifar import CifarResNet

__all__ = [
    'CifarResNet', 'CosineClassifier', 'fold_cosine_head', 'mean_feature_norms', 'set_cosine_head', 'set_directions']
