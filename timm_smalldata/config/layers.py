"""How sources of flags lie over each other: a higher one silences a lower one, with a line."""
from typing import Any, Dict

from ..errors import UserError
from ..loss import LOSSES
from .checks import check_contradictions, exclude, exclusive
from .fit import check_whole, fit_task
from .flags import flag_word, shown
from .presets import AUG_SETTINGS, PLAIN_AUG, WITHOUT_AREA
from .settings import Settings
from .tasks import refused_by, task_row


def add_layer(settings: Settings, values: Dict[str, Any], source: str) -> None:
    """Add one source of flags (command line, file, recipe, sample) with what its loss and augmentation bring along.

    A higher layer silences a lower one, with a line; a contradiction inside one layer is an error.
    """
    values = aliases(values, source)
    check_contradictions(values, source)
    for pair in exclusive():
        for higher, lower in (pair, pair[::-1]):
            if exclude(settings.values, values, higher, lower):
                settings.notes.append(
                    f'{flag_word(lower)} {shown(values.pop(lower))} ({source}) gives way to {flag_word(higher)} '
                    f'{shown(settings.values[higher])} ({settings.sources[higher]})')
    length = next((dest for dest in ('epochs', 'time_budget') if settings.is_set(dest)), None)
    if length is not None and values.get('warmup_prefix'):  # it would come in addition
        for dest in ('warmup_prefix', 'warmup_epochs'):
            values.pop(dest, None)
        settings.notes.append(
            f'the warm-up of {source} gives way to {flag_word(length)} {shown(settings.values[length])} '
            f'({settings.sources[length]}), from which it follows')
    for dest in values:
        if settings.is_set(dest) and settings.values[dest] != values[dest]:
            settings.notes.append(
                f'{flag_word(dest)} {shown(values[dest])} ({source}) gives way to {shown(settings.values[dest])} '
                f'({settings.sources[dest]})')
    if 'train_crop_mode' in values and values['train_crop_mode'] != 'rrc':
        given = [dest for dest in ('scale', 'ratio') if settings.is_set(dest)]
        if given and not settings.is_set('train_crop_mode'):
            settings.notes.append(
                f"--train-crop-mode {values['train_crop_mode']} ({source}) gives way to {flag_word(given[0])} "
                f'({settings.sources[given[0]]})')
            settings.layer(dict(train_crop_mode='rrc'), f'{flag_word(given[0])}')
    settings.layer(values, source)
    if values.get('aug') is not None and settings.source('aug') == source:
        settings.layer(AUG_SETTINGS[values['aug']], f"--aug {values['aug']}")
    if settings.source('loss') == source:
        settings.layer(published_with(values['loss']), f"--loss {values['loss']}")


def complete(settings: Settings) -> None:
    """Fill in what no layer has set and does not depend on the data; check the whole."""
    fit_task(settings)
    task, loss = settings.get('task'), settings.get('loss')
    if 'loss' not in refused_by(task):
        settings.layer(published_with(loss), f'--loss {loss}')
    without = ['epochs'] if settings.is_set('time_budget') else []
    without += ['scale'] if settings.get('train_crop_mode') in WITHOUT_AREA else []
    settings.layer(
        {dest: value for dest, value in task_row(task).published.items() if dest not in without}, f'--task {task}')
    settings.layer(PLAIN_AUG, 'default')
    settings.layer(dict(train_crop_mode='rrc', hflip=0.5, shot_split='auto'), 'default')
    check_whole(settings)


def published_with(loss: str) -> Dict[str, Any]:
    """Return what a loss was published with; an unknown one is refused later, when all layers are known."""
    return LOSSES[loss].published if loss in LOSSES else {}


def aliases(values: Dict[str, Any], source: str) -> Dict[str, Any]:
    """Return the values with timm's second spellings (`--bce-loss`, `--no-aug`, `--kd-model-name`) under one name."""
    task = f"kd-{values.get('kd_distill_type') or 'logit'}"
    spellings = [
        ('bce_loss', 'loss', 'bce'), ('jsd_loss', 'loss', 'jsd'), ('no_aug', 'aug', 'none'),
        ('kd_distill_type', 'task', task), ('kd_model_name', 'task', task),
        ('kd_model_name', 'teacher', values.get('kd_model_name'))]
    plain = {dest: value for dest, value in values.items() if dest not in {alias for alias, *_ in spellings}}
    for alias, dest, value in spellings:
        if values.get(alias):
            if plain.get(dest, value) != value:
                raise UserError(
                    f'{flag_word(alias)} contradicts {flag_word(dest)} {plain[dest]} ({source}): leave one out.')
            plain[dest] = value
    return plain
