"""What each task was published with, and which flags go with it."""
from typing import Any, Dict, Tuple

from .presets import AUG_SETTINGS

_IDMM: Dict[str, Any] = dict(  # arXiv:2201.10728, DeiT-Ti; weight decay on every parameter, no floor of the rate
    img_size=112, epochs=800, batch_size=256, lr_base=5e-4, lr_base_size=256, weight_decay=1e-3,
    opt_kwargs=dict(filter_bias_and_bn=False), warmup_epochs=2, warmup_lr=0.0, min_lr=0.0, drop_path=0.1,
    train_crop_mode='rrc', scale=[0.14, 1.0], train_interpolation='bilinear', color_jitter=[0.8, 0.8, 0.8, 0.2],
    color_jitter_prob=0.8, grayscale_prob=0.2, gaussian_blur_prob=0.5, reprob=0.0)


# What a task was published with. It fills flags that no flag, file, recipe or sample has set.
TASK_SETTINGS: Dict[str, Dict[str, Any]] = {
    'dino': dict(  # arXiv:2104.14294, ViT-S/16; outputs and warm-up are in rules.py, blur and solarising in the task
        weight_decay=0.04, lr_base=5e-4, lr_base_size=256, lr_base_scale='linear', warmup_lr=0.0, min_lr=1e-6,
        clip_grad=3.0, drop_path=0.1, train_crop_mode='rrc', scale=[0.4, 1.0], train_interpolation='bicubic',
        color_jitter=[0.4, 0.4, 0.2, 0.1], color_jitter_prob=0.8, grayscale_prob=0.2, reprob=0.0),
    'idmm': _IDMM,
    'mae': dict(  # arXiv:2111.06377, appendix A.1; the warm-up is in rules.py
        opt_betas=[0.9, 0.95], weight_decay=0.05, lr_base=1.5e-4, lr_base_size=256, lr_base_scale='linear',
        warmup_lr=0.0, min_lr=0.0, drop_path=0.0, train_crop_mode='rrc', scale=[0.2, 1.0],
        train_interpolation='bicubic', aa=None, color_jitter=None, reprob=0.0),
    'deit-lt': dict(  # arXiv:2404.02900, CIFAR; length, batch and --drw-epoch are left to the data and the user
        lr_base=5e-4, lr_base_size=512, lr_base_scale='linear', weight_decay=0.05, warmup_lr=1e-6, min_lr=1e-5,
        drop_path=0.1, mixup=0.8, cutmix=1.0, aug_repeats=3, train_crop_mode='rrc',
        **AUG_SETTINGS['rand-augment']),
    'paco': dict(  # arXiv:2107.12028, CIFAR; the cosine schedule is that of its larger data sets
        opt='sgd', momentum=0.9, lr_base=0.05, lr_base_size=128, lr_base_scale='linear', weight_decay=5e-4,
        opt_kwargs=dict(filter_bias_and_bn=False), epochs=400, batch_size=128, warmup_lr=0.0, min_lr=0.0,
        train_crop_mode='rrc', **AUG_SETTINGS['rand-augment']),
    'simclr': {**_IDMM, 'batch_size': 512},  # as a baseline there
    'supcon': {**_IDMM, 'batch_size': 512},
}


_BCE_ONLY = ('bce_sum', 'bce_target_thresh', 'bce_pos_weight', 'loss_class_weight', 'loss_pos_weight')


# Flags that have no meaning for a task; the value that TASK_SETTINGS gives is no contradiction.
_OF_LOSSES = (
    'loss', 'loss_kwargs', 'loss_tau', 'smoothing', 'lade_weight', 'drw_epoch', *_BCE_ONLY, 'mixup', 'cutmix',
    'cutmix_minmax', 'aug_splits')


_OF_CLASSIFIERS = (
    *_OF_LOSSES, 'head', 'head_scale', 'head_init_scale', 'head_init_bias', 'reset_head', 'freeze_backbone',
    'layer_decay', 'posthoc_tau', 'tau_norm', 'temperature', 'val_interval')


_OF_ONE_VIEW = ('aug', 'aa', 'train_crop_mode')


NOT_WITH_TASK: Dict[str, Tuple[str, ...]] = {
    'dino': (*_OF_CLASSIFIERS, *_OF_ONE_VIEW, 'gaussian_blur_prob', 'train_img_sizes', 'model_ema',
             'sam_rho', 'sam_rho_schedule'),  # a second pass would move the centre again
    'idmm': (*_OF_CLASSIFIERS, *_OF_ONE_VIEW),
    'deit-lt': ('aug_splits', 'layer_decay', 'freeze_backbone'),
    'mae': _OF_CLASSIFIERS,
    'paco': (*_OF_LOSSES, 'layer_decay', 'freeze_backbone'),
    'simclr': (*_OF_CLASSIFIERS, *_OF_ONE_VIEW, 'aug_repeats'),  # an image beside itself would be a negative
    'supcon': (*_OF_CLASSIFIERS, *_OF_ONE_VIEW),
}


_UNSUPERVISED = ('dino', 'idmm', 'mae', 'simclr', 'supcon')


# Flags that have a meaning for these tasks only.
ONLY_WITH_TASK: Dict[str, Tuple[str, ...]] = {
    **dict.fromkeys((
        'dino_out_dim', 'dino_local_crops', 'dino_local_size', 'dino_local_scale', 'dino_student_temp',
        'dino_teacher_temp', 'dino_warmup_teacher_temp', 'dino_teacher_temp_epochs', 'dino_momentum',
        'dino_weight_decay_end', 'dino_freeze_last_layer', 'dino_norm_last_layer', 'dino_centering',
        'dino_sharpening'), ('dino',)),
    'idmm_multicrop': ('idmm', 'simclr', 'supcon'),
    'idmm_cutmix': ('idmm',),
    'idmm_smoothing': ('idmm',),
    'contrastive_temperature': ('simclr', 'supcon'),
    **dict.fromkeys(('probe', 'probe_interval', 'knn_k', 'knn_temperature', 'on_collapse'), _UNSUPERVISED),
    **dict.fromkeys((
        'teacher', 'teacher_path', 'teacher_view', 'teacher_renorm', 'distillation_type', 'distillation_alpha',
        'mixup_off_drw', 'fusion'), ('deit-lt',)),
    **dict.fromkeys(('paco_alpha', 'paco_temperature', 'paco_queue', 'paco_dim', 'paco_momentum'), ('paco',)),
    **dict.fromkeys((
        'mae_mask_ratio', 'mae_norm_pix', 'mae_pos_embed', 'mae_decoder_dim', 'mae_decoder_depth',
        'mae_decoder_heads'), ('mae',)),
}
