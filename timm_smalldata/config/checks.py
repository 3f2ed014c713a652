"""What the flags of one source cannot say: values out of range, and flags that contradict each other."""
import math
import os
import re
from typing import Any, Callable, Dict, Iterator, List, Tuple

from ..data.views import CROP_MODES
from ..errors import UserError, nearest
from .flags import BY_DEST, FLAGS, Flag, flag_word, shown
from .presets import AUG_SETTINGS, WITHOUT_AREA

NAME_MAX, PATH_MAX = 255, 4000  # bytes of a file name and characters of a path that file systems take
_PATHS = ('PATH', 'FILE', 'DIR')


def exclusive() -> Iterator[Tuple[str, str]]:
    """Yield pairs of flags that say the same thing: both in one source is an error, else the higher source speaks."""
    for flag in FLAGS:
        yield from ((flag.dest, other) for other in flag.excludes)


def exclude(first: Dict[str, Any], second: Dict[str, Any], one: str, other: str) -> bool:
    """Return whether one flag among the first values and another among the second say the same thing."""
    if first.get(one) is None or second.get(other) is None:
        return False
    named = {'data_dir', 'dataset'}  # a folder is where torch/... and hfds/... lie
    dataset = first['dataset'] if one == 'dataset' else second['dataset'] if other == 'dataset' else ''
    return {one, other} != named or str(dataset).partition('/')[0] not in ('torch', 'hfds')


def check_contradictions(values: Dict[str, Any], source: str) -> None:
    """Raise a UserError for flags of one source that cannot both hold, and for values out of range."""
    def clash(first: str, second: str, why: str) -> None:
        raise UserError(
            f'{flag_word(first)} {shown(values[first])} contradicts {flag_word(second)} {shown(values[second])} '
            f'({source}): {why}')

    check_ranges(values, source)
    name = str(values.get('experiment') or '')
    if name in ('.', '..') or '/' in name or '\\' in name:
        raise UserError(f'--experiment {name} ({source}) is a path: it names a folder inside --output, so give the '
                        'path there and a plain name here.')
    if values.get('opt') is not None:
        check_optimizer(values['opt'])
    _check_augmentation(values, clash)
    for first, second in exclusive():
        if exclude(values, values, first, second):
            clash(first, second, 'they say the same thing twice; leave one out.')
    if values.get('sync_bn') and values.get('device') == 'cpu':
        clash('sync_bn', 'device', 'synchronised batch norm needs GPUs.')


def check_optimizer(name: str) -> None:
    """Raise a UserError for an optimizer that timm does not know by exactly this name, or by `lookahead_` before it.

    timm reads what stands behind the last underscore and drops the rest: `sam_adamw` would train with AdamW alone.
    """
    from timm.optim import get_optimizer_info, list_optimizers
    known = [str(optimizer) for optimizer in list_optimizers()]
    base = name.lower().removeprefix('lookahead_')
    if base in known and get_optimizer_info(base).second_order:
        raise UserError(f'--opt {name} needs second derivatives, which this training does not make: choose another.')
    if base in known:
        return
    sam = re.fullmatch(r'(?:g?a?sam|lookahead_g?a?sam)_?(.*)', name.lower())
    if sam:
        base = sam[1] if sam[1] in known else 'adamw'
        raise UserError(f'Unknown --opt {name!r}: sharpness-aware minimisation goes around any optimizer: --opt {base} '
                        '--sam-rho 0.05 (its adaptive form: --sam-adaptive).')
    raise UserError(f'Unknown --opt {name!r}{nearest(base.replace("_", ""), known, 0.3)}; '
                    'timm.optim.list_optimizers() lists them all.')


def _check_augmentation(values: Dict[str, Any], clash: Callable[[str, str, str], None]) -> None:
    aug = values.get('aug')
    if aug is not None:
        if aug not in AUG_SETTINGS:
            raise UserError(f'Unknown --aug {aug!r}{nearest(aug, AUG_SETTINGS)}; known: {", ".join(AUG_SETTINGS)}.')
        for dest, value in AUG_SETTINGS[aug].items():
            if dest in values and values[dest] != value and not _milder(dest, values[dest], value):
                clash('aug', dest, f'the preset means {shown(value)}. Leave out --aug to choose each part by hand.')
    mode = values.get('train_crop_mode')
    if mode is not None:
        if mode not in CROP_MODES:
            raise UserError(
                f'Unknown --train-crop-mode {mode!r}{nearest(mode, CROP_MODES)}; known: {", ".join(CROP_MODES)}.')
        for dest in ('scale', 'ratio'):
            if mode in WITHOUT_AREA and values.get(dest) is not None:
                clash('train_crop_mode', dest, 'this crop has no random area or aspect ratio.')


def _milder(dest: str, value: Any, preset: Any) -> bool:
    """Return whether colours are changed less than by the preset, as the rule does in short runs."""
    return dest == 'color_jitter' and bool(value) and bool(preset) and max(value) < preset[0]


def check_ranges(given: Dict[str, Any], where: str) -> None:
    """Raise a UserError for the first value of one source of flags that its flag cannot take."""
    for dest, value in given.items():
        if value is None:
            continue
        flag = BY_DEST.get(dest)
        values: List[Any] = value if isinstance(value, list) else [value]
        if flag is None:  # a flag of one verb alone
            continue
        if flag.lengths and len(values) not in flag.lengths:
            raise UserError(
                f'{flag.word} ({where}) takes {" or ".join(map(str, flag.lengths))} values, not {len(values)}.')
        for number in values:
            if isinstance(number, str):
                _check_text(flag, number, where)
            if isinstance(number, float) and not math.isfinite(number):
                raise UserError(f'{flag.word} {number} ({where}) is not a finite number.')
            if (flag.low is not None and number < flag.low) or (flag.high is not None and number > flag.high):
                raise UserError(f'{flag.word} {number:g} ({where}) is out of range: {_words(flag)}.')
        if flag.ordered and values != sorted(values):
            raise UserError(f'{flag.word} {" ".join(map(str, values))} ({where}): the smaller number comes first.')


def _check_text(flag: Flag, text: str, where: str) -> None:
    """Refuse what no file system takes as a name."""
    if '\0' in text:
        raise UserError(f'{flag.word} ({where}) holds a NUL byte, which no name has.')
    longest = max(len(os.fsencode(part)) for part in re.split(r'[/\\]', text))
    if (flag.metavar in _PATHS or flag.dest == 'experiment') and (longest > NAME_MAX or len(text) > PATH_MAX):
        raise UserError(f'{flag.word} {text[:40]}... ({where}) is too long: a name has at most {NAME_MAX} bytes, this '
                        f'one {longest}, and a whole path {PATH_MAX}.')


def _words(flag: Flag) -> str:
    if flag.high is None:
        return f'it must be at least {flag.low:g}'
    return f'it must lie between {flag.low or 0:g} and ' + ('1, 1 excluded' if flag.high < 1 else f'{flag.high:g}')
