"""What the flags know of a task, a row each: what it was published with, and which flags mean nothing to it."""
from dataclasses import dataclass, field
from typing import Any, Dict, List, Tuple

from ..task import TASKS, task_class
from .flags import FLAGS, Flag
from .presets import AUG_SETTINGS

LOSS, CLASSIFIER, ONE_VIEW = 'loss', 'classifier', 'one view'  # `part` of a flag


@dataclass(frozen=True)
class TaskRow:
    """What the flags know of a task.

    Attributes:
        published: Values that its source trained with; they fill flags that no flag, file, recipe or sample has set.
        without: Parts that it does not have: flags of such a `part` are refused.
        refuses: Further flags that mean nothing to it.
        corrects_prior: It takes the class prior out by itself.
    """
    published: Dict[str, Any] = field(default_factory=dict)
    without: Tuple[str, ...] = ()
    refuses: Tuple[str, ...] = ()
    corrects_prior: bool = False


_IDMM: Dict[str, Any] = dict(  # arXiv:2201.10728, DeiT-Ti; weight decay on every parameter, no floor of the rate
    img_size=112, epochs=800, batch_size=256, lr_base=5e-4, lr_base_size=256, weight_decay=1e-3,
    opt_kwargs=dict(filter_bias_and_bn=False), warmup_epochs=2, warmup_lr=0.0, min_lr=0.0, drop_path=0.1,
    train_crop_mode='rrc', scale=[0.14, 1.0], train_interpolation='bilinear', color_jitter=[0.8, 0.8, 0.8, 0.2],
    color_jitter_prob=0.8, grayscale_prob=0.2, gaussian_blur_prob=0.5, reprob=0.0)
_CONTRASTIVE = {**_IDMM, 'batch_size': 512, 'lr_base_size': 512}  # the rate of its scripts is that of 512 images
_FEATURES = (LOSS, CLASSIFIER, ONE_VIEW)

ROWS: Dict[str, TaskRow] = {
    'dino': TaskRow(  # arXiv:2104.14294, ViT-S/16; outputs: auto.py, warm-up: length.py, blur and solarising: the task
        dict(
            weight_decay=0.04, lr_base=5e-4, lr_base_size=256, lr_base_scale='linear', warmup_lr=0.0, min_lr=1e-6,
            clip_grad=3.0, drop_path=0.1, train_crop_mode='rrc', scale=[0.4, 1.0], train_interpolation='bicubic',
            color_jitter=[0.4, 0.4, 0.2, 0.1], color_jitter_prob=0.8, grayscale_prob=0.2, reprob=0.0),
        without=_FEATURES,
        # the last two: a second pass would count twice in the centre
        refuses=('gaussian_blur_prob', 'train_img_sizes', 'model_ema', 'sam_rho', 'sam_rho_schedule')),
    'idmm': TaskRow(_IDMM, without=_FEATURES),
    'mae': TaskRow(  # arXiv:2111.06377, appendix A.1; the warm-up is in length.py
        dict(
            opt_betas=[0.9, 0.95], weight_decay=0.05, lr_base=1.5e-4, lr_base_size=256, lr_base_scale='linear',
            warmup_lr=0.0, min_lr=0.0, drop_path=0.0, train_crop_mode='rrc', scale=[0.2, 1.0],
            train_interpolation='bicubic', aa=None, color_jitter=None, reprob=0.0),
        without=(LOSS, CLASSIFIER)),
    'deit-lt': TaskRow(  # arXiv:2404.02900, CIFAR; length, batch and --drw-epoch are left to the data and the user
        dict(
            lr_base=5e-4, lr_base_size=512, lr_base_scale='linear', weight_decay=0.05, warmup_lr=1e-6, min_lr=1e-5,
            drop_path=0.1, mixup=0.8, cutmix=1.0, aug_repeats=3, train_crop_mode='rrc', kd_token_distill_type='hard',
            kd_temperature=1.0,
            **AUG_SETTINGS['rand-augment']),
        refuses=('aug_splits', 'layer_decay', 'freeze_backbone')),
    'cosub': TaskRow(refuses=('aug_splits',)),
    'paco': TaskRow(  # arXiv:2107.12028, CIFAR; the cosine schedule is that of its larger data sets
        dict(
            opt='momentum', momentum=0.9, lr_base=0.05, lr_base_size=128, lr_base_scale='linear', weight_decay=5e-4,
            opt_kwargs=dict(filter_bias_and_bn=False), epochs=400, batch_size=128, warmup_lr=0.0, min_lr=0.0,
            train_crop_mode='pad', train_interpolation='bilinear', aa='cifar10', cutout=16, color_jitter=None,
            reprob=0.0),
        without=(LOSS,), refuses=('layer_decay', 'freeze_backbone'), corrects_prior=True),
    # a baseline there; repeated augmentation would put an image beside itself, as a negative
    'simclr': TaskRow(_CONTRASTIVE, without=_FEATURES, refuses=('aug_repeats',)),
    'supcon': TaskRow(_CONTRASTIVE, without=_FEATURES),
}


def register_row(task: str, row: TaskRow) -> None:
    """Say what the flags know of a task of one's own; a task without a row refuses what it has no part for."""
    ROWS[task] = row


def task_row(task: str) -> TaskRow:
    """Return the row of a task."""
    if task in ROWS:
        return ROWS[task]
    return TaskRow() if task_class(task).supervised else TaskRow(without=(LOSS, CLASSIFIER))


def refused_by(task: str) -> List[str]:
    """Return the flags (argparse destinations) that mean nothing to a task."""
    row = task_row(task)
    return [flag.dest for flag in FLAGS if flag.part and flag.part in _parts_without(row)] + list(row.refuses)


def _parts_without(row: TaskRow) -> Tuple[str, ...]:
    """Without a classifier there is no loss of one."""
    return (*row.without, LOSS) if CLASSIFIER in row.without else row.without


def tasks_of(flag: Flag) -> Tuple[str, ...]:
    """Return the tasks that a flag goes with; empty where it goes with all."""
    learn_features = sorted(name for name, task in TASKS.items() if not task.supervised)
    return tuple(name for word in flag.tasks for name in (learn_features if word == 'features' else [word]))
