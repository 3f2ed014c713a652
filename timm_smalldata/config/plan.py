"""From a command line to a list of stages; a plain command is one stage, a recipe is several.

Precedence: `--STAGE.flag` > `--flag` > `-c FILE` > recipe > sample > defaults.
"""
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Dict, List, Optional, Tuple

from ..data.samples import SAMPLES
from ..errors import UserError, nearest
from .flags import FLAGS, flag_word
from .layers import add_layer, aliases, complete
from .parser import parse_flags
from .recipe import MODEL_OF, at_scale, load_recipe, used_stages, without_stage
from .settings import Settings
from .yaml_file import load_config

_HOW_TO_TRAIN = ('model', 'model_kwargs', 'opt', 'lr', 'batch_size', 'epochs')


@dataclass
class Stage:
    """One training run of a plan.

    Attributes:
        name: Its name; empty for a plain command.
        folder: Its folder below OUTPUT/EXPERIMENT ('' for a plain command).
        settings: Flags and what set them.
        given: What the user gave for it (command line and `-c FILE`), which a resumed run is compared with.
        start_from: Name of the stage whose exported model it starts from.
        taught_by: Name of the stage whose exported model is its teacher.
    """
    name: str
    folder: str
    settings: Settings
    given: Dict[str, Any] = field(default_factory=dict)
    start_from: Optional[str] = None

    @property
    def taught_by(self) -> Optional[str]:
        if self.settings.get('kd_token_distill_type') == 'none':
            return None
        teacher = str(self.settings.get('teacher') or '')
        return teacher[len(MODEL_OF):] if teacher.startswith(MODEL_OF) else None


def plan(argv: List[str]) -> List[Stage]:
    """Return the stages that a command line asks for, in order.

    Raises:
        UserError: Unknown flags, names or keys, wrong types, contradictions.
    """
    given, staged = parse_flags(argv)
    notes: List[str] = []
    config = load_config(given['config'], notes) if given.get('config') else {}
    recipe, recipe_source = _choose_recipe(given, config, staged)
    stages = []
    for number, entry in enumerate(recipe['stages'], 1):
        settings = Settings()
        settings.notes += notes
        layers = [
            (staged.get(entry['name'], {}), f"--{entry['name']}. flags"),
            (given, 'command line'),
            (config, given.get('config', '')),
            (entry['flags'], recipe_source),
        ]
        import_modules(next((v['device_modules'] for v, _ in layers if v.get('device_modules')), []))
        mine: Dict[str, Any] = {}
        for values, source in layers:
            if values:
                add_layer(settings, values, source)
        for values, _ in reversed(layers[:3]):
            mine.update(aliases(values, 'flags'))
        folder = f"{number}-{entry['name']}" if len(recipe['stages']) > 1 else ''
        start = None if settings.get('initial_checkpoint') else entry.get('from')
        stages.append(Stage(entry['name'], folder, settings, mine, start))
    stages = used_stages(stages)
    _check_images(stages)
    return stages


def _check_images(stages: List[Stage]) -> None:
    """Raise a UserError where some stages have images of their own and another has none: it would take the sample."""
    without = [
        stage.name for stage in stages if all(stage.settings.get(dest) is None for dest in ('data_dir', 'dataset'))]
    if without and len(without) < len(stages):
        raise UserError(f'stage {without[0]} has no images, while another has its own: name them with '
                        f'--{without[0]}.data-dir, or the folder of all other stages without a stage.')


def _choose_recipe(
        given: Dict[str, Any], config: Dict[str, Any], staged: Dict[str, Dict[str, Any]],
) -> Tuple[Dict[str, Any], str]:
    """Return the stages at their scale (one without a name where there is no recipe), and the name of the source."""
    name = given.get('recipe') or config.get('recipe')
    scale = given.get('recipe_scale') or config.get('recipe_scale')
    if scale and not name:
        raise UserError(f'--scale {scale} is that of a recipe: name one with --recipe (numbers cut an area: 0.08 1).')
    recipe: Dict[str, Any] = dict(stages=[dict(name='', flags={})])
    source = f'recipe {name}'
    if name:
        own_data = any(
            values.get(dest) is not None for values in (given, config, *staged.values())
            for dest in ('data_dir', 'dataset'))
        recipe, scale = at_scale(load_recipe(name), name, scale, own_data)
        source += f' at scale {scale}' if scale else ''
    names = [stage['name'] for stage in recipe['stages']]
    for stage in staged:
        if stage not in names:
            raise UserError(
                f'--{stage}.{next(iter(staged[stage]), "flag")}: there is no stage {stage!r}{nearest(stage, names)}; '
                + (f'recipe {name} has: {", ".join(names)}.' if name else 'stages come with --recipe.'))
    for skipped in given.get('skip_stage') or config.get('skip_stage') or []:
        recipe = without_stage(recipe, skipped, name)
    return recipe, source


def import_modules(names: List[str]) -> None:
    """Import the modules of `--device-modules`, which may bring losses and tasks of the user's own.

    Raises:
        UserError: There is no such module, or it cannot be imported.
    """
    for name in names:
        try:
            import_module(name)
        except ImportError as error:
            raise UserError(f'--device-modules {name}: {error}') from error


def finish_stage(stage: Stage) -> None:
    """Add what no flag has said: the sample where no data are named, then the defaults."""
    settings = stage.settings
    import_modules(settings.get('device_modules') or [])  # of a run that is continued
    if settings.get('data_dir') is None and settings.get('dataset') is None:
        for dest in ('train_split', 'val_split', 'test_split', 'split_file', 'image_root'):
            if settings.get(dest) is not None:
                raise UserError(f'{flag_word(dest)} {settings.get(dest)}, but no images are named: add the folder or '
                                '--data-dir.')
        add_layer(settings, dict(dataset='sample/digits'), 'no data named')
    dataset = str(settings.get('dataset') or '')
    if dataset.startswith('sample/'):
        _add_sample(settings, dataset)
    complete(settings)
    if not (stage.start_from or settings.get('initial_checkpoint') or settings.get('pretrained')):
        if settings.get('reset_head'):
            raise UserError('--reset-head goes with --initial-checkpoint: a model from scratch has a new head anyway.')
        if settings.get('freeze_backbone'):
            raise UserError(
                '--freeze-backbone would keep random features: name trained ones with --initial-checkpoint.')


def _add_sample(settings: Settings, dataset: str) -> None:
    """Add the facts of a sample, as far as nothing that was said takes their place."""
    name = dataset.partition('/')[2]
    if name not in SAMPLES:
        raise UserError(f'There is no sample {name!r}{nearest(name, SAMPLES)}; there are: {", ".join(SAMPLES)}.')
    for flag in FLAGS:
        if flag.of_files and settings.get(flag.dest) not in (None, flag.default):
            raise UserError(f'{flag.word} {settings.get(flag.dest)} does not go with --dataset {dataset}, '
                            'which comes with its own splits and classes: leave it out.')
    facts = dict(SAMPLES[name].facts)
    if settings.is_set('recipe_scale'):  # how to train is what a scale says
        facts = {dest: value for dest, value in facts.items() if dest not in _HOW_TO_TRAIN}
    if settings.is_set('model'):
        facts.pop('model', None), facts.pop('model_kwargs', None)
    if settings.is_set('opt'):
        facts.pop('opt', None), facts.pop('lr', None)
    if settings.is_set('time_budget'):
        facts.pop('epochs', None)
    if settings.is_set('imbalance_indices'):
        facts.pop('imbalance_factor', None)
    add_layer(settings, facts, f'sample/{name}')
