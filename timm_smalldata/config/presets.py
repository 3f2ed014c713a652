"""What a loss, an augmentation and a sample bring along, and which flags contradict each other."""
from typing import Any, Dict

# Values that the published method uses; they fill flags that nobody set.
LOSS_SETTINGS: Dict[str, Dict[str, Any]] = {
    'ce': dict(smoothing=0.1),  # timm
    'bce': dict(smoothing=0.0, bce_target_thresh=0.0),  # DeiT III (arXiv:2204.07118)
    'asl': dict(smoothing=0.1),  # timm
    'poly': dict(smoothing=0.1),  # timm
    'jsd': dict(smoothing=0.1, aug_splits=3),  # AugMix, timm
    'balanced-bce': dict(smoothing=0.0, loss_tau=1.0),  # LiVT (arXiv:2212.02015)
    'balanced-softmax': dict(smoothing=0.0),  # arXiv:2007.10740
    'logit-adjusted': dict(smoothing=0.0, loss_tau=1.0),  # arXiv:2007.07314
    'focal': dict(smoothing=0.0),  # arXiv:1708.02002
    'class-balanced-ce': dict(smoothing=0.0),  # arXiv:1901.05555
    'class-balanced-focal': dict(smoothing=0.0),
    'label-aware-smoothing': dict(smoothing=0.0),  # arXiv:2104.00466; its own smoothing is inside
    'vector-scaling': dict(smoothing=0.0),  # arXiv:2103.01550
    'ldam': dict(smoothing=0.0),  # arXiv:1906.07413
    'lade': dict(smoothing=0.0, lade_weight=0.1),  # arXiv:2012.00321
}
AUG_SETTINGS: Dict[str, Dict[str, Any]] = {
    'three-augment': dict(aa='3a', color_jitter=[0.3], train_interpolation='bicubic', reprob=0.0),  # DeiT III
    'rand-augment': dict(  # DeiT (arXiv:2012.12877)
        aa='rand-m9-mstd0.5-inc1', color_jitter=[0.3], train_interpolation='bicubic', reprob=0.25),
    'none': dict(
        aa=None, color_jitter=None, train_interpolation='bicubic', reprob=0.0, hflip=0.0, train_crop_mode='none'),
}
PLAIN_AUG: Dict[str, Any] = dict(color_jitter=[0.4], train_interpolation='bicubic', reprob=0.0)
