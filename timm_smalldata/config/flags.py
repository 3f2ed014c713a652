"""Every flag of the train command, a row each: all that is known of it. One table for the parser, YAML and docs.

Names and meanings are timm 1.0.31's; `own=True` marks ours. A default of None means: resolved later, by the chosen
loss, augmentation, data set or the rule for unknown data, and printed with what set it.
"""
from dataclasses import dataclass
from typing import Any, Dict, Iterable, List, Optional, Tuple, Union

from ..data.pixels import ALPHA
from ..data.sampler import SAMPLERS
from ..loss import LOSSES

BELOW_ONE = 0.999999
EVAL, EVAL_ANALYSE = ('eval',), ('eval', 'analyse')
KD = ('kd-logit', 'kd-feature', 'kd-token')
TAUGHT = ('deit-lt', *KD)
_AS_DEFAULT = object()


@dataclass(frozen=True)
class Flag:
    """One command-line flag.

    Attributes:
        name: Its name, without the dashes.
        type: Type of a value.
        default: Its default; None: set later.
        help: A line for its user.
        group: Heading in the help.
        choices: The values that it takes, where they are few.
        nargs: As in argparse.
        const: As in argparse.
        short: Second name of one or two letters.
        metavar: Name of its value in the help.
        own: It is ours, not timm's.
        low: Least value, included.
        high: Greatest value, included.
        lengths: Numbers of values that it takes.
        ordered: The smaller value comes first.
        may_change: It cannot change the result, so it may differ when a run is resumed.
        auto: Its `auto` is resolved once; for a run that is continued it means: as before.
        kept: A resumed run takes it from its checkpoint; otherwise it belongs to one call of the command.
        in_file: It is written to `args.yaml`.
        part: What a task must have for it to mean something: 'loss', 'classifier' or 'one view'.
        tasks: The tasks that it goes with; 'features' stands for all that learn features without a classifier.
        losses: The losses that it goes with.
        argument: The argument of these losses that it sets.
        ignored: Other losses take no notice of it; otherwise it is refused beside them.
        excludes: Flags (argparse destinations) that say the same thing.
        of_files: Says how files are read, which samples have no use for.
        of_experiment: The verb `experiment` sets it itself.
        verbs: Verbs for trained models that share it.
        verb_help: Takes the place of `help` there.
        before: Value of runs that were made before the flag existed; by default its default.
    """
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
    low: Optional[float] = None
    high: Optional[float] = None
    lengths: Tuple[int, ...] = ()
    ordered: bool = False
    may_change: bool = False
    auto: bool = False
    kept: bool = True
    in_file: bool = True
    part: str = ''
    tasks: Tuple[str, ...] = ()
    losses: Tuple[str, ...] = ()
    argument: str = ''
    ignored: bool = False
    excludes: Tuple[str, ...] = ()
    of_files: bool = False
    of_experiment: bool = False
    verbs: Tuple[str, ...] = ()
    verb_help: str = ''
    before: Any = _AS_DEFAULT

    @property
    def dest(self) -> str:
        """Its name as an attribute: argparse's destination."""
        return self.name.replace('-', '_')

    @property
    def word(self) -> str:
        """Its name as it is typed."""
        return f'--{self.name}'

    def value_before(self) -> Any:
        """Return what runs that were made before the flag existed did."""
        return self.default if self.before is _AS_DEFAULT else self.before


def _group(title: str, *rows: Dict[str, Any]) -> List[Flag]:
    return [Flag(group=title, **row) for row in rows]


def _f(name: str, type: Any, default: Any, help: str, **kw: Any) -> Dict[str, Any]:
    return dict(name=name, type=type, default=default, help=help, **kw)


FLAGS: List[Flag] = [
    *_group(
        'Your images',
        _f('data-dir', str, None,
           'folder, tar, CSV or list file with your images; without it an embedded sample is used',
           metavar='PATH', may_change=True, excludes=('dataset',), verbs=EVAL_ANALYSE,
           verb_help='folder, tar, CSV or list file with the images (a run knows its own)'),
        _f('dataset', str, None,
           'named data set instead: sample/digits, sample/shapes (generated), torch/cifar10, hfds/owner/name',
           verbs=EVAL_ANALYSE),
        _f('train-split', str, None,
           'training split: a folder, a value of the split column or a file; a+b joins (train)',
           of_files=True),
        _f('val-split', str, None, 'split that chooses weights and settings (val or validation; else held out)',
           of_files=True),
        _f('test-split', str, None, 'split for the final number only, used once at the end (test; else held out)',
           own=True, of_files=True),
        _f('val-fraction', float, None, 'share of the training images held out as val where there is none (0.15)',
           low=0, high=BELOW_ONE, own=True),
        _f('test-fraction', float, None,
           'share held out as test where there is none (0.15 for data without splits, else 0)',
           low=0, high=BELOW_ONE, own=True),
        _f('fold', str, None, 'i/k: hold out the i-th of k parts as test (as val where a test split is named)',
           metavar='I/K', own=True, excludes=('test_fraction',)),
        _f('split-seed', int, 0, 'seed of what is held out', low=0, high=2 ** 32 - 1, own=True),
        _f('split-file', str, None, 'use the split.json of an earlier run again',
           metavar='FILE', own=True, excludes=('val_fraction', 'test_fraction', 'fold')),
        _f('group-column', str, None, 'column whose equal values (animal, patient, burst) stay on one side',
           own=True, excludes=('group_regex',)),
        _f('group-regex', str, None, 'the same from file names: first group of this regular expression',
           metavar='REGEX', own=True),
        _f('class-map', str, None, 'text file with one class name per line: fixes the order of the classes',
           metavar='FILE', verbs=EVAL_ANALYSE,
           verb_help="text file with one class name per line: names of the model's outputs, in their order"),
        _f('class-stats', str, None, 'JSON with class counts (timm format) to use instead of the counted ones',
           metavar='FILE', verbs=EVAL_ANALYSE,
           verb_help='JSON with the training counts (timm format), from which many, medium and few follow'),
        _f('folder-labels', str, 'auto', 'which folder names the class in nested folders',
           choices=('auto', 'leaf', 'first'), own=True, of_files=True, verbs=EVAL_ANALYSE),
        _f('input-key', str, None, 'column with the image path (CSV) or the image (hfds)',
           of_files=True, verbs=EVAL_ANALYSE),
        _f('target-key', str, None, 'column with the label', of_files=True, verbs=EVAL_ANALYSE),
        _f('split-key', str, None, 'column with the split (CSV)', own=True, of_files=True, verbs=EVAL_ANALYSE),
        _f('image-root', str, None, 'folder that paths in CSV and list files start from (default: the data folder)',
           metavar='DIR', own=True, may_change=True, of_files=True, verbs=EVAL_ANALYSE),
        _f('on-bad-image', str, 'stop', 'a file that cannot be decoded: stop, or skip it and write a list',
           choices=('stop', 'skip'), own=True, verbs=EVAL_ANALYSE),
        _f('alpha', str, 'white', 'what lies behind transparent images: white, grey, black; drop shows hidden colours',
           choices=ALPHA, own=True, before='drop', verbs=EVAL_ANALYSE,
           verb_help="what lies behind transparent images (default: as in the model's training)"),
        _f('grey-range', float, None,
           'of greyscale images of more than 8 bits: the values that become black and white (default: the range of '
           'the bits that the training images use, e.g. 0 4095)',
           nargs='+', lengths=(2,), ordered=True, own=True, verbs=EVAL_ANALYSE,
           verb_help="of greyscale images of more than 8 bits: the values that become black and white (default: as in "
                     "the model's training)"),
        _f('allow-missing-classes', bool, False, 'accept classes without a training or an evaluation image', own=True),
        _f('dataset-download', bool, False, 'let torch/... data sets be downloaded', verbs=EVAL_ANALYSE),
        _f('dataset-trust-remote-code', bool, False, 'let hfds/... data sets run their own code', verbs=EVAL_ANALYSE),
        _f('cache', str, 'auto',
           'decoded images: on disk for later runs, in ram for this one, off (decoded whenever they are drawn, by '
           '--workers), or auto (disk if it has room, else ram, else off); the training is the same',
           choices=('auto', 'ram', 'disk', 'off'), own=True, may_change=True, auto=True, before='disk',
           verbs=EVAL_ANALYSE),
        _f('cache-dir', str, None, 'where decoded images are kept (default: OUTPUT/.cache)',
           metavar='DIR', own=True, may_change=True, verbs=EVAL_ANALYSE,
           verb_help='where decoded images are kept (default: a temporary folder)'),
        _f('cache-size', str, 'auto',
           'shorter side that images are shrunk to: full, a number of pixels, or auto (full up to 2 GiB of decoded '
           'images, then twice the largest training size)',
           own=True, auto=True, verbs=EVAL_ANALYSE),
    ),
    *_group(
        'Long tail',
        _f('imbalance-factor', float, None,
           'make the training images long-tailed: largest over smallest class, e.g. 100',
           low=1, own=True, excludes=('imbalance_indices',)),
        _f('imbalance-profile', str, 'exp',
           'shape of that tail (balanced: as many images as exp keeps, of each class alike)',
           choices=('exp', 'step', 'balanced'), own=True),
        _f('imbalance-seed', int, 0, 'seed of that selection', low=0, high=2 ** 32 - 1, own=True, of_experiment=True),
        _f('imbalance-indices', str, None, 'train_images.json of an earlier run: take the same images again',
           metavar='FILE', own=True),
        _f('shot-split', str, None,
           'many/medium/few: counts:100,20 (more than, fewer than), index:a,b (also shares), or auto: counts:100,20, '
           'or thirds of the classes where a group were empty (default)',
           own=True, auto=True, verbs=EVAL_ANALYSE,
           verb_help="many/medium/few: counts:100,20, index:a,b or auto (default: the training's)"),
    ),
    *_group(
        'Model',
        _f('model', str, None, 'any timm model name (default: chosen from the data, printed)'),
        _f('model-kwargs', dict, {}, 'constructor arguments, e.g. patch_size=8 depth=6', nargs='*', verbs=EVAL_ANALYSE),
        _f('img-size', int, None, 'side of the training and evaluation images in pixels',
           low=1, verbs=EVAL_ANALYSE,
           verb_help="side of the images in pixels (default: the model's)"),
        _f('pretrained', bool, False, 'start from pretrained weights instead of from scratch'),
        _f('pretrained-path', str, None, 'file with weights for --pretrained', metavar='FILE'),
        _f('initial-checkpoint', str, None,
           'start from this checkpoint or model folder; a head of another shape or kind is left out',
           metavar='PATH'),
        _f('num-classes', int, None, 'number of classes, if you want it checked against the data', low=1),
        _f('reset-head', bool, False, 'with --initial-checkpoint: begin with a new head, even for the same classes',
           own=True, part='classifier'),
        _f('freeze-backbone', bool, False, 'train the head only; the rest stays in evaluation mode',
           own=True, part='classifier'),
        _f('gp', str, None, 'global pooling, e.g. token, avg'),
        _f('drop', float, 0.0, 'dropout of the classifier', low=0, high=BELOW_ONE),
        _f('drop-path', float, None, 'stochastic depth', low=0, high=BELOW_ONE),
        _f('drop-path-constant', bool, False, 'the same in every block (DeiT III), instead of rising from 0', own=True),
        _f('drop-block', float, None, 'DropBlock (some CNNs)'),
        _f('head', str, 'linear', 'classifier: linear, or cosine (scaled cosines, which ldam needs)',
           choices=('linear', 'cosine'), own=True, part='classifier'),
        _f('head-scale', float, 30.0, 'cosine: factor of the cosines',
           low=0.001, own=True, part='classifier', losses=('ldam',), argument='head_scale', ignored=True),
        _f('stem-init', str, 'random',
           'first filters of a model from scratch: random as in timm, or whitening (the principal directions of '
           'patches of the training images, which stay)',
           choices=('random', 'whitening'), own=True),
        _f('head-init-scale', float, None, 'scale the initial weights of the head', part='classifier'),
        _f('head-init-bias', float, None, 'initial bias of the head', part='classifier'),
        _f('class-token-std', float, None,
           "standard deviation of a ViT's class token at the start, from scratch (DeiT III, DINO: 0.02; timm: 1e-6)",
           low=0, own=True),
        _f('grad-checkpointing', bool, False, 'trade speed for memory'),
        _f('fast-norm', bool, False, 'normalisation layers in reduced precision'),
        _f('channels-last', bool, None,
           'channels-last memory format (default: on for the models that the rule chooses)', before=False),
        _f('fused-attn', bool, None,
           "torch's fused attention (default: off on a CPU, where its backward pass is slow on short sequences)",
           own=True, before=True),
        _f('mean', float, None, "channel means of the normalisation (default: the model's)", nargs='+', lengths=(1, 3)),
        _f('std', float, None, "channel standard deviations (default: the model's)",
           nargs='+', low=1e-06, lengths=(1, 3)),
        _f('crop-pct', float, 1.0, 'evaluation: share of the resized image that is kept',
           low=0.01, high=1, verbs=EVAL_ANALYSE,
           verb_help="share of the resized image that is kept (default: the model's)"),
        _f('interpolation', str, 'bicubic', 'evaluation: interpolation'),
    ),
    *_group(
        'Task and loss',
        _f('task', str, 'classification',
           "what is trained: classification, also through a teacher (deit-lt, timm's kd-logit, kd-feature, kd-token), "
           'as two submodels (cosub) or by contrast (paco), or features without labels (dino, idmm, mae, simclr) or '
           'with them (supcon); or a task of your own (--device-modules)'),
        _f('idmm-multicrop', bool, True, 'idmm, simclr, supcon: 4 small crops beside the 2 large ones (--scale)',
           own=True, tasks=('idmm', 'simclr', 'supcon')),
        _f('idmm-cutmix', bool, True, 'idmm: paste boxes between crops', own=True, tasks=('idmm',)),
        _f('idmm-smoothing', float, 0.1, 'idmm: label smoothing over the images',
           low=0, high=BELOW_ONE, own=True, tasks=('idmm',)),
        _f('contrastive-temperature', float, 0.5, 'simclr, supcon: temperature of the loss',
           low=1e-06, own=True, tasks=('simclr', 'supcon')),
        _f('contrastive-dim', int, 256, 'simclr, supcon: width of the projection',
           low=1, own=True, tasks=('simclr', 'supcon'), before=128),
        _f('loss', str, 'ce',
           f'{", ".join(loss for loss, row in LOSSES.items() if row.needs_counts)} (counts come from the data), or '
           f'{", ".join(loss for loss, row in LOSSES.items() if not row.needs_counts)}',
           part='loss'),
        _f('loss-kwargs', dict, {}, 'further arguments of the loss, e.g. gamma=1 beta=0.999 shape=linear',
           nargs='*', own=True, part='loss'),
        _f('loss-tau', float, None, 'strength of the prior in balanced-bce and logit-adjusted (1.0)',
           low=0, own=True, part='loss', losses=('balanced-bce', 'logit-adjusted'), argument='tau'),
        _f('smoothing', float, None, 'label smoothing (default: what the loss was published with)',
           low=0, high=BELOW_ONE, part='loss'),
        _f('bce-loss', bool, False, 'the same as --loss bce'),
        _f('bce-sum', bool, False, 'bce: sum over classes instead of the mean',
           part='loss', losses=('bce',), argument='bce_sum'),
        _f('bce-target-thresh', float, None, 'bce: binarise soft targets above this',
           low=0, high=1, part='loss', losses=('bce',), argument='bce_target_thresh'),
        _f('bce-pos-weight', float, None, 'bce: weight of positives',
           low=0, part='loss', losses=('bce',), argument='pos_weight'),
        _f('loss-class-weight', str, None, 'bce: number, comma list, file, inv_freq or effective_num',
           part='loss', losses=('bce',)),
        _f('loss-pos-weight', str, None, 'bce: number, comma list, file or neg_pos', part='loss', losses=('bce',)),
        _f('loss-weight-power', float, 1.0, 'power of neg_pos and inv_freq'),
        _f('lade-weight', float, None, 'lade: weight of its term beside the cross-entropy (0.1)',
           low=0, own=True, part='loss', losses=('lade',), argument='weight'),
        _f('drw-epoch', int, None,
           'deferred re-weighting: weigh the classes by their effective numbers from this epoch on',
           low=0, own=True, part='loss'),
        _f('drw-beta', float, 0.9999, 'its beta: nearer to 1, nearer to weights of 1 / images',
           low=0, high=BELOW_ONE, own=True),
        _f('poly-epsilon', float, 2.0, 'poly: first coefficient',
           losses=('poly',), argument='poly_epsilon', ignored=True),
        _f('jsd-loss', bool, False, 'the same as --loss jsd'),
    ),
    *_group(
        'Distillation (--task deit-lt, kd-logit, kd-feature, kd-token)',
        _f('teacher', str, None, 'folder of a finished run, local-dir:FOLDER, hf-hub:OWNER/NAME, or a timm name',
           own=True, tasks=TAUGHT),
        _f('teacher-path', str, None, 'file with its weights, for a timm name; then nothing is downloaded',
           metavar='FILE', own=True, tasks=TAUGHT),
        _f('teacher-view', str, 'student', 'the teacher sees what the student sees, or a crop and mirror image only',
           choices=('student', 'weak'), own=True, tasks=('deit-lt',)),
        _f('teacher-renorm', str, 'none', "in the student's normalisation, or in its own (auto)",
           choices=('none', 'auto'), own=True, tasks=('deit-lt',)),
        _f('distillation-alpha', float, 0.5, "share of the distillation token's loss",
           low=0, high=1, own=True, tasks=('deit-lt',)),
        _f('mixup-off-drw', bool, True, 'no mixing and no label smoothing from --drw-epoch on',
           own=True, tasks=('deit-lt',)),
        _f('fusion', str, 'avg', 'whose metrics are plain and select: mean of both heads, class token, distillation',
           choices=('avg', 'cls', 'dist'), own=True, tasks=('deit-lt',)),
        _f('kd-model-name', str, None, 'the same as --teacher NAME --task kd-logit'),
        _f('kd-distill-type', str, None, 'the same as --task kd-logit, kd-feature or kd-token',
           choices=('logit', 'feature', 'token')),
        _f('kd-loss-type', str, 'kl', 'kd-logit: its loss (timm has one)', choices=('kl',), tasks=('kd-logit',)),
        _f('kd-token-distill-type', str, 'soft',
           "the token learns the teacher's probabilities or (hard; deit-lt: the default) its class; deit-lt, none: the "
           'labels, without a teacher',
           choices=('soft', 'hard', 'none'), tasks=('kd-token', 'deit-lt'), before='hard'),
        _f('kd-temperature', float, 4.0, 'temperature of the probabilities (deit-lt: 1)',
           low=1e-06, tasks=('kd-logit', 'kd-token', 'deit-lt'), before=1.0),
        _f('distill-loss-weight', float, None, "weight of the teacher's loss (1, or the rest to 1 of the next)",
           low=0, tasks=KD),
        _f('task-loss-weight', float, None, 'weight of the loss of the labels (1)', low=0, tasks=KD),
        _f('kd-student-feature-dim', int, None, "width of the student's pooled features (default: found)",
           low=1, tasks=('kd-feature',)),
        _f('kd-teacher-feature-dim', int, None, "width of the teacher's pooled features (default: found)",
           low=1, tasks=('kd-feature',)),
    ),
    *_group(
        'Parametric contrastive learning (--task paco)',
        _f('paco-alpha', float, 0.01, 'weight of a feature of the same class, beside 1 for its centre',
           low=0, own=True, tasks=('paco',)),
        _f('paco-temperature', float, 0.05, 'temperature of the contrast', low=1e-06, own=True, tasks=('paco',)),
        _f('paco-queue', int, 1024, 'keys that are kept', low=0, own=True, tasks=('paco',)),
        _f('paco-dim', int, 32, 'width of the projection', low=1, own=True, tasks=('paco',)),
        _f('paco-norm', bool, True, 'batch norm in the projection (--no-paco-norm)',
           own=True, tasks=('paco',), before=False),
        _f('paco-key-view', str, 'small',
           "view of the key: small (CIFAR: random resized crop, SimCLR's colours), large (ImageNet-LT: jitter in every "
           'image, without hue), or crop (the crop of the query)',
           choices=('small', 'large', 'crop'), own=True, tasks=('paco',), before='crop'),
        _f('paco-momentum', float, 0.999, 'momentum of the network that makes the keys',
           low=0, high=1, own=True, tasks=('paco',)),
    ),
    *_group(
        'Self-distillation (--task dino)',
        _f('dino-out-dim', int, None,
           'outputs of the head (default: the power of two below the training images, 4096 to 65536)',
           low=2, own=True, tasks=('dino',)),
        _f('dino-local-crops', int, 8, 'small crops of each image (0: only the two global ones)',
           low=0, own=True, tasks=('dino',)),
        _f('dino-local-size', int, None, 'their side in pixels (3/7 of --img-size, in whole patches)',
           low=1, own=True, tasks=('dino',)),
        _f('dino-local-scale', float, [0.05, 0.4], 'range of their area; --scale is that of the global ones',
           nargs=2, low=1e-06, high=1, ordered=True, own=True, tasks=('dino',)),
        _f('dino-student-temp', float, 0.1, 'temperature of the student', low=1e-06, own=True, tasks=('dino',)),
        _f('dino-teacher-temp', float, 0.07, 'temperature of the teacher after its warm-up',
           low=1e-06, own=True, tasks=('dino',)),
        _f('dino-warmup-teacher-temp', float, 0.04, 'temperature of the teacher at the start',
           low=1e-06, own=True, tasks=('dino',)),
        _f('dino-teacher-temp-epochs', int, None, 'epochs of that warm-up (30, at most three tenths of the run)',
           low=0, own=True, tasks=('dino',)),
        _f('dino-momentum', float, [0.996, 1.0],
           'share of the teacher that an update leaves, at the start and the end (0 0: the teacher is the student)',
           nargs=2, low=0, high=1, own=True, tasks=('dino',)),
        _f('dino-weight-decay-end', float, 0.4, 'weight decay at the end; --weight-decay is that of the start',
           low=0, own=True, tasks=('dino',)),
        _f('dino-freeze-last-layer', int, 1, 'epochs in which the last layer of the head is not trained',
           low=0, own=True, tasks=('dino',)),
        _f('dino-norm-last-layer', bool, True, 'hold the gain of that layer at 1', own=True, tasks=('dino',)),
        _f('dino-centering', bool, True, 'centre the teacher (--no-dino-centering)', own=True, tasks=('dino',)),
        _f('dino-sharpening', bool, True,
           'a teacher colder than the student (--no-dino-sharpening: as warm as the student)',
           own=True, tasks=('dino',)),
    ),
    *_group(
        'Masked autoencoder (--task mae)',
        _f('mae-mask-ratio', float, 0.75, 'share of the patches that are hidden',
           low=0.01, high=BELOW_ONE, own=True, tasks=('mae',)),
        _f('mae-norm-pix', bool, True, 'predict patches normalised one by one (--no-mae-norm-pix: plain pixels)',
           own=True, tasks=('mae',)),
        _f('mae-pos-embed', str, 'sincos', 'positions of the encoder: fixed sine-cosine, or learned',
           choices=('sincos', 'learned'), own=True, tasks=('mae',)),
        _f('mae-decoder-dim', int, None, 'width of the decoder (two thirds of the encoder, at most 512)',
           low=1, own=True, tasks=('mae',)),
        _f('mae-decoder-depth', int, None, 'its blocks (two thirds of the encoder, at most 8)',
           low=1, own=True, tasks=('mae',)),
        _f('mae-decoder-heads', int, None, 'its attention heads (width / 32)', low=1, own=True, tasks=('mae',)),
    ),
    *_group(
        'Which image comes how often',
        _f('sampler', str, 'instance',
           'instance (every image once), class-balanced (every class alike), sqrt, progressive (first to second)',
           choices=SAMPLERS, own=True),
        _f('sampler-power', float, None,
           'draw an image of class c by images(c) ** -power: 0 every image alike, 1 every class alike',
           low=0, own=True),
        _f('drs-epoch', int, None,
           'deferred re-sampling: --sampler (class-balanced if it is not given) from this epoch on',
           low=0, own=True),
        _f('aug-repeats', int, 0, 'repeated augmentation: times that an image comes in a row', low=0),
    ),
    *_group(
        'Augmentation',
        _f('aug', str, None, 'preset: three-augment (DeiT III), rand-augment (DeiT), none', own=True, part='one view'),
        _f('no-aug', bool, False, 'the same as --aug none'),
        _f('train-crop-mode', str, None,
           'rrc (random resized crop), src (simple random crop), pad (the same with a black border), rkrc, rkrr, none',
           part='one view'),
        _f('scale', float, None, 'rrc: range of the cut area', nargs=2, low=1e-06, ordered=True),
        _f('ratio', float, None, 'rrc: range of the aspect ratio', nargs=2, low=1e-06, ordered=True),
        _f('hflip', float, None, 'probability of a left-right mirror image (0.5)', low=0, high=1),
        _f('vflip', float, 0.0, 'probability of an upside-down image', low=0, high=1),
        _f('color-jitter', float, None, 'strength of the colour jitter', nargs='+', low=0, lengths=(1, 3, 4)),
        _f('color-jitter-prob', float, None, 'probability of the colour jitter', low=0, high=1),
        _f('grayscale-prob', float, 0.0, 'probability of a grey image', low=0, high=1),
        _f('gaussian-blur-prob', float, 0.0, 'probability of a blurred image', low=0, high=1),
        _f('force-color-jitter', bool, False,
           'do the colour jitter, and then --aa; else timm leaves it out beside --aa (but 3a)',
           own=True, part='one view'),
        _f('aa', str, None,
           "automatic augmentation in timm's words, e.g. 3a, rand-m9-mstd0.5-inc1, augmix-m3; or cifar10 "
           "(AutoAugment's policy for CIFAR), idmm (two random operations)",
           part='one view'),
        _f('aa-prob', float, 1.0, 'share of the images that --aa changes (1; less in a short run)',
           low=0, high=1, own=True, part='one view'),
        _f('cutout', int, 0, 'side in pixels of a black square in each image', low=0, own=True, part='one view'),
        _f('train-interpolation', str, None, 'training: interpolation of the crop'),
        _f('aug-splits', int, 0, 'views of each image for the jsd loss (3)',
           low=0, part='loss', losses=('jsd',), argument='jsd_splits'),
        _f('reprob', float, None, 'probability of random erasing', low=0, high=1),
        _f('remode', str, 'pixel', 'random erasing: fill'),
        _f('recount', int, 1, 'random erasing: regions', low=1),
        _f('resplit', bool, False, 'jsd: leave the first view without random erasing'),
        _f('augment-on', str, 'auto',
           'make the views in batches on the device of the training, or image by image in the loader (auto: in batches '
           'on a GPU, where all operations have a batched form)',
           choices=('auto', 'device', 'image'), own=True, auto=True, before='image'),
        _f('mixup', float, 0.0, 'mixup alpha', low=0, part='loss'),
        _f('cutmix', float, 0.0, 'cutmix alpha', low=0, part='loss'),
        _f('cutmix-minmax', float, None, 'cutmix: range of the side',
           nargs='+', low=0, high=1, lengths=(2,), ordered=True, part='loss'),
        _f('mixup-prob', float, 1.0, 'probability of mixing a batch', low=0, high=1),
        _f('mixup-switch-prob', float, 0.5, 'probability of cutmix where both are on', low=0, high=1),
        _f('mixup-mode', str, 'batch', 'one draw per batch, pair or elem', choices=('batch', 'pair', 'elem')),
        _f('mixup-off-epoch', int, 0, 'stop mixing from this epoch on', low=0),
    ),
    *_group(
        'Length, batch and learning rate',
        _f('epochs', int, None, 'passes over the training images (default: chosen from the data, printed)',
           low=1, excludes=('time_budget',)),
        _f('time-budget', str, None,
           'choose model and epochs from a measurement so that the run, final evaluation included, ends in time: 45s, '
           '30m, 2h (of a recipe: each stage; default: chosen from the data, printed)',
           metavar='TIME', own=True, in_file=False),
        _f('batch-size', int, None, 'images per step of one process',
           short='b', low=1, verbs=EVAL_ANALYSE,
           verb_help='images per step'),
        _f('validation-batch-size', int, None, 'the same for evaluation', short='vb', low=1),
        _f('grad-accum-steps', int, 1, 'micro-batches per update', low=1),
        _f('opt', str, 'adamw', 'any timm optimizer'),
        _f('opt-eps', float, None, 'epsilon of the optimizer', low=0),
        _f('opt-betas', float, None, 'betas of the optimizer', nargs='+', low=0, high=BELOW_ONE, lengths=(2, 3)),
        _f('opt-kwargs', dict, {}, 'further arguments of the optimizer', nargs='*'),
        _f('muon-dtype', str, None,
           'muon and adamuon: type in which an update is made orthogonal (default: bfloat16 where the machine computes '
           'it in hardware)',
           choices=('bfloat16', 'float32'), own=True, before='bfloat16'),
        _f('momentum', float, 0.9, 'momentum (sgd and relatives)', low=0, high=1),
        _f('weight-decay', float, 0.05, 'weight decay', low=0),
        _f('clip-grad', float, None, 'clip gradients', low=0),
        _f('clip-mode', str, 'norm', 'how gradients are clipped', choices=('norm', 'value', 'agc')),
        _f('sam-rho', float, None,
           'sharpness-aware minimisation (SAM) with this radius, two passes an update: 0.05 is usual, 0 is off',
           low=0, own=True, excludes=('sam_rho_schedule',)),
        _f('sam-adaptive', bool, False, 'its adaptive form (ASAM); its radius is about ten times as large', own=True),
        _f('sam-rho-schedule', str, None,
           'the radius by epoch instead: "0:0.05 5:0.1 60:0.5", each from that epoch on',
           metavar='STEPS', own=True),
        _f('sam-global', bool, False, 'SAM: one perturbation for all processes instead of one each', own=True),
        _f('layer-decay', float, None, 'lower learning rates for earlier layers', low=0, high=1, part='classifier'),
        _f('layer-decay-min-scale', float, 0.0, 'least scale of that', low=0, high=1),
        _f('layer-decay-no-opt-scale', float, None, 'layers below this scale are not trained'),
        _f('lr', float, None, 'peak learning rate (default: from --lr-base and the global batch)', low=0),
        _f('lr-base', float, 0.001, 'learning rate at a global batch of --lr-base-size', low=0),
        _f('lr-base-size', int, 256, 'see --lr-base', low=1),
        _f('lr-base-scale', str, '', 'linear or sqrt (default: sqrt for adaptive optimizers, else linear)'),
        _f('sched', str, 'cosine', 'schedule: cosine, tanh, step, multistep, poly, wsd, constant, none'),
        _f('sched-on-updates', bool, True, 'change the rate at every update (--no-sched-on-updates: every epoch)'),
        _f('warmup-epochs', int, None, 'epochs of warm-up (default: a tenth of all, at most 5)', low=0),
        _f('warmup-lr', float, 1e-06, 'learning rate at the start of the warm-up', low=0),
        _f('warmup-prefix', bool, False, 'do not count the warm-up in the schedule'),
        _f('min-lr', float, 1e-06, 'learning rate at the end', low=0),
        _f('cooldown-epochs', int, 0, 'epochs at the end with the least rate', low=0),
        _f('decay-epochs', float, 90.0, 'step: epochs between drops', low=1),
        _f('decay-milestones', int, [90, 180, 270], 'multistep: epochs (from 0) that begin with a drop', nargs='+'),
        _f('decay-rate', float, 0.1, 'step, multistep: factor of a drop'),
        _f('patience-epochs', int, 10, 'plateau: epochs of patience'),
        _f('lr-noise', float, None, 'noise on the rate: start (and end) as shares of the run', nargs='+'),
        _f('lr-noise-pct', float, 0.67, 'limit of that noise'),
        _f('lr-noise-std', float, 1.0, 'its standard deviation'),
        _f('lr-cycle-mul', float, 1.0, 'cosine cycles: length multiplier'),
        _f('lr-cycle-decay', float, 0.5, 'cosine cycles: decay'),
        _f('lr-cycle-limit', int, 1, 'cosine cycles: number', low=1),
        _f('lr-k-decay', float, 1.0, 'k-decay of cosine and poly'),
        _f('lr-decay-fn', str, None, 'wsd: form of the decay'),
        _f('lr-stable-timescale', float, None, 'rsqrt: time scale'),
        _f('train-img-sizes', int, None, 'progressive resizing: image sizes, small to large', nargs='+', low=1),
        _f('train-batch-sizes', int, None, 'batch size at each of them', nargs='+', low=1),
        _f('train-size-probs', float, None, 'probability of each of them', nargs='+', low=0),
        _f('train-size-schedule', str, 'constant', 'constant mix, or progressive from first to last',
           choices=('constant', 'progressive')),
        _f('train-size-schedule-spread', float, 0.65, 'progressive: spread'),
        _f('train-size-random-mix', float, 0.1, 'progressive: share of random sizes', low=0, high=1),
        _f('train-batches-per-epoch', int, None, 'batches per epoch when sizes are scheduled', low=1),
        _f('model-ema', bool, False, 'keep an average of the weights; it is evaluated and exported'),
        _f('model-ema-decay', float, None,
           'decay of the average (default: it reaches back over a tenth of the updates, at most 0.9998)',
           low=0, high=1, before=0.9998),
        _f('model-ema-warmup', bool, False, 'let the decay grow at the start'),
        _f('model-ema-force-cpu', bool, False, 'keep the average on the CPU'),
        _f('bn-momentum', float, None, 'batch norm momentum', low=0, high=1),
        _f('bn-eps', float, None, 'batch norm epsilon', low=0),
        _f('sync-bn', bool, False, 'batch norm over all processes (GPUs)'),
        _f('dist-bn', str, 'reduce', 'batch norm statistics after an epoch: reduce, broadcast or nothing',
           choices=('reduce', 'broadcast', '')),
    ),
    *_group(
        'Evaluation',
        _f('eval-metric', str, 'balanced_top1', 'metric that --select best watches'),
        _f('select', str, 'best', 'weights that are exported: best on val, or last',
           choices=('best', 'last'), own=True),
        _f('val-interval', int, None, 'epochs between evaluations (default: at most twenty in a run)',
           low=1, part='classifier', before=1),
        _f('probe', str, 'knn',
           'dino, idmm, mae, simclr, supcon: judge features by nearest neighbours, or by logistic regression',
           choices=('knn', 'linear'), own=True, tasks=('features',), verbs=EVAL,
           verb_help='judge the features before the classifier, by what they tell about the images of the '
                     'train split (knn, linear; linear-dino, linear-mae: the linear evaluations of these papers), '
                     'by how each image finds the others of its class (retrieval), or on a folder in the layout '
                     'of revisited Oxford and Paris (landmarks), Copydays (copies) or DAVIS (video)'),
        _f('probe-interval', int, None,
           'epochs between such evaluations (default: ten in a run; 0: only the finished model)',
           low=0, own=True, tasks=('features',)),
        _f('knn-k', int, 20, 'knn: number of neighbours', low=1, own=True, tasks=('features',), verbs=EVAL),
        _f('knn-temperature', float, 0.07, 'knn: a neighbour weighs exp(cosine / temperature)',
           low=1e-06, own=True, tasks=('features',), verbs=EVAL),
        _f('on-collapse', str, 'warn', 'these tasks: say so, or stop, where all images have got the same features',
           choices=('warn', 'stop'), own=True, may_change=True, tasks=('features',)),
    ),
    *_group(
        'After training, beside the raw numbers',
        _f('posthoc-tau', float, None, 'take tau times the log prior out of the logits (1)',
           low=0, own=True, part='classifier', verbs=EVAL),
        _f('tau-norm', float, None, 'divide the class vectors by their length to the power tau (1)',
           low=0, own=True, part='classifier', verbs=EVAL),
        _f('temperature', bool, False, 'scale the logits by a temperature fitted on val',
           own=True, part='classifier', verbs=EVAL,
           verb_help='scale the logits by a temperature fitted on the split val'),
    ),
    *_group(
        'Machine',
        _f('device', str, 'auto', 'auto, cpu, cuda, cuda:1, mps', auto=True, verbs=EVAL_ANALYSE),
        _f('amp', bool, None, 'mixed precision (default: on where the machine computes bfloat16 in hardware)'),
        _f('amp-dtype', str, 'bfloat16', 'its type', choices=('bfloat16', 'float16')),
        _f('torchcompile', str, None, 'compile the model (optional: backend)', nargs='?', const='inductor'),
        _f('torchcompile-mode', str, None, 'mode of the compiler'),
        _f('workers', int, None, 'data processes (default: 0 on a CPU, else 4; with --cache off up to 4)',
           short='j', low=0, may_change=True, verbs=EVAL_ANALYSE),
        _f('pin-mem', bool, False, 'page-locked memory for transfers', may_change=True),
        _f('no-ddp-bb', bool, False, 'do not broadcast buffers between processes'),
        _f('device-modules', str, None, 'Python modules to import first', nargs='+'),
        _f('seed', int, 42, 'seed of everything random in training', low=0, high=2 ** 63 - 1, of_experiment=True),
    ),
    *_group(
        'Where results go',
        _f('output', str, 'output', 'folder for runs', metavar='DIR', may_change=True, of_experiment=True),
        _f('experiment', str, '', 'name of this run (default: date, recipe or loss, data)',
           may_change=True, of_experiment=True),
        _f('resume', str, None, "auto (this run's own folder) or a checkpoint: continue a run",
           metavar='PATH', may_change=True, kept=False, in_file=False, of_experiment=True),
        _f('no-resume-opt', bool, False, 'resume the weights only', may_change=True, kept=False),
        _f('force', bool, False, 'resume although arguments changed',
           own=True, may_change=True, kept=False, in_file=False, of_experiment=True),
        _f('stop-epoch', int, None, 'stop after this many epochs, schedule unchanged',
           low=1, may_change=True, kept=False, in_file=False, of_experiment=True),
        _f('save-epochs', int, None, 'keep milestone-N.pth.tar after these numbers of epochs',
           nargs='+', low=1, may_change=True),
        _f('keep', str, 'all',
           'checkpoints that a finished run keeps: last (it can be continued), best (the chosen weights), all (both)',
           choices=('last', 'best', 'all'), own=True, may_change=True),
        _f('log-interval', int, 50, 'updates between lines where there is no progress bar', low=1, may_change=True),
        _f('save-images', bool, False, 'draw what is seen of the first images into images.png', may_change=True),
        _f('log-to', str, None, 'send the numbers of epochs and report to: tensorboard, wandb, mlflow, trackio (extra)',
           nargs='+', own=True, may_change=True),
        _f('log-project', str, None, 'project (in mlflow: experiment) that the run belongs to there',
           own=True, may_change=True),
        _f('log-tensorboard', bool, False, 'the same as --log-to tensorboard', own=True, may_change=True),
        _f('log-wandb', bool, False, 'the same as --log-to wandb', may_change=True),
        _f('wandb-project', str, None, 'its project', may_change=True),
        _f('wandb-tags', str, [], 'its tags', nargs='+', may_change=True),
        _f('wandb-resume-id', str, '', 'its run to continue', may_change=True),
        _f('push-to-hub', str, None, 'owner/name: send model/ and a card to the Hugging Face hub',
           metavar='OWNER/NAME', own=True, may_change=True, kept=False, in_file=False, of_experiment=True),
        _f('hub-public', bool, False, 'make that repository public (private otherwise)', own=True, may_change=True),
        _f('hub-license', str, None, 'licence that the card names, such as mit (default: none, which it says)',
           own=True, may_change=True),
    ),
    *_group(
        'Recipes',
        _f('config', str, None, 'YAML file with flags', short='c', metavar='FILE', may_change=True, in_file=False),
        _f('recipe', str, None, 'named list of stages', own=True, in_file=False),
        _f('recipe-scale', str, None,
           'how large: sample, cpu, cpu-long, paper (the same as --scale with a name; default: paper, or sample '
           'where no data are named)',
           own=True, in_file=False),
        _f('skip-stage', str, None, 'leave these stages of the recipe out; a stage after one starts from scratch',
           nargs='+', metavar='NAME', own=True, in_file=False),
        _f('dry-run', bool, False, 'print the plan (stages, settings, steps, memory, time) and stop',
           own=True, may_change=True, kept=False, in_file=False, of_experiment=True),
    ),
]

BY_DEST: Dict[str, Flag] = {flag.dest: flag for flag in FLAGS}

# Flags that are no more: files of older runs that name them are read, without them.
REMOVED: Dict[str, str] = {
    'distillation_type': "it had one value: the teacher's class is the target",
}


def removed_lines(names: Iterable[str], where: str) -> List[str]:
    """Return a line for each of the names that was a flag and is none any more."""
    return [
        f'{flag_word(name)} ({where}) is no more and was left out: {REMOVED[name.replace("-", "_")]}' for name in names
        if name.replace('-', '_') in REMOVED]


def flag_word(dest: str) -> str:
    """Return a flag as it is typed.

    >>> flag_word('sam_rho')
    '--sam-rho'
    """
    return '--' + dest.replace('_', '-')


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


def given_words(given: Dict[str, Any]) -> List[str]:
    """Return the values of flags as words of a command line.

    >>> given_words(dict(data_dir='photos', lr=0.1, amp=False, scale=[0.3, 1.0], model_kwargs=dict(depth=2)))
    ['photos', '--lr', '0.1', '--no-amp', '--scale', '0.3', '1.0', '--model-kwargs', 'depth=2']
    """
    words = [str(given['data_dir'])] if given.get('data_dir') else []
    for dest, value in given.items():
        flag = BY_DEST.get(dest)
        if flag is None or dest == 'data_dir' or value is None:
            continue
        if flag.type is bool:
            words.append(flag.word if value else f'--no-{flag.name}')
        elif isinstance(value, dict):
            words += [flag.word, *(f'{key}={item}' for key, item in value.items())]
        else:
            words += [flag.word, *map(str, value if isinstance(value, (list, tuple)) else [value])]
    return words
