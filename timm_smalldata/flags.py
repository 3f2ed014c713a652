"""Every flag of the train command: name, type, default, a line for its user. One table for the parser, YAML and docs.

Names and meanings are timm 1.0.31's; `own=True` marks ours. A default of None means: resolved later, by the chosen
loss, augmentation, data set or the rule for unknown data, and printed with what set it.
"""
from dataclasses import dataclass
from typing import Any, Dict, List, Optional, Tuple, Union


@dataclass(frozen=True)
class Flag:
    """One command-line flag."""
    name: str
    type: Any
    default: Any
    help: str
    group: str = ''
    choices: Optional[Tuple] = None
    nargs: Union[None, int, str] = None
    const: Any = None
    short: Optional[str] = None
    metavar: Optional[str] = None
    own: bool = False
    result: bool = True  # False: cannot change the result, so it may differ when a run is resumed

    @property
    def dest(self) -> str:
        return self.name.replace('-', '_')


def _group(title: str, *rows: Dict[str, Any]) -> List[Flag]:
    return [Flag(group=title, **row) for row in rows]


def _f(name: str, type: Any, default: Any, help: str, **kw: Any) -> Dict[str, Any]:
    return dict(name=name, type=type, default=default, help=help, **kw)


FLAGS: List[Flag] = [
    *_group(
        'Your images',
        _f('data-dir', str, None,
           'folder, tar, CSV or list file with your images; without it an embedded sample is used',
           result=False, metavar='PATH'),
        _f('dataset', str, None,
           'named data set instead: sample/digits, sample/shapes (generated), torch/cifar10, hfds/owner/name'),
        _f('train-split', str, None,
           'training split: a folder, a value of the split column or a file; a+b joins (train)'),
        _f('val-split', str, None, 'split that chooses weights and settings (val or validation; else held out)'),
        _f('test-split', str, None,
           'split for the final number only, used once at the end (test; else held out)', own=True),
        _f('val-fraction', float, None,
           'share of the training images held out as val where there is none (0.15)', own=True),
        _f('test-fraction', float, None,
           'share held out as test where there is none (0.15 for data without splits, else 0)',
           own=True),
        _f('fold', str, None,
           'i/k: hold out the i-th of k parts as test (as val where a test split is named)', own=True, metavar='I/K'),
        _f('split-seed', int, 0, 'seed of what is held out', own=True),
        _f('split-file', str, None, 'use the split.json of an earlier run again', own=True, metavar='FILE'),
        _f('group-column', str, None, 'column whose equal values (animal, patient, burst) stay on one side', own=True),
        _f('group-regex', str, None,
           'the same from file names: first group of this regular expression', own=True, metavar='REGEX'),
        _f('class-map', str, None,
           'text file with one class name per line: fixes the order of the classes', metavar='FILE'),
        _f('class-stats', str, None,
           'JSON with class counts (timm format) to use instead of the counted ones', metavar='FILE'),
        _f('folder-labels', str, 'auto',
           'which folder names the class in nested folders', choices=('auto', 'leaf', 'first'),
           own=True),
        _f('input-key', str, None, 'column with the image path (CSV) or the image (hfds)'),
        _f('target-key', str, None, 'column with the label'),
        _f('split-key', str, None, 'column with the split (CSV)', own=True),
        _f('image-root', str, None,
           'folder that paths in CSV and list files start from (default: the data folder)',
           own=True, result=False, metavar='DIR'),
        _f('on-bad-image', str, 'stop', 'a file that cannot be decoded: stop, or skip it and write a list',
           choices=('stop', 'skip'), own=True),
        _f('allow-missing-classes', bool, False, 'accept classes without a training or an evaluation image', own=True),
        _f('dataset-download', bool, False, 'let torch/... data sets be downloaded'),
        _f('dataset-trust-remote-code', bool, False, 'let hfds/... data sets run their own code'),
        _f('cache-dir', str, None,
           'where decoded images are kept (default: OUTPUT/.cache)', own=True, result=False, metavar='DIR'),
        _f('cache-size', str, 'auto', 'shorter side that is kept: full, a number of pixels, or auto (full up to 2 GiB)',
           own=True),
    ),
    *_group(
        'Long tail',
        _f('imbalance-factor', float, None,
           'make the training images long-tailed: largest over smallest class, e.g. 100',
           own=True),
        _f('imbalance-profile', str, 'exp', 'shape of that tail', choices=('exp', 'step'), own=True),
        _f('imbalance-seed', int, 0, 'seed of that selection', own=True),
        _f('imbalance-indices', str, None,
           'train_images.json of an earlier run: take the same images again', own=True, metavar='FILE'),
        _f('shot-split', str, None,
           'many/medium/few: counts:100,20 (more than, fewer than) or index:a,b (default counts:100,20)',
           own=True),
    ),
    *_group(
        'Model',
        _f('model', str, None, 'any timm model name (default: chosen from the data, printed)'),
        _f('model-kwargs', dict, {}, 'constructor arguments, e.g. patch_size=8 depth=6', nargs='*'),
        _f('img-size', int, None, 'side of the training and evaluation images in pixels'),
        _f('pretrained', bool, False, 'start from pretrained weights instead of from scratch'),
        _f('pretrained-path', str, None, 'file with weights for --pretrained', metavar='FILE'),
        _f('initial-checkpoint', str, None,
           'start from this checkpoint or model folder; a head of another shape or kind is left out', metavar='PATH'),
        _f('num-classes', int, None, 'number of classes, if you want it checked against the data'),
        _f('reset-head', bool, False, 'with --initial-checkpoint: begin with a new head, even for the same classes',
           own=True),
        _f('freeze-backbone', bool, False, 'train the head only; the rest stays in evaluation mode', own=True),
        _f('gp', str, None, 'global pooling, e.g. token, avg'),
        _f('drop', float, 0.0, 'dropout of the classifier'),
        _f('drop-path', float, None, 'stochastic depth'),
        _f('drop-block', float, None, 'DropBlock (some CNNs)'),
        _f('head', str, 'linear', 'classifier: linear, or cosine (scaled cosines, which ldam needs)',
           choices=('linear', 'cosine'), own=True),
        _f('head-scale', float, 30.0, 'cosine: factor of the cosines', own=True),
        _f('head-init-scale', float, None, 'scale the initial weights of the head'),
        _f('head-init-bias', float, None, 'initial bias of the head'),
        _f('grad-checkpointing', bool, False, 'trade speed for memory'),
        _f('fast-norm', bool, False, 'normalisation layers in reduced precision'),
        _f('channels-last', bool, False, 'channels-last memory format'),
        _f('mean', float, None, 'channel means of the normalisation (default: the model\'s)', nargs='+'),
        _f('std', float, None, 'channel standard deviations (default: the model\'s)', nargs='+'),
        _f('crop-pct', float, 1.0, 'evaluation: share of the resized image that is kept'),
        _f('interpolation', str, 'bicubic', 'evaluation: interpolation'),
    ),
    *_group(
        'Task and loss',
        _f('task', str, 'classification',
           'what is trained: classification, or features without labels (idmm, mae, simclr) or with them (supcon)'),
        _f('idmm-multicrop', bool, True, 'idmm, simclr, supcon: 4 small crops beside the 2 large ones (--scale)',
           own=True),
        _f('idmm-cutmix', bool, True, 'idmm: paste boxes between crops', own=True),
        _f('idmm-smoothing', float, 0.1, 'idmm: label smoothing over the images', own=True),
        _f('contrastive-temperature', float, 0.5, 'simclr, supcon: temperature of the loss', own=True),
        _f('loss', str, 'ce',
           'balanced-bce, balanced-softmax, logit-adjusted, ldam, lade, vector-scaling, label-aware-smoothing, '
           'class-balanced-ce, class-balanced-focal (counts come from the data), or ce, bce, focal, asl, poly, jsd'),
        _f('loss-kwargs', dict, {}, 'further arguments of the loss, e.g. gamma=1 beta=0.999 shape=linear', nargs='*',
           own=True),
        _f('loss-tau', float, None, 'strength of the prior in balanced-bce and logit-adjusted (1.0)', own=True),
        _f('smoothing', float, None, 'label smoothing (default: what the loss was published with)'),
        _f('bce-loss', bool, False, 'the same as --loss bce'),
        _f('bce-sum', bool, False, 'bce: sum over classes instead of the mean'),
        _f('bce-target-thresh', float, None, 'bce: binarise soft targets above this'),
        _f('bce-pos-weight', float, None, 'bce: weight of positives'),
        _f('loss-class-weight', str, None, 'bce: number, comma list, file, inv_freq or effective_num'),
        _f('loss-pos-weight', str, None, 'bce: number, comma list, file or neg_pos'),
        _f('loss-weight-power', float, 1.0, 'power of neg_pos and inv_freq'),
        _f('lade-weight', float, None, 'lade: weight of its term beside the cross-entropy (0.1)', own=True),
        _f('drw-epoch', int, None,
           'deferred re-weighting: weigh the classes by their effective numbers from this epoch on', own=True),
        _f('drw-beta', float, 0.9999, 'its beta: nearer to 1, nearer to weights of 1 / images', own=True),
        _f('poly-epsilon', float, 2.0, 'poly: first coefficient'),
        _f('jsd-loss', bool, False, 'the same as --loss jsd'),
    ),
    *_group(
        'Masked autoencoder (--task mae)',
        _f('mae-mask-ratio', float, 0.75, 'share of the patches that are hidden', own=True),
        _f('mae-norm-pix', bool, True, 'predict patches normalised one by one (--no-mae-norm-pix: plain pixels)',
           own=True),
        _f('mae-pos-embed', str, 'sincos', 'positions of the encoder: fixed sine-cosine, or learned',
           choices=('sincos', 'learned'), own=True),
        _f('mae-decoder-dim', int, None, 'width of the decoder (two thirds of the encoder, at most 512)', own=True),
        _f('mae-decoder-depth', int, None, 'its blocks (two thirds of the encoder, at most 8)', own=True),
        _f('mae-decoder-heads', int, None, 'its attention heads (width / 32)', own=True),
    ),
    *_group(
        'Which image comes how often',
        _f('sampler', str, 'instance',
           'instance (every image once), class-balanced (every class alike), sqrt, progressive (first to second)',
           choices=('instance', 'class-balanced', 'sqrt', 'progressive'), own=True),
        _f('sampler-power', float, None,
           'draw an image of class c by images(c) ** -power: 0 every image alike, 1 every class alike', own=True),
        _f('drs-epoch', int, None,
           'deferred re-sampling: --sampler (class-balanced if it is not given) from this epoch on', own=True),
        _f('aug-repeats', int, 0, 'repeated augmentation: times that an image comes in a row'),
    ),
    *_group(
        'Augmentation',
        _f('aug', str, None, 'preset: three-augment (DeiT III), rand-augment (DeiT), none', own=True),
        _f('no-aug', bool, False, 'the same as --aug none'),
        _f('train-crop-mode', str, None, 'rrc (random resized crop), src (simple random crop), rkrc, rkrr, none'),
        _f('scale', float, None, 'rrc: range of the cut area', nargs=2),
        _f('ratio', float, None, 'rrc: range of the aspect ratio', nargs=2),
        _f('hflip', float, None, 'probability of a left-right mirror image (0.5)'),
        _f('vflip', float, 0.0, 'probability of an upside-down image'),
        _f('color-jitter', float, None, 'strength of the colour jitter', nargs='+'),
        _f('color-jitter-prob', float, None, 'probability of the colour jitter'),
        _f('grayscale-prob', float, 0.0, 'probability of a grey image'),
        _f('gaussian-blur-prob', float, 0.0, 'probability of a blurred image'),
        _f('aa', str, None, 'automatic augmentation in timm\'s words, e.g. 3a, rand-m9-mstd0.5-inc1, augmix-m3'),
        _f('train-interpolation', str, None, 'training: interpolation of the crop'),
        _f('aug-splits', int, 0, 'views of each image for the jsd loss (3)'),
        _f('reprob', float, None, 'probability of random erasing'),
        _f('remode', str, 'pixel', 'random erasing: fill'),
        _f('recount', int, 1, 'random erasing: regions'),
        _f('resplit', bool, False, 'jsd: leave the first view without random erasing'),
        _f('mixup', float, 0.0, 'mixup alpha'),
        _f('cutmix', float, 0.0, 'cutmix alpha'),
        _f('cutmix-minmax', float, None, 'cutmix: range of the side', nargs='+'),
        _f('mixup-prob', float, 1.0, 'probability of mixing a batch'),
        _f('mixup-switch-prob', float, 0.5, 'probability of cutmix where both are on'),
        _f('mixup-mode', str, 'batch', 'one draw per batch, pair or elem', choices=('batch', 'pair', 'elem')),
        _f('mixup-off-epoch', int, 0, 'stop mixing from this epoch on'),
    ),
    *_group(
        'Length, batch and learning rate',
        _f('epochs', int, None, 'passes over the training images (default: chosen from the data, printed)'),
        _f('time-budget', str, None,
           'set the epochs from a measurement so that the run, final evaluation included, ends in time: 45s, 30m, 2h '
           '(of a recipe: each stage)', own=True, metavar='TIME'),
        _f('batch-size', int, None, 'images per step of one process', short='b'),
        _f('validation-batch-size', int, None, 'the same for evaluation', short='vb'),
        _f('grad-accum-steps', int, 1, 'micro-batches per update'),
        _f('opt', str, 'adamw', 'any timm optimizer'),
        _f('opt-eps', float, None, 'epsilon of the optimizer'),
        _f('opt-betas', float, None, 'betas of the optimizer', nargs='+'),
        _f('opt-kwargs', dict, {}, 'further arguments of the optimizer', nargs='*'),
        _f('momentum', float, 0.9, 'momentum (sgd and relatives)'),
        _f('weight-decay', float, 0.05, 'weight decay'),
        _f('clip-grad', float, None, 'clip gradients'),
        _f('clip-mode', str, 'norm', 'how gradients are clipped', choices=('norm', 'value', 'agc')),
        _f('sam-rho', float, None,
           'sharpness-aware minimisation (SAM) with this radius, two passes an update: 0.05 is usual, 0 is off',
           own=True),
        _f('sam-adaptive', bool, False, 'its adaptive form (ASAM); its radius is about ten times as large', own=True),
        _f('sam-rho-schedule', str, None, 'the radius by epoch instead: "0:0.05 5:0.1 60:0.5", each from that epoch on',
           own=True, metavar='STEPS'),
        _f('sam-global', bool, False, 'SAM: one perturbation for all processes instead of one each', own=True),
        _f('layer-decay', float, None, 'lower learning rates for earlier layers'),
        _f('layer-decay-min-scale', float, 0.0, 'least scale of that'),
        _f('layer-decay-no-opt-scale', float, None, 'layers below this scale are not trained'),
        _f('lr', float, None, 'peak learning rate (default: from --lr-base and the global batch)'),
        _f('lr-base', float, 1e-3, 'learning rate at a global batch of --lr-base-size'),
        _f('lr-base-size', int, 256, 'see --lr-base'),
        _f('lr-base-scale', str, '', 'linear or sqrt (default: sqrt for adaptive optimizers, else linear)'),
        _f('sched', str, 'cosine', 'schedule: cosine, tanh, step, multistep, poly, wsd, constant, none'),
        _f('sched-on-updates', bool, True, 'change the rate at every update (--no-sched-on-updates: every epoch)'),
        _f('warmup-epochs', int, None, 'epochs of warm-up (default: a tenth of all, at most 5)'),
        _f('warmup-lr', float, 1e-6, 'learning rate at the start of the warm-up'),
        _f('warmup-prefix', bool, False, 'do not count the warm-up in the schedule'),
        _f('min-lr', float, 1e-6, 'learning rate at the end'),
        _f('cooldown-epochs', int, 0, 'epochs at the end with the least rate'),
        _f('decay-epochs', float, 90.0, 'step: epochs between drops'),
        _f('decay-milestones', int, [90, 180, 270], 'multistep: epochs of the drops', nargs='+'),
        _f('decay-rate', float, 0.1, 'step, multistep: factor of a drop'),
        _f('patience-epochs', int, 10, 'plateau: epochs of patience'),
        _f('lr-noise', float, None, 'noise on the rate: start (and end) as shares of the run', nargs='+'),
        _f('lr-noise-pct', float, 0.67, 'limit of that noise'),
        _f('lr-noise-std', float, 1.0, 'its standard deviation'),
        _f('lr-cycle-mul', float, 1.0, 'cosine cycles: length multiplier'),
        _f('lr-cycle-decay', float, 0.5, 'cosine cycles: decay'),
        _f('lr-cycle-limit', int, 1, 'cosine cycles: number'),
        _f('lr-k-decay', float, 1.0, 'k-decay of cosine and poly'),
        _f('lr-decay-fn', str, None, 'wsd: form of the decay'),
        _f('lr-stable-timescale', float, None, 'rsqrt: time scale'),
        _f('train-img-sizes', int, None, 'progressive resizing: image sizes, small to large', nargs='+'),
        _f('train-batch-sizes', int, None, 'batch size at each of them', nargs='+'),
        _f('train-size-probs', float, None, 'probability of each of them', nargs='+'),
        _f('train-size-schedule', str, 'constant', 'constant mix, or progressive from first to last',
           choices=('constant', 'progressive')),
        _f('train-size-schedule-spread', float, 0.65, 'progressive: spread'),
        _f('train-size-random-mix', float, 0.1, 'progressive: share of random sizes'),
        _f('train-batches-per-epoch', int, None, 'batches per epoch when sizes are scheduled'),
        _f('model-ema', bool, False, 'keep an average of the weights; it is evaluated and exported'),
        _f('model-ema-decay', float, 0.9998, 'decay of the average'),
        _f('model-ema-warmup', bool, False, 'let the decay grow at the start'),
        _f('model-ema-force-cpu', bool, False, 'keep the average on the CPU'),
        _f('bn-momentum', float, None, 'batch norm momentum'),
        _f('bn-eps', float, None, 'batch norm epsilon'),
        _f('sync-bn', bool, False, 'batch norm over all processes (GPUs)'),
        _f('dist-bn', str, 'reduce', 'batch norm statistics after an epoch: reduce, broadcast or nothing',
           choices=('reduce', 'broadcast', '')),
    ),
    *_group(
        'Evaluation',
        _f('eval-metric', str, 'balanced_top1', 'metric that --select best watches'),
        _f('select', str, 'best',
           'weights that are exported: best on val, or last', choices=('best', 'last'), own=True),
        _f('val-interval', int, 1, 'epochs between evaluations'),
    ),
    *_group(
        'After training, beside the raw numbers',
        _f('posthoc-tau', float, None, 'take tau times the log prior out of the logits (1)', own=True),
        _f('tau-norm', float, None, 'divide the class vectors by their length to the power tau (1)', own=True),
        _f('temperature', bool, False, 'scale the logits by a temperature fitted on val', own=True),
    ),
    *_group(
        'Machine',
        _f('device', str, 'auto', 'auto, cpu, cuda, cuda:1, mps'),
        _f('amp', bool, None, 'mixed precision (default: on for CUDA)'),
        _f('amp-dtype', str, 'bfloat16', 'its type', choices=('bfloat16', 'float16')),
        _f('torchcompile', str, None, 'compile the model (optional: backend)', nargs='?', const='inductor'),
        _f('torchcompile-mode', str, None, 'mode of the compiler'),
        _f('workers', int, None, 'data processes (default: 0 on a CPU, else 4)', short='j', result=False),
        _f('pin-mem', bool, False, 'page-locked memory for transfers', result=False),
        _f('no-ddp-bb', bool, False, 'do not broadcast buffers between processes'),
        _f('device-modules', str, None, 'Python modules to import first', nargs='+'),
        _f('seed', int, 42, 'seed of everything random in training'),
    ),
    *_group(
        'Where results go',
        _f('output', str, 'output', 'folder for runs', result=False, metavar='DIR'),
        _f('experiment', str, '', 'name of this run (default: date, recipe or loss, data)', result=False),
        _f('resume', str, None,
           'auto (this run\'s own folder) or a checkpoint: continue a run', result=False, metavar='PATH'),
        _f('no-resume-opt', bool, False, 'resume the weights only', result=False),
        _f('force', bool, False, 'resume although arguments changed', own=True, result=False),
        _f('stop-epoch', int, None, 'stop after this many epochs, schedule unchanged', result=False),
        _f('save-epochs', int, None, 'keep milestone-N.pth.tar after these numbers of epochs', nargs='+', result=False),
        _f('log-interval', int, 50, 'updates between lines where there is no progress bar', result=False),
        _f('log-tensorboard', bool, False, 'write TensorBoard files (extra)', own=True, result=False),
        _f('log-wandb', bool, False, 'log to Weights & Biases (extra)', result=False),
        _f('wandb-project', str, None, 'its project', result=False),
        _f('wandb-tags', str, [], 'its tags', nargs='+', result=False),
        _f('wandb-resume-id', str, '', 'its run to continue', result=False),
        _f('push-to-hub', str, None,
           'owner/name: send model/ and a card to the Hugging Face hub', own=True, result=False, metavar='OWNER/NAME'),
        _f('hub-public', bool, False, 'make that repository public (private otherwise)', own=True, result=False),
        _f('hub-license', str, 'other', 'licence that the card names', own=True, result=False),
    ),
    *_group(
        'Recipes',
        _f('config', str, None, 'YAML file with flags', short='c', result=False, metavar='FILE'),
        _f('recipe', str, None, 'named list of stages', own=True),
        _f('dry-run', bool, False,
           'print the plan (stages, settings, steps, memory, time) and stop', own=True, result=False),
    ),
]

BY_DEST: Dict[str, Flag] = {flag.dest: flag for flag in FLAGS}


def shown(value: Any) -> str:
    """Return a value as it is written on a command line.

    >>> shown([0.3, 1.0]), shown(dict(depth=2)), shown(1e-3)
    ('0.3 1.0', 'depth=2', '0.001')
    """
    if isinstance(value, dict):
        return ' '.join(f'{k}={v}' for k, v in value.items()) or '-'
    if isinstance(value, (list, tuple)):
        return ' '.join(map(str, value))
    return f'{value:g}' if isinstance(value, float) else str(value)
