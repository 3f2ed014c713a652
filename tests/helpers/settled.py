"""What a stage of a recipe trains with in the end, in words: read off the views, optimizer and schedule that are built.

No data and no large model: settings that depend on the number of images are settled by the scale itself.
"""
from argparse import Namespace
from types import SimpleNamespace
from typing import Any, Dict, List

import timm
import torch

from timm_smalldata.build.optimizer import create_optimizer, create_schedule
from timm_smalldata.build.views import create_views, data_config
from timm_smalldata.config.auto import learning_rate
from timm_smalldata.config.length import follows, total_epochs
from timm_smalldata.config.plan import Stage, finish_stage
from timm_smalldata.data.views import ViewSpec, _train_transform
from timm_smalldata.task import TaskSetting, task_class

UPDATES = 100  # of an epoch, for the rates
SMALL = dict(patch_size=16, embed_dim=24, num_heads=2, depth=1)


def settle(stage: Stage) -> Namespace:
    """Return all settings of a stage, as a run on as many images as the paper's would have them."""
    finish_stage(stage)
    settings = stage.settings
    for dest, value in follows(settings.get('epochs'), settings).items():
        settings.settle(dest, value, 'length')
    args = settings.namespace()
    args.lr = args.lr or learning_rate(
        args.lr_base, args.lr_base_size, args.lr_base_scale, args.opt, args.batch_size * args.grad_accum_steps)
    return args


def settled(args: Namespace, from_scratch: bool) -> Dict[str, str]:
    """Return the settled settings in words, by name; what is off has no name.

    Args:
        args: From `settle`.
        from_scratch: Whether the stage begins with new weights.
    """
    features = not task_class(args.task).supervised
    model: Any = SimpleNamespace(pretrained_cfg=timm.get_pretrained_cfg(args.model).to_dict())
    config = data_config(args, model)
    view, _ = create_views(args, config)
    resized = int(args.img_size / config['crop_pct'])
    rows = {
        'model': ' '.join([args.model, *(f'{key}={value}' for key, value in args.model_kwargs.items())]),
        'image size': str(args.img_size),
        'mean': numbers(config['mean']),
        'std': numbers(config['std']),
        'evaluation': f"{config['interpolation']} to {resized}, centre {args.img_size}",
        **views(args, view),
        'repeats of an image': str(args.aug_repeats or 'none'),
        'mixing': mixing(args),
        'loss': loss(args),
        'stochastic depth': 'none' if not args.drop_path else (
            f'{args.drop_path:g} in ' + ('every block' if args.drop_path_constant else 'the last block, rising')),
        'images of an update': str(args.batch_size * args.grad_accum_steps),
        'epochs': str(total_epochs(args)),
        **optimizer(args),
        'weights': {'last': 'of the last epoch', 'best': 'of the best epoch on val'}[args.select],
        'average of weights': str(args.model_ema_decay) if args.model_ema else 'none',
    }
    if from_scratch and not args.model.startswith(('resnet', 'pvt')) and args.task != 'mae':
        rows['class token'] = f'deviation {args.class_token_std or 1e-6:g}'
    if not features:
        rows['many, medium, few'] = args.shot_split
    rows = {name: value for name, value in rows.items() if value != 'none'}
    if args.head_init_scale is not None:
        rows['new head'] = f'{args.head_init_scale:g} of 0.02'
    if args.layer_decay is not None:
        rows['layer decay'] = f'{args.layer_decay:g}'
    return {**rows, **own(args)}


def numbers(values: Any) -> str:
    return ' '.join(f'{value:.6g}' for value in values)


def views(args: Namespace, view: ViewSpec) -> Dict[str, str]:
    """Return each kind of view that the task asks for: `view`, or `view 1`, `view 2`, ..."""
    task = task_class(args.task)
    if args.task in ('classification', 'deit-lt', 'mae'):
        return {'view': describe(view)}
    name = 'resnet20_cifar' if args.task == 'paco' else 'vit_tiny_patch16_224'
    kwargs = dict(num_classes=3) if args.task == 'paco' else dict(SMALL, dynamic_img_size=True, num_classes=0)
    setting = TaskSetting(SimpleNamespace(counts=[3, 2, 1]), 9, view, torch.device('cpu'), torch.nn.CrossEntropyLoss)
    built = task.from_settings(args, timm.create_model(name, **kwargs), setting).configure(view=view)
    kinds: Dict[str, int] = {}
    for spec in built.views():
        text = describe(spec)
        kinds[text] = kinds.get(text, 0) + 1
    return {
        f'view {number}': f'{count} of: {text}' if count > 1 else text
        for number, (text, count) in enumerate(kinds.items(), 1)}


def describe(spec: ViewSpec) -> str:
    """Return the built transforms of a view in words."""
    words = [f'{spec.size} px', *filter(None, map(_words, _train_transform(spec).transforms))]
    if spec.erase.prob:
        words.append(f'erase {spec.erase.prob:g} {spec.erase.mode} {spec.erase.count}')
    return ', '.join(words)


WORDS = {
    'RandomApply': lambda part: f'{_words(part.transforms[0])} in {part.p:g}',
    'RandomResizedCropAndInterpolation': lambda part:
        f'crop {numbers(part.scale)} ratio {numbers(part.ratio)} {part.interpolation.name.lower()}',
    'SimpleRandomCrop': lambda part:
        '{0.interpolation.value} to the shorter side, {1.padding} px {1.padding_mode}, cut'.format(*part.transforms),
    'RandomHorizontalFlip': lambda part: f'flip {part.p:g}',
    'ColorJitter': lambda part: 'jitter ' + numbers(
        pair[1] - base if pair else 0 for pair, base in (
            (part.brightness, 1), (part.contrast, 1), (part.saturation, 1), (part.hue, 0))),
    'RandomGrayscale': lambda part: f'grey {part.p:g}',
    'GaussianBlur': lambda part: f'blur {numbers(part.sigma)} on {part.kernel_size[0]} px',
    'RandAugment': lambda part:
        '{0.num_layers} of {1} operations, strength {2.magnitude:g} +- {2.magnitude_std:g}'.format(
            part, len(part.ops), part.ops[0]),
    'AutoAugment': lambda part:  # torchvision's, or timm's 3a
        'CIFAR AutoAugment' if hasattr(part, 'fill') else 'one of ' + ' '.join(op[0].name for op in part.policy),
    'RandomOperations': lambda part: f'2 of {len(part.names)} operations, each in {part.prob:g}',
    'AugmentOp': lambda part:
        f"{dict(GaussianBlurRand='blur 0.1 2', Solarize='solarise')[part.name]} in {part.prob:g}",
    'Cutout': lambda part: f'cutout {part.side}',
    'MaybePILToTensor': lambda part: '',
}


def _words(part: Any) -> str:
    return WORDS[type(part).__name__](part)


def mixing(args: Namespace) -> str:
    if not (args.mixup or args.cutmix):
        return 'none'
    both = f', cutmix in {args.mixup_switch_prob:g}' if args.mixup and args.cutmix else ''
    return f'mixup {args.mixup:g}, cutmix {args.cutmix:g}, in {args.mixup_prob:g} of the {args.mixup_mode}es{both}'


def loss(args: Namespace) -> str:
    if not task_class(args.task).supervised or args.task == 'paco':
        return args.task
    words = [args.loss, *(f'{key}={value}' for key, value in args.loss_kwargs.items())]
    if args.loss == 'bce':
        words.append(f"of targets over {args.bce_target_thresh:g}, {'sum' if args.bce_sum else 'mean'} over classes")
    if args.loss == 'balanced-bce':
        words.append(f'tau {args.loss_tau:g}')
    if args.head == 'cosine':
        words.append(f'on cosines times {args.head_scale:g}')
    return ' '.join([*words, f'smoothing {args.smoothing:g}'])


def optimizer(args: Namespace) -> Dict[str, str]:
    """Return what the built optimizer does with a matrix and a bias, and the rates of the built schedule."""
    module = torch.nn.Linear(2, 2)
    made = create_optimizer(args, module)
    base = getattr(made, 'base', made)
    group = base.param_groups[0]
    words: List[str] = [type(base).__name__]
    told = ('momentum', 'nesterov', 'betas', 'eps', 'max_grad_norm')
    words += [f'{name} {group[name]}' for name in told if name in group]
    decays = {id(p): g['weight_decay'] for g in base.param_groups for p in g['params']}
    biases = 'biases too' if decays[id(module.bias)] else 'not on biases and norms'
    end = f' to {args.dino_weight_decay_end:g}' if args.task == 'dino' else ''
    schedule, _ = create_schedule(args, base, UPDATES, 0)
    when = f"{args.sched} by {'update' if args.sched_on_updates else 'epoch'}"
    return {
        'optimizer': ', '.join(words),
        'sharpness (SAM)': args.sam_rho_schedule or (f'{args.sam_rho:g}' if args.sam_rho else 'none'),
        'weight decay': f'{decays[id(module.weight)]:g}{end}, {biases}',
        'gradient clipping': f'{args.clip_grad:g} by tensor' if args.clip_grad and args.task == 'dino' else
        f'{args.clip_grad:g}' if args.clip_grad else 'none',
        'rates of epochs': f'{when}: ' + ', '.join(
            f'{epoch}: {rate(schedule, args, epoch):.3g}' for epoch in epochs_shown(args)),
    }


def epochs_shown(args: Namespace) -> List[int]:
    """Return epochs (from 0) whose rates are compared: the first ones, the middle, around drops, the last."""
    total = total_epochs(args)
    drops = args.decay_milestones if args.sched == 'multistep' else []
    return sorted({0, 1, 5, 10, *drops, *(drop - 1 for drop in drops), total // 2, 3 * total // 4, total - 1})


def rate(schedule: Any, args: Namespace, epoch: int) -> float:
    """Return the rate at the start of an epoch."""
    return schedule._get_lr(epoch * UPDATES if args.sched_on_updates else epoch)[0]


def own(args: Namespace) -> Dict[str, str]:
    """Return what a task has of its own, and deferred re-weighting."""
    rows: Dict[str, str] = {}
    if args.drw_epoch is not None:
        rows['deferred re-weighting'] = f'from epoch {args.drw_epoch}, beta {args.drw_beta:g}'
    if args.task == 'dino':
        epochs = args.dino_teacher_temp_epochs
        rows.update({
            'head': f'{args.dino_out_dim} outputs, gain {"held at 1" if args.dino_norm_last_layer else "trained"}, '
                    f'last layer still for {args.dino_freeze_last_layer} epoch',
            'temperatures': f'student {args.dino_student_temp:g}, teacher {args.dino_warmup_teacher_temp:g} to '
                            f'{args.dino_teacher_temp:g} in {epochs} epochs',
            'momentum of the teacher': numbers(args.dino_momentum)})
    if args.task == 'mae':
        rows.update({
            'masked': f'{args.mae_mask_ratio:g}, {"patches normalised" if args.mae_norm_pix else "plain pixels"}',
            'decoder': f'{args.mae_decoder_dim} wide, {args.mae_decoder_depth} deep, {args.mae_decoder_heads} heads',
            'positions': args.mae_pos_embed})
    if args.task == 'idmm':
        rows['instances'] = f'smoothing {args.idmm_smoothing:g}, cutmix {"on" if args.idmm_cutmix else "off"}'
    if args.task == 'paco':
        rows.update({
            'contrast': f'alpha {args.paco_alpha:g}, temperature {args.paco_temperature:g}, {args.paco_queue} keys, '
                        f'momentum {args.paco_momentum:g}',
            'projection': f'linear, {"batch norm, " if args.paco_norm else ""}ReLU, linear to {args.paco_dim}'})
    if args.task == 'deit-lt':
        rows.update({
            'distillation': f'{args.kd_token_distill_type}, {args.distillation_alpha:g}, judged by {args.fusion}',
            'teacher sees': f'the {args.teacher_view} view, normalisation {args.teacher_renorm}',
            'after re-weighting begins': 'no mixing, no smoothing' if args.mixup_off_drw else 'mixing goes on'})
    return rows
