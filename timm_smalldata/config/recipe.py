"""Recipes: YAML files with a list of stages and, for each scale, what is smaller there than in the paper."""
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

from ..errors import UserError, nearest
from .yaml_file import check_value, load_yaml

RECIPES = Path(__file__).parents[1] / 'recipes'
MODEL_OF = 'stage:'  # `teacher: stage:NAME` is the model that stage NAME exports
PAPER, SAMPLE = 'paper', 'sample'
_KEYS = ('summary', 'flags', 'stages', 'scales')


def recipe_names() -> List[str]:
    return sorted(path.stem for path in RECIPES.glob('*.yaml'))


def recipe_summary(name: str) -> str:
    """Return what a recipe does, in a line."""
    return str(load_yaml(str(RECIPES / f'{name}.yaml')).get('summary', ''))


def load_recipe(name: str) -> Dict[str, Any]:
    """Read and check a recipe; strict about keys, flags and types."""
    path = RECIPES / f'{name}.yaml'
    if not path.is_file():
        known = recipe_names()
        raise UserError(f'Unknown --recipe {name!r}{nearest(name, known)}; known: {", ".join(known)}.')
    content = load_yaml(str(path))
    _check_keys(content, _KEYS, path.name)
    recipe: Dict[str, Any] = dict(flags=_flags(content.get('flags'), path.name), stages=[], scales={})
    for entry in content.get('stages') or [dict(name='train')]:
        _check_keys(entry, ('name', 'from', 'flags'), f'{path.name}, a stage')
        before = [stage['name'] for stage in recipe['stages']]
        if entry.get('from') is not None and entry['from'] not in before:
            raise UserError(
                f"{path.name}: stage {entry['name']} starts from {entry['from']}, which is no earlier stage.")
        flags = _flags(entry.get('flags'), path.name)
        teacher = str(flags.get('teacher', ''))
        if teacher.startswith(MODEL_OF) and teacher[len(MODEL_OF):] not in before:
            raise UserError(f"{path.name}: stage {entry['name']} is taught by {teacher}, which is no earlier stage.")
        recipe['stages'].append({**entry, 'flags': flags})
    names = [stage['name'] for stage in recipe['stages']]
    for scale, entry in (content.get('scales') or {}).items():
        where = f'{path.name}, scale {scale}'
        entry = entry or {}
        _check_keys(entry, ('flags', *names), where)
        recipe['scales'][scale] = {key: _flags(values, where) for key, values in entry.items()}
    return recipe


def at_scale(
        recipe: Dict[str, Any],
        name: str,
        scale: Optional[str],
        own_data: bool,
) -> Tuple[Dict[str, Any], Optional[str]]:
    """Return the recipe with the flags of each stage at a scale, and that scale.

    Args:
        recipe: What `load_recipe` returned.
        name: Its name.
        scale: What the user asks for; otherwise `paper` for data of their own, `sample` where no data are named.
        own_data: Whether data are named.

    Raises:
        UserError: The recipe has no such scale.
    """
    scales = recipe['scales']
    if not scales and scale:
        raise UserError(f'--scale {scale}: recipe {name} has one scale only; leave it out.')
    if scales:
        scale = scale or (PAPER if own_data else SAMPLE)
        if scale not in scales:
            raise UserError(f'--scale {scale}: recipe {name} has no such scale{nearest(scale, scales)}; it has: '
                            f'{", ".join(scales)} (numbers cut an area: 0.08 1).')
    chosen = scales.get(scale, {})
    extra = dict(recipe_scale=scale) if scale else {}
    stages = [
        {**stage, 'flags': {
            **recipe['flags'], **stage['flags'], **chosen.get('flags', {}), **chosen.get(stage['name'], {}), **extra}}
        for stage in recipe['stages']]
    return dict(stages=stages), scale


def without_stage(recipe: Dict[str, Any], skipped: str, name: Optional[str]) -> Dict[str, Any]:
    """Return a recipe without one of its stages; what would start from that one starts from scratch.

    Raises:
        UserError: There is no such stage, no other one, or another one learns from it.
    """
    if not name:
        raise UserError(f'--skip-stage {skipped}: stages come with --recipe.')
    names = [stage['name'] for stage in recipe['stages']]
    if skipped not in names:
        raise UserError(f'--skip-stage {skipped}: there is no such stage{nearest(skipped, names)}; recipe {name} has: '
                        f'{", ".join(names)}.')
    if len(names) == 1:
        raise UserError(f'--skip-stage {skipped}: recipe {name} has no other stage.')
    stages = [
        {**stage, 'from': None if stage.get('from') == skipped else stage.get('from')}
        for stage in recipe['stages'] if stage['name'] != skipped]
    for stage in stages:
        if stage['flags'].get('teacher') == MODEL_OF + skipped:
            raise UserError(f"--skip-stage {skipped}: stage {stage['name']} learns from it; leave --skip-stage out and "
                            'name a teacher of your own with --teacher FOLDER.')
    return {**recipe, 'stages': stages}


def used_stages(stages: List[Any]) -> List[Any]:
    """Return the stages without those whose model nobody uses: a teacher of the user's own takes the place of one."""
    used = {stages[-1].name}
    for stage in reversed(stages):
        if stage.name in used:
            used |= {stage.start_from, stage.taught_by}
    return [stage for stage in stages if stage.name in used]


def _check_keys(content: Any, known: Any, where: str) -> None:
    if not isinstance(content, dict):
        raise UserError(f'{where}: expected "key: value" lines.')
    for key in content:
        if key not in known:
            raise UserError(f'{where}: unknown key {key!r}{nearest(str(key), known)}.')


def _flags(values: Any, where: str) -> Dict[str, Any]:
    return dict(check_value(name, value, where) for name, value in (values or {}).items())
