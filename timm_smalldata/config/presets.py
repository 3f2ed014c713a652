"""What an augmentation brings along; what a loss and a task bring along stands on their rows."""
from typing import Any, Dict

# Values that fill flags that nobody set.
AUG_SETTINGS: Dict[str, Dict[str, Any]] = {
    'three-augment': dict(aa='3a', color_jitter=[0.3], train_interpolation='bicubic', reprob=0.0, cutout=0),  # DeiT III
    'rand-augment': dict(  # DeiT (arXiv:2012.12877)
        aa='rand-m9-mstd0.5-inc1', color_jitter=[0.3], train_interpolation='bicubic', reprob=0.25, cutout=0),
    'none': dict(
        aa=None, color_jitter=None, train_interpolation='bicubic', reprob=0.0, cutout=0, hflip=0.0,
        train_crop_mode='none'),
}
PLAIN_AUG: Dict[str, Any] = dict(color_jitter=[0.4], train_interpolation='bicubic', reprob=0.0)
WITHOUT_AREA = ('src', 'pad', 'none')
