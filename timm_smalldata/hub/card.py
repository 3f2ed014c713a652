"""The model card that goes to the hub beside a model: what it is, what it reached on what, how to load it."""
import re
from typing import Any, Dict, Iterable, List, Optional, Sequence, Tuple

from ..errors import UserError
from ..models import is_ours
from ..utils.model_folder import KEY
from ..version import __version__
from .story import Story

URL = 'https://github.com/timm-smalldata/timm-smalldata'
PICTURE = 'recall.png'
MOST_ROWS = 300  # classes whose recall is listed
Cells = Sequence[Any]

# What the hub calls a metric, what a report calls it, and its name for people.
METRICS = (('accuracy', 'top1', 'top-1 accuracy'), ('accuracy', 'top5', 'top-5 accuracy'),
           ('balanced_accuracy', 'balanced_top1', 'balanced accuracy'), ('f1', 'macro_f1', 'macro F1'),
           ('roc_auc', 'auroc', 'AUROC'), ('recall', 'many', 'recall, classes with many images'),
           ('recall', 'medium', 'recall, classes in between'),
           ('recall', 'few', 'recall, classes with few images'), ('ece', 'ece', 'calibration error'))


def model_card(
        story: Story,
        repo_id: str,
        *,
        license: Optional[str] = None,
        data_name: Optional[str] = None,
        picture: bool = False,
        tags: Iterable[str] = (),
) -> str:
    """Return the text of `README.md`, with the metadata that the hub reads.

    Args:
        story: What the run folder tells.
        repo_id: `owner/name` on the hub.
        license: Identifier that the hub knows, such as `mit` or `cc-by-nc-4.0`; None: the card says that there is none.
        data_name: Name of the images; by default that of a public data set, and no name for a folder.
        picture: `recall.png` lies beside the card.
        tags: More tags.

    Raises:
        UserError: `license` cannot be an identifier.
    """
    from huggingface_hub import ModelCardData
    if license is not None and not re.fullmatch(r'[a-z0-9][a-z0-9.+-]*', license):
        raise UserError(f"--license {license!r} is no licence identifier; use one like 'mit', 'apache-2.0' or 'other'.")
    task = 'image-feature-extraction' if story.headless else 'image-classification'
    known = story.data_name
    data_name = data_name or known
    results = _eval_results(story, data_name)
    data: Dict[str, Any] = dict(
        library_name='timm', pipeline_tag=task, license=license, tags=[task, 'timm', 'timm-smalldata', *tags],
        datasets=[known[len('hfds/'):]] if known is not None and known.startswith('hfds/') else None,
        metrics=sorted({row.metric_type for row in results}) or None)
    if results:
        data.update(model_name=repo_id.split('/')[-1], eval_results=results)
    sections = [
        f'# {repo_id.split("/")[-1]}', _what_it_is(story, picture),
        '## How to load it', _usage(story, repo_id),
        '## Results', *_results(story),
        '## Training data', *_training_data(story, data_name),
        '## How it was trained', *_training(story),
        '## Licence', _licence(license, story),
        '## Citation', f'```bibtex\n{_CITATION}\n```']
    return f'---\n{ModelCardData(**data).to_yaml()}\n---\n\n' + '\n\n'.join(sections) + '\n'


def _eval_results(story: Story, data_name: Optional[str]) -> List[Any]:
    """Return what the hub shows as results, as fractions, which its metrics are."""
    from huggingface_hub import EvalResult
    report = story.report
    split = {'val': 'validation'}.get(str(report.get('split')), report.get('split'))
    known = story.data_name
    kind = known[len('hfds/'):] if known is not None and known.startswith('hfds/') else data_name or 'imagefolder'
    return [
        EvalResult(
            task_type='image-classification', task_name='Image Classification', dataset_type=kind,
            dataset_name=data_name or 'a folder of images', dataset_split=split, metric_type=metric,
            metric_name=name, metric_value=round(report[key] / 100, 5))
        for metric, key, name in METRICS if report.get(key) is not None]


def _what_it_is(story: Story, picture: bool) -> str:
    config = story.config
    _, height, width = config['pretrained_cfg']['input_size']
    kind = 'A feature extractor' if story.headless else f'An image classifier for {len(story.classes)} classes'
    origin = config['pretrained_cfg'].get('tag')
    start = f'from the weights `{config["architecture"]}.{origin}` of timm' if origin else 'from scratch'
    text = (f'{kind}: `{config["architecture"]}`, {height} x {width} pixels, {story.parameters / 1e6:.2f} M '
            f'parameters, {story.size / 1e6:.1f} MB, trained {start} with [timm-smalldata]({URL}) and '
            'stored as a timm model.')
    return text + (f'\n\n![Recall of each class by its number of training images]({PICTURE})' if picture else '')


def _usage(story: Story, repo_id: str) -> str:
    ours = is_ours(story.config['architecture'])
    lines = ['import timm', 'import torch', 'from PIL import Image',
             *(['import timm_smalldata  # registers the architecture; pip install timm-smalldata'] if ours else []), '',
             f"model = timm.create_model('hf-hub:{repo_id}', pretrained=True).eval()",
             'transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))',
             "image = transform(Image.open('your-image.jpg').convert('RGB')).unsqueeze(0)",
             'with torch.inference_mode():']
    if story.headless:
        lines += ['    features = model(image)  # one row for each image', 'print(features.shape)']
        names = f'The classes that were trained on are in `config.json`, under `{KEY}`.'
    else:
        temperature = story.config.get(KEY, {}).get('temperature')
        lines.append('    logits = model(image)')
        divided = f'(logits / {temperature:.4g})' if temperature else 'logits'
        lines += [
            f'probabilities = {divided}.softmax(-1)[0]' + ('  # a temperature fitted to validation images' * bool(
                temperature)),
            "names = model.pretrained_cfg['label_names']",
            'for probability, index in zip(*probabilities.topk(min(3, len(names)))):',
            "    print(f'{names[index]}: {probability:.1%}')"]
        names = (f'The training images of each class are in `config.json`, under `{KEY}`. With timm-smalldata '
                 f'installed, `timm-smalldata predict hf-hub:{repo_id} FOLDER` does this for a folder.')
    return '\n'.join(['```python', *lines, '```']) + '\n\n' + names


def _results(story: Story) -> List[str]:
    report = story.report
    if all(report.get(key) is None for _, key, _ in METRICS):
        return ['No accuracy was recorded.']
    intervals = report.get('intervals') or {}
    images = f' ({report["num_images"]} images)' if report.get('num_images') else ''
    rows: List[Cells] = [('in percent', 'value', '95 % interval')]
    rows += [(name, _number(report[key]), _ends(intervals.get(key)))
             for _, key, name in METRICS if report.get(key) is not None]
    parts = [f'On the split `{report.get("split_note") or report.get("split", "unknown")}`{images}.', _table(rows),
             'Balanced accuracy is the mean recall of the classes. ' + _cuts(str(report.get('shot_groups')))
             + (f' {report["note"][0].upper()}{report["note"][1:]}.' if report.get('note') else '')]
    if story.rows:
        parts.append(_class_table(story.rows))
    return parts


def _class_table(rows: Sequence[Dict[str, str]]) -> str:
    shown, told = list(rows), f'Each class ({len(rows)})'
    if len(rows) > MOST_ROWS:
        shown = sorted((row for row in rows if row['recall']), key=lambda row: float(row['recall']))[:MOST_ROWS]
        told = f'The {len(shown)} classes with the lowest recall of {len(rows)}'
    table = _table([('class', 'trained on', 'judged on', 'recall, %', '95 % interval'), *(
        (row['class'], row['train_images'], row['images'], _number(row['recall']), _ends((row['lo'], row['hi'])))
        for row in shown)])
    return f'<details><summary>{told}</summary>\n\n{table}\n\n</details>'


def _training_data(story: Story, data_name: Optional[str]) -> List[str]:
    classes, parts = story.classes, [f'`{data_name}`' if data_name else 'A folder of images that is not published.']
    if not len(classes):
        parts.append('The images had no class labels.')
    else:
        most, least = (pick(range(len(classes)), key=classes.counts.__getitem__) for pick in (max, min))
        ratio = f'{classes.counts[most] / classes.counts[least]:.4g}' if classes.counts[least] else '–'
        parts.append(_table([
            ('training images', 'classes', 'largest class', 'smallest class', 'largest : smallest'),
            (sum(classes.counts), len(classes), f'{classes.names[most]} ({classes.counts[most]})',
             f'{classes.names[least]} ({classes.counts[least]})', ratio)]))
    roles = ', '.join(f'{role} {len(images)}' for role, images in (story.split.get('split') or {}).items())
    hashes = [f'{what} `{value[:16]}`' for what, value in (
        ('split', story.split.get('sha256')), ('training images', classes.data_hash)) if value]
    if roles or hashes:
        parts.append('. '.join(filter(None, [
            f'Images: {roles}' if roles else '',
            f'SHA-256 of the {", of the ".join(hashes)}: equal hashes mean equal images' if hashes else ''])) + '.')
    return parts


def _training(story: Story) -> List[str]:
    settings, machine, parts = story.settings, story.machine, []
    said = [f'{name} `{settings[key]}`' for name, key in (
        ('task', 'task'), ('loss', 'loss'), ('sampler', 'sampler'), ('augmentation', 'aug'), ('epochs', 'epochs'),
        ('batch', 'batch_size'), ('optimiser', 'opt'), ('learning rate', 'lr'), ('seed', 'seed'))
        if settings.get(key) is not None and not (key == 'loss' and (story.headless or story.report.get('probe')))]
    if said:
        parts.append(f'{said[0][0].upper()}{"; ".join(said)[1:]}.')
    command = story.command
    if command is not None:
        recipe = re.search(r'--recipe (\S+)', command)
        which = f'Recipe `{recipe[1]}`' if recipe else 'No recipe'
        parts.append(f'{which}; the command was\n\n```bash\n{command}\n```')
    versions = ', '.join(f'{name} {version}' for name, version in (machine.get('versions') or {}).items()
                         if version and name in ('timm-smalldata', 'timm', 'torch', 'torchvision'))
    device = machine.get('gpu') or machine.get('processor')
    if versions:
        parts.append(f'With {versions}' + (f', on {device}' if device else '') + '.')
    return parts or ['The run folder does not tell.']


def _licence(license: Optional[str], story: Story) -> str:
    origin = story.config['pretrained_cfg'].get('license')
    tail = f' The weights that training started from are under `{origin}`.' if origin else ''
    if license is None:
        return 'No licence was chosen for this model: ask its owner before you use it.' + tail
    return f'`{license}`.{tail}'


def _cuts(text: str) -> str:
    kind, _, numbers = text.partition(':')
    if kind != 'counts' or ',' not in numbers:
        return f'Many, medium and few are groups of classes by their training images ({text}).'
    many, few = numbers.split(',')
    return (f'Many, medium and few are classes with more than {many}, with {few} to {many} and with fewer than {few} '
            'training images.')


def _number(value: Any) -> str:
    return '–' if value in (None, '') else f'{float(value):.2f}'


def _ends(ends: Optional[Tuple[Any, Any]]) -> str:
    return '' if not ends or ends[0] in (None, '') else f'{float(ends[0]):.2f} – {float(ends[1]):.2f}'


def _table(rows: Sequence[Cells]) -> str:
    """Return a table of Markdown; the first row is its head. Names cannot break out of their cell."""
    lines = [[_cell(cell) for cell in row] for row in rows]
    lines.insert(1, ['---'] * len(rows[0]))
    return '\n'.join(f'| {" | ".join(line)} |' for line in lines)


def _cell(value: Any) -> str:
    text = re.sub(r'\s+', ' ', str(value)).replace('&', '&amp;').replace('<', '&lt;')
    return re.sub(r'([|`*_\[\]\\])', r'\\\1', text)


_CITATION = f"""@software{{timm_smalldata,
  title = {{timm-smalldata}},
  author = {{{{The timm-smalldata authors}}}},
  version = {{{__version__}}},
  url = {{{URL}}}
}}"""
