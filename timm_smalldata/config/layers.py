"""How sources of flags lie over each other: a higher one silences a lower one, with a line."""
from typing import Any, Dict

from ..errors import UserError
from .checks import _WITHOUT_AREA, EXCLUSIVE, _check_whole, _excludes, _flag, check_contradictions
from .flags import BY_DEST, shown
from .presets import AUG_SETTINGS, LOSS_SETTINGS, PLAIN_AUG
from .settings import Settings
from .tasks import NOT_WITH_TASK, ONLY_WITH_TASK, TASK_SETTINGS

CONTINUED = 'the run that is continued'  # a source: what an earlier start of the run has settled


def add_layer(settings: Settings, values: Dict[str, Any], source: str) -> None:
    """Add one source of flags (command line, file, recipe, sample) with what its loss and augmentation bring along.

    A higher layer silences a lower one, with a line; a contradiction inside one layer is an error.
    """
    values = aliases(values, source)
    check_contradictions(values, source)
    for pair in EXCLUSIVE:
        for higher, lower in (pair, pair[::-1]):
            if _excludes(settings.values, values, higher, lower):
                settings.notes.append(
                    f'{_flag(lower)} {shown(values.pop(lower))} ({source}) gives way to {_flag(higher)} '
                    f'{shown(settings.values[higher])} ({settings.sources[higher]})')
    for dest in values:
        if settings.is_set(dest) and settings.values[dest] != values[dest]:
            settings.notes.append(
                f'{_flag(dest)} {shown(values[dest])} ({source}) gives way to {shown(settings.values[dest])} '
                f'({settings.sources[dest]})')
    if 'train_crop_mode' in values and values['train_crop_mode'] != 'rrc':
        given = [dest for dest in ('scale', 'ratio') if settings.is_set(dest)]
        if given and not settings.is_set('train_crop_mode'):
            settings.notes.append(
                f"--train-crop-mode {values['train_crop_mode']} ({source}) gives way to {_flag(given[0])} "
                f'({settings.sources[given[0]]})')
            settings.layer(dict(train_crop_mode='rrc'), f'{_flag(given[0])}')
    settings.layer(values, source)
    if values.get('aug') is not None and settings.source('aug') == source:
        settings.layer(AUG_SETTINGS[values['aug']], f"--aug {values['aug']}")
    if settings.source('loss') == source:
        settings.layer(LOSS_SETTINGS.get(values['loss'], {}), f"--loss {values['loss']}")


def finish(settings: Settings) -> None:
    """Fill in what no layer has set and does not depend on the data; check the whole."""
    _fit_task(settings)
    task, loss = settings.get('task'), settings.get('loss')
    if 'loss' not in NOT_WITH_TASK.get(task, ()):
        settings.layer(LOSS_SETTINGS.get(loss, {}), f'--loss {loss}')
    without = ['epochs'] if settings.is_set('time_budget') else []
    without += ['scale'] if settings.get('train_crop_mode') in _WITHOUT_AREA else []
    settings.layer(
        {dest: value for dest, value in TASK_SETTINGS.get(task, {}).items() if dest not in without}, f'--task {task}')
    settings.layer(PLAIN_AUG, 'default')
    settings.layer(dict(train_crop_mode='rrc', hflip=0.5, shot_split='counts:100,20'), 'default')
    _check_whole(settings)


def _fit_task(settings: Settings) -> None:
    """Refuse flags that do not go with the task; those of a lower layer, or of another stage, give way with a line."""
    task = settings.get('task')
    wrong = [dest for dest in NOT_WITH_TASK.get(task, ()) if settings.values.get(dest) is not None]
    wrong += [dest for dest, tasks in ONLY_WITH_TASK.items() if task not in tasks and settings.is_set(dest)]
    for dest in wrong:
        source, value = settings.source(dest), settings.values.get(dest)
        if source in (None, CONTINUED) or value == TASK_SETTINGS.get(task, {}).get(dest):  # None: gone with another
            continue
        if dest in ONLY_WITH_TASK and value == BY_DEST[dest].default:  # as args.yaml of a run names it
            continue
        text = f'{_flag(dest)} {shown(value)} ({source})'
        another_stage = settings.get('recipe') and not str(source).startswith('--')  # --STAGE. flags mean this one
        if not (another_stage or settings.below(dest, 'task')):
            only = f' (only with {", ".join(ONLY_WITH_TASK[dest])})' if dest in ONLY_WITH_TASK else ''
            raise UserError(f'{text} does not go with --task {task}{only}: leave it out.')
        settings.notes.append(f'{text} gives way to --task {task}')
        for other in [d for d, s in settings.sources.items() if d == dest or s == f'{_flag(dest)} {value}']:
            del settings.values[other], settings.sources[other]


def aliases(values: Dict[str, Any], source: str) -> Dict[str, Any]:
    """Return the values with timm's second spellings (`--bce-loss`, `--jsd-loss`, `--no-aug`) under one name."""
    values = dict(values)
    for alias, dest, value in (
            ('bce_loss', 'loss', 'bce'), ('jsd_loss', 'loss', 'jsd'), ('no_aug', 'aug', 'none')):
        if values.pop(alias, False):
            if values.get(dest, value) != value:
                raise UserError(f'{_flag(alias)} contradicts {_flag(dest)} {values[dest]} ({source}): leave one out.')
            values[dest] = value
    return values
