"""The model card that goes to the hub beside a model: what it is, its data, its results, how to load it."""
import re
from typing import Any, Dict, Iterable, Optional, Tuple

from ..data.classes import ClassInfo
from ..errors import UserError
from ..models import is_ours
from ..utils.model_folder import KEY


def model_card(
        classes: ClassInfo,
        report: Optional[Dict[str, Any]],
        architecture: str,
        repo_id: str,
        *,
        input_size: Tuple[int, int, int] = (3, 224, 224),
        headless: bool = False,
        license: str = 'other',
        tags: Iterable[str] = (),
) -> Dict[str, Any]:
    """Return the fields of timm's model card: what the model is, its data, its results, how to load it.

    Args:
        classes: Class names and training counts.
        report: `report.json` of the run, accuracies in percent or None; None if nothing was evaluated.
        architecture: Name of the timm architecture.
        repo_id: `owner/name` on the hub.
        input_size: Channels, height and width in pixels.
        headless: The model gives features, not class scores.
        license: Identifier that the hub knows, such as `mit` or `cc-by-nc-4.0`; `other` claims nothing.
        tags: More tags.

    Raises:
        UserError: `license` cannot be an identifier.

    >>> card = model_card(ClassInfo(['cat', 'dog'], [500, 5]), {'top1': 81.25, 'split': 'val', 'num_images': 80},
    ...                   'vit_tiny_patch16_224', 'me/pets', license='mit')
    >>> print('\\n'.join(line for line in card['description'].split('\\n') if line.startswith('|')))
    | training images | classes | largest class | smallest class | largest : smallest |
    | --- | --- | --- | --- | --- |
    | 505 | 2 | cat (500) | dog (5) | 100 |
    | top-1 | balanced top-1 | many | medium | few |
    | --- | --- | --- | --- | --- |
    | 81.25 | – | – | – | – |
    """
    if not re.fullmatch(r'[a-z0-9][a-z0-9.+-]*', license):
        raise UserError(f"--license {license!r} is no licence identifier; use one like 'mit', 'apache-2.0' or 'other'.")
    task = task_name(headless)
    parts = [f'{"A feature extractor" if headless else "An image classifier"} (`{architecture}`, '
             f'{input_size[1]} x {input_size[2]} pixels) trained with `timm-smalldata` and stored as a timm model.',
             '## Training data', _data_table(classes),
             '## Results', _result_table(report),
             '## How to load it', _usage(architecture, repo_id, headless)]
    return dict(description='\n\n'.join(parts), license=license, tags=[task, 'timm', 'timm-smalldata', *tags])


def task_name(headless: bool) -> str:
    """Return what the hub calls the job of a model."""
    return 'image-feature-extraction' if headless else 'image-classification'


def _table(columns: Dict[str, Any]) -> str:
    cells = [re.sub(r'\s+', ' ', str(cell)).replace('|', '\\|') for cell in columns.values()]
    return '\n'.join(f'| {" | ".join(line)} |' for line in (columns, ['---'] * len(columns), cells))


def _data_table(classes: ClassInfo) -> str:
    if not len(classes):
        return 'The images had no class labels.'
    most, least = (pick(range(len(classes)), key=classes.counts.__getitem__) for pick in (max, min))
    ratio = f'{classes.counts[most] / classes.counts[least]:.4g}' if classes.counts[least] else '–'
    return _table({
        'training images': sum(classes.counts),
        'classes': len(classes),
        'largest class': f'{classes.names[most]} ({classes.counts[most]})',
        'smallest class': f'{classes.names[least]} ({classes.counts[least]})',
        'largest : smallest': ratio,
    })


def _result_table(report: Optional[Dict[str, Any]]) -> str:
    report = report or {}
    names = {'top1': 'top-1', 'balanced_top1': 'balanced top-1', 'many': 'many', 'medium': 'medium', 'few': 'few'}
    if all(report.get(key) is None for key in names):
        return 'No accuracy was recorded.'
    images = f' ({report["num_images"]} images)' if report.get('num_images') else ''
    table = _table({name: '–' if report.get(key) is None else f'{report[key]:.2f}' for key, name in names.items()})
    return (f'Accuracy in percent on the split `{report.get("split", "unknown")}`{images}.\n\n{table}\n\n'
            'Balanced top-1 is the mean accuracy over classes. ' + _cuts(str(report.get('shot_groups'))))


def _cuts(text: str) -> str:
    kind, _, numbers = text.partition(':')
    if kind != 'counts' or ',' not in numbers:
        return f'Many, medium and few are groups of classes by their training images ({text}).'
    many, few = numbers.split(',')
    return (f'Many, medium and few are classes with more than {many}, with {few} to {many} and with fewer than {few} '
            'training images.')


def _usage(architecture: str, repo_id: str, headless: bool) -> str:
    ours = is_ours(architecture)
    lines = ['import timm', 'import torch', 'from PIL import Image',
             *(['import timm_smalldata  # registers the architecture; pip install timm-smalldata'] if ours else []), '',
             f"model = timm.create_model('hf-hub:{repo_id}', pretrained=True).eval()",
             'transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))',
             "image = transform(Image.open('image.jpg').convert('RGB')).unsqueeze(0)",
             'with torch.inference_mode():']
    if headless:
        lines += ['    features = model(image)  # one row for each image']
        names = f'The classes that were trained on are in `config.json`, under `{KEY}`.'
    else:
        lines += ['    probabilities = model(image).softmax(-1)',
                  "print(model.pretrained_cfg['label_names'][probabilities.argmax().item()])"]
        names = ("The class names are `model.pretrained_cfg['label_names']`, `label_names` in `config.json`; "
                 f'the training images of each class are there under `{KEY}`.')
    return '\n'.join(['```python', *lines, '```']) + '\n\n' + names
