"""The rule for unknown data: model, image size, batch, loss and machine settings from the images and the device.

With `length`, which says what follows from the epochs, and docs/data.md this is the whole rule; every value it sets is
printed, and any flag takes its place.
"""
from argparse import Namespace
from dataclasses import dataclass
from typing import Any, Dict, List

from ..errors import UserError
from .settings import Settings

_SIZES = (32, 48, 64, 96, 128, 160, 192, 224)


def image_size(median_side: int, device: str) -> int:
    """Return the largest usual size that the images fill: at most 64 px on a CPU, 224 px on a GPU.

    >>> image_size(500, 'cpu'), image_size(500, 'cuda'), image_size(100, 'cuda'), image_size(28, 'cpu')
    (64, 224, 96, 32)
    """
    most = 64 if device == 'cpu' else 224
    return max([size for size in _SIZES if size <= min(median_side, most)] or [_SIZES[0]])


@dataclass(frozen=True)
class Facts:
    """What the rule knows of images and machine.

    Attributes:
        images: Training images.
        ratio: Images of the largest class over those of the smallest.
        device: 'cpu', 'cuda' or 'mps'.
        bfloat16: The machine computes it in hardware.
        mirrored: Mirror images look like images of their class.
        corrected: A flag takes the class prior out already.
    """
    images: int
    ratio: float = 1.0
    device: str = 'cpu'
    bfloat16: bool = False
    mirrored: bool = True
    corrected: bool = False


@dataclass(frozen=True)
class Candidate:
    """A model that the rule may choose, and the passes over the data from which on it is worth its time."""
    model: str
    epochs: int


# Small to large: each from so many epochs on that fit into the time.
CANDIDATES = (
    Candidate('vit_pico_convstem', 0), Candidate('vit_nano_convstem', 100), Candidate('vit_micro_convstem', 200))
UNEVEN = 3.0  # ratio of the largest to the smallest class from which on the loss takes the prior out
SHORT_TAU = 1.5  # of balanced-bce: in a short run its logits keep some of the prior with the published 1
MUON_RATE, MUON_BATCH = 8e-3, 64
UNMEASURED = 20  # epochs that are assumed until a step has been measured
LARGER_COSTS = 2  # a larger candidate is measured where the epochs may still suffice after so much of a slowdown
OF_A_PRESET = dict(  # what a flag brings along, and the rule may set by the length of the run
    loss_tau='--loss balanced-bce', color_jitter='--aug three-augment')
RULE, MEASURED = 'rule for images of', 'measured for --time-budget'  # how sources of the rule's values begin


def is_ruled(settings: Settings) -> bool:
    """Return whether the rule says how to train: labels, a model from scratch, no recipe and no sample's facts."""
    return settings.get('task') == 'classification' and not any(
        settings.get(dest) for dest in ('recipe', 'pretrained', 'initial_checkpoint')) and not str(
            settings.get('dataset') or '').startswith('sample/')


def patch_size(img_size: int) -> int:
    """Return what a token stands for, in pixels: 4 x 4 tokens up to 64 px, more from there on.

    >>> [patch_size(size) for size in (32, 48, 64, 96, 224)]
    [8, 8, 16, 16, 16]
    """
    return 8 if img_size < 64 else 16


def val_fraction(images: int) -> float:
    """Return the share that is held out as val where there are test images: none of few, a tenth of 20,000 or more.

    >>> val_fraction(2040), val_fraction(50_000)
    (0.0, 0.1)
    """
    return 0.1 if images >= 20_000 else 0.0


def machine(facts: Facts, img_size: int) -> Dict[str, Any]:
    """Return how the machine computes fastest.

    The backward pass of torch's fused attention is slow on CPUs where sequences are short: with 65 tokens it took 46 %
    of a step with AMX; with 197 tokens and more it is the faster one.
    """
    return dict(
        workers=0 if facts.device == 'cpu' else 4,
        amp=facts.bfloat16,
        muon_dtype='bfloat16' if facts.bfloat16 else 'float32',
        fused_attn=facts.device != 'cpu' or img_size >= 128)


def choose(facts: Facts, settings: Settings) -> Dict[str, Any]:
    """Return values for the flags that nobody set, as far as they do not depend on the length of the run."""
    chosen = dict(machine(facts, settings.get('img_size')), hflip=0.5 if facts.mirrored else 0.0)
    if is_ruled(settings):
        chosen.update(_ruled(facts, settings))
    else:
        chosen.update(_published(facts, settings))
    return chosen


def time_budget(facts: Facts) -> str:
    """Return the default length: a quarter of a second an image on a CPU, from 5 minutes to an hour; a tenth on a GPU.

    >>> time_budget(Facts(2040)), time_budget(Facts(100_000)), time_budget(Facts(2040, device='cuda'))
    ('8.5m', '60m', '2m')
    """
    share = 1 if facts.device == 'cpu' else 0.1
    minutes = max(5 if share == 1 else 2, min(60, round(share * facts.images / 240, 1)))
    return f'{minutes:g}m'


def _ruled(facts: Facts, settings: Settings) -> Dict[str, Any]:
    """Return how a classifier is trained from scratch."""
    chosen: Dict[str, Any] = dict(
        batch_size=_power_of_two(facts.images / 8, 8, MUON_BATCH if facts.device == 'cpu' else 256))
    if settings.get('model') is None:
        chosen.update(model=CANDIDATES[0].model, drop=0.3, channels_last=True, stem_init='whitening')
        if not settings.is_set('model_kwargs'):
            chosen['model_kwargs'] = dict(patch_size=patch_size(settings.get('img_size')))
        if not any(settings.is_set(dest) for dest in ('opt', 'lr', 'lr_base', 'lr_base_size')):
            chosen.update(opt='muon', lr_base=MUON_RATE, lr_base_size=MUON_BATCH, lr_base_scale='sqrt')
    chosen['loss'] = 'balanced-softmax' if facts.ratio >= UNEVEN and not facts.corrected else 'ce'
    if facts.ratio >= UNEVEN and settings.get('loss') == 'balanced-bce':
        chosen['loss_tau'] = SHORT_TAU
    if not settings.is_set('epochs'):  # a measurement will tell
        chosen['epochs'] = UNMEASURED
        if not settings.is_set('time_budget'):
            chosen['time_budget'] = time_budget(facts)
    return chosen


def is_open(settings: Settings, dest: str) -> bool:
    """Return whether nobody but the rule has set a flag."""
    source = str(settings.source(dest))
    if OF_A_PRESET.get(dest) == source:
        return True
    return not settings.is_set(dest) or source == 'default' or source.startswith((RULE, MEASURED))


def _published(facts: Facts, settings: Settings) -> Dict[str, Any]:
    """Return what recipes and the tasks without labels do not say: a ViT-Ti (larger with more images and a GPU)."""
    size = settings.get('img_size')
    chosen: Dict[str, Any] = {}
    if settings.get('model') is None:
        small = facts.device != 'cpu' and facts.images >= 5000
        two_tokens = settings.get('task') in ('deit-lt', 'kd-token')
        kind = 'deit_{}_distilled_patch16_224' if two_tokens else 'vit_{}_patch16_224'
        chosen['model'] = kind.format('small' if small else 'tiny')
        if not settings.is_set('model_kwargs'):
            chosen['model_kwargs'] = dict(patch_size=16 if size >= 160 else max(4, size // 8))
        chosen['drop_path'] = 0.1
    chosen['batch_size'] = _power_of_two(facts.images / 8, 8, 128 if facts.device == 'cpu' else 512)
    seen, least, most = (50_000, 10, 300) if facts.device == 'cpu' else (1_000_000, 50, 800)
    chosen['epochs'] = max(least, min(most, round(seen / max(facts.images, 1))))
    if settings.get('train_crop_mode') in (None, 'rrc'):
        published = settings.get('aug') == 'three-augment'  # its crop is part of it
        chosen['scale'] = [0.08, 1.0] if size >= 128 or published else [0.3, 1.0]
    if settings.get('task') == 'dino':
        chosen['dino_out_dim'] = prototypes(facts.images)
    return chosen


def prototypes(num_train: int) -> int:
    """Return the outputs of DINO's head: as many as images, as a power of two, from 4,096 to the paper's 65,536.

    With 1.28 M images 4,096 to 65,536 were equally good and 1,024 was worse (arXiv:2104.14294, appendix); more
    outputs than images only cost memory.

    >>> prototypes(2040), prototypes(50_000), prototypes(1_281_167)
    (4096, 32768, 65536)
    """
    return _power_of_two(num_train, 4096, 65536)


def _power_of_two(value: float, least: int, most: int) -> int:
    power = least
    while power * 2 <= min(value, most):
        power *= 2
    return power


def fit_batch(batch: int, num_train: int, world_size: int, lines: List[str]) -> int:
    """Return a batch size per process that the data can fill at least once; even where it had to shrink."""
    most = num_train // world_size
    if batch <= most:
        return batch
    if most < 1:
        raise UserError(f'{num_train} training images cannot feed {world_size} processes.')
    shrunk = max(most // 2 * 2, 1)
    lines.append(f'--batch-size {batch} is more than the {num_train} training images can fill: {shrunk} is used')
    return shrunk


def fit_accumulation(args: Namespace, batch: int, num_train: int, world_size: int, lines: List[str]) -> int:
    """Return how many micro-batches an update takes: at most those of an epoch, from which the rate follows."""
    wanted, most = max(args.grad_accum_steps, 1), max(num_train // world_size // batch, 1)
    if args.train_img_sizes or wanted <= most:  # with scheduled sizes batches are counted otherwise
        return wanted
    lines.append(f'--grad-accum-steps {wanted} is more than the {most} batches of an epoch: {most} is used, and an '
                 'epoch is one update')
    return most


def learning_rate(base: float, base_size: int, scale: str, opt: str, global_batch: int) -> float:
    """Return timm's rule: `base * (global_batch / base_size)`, or its square root for adaptive optimizers.

    >>> learning_rate(1e-3, 256, '', 'adamw', 64)
    0.0005
    """
    scale = scale or ('sqrt' if any(word in opt.lower() for word in ('ada', 'lamb')) else 'linear')
    if scale not in ('linear', 'sqrt'):
        raise UserError(f'--lr-base-scale must be linear or sqrt, not {scale!r}.')
    ratio = global_batch / base_size
    return base * (ratio ** 0.5 if scale == 'sqrt' else ratio)
