"""What leaves a run: the exported `model/` folder, and the way to the Hugging Face hub.

`model/` holds `config.json` and `model.safetensors`, both written by timm, so a model of a stock timm architecture
needs nothing but timm to come back: `timm.create_model('local-dir:RUN/model', pretrained=True)`, or `hf-hub:owner/name`
once it was pushed. No image, file name or local path goes into either file or into the card.
"""
import json
import os
import re
import shlex
import shutil
import textwrap
from copy import deepcopy
from itertools import chain
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Tuple, Type, Union

import timm
import torch
from timm.models import push_to_hf_hub, save_for_hf
from timm.utils import natural_key, unwrap_model
from torch import nn

from ._compat import generate_readme
from .card import KEY, model_card, task_name
from .data.classes import ClassInfo
from .errors import UserError

__all__ = ['export_model', 'is_complete', 'load_classes', 'find_model', 'model_card', 'push_model']

CONFIG, WEIGHTS = 'config.json', 'model.safetensors'

# What timm's registry says of the weights that it offers for an architecture: untrue of weights trained from scratch.
_ORIGIN = ('tag', 'license', 'description', 'origin_url', 'paper_name', 'paper_ids', 'notes')
_LABELS = ('label_names', 'label_descriptions')


def export_model(
        model: nn.Module,
        folder: Union[str, Path],
        *,
        classes: ClassInfo,
        data_config: Dict[str, Any],
        metadata: Optional[Dict[str, Any]] = None,
        fine_tuned: bool = False,
) -> None:
    """Write `config.json` and `model.safetensors`; equal weights give equal bytes.

    `folder` is at every moment complete or absent: the files are written and synced in a hidden sibling, which is then
    renamed. An older folder of that name is replaced. One process writes (rank 0).

    Args:
        model: A model made by `timm.create_model`, bare or wrapped (DDP, compile, EMA); it is not changed.
        folder: The folder to make, its parent exists.
        classes: Class names and training counts. Where the head has another number of outputs (none, or one for each
            instance), the names go under our own key instead of `label_names`.
        data_config: timm's, at least `input_size`, `mean`, `std`, `crop_pct` and `interpolation` of evaluation.
        metadata: More to keep under our key; plain JSON values without absolute paths.
        fine_tuned: Training began from weights that timm offers: keep their licence and origin in the config.

    Raises:
        ValueError: A model argument cannot be stored as JSON, `data_config` contradicts the model, or a setting is an
            absolute path.
        TypeError: `metadata` cannot be stored as JSON.
    """
    folder = Path(folder)
    new, old = (folder.with_name(f'.{folder.name}.{age}') for age in ('new', 'old'))
    shutil.rmtree(new, ignore_errors=True)  # left by a process that was killed

    plain = _plain_copy(model)
    drop = _LABELS if fine_tuned else _LABELS + _ORIGIN
    plain.pretrained_cfg = {key: value for key, value in plain.pretrained_cfg.items() if key not in drop}
    ours: Dict[str, Any] = {**(metadata or {}), 'class_counts': list(map(int, classes.counts)),
                            'data_hash': classes.data_hash}
    model_config: Dict[str, Any] = {KEY: ours}
    if plain.num_classes == len(classes):
        model_config['label_names'] = list(classes.names)
    else:
        ours['class_names'] = list(classes.names)
    save_for_hf(plain, str(new), model_config=model_config, data_config=data_config, safe_serialization=True)
    for key, text in _strings(_read_config(new)):
        if Path(text).is_absolute():
            raise ValueError(f'{key} is the absolute path {text!r}, which an exported model must not hold.')

    (new / WEIGHTS).chmod((new / CONFIG).stat().st_mode)  # safetensors lets only the owner read it
    for path in (new / CONFIG, new / WEIGHTS, new):
        _sync(path)
    if folder.exists():
        shutil.rmtree(old, ignore_errors=True)
        os.rename(folder, old)
    os.rename(new, folder)
    _sync(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def is_complete(folder: Union[str, Path]) -> bool:
    """Return whether `folder` holds an exported model whose two files can be opened and are not cut short."""
    from safetensors import SafetensorError, safe_open
    try:
        with safe_open(Path(folder) / WEIGHTS, 'pt'):  # compares the header with the file's size
            return 'architecture' in _read_config(folder)
    except (OSError, ValueError, SafetensorError):
        return False


def load_classes(folder: Union[str, Path]) -> ClassInfo:
    """Return the classes that an exported model was trained on."""
    config = _read_config(folder)
    names = config.get('label_names') or config[KEY].get('class_names', [])
    return ClassInfo(list(names), list(config[KEY]['class_counts']), config[KEY]['data_hash'])


def stage_folders(folder: Path) -> List[Path]:
    """Return the folders of a run's stages in their order; none for a run of one stage."""
    return sorted((p for p in folder.glob('*-*') if p.is_dir() and re.match(r'\d{1,2}-', p.name)),
                  key=lambda p: natural_key(p.name))


def find_model(folder: Union[str, Path]) -> Path:
    """Return the exported model of a run: the folder itself, its `model/`, or `model/` of its last stage.

    Raises:
        UserError: There is none, or it is not complete.
    """
    folder = Path(folder)
    for candidate in (folder, folder / 'model', *(p / 'model' for p in stage_folders(folder)[-1:])):
        if is_complete(candidate):
            return candidate
    raise UserError(f'{folder} holds no complete model ({CONFIG} and {WEIGHTS} in it or in its model/); '
                    'name the folder of a run that has finished.')


def push_model(
        folder: Union[str, Path],
        repo_id: str,
        *,
        private: bool = True,
        card: Optional[Dict[str, Any]] = None,
        license: str = 'other',
        replace_card: bool = False,
        token: Optional[str] = None,
) -> str:
    """Send an exported model and its card to the hub through timm's `push_to_hf_hub`.

    The folder is loaded with stock timm and pushed from there: what arrives is what was exported, bit for bit.

    Args:
        folder: A run folder or a `model/` folder.
        repo_id: `owner/name`; made if it does not exist.
        private: Make the repository private. One that exists and is public is then refused.
        card: Fields of timm's model card; by default `model_card` of this folder and the `report.json` beside it.
        license: For the default card.
        replace_card: Write the card over a README.md that is there already; otherwise that one stays.
        token: Token with write access; by default `HF_TOKEN` or the stored login.

    Returns:
        Address of the repository.

    Raises:
        UserError: Bad name, no token, refused by the hub, hub out of reach; the message says how to push later.
    """
    from huggingface_hub import HfApi, get_token
    from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

    source = find_model(folder)
    later = ('The training results are saved; push them later with: '
             f'timm-smalldata push {shlex.quote(str(folder))} ')
    _check_repo_id(repo_id, later)
    later += repo_id + ('' if private else ' --public')
    token = token or get_token()
    if not token:
        raise UserError(f'Pushing to {repo_id} needs a token: set HF_TOKEN to one with write access. {later}')

    config = _read_config(source)
    card = _card_of(source, repo_id, license) if card is None else {'license': license, **card}
    task = task_name(not config['num_classes'])
    api = HfApi(token=token)
    # the root of the client's network errors belongs to whichever HTTP package it was built on
    failures: Tuple[Type[BaseException], ...] = (*HfHubHTTPError.__bases__, OSError, ValueError, RuntimeError)
    try:
        model: Any = timm.create_model(f'local-dir:{source}', pretrained=True)
        model.pretrained_cfg = dict(config['pretrained_cfg'], architecture=config['architecture'])
        try:
            public = not api.model_info(repo_id).private
        except RepositoryNotFoundError:
            public = False
        if private and public:
            raise UserError(f'{repo_id} exists and is public, so nothing was sent; choose another name, '
                            f'or add --public to publish the model. {later}')
        has_card = api.file_exists(repo_id, 'README.md')
        push_to_hf_hub(
            model, repo_id, 'Add model trained with timm-smalldata', token=token, private=private,
            model_config={key: config[key] for key in ('label_names', KEY) if key in config},
            model_card=card, task_name=task, safe_serialization=True, data_config=config['pretrained_cfg'])
        if has_card and replace_card:
            readme = generate_readme(card, repo_id.split('/')[-1], task)
            api.upload_file(path_or_fileobj=readme.encode(), path_in_repo='README.md', repo_id=repo_id)
        elif has_card:
            print(f'{repo_id} had a README.md already: it was left as it is (--replace-card writes a new one).')
    except failures as error:
        raise UserError(f'Pushing to {repo_id} failed: {_reason(error, api.endpoint)}. {later}') from error
    return f'{api.endpoint}/{repo_id}'


def _plain_copy(model: nn.Module) -> Any:
    """Return an fp32 copy on the CPU whose tensors are contiguous and share no memory: what safetensors stores."""
    model = deepcopy(unwrap_model(model)).to('cpu', torch.float32)
    for tensor in chain(model.parameters(), model.buffers()):
        tensor.data = tensor.data.clone(memory_format=torch.contiguous_format)
    return model


def _sync(path: Path) -> None:
    if path.is_dir() and os.name == 'nt':
        return  # Windows opens no folders, and syncs only what is open for writing
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _read_config(folder: Union[str, Path]) -> Dict[str, Any]:
    return json.loads((Path(folder) / CONFIG).read_text(encoding='utf-8'))


def _strings(value: Any, key: str = '') -> Iterator[Tuple[str, str]]:
    """Yield (key, text) of every string in a JSON value but class names: those are the user's, whatever they hold."""
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item, key)
    elif isinstance(value, dict):
        for name in value.keys() - {'label_names', 'class_names'}:
            yield from _strings(value[name], name)


def check_push(repo_id: str) -> None:
    """Raise a UserError, before anything is trained, where a push could not work: a bad name, no token."""
    from huggingface_hub import get_token
    _check_repo_id(repo_id)
    if not get_token():
        raise UserError(f'--push-to-hub {repo_id} needs a token: set HF_TOKEN to one with write access.')


def _check_repo_id(repo_id: str, later: str = '') -> None:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id
    try:
        validate_repo_id(repo_id)
        valid = repo_id.count('/') == 1
    except HFValidationError:
        valid = False
    if not valid:
        raise UserError(f"{repo_id!r} is not a repository name on the hub: write owner/name, with letters, digits, "
                        f"'-', '_' and '.' only. {later + 'owner/name' if later else ''}".rstrip())


def _reason(error: BaseException, endpoint: str) -> str:
    """Say in a few words why a push failed."""
    status = getattr(getattr(error, 'response', None), 'status_code', None)
    said = textwrap.shorten(str(getattr(error, 'server_message', None) or error), 200)
    if status == 401:
        return f'{endpoint} does not accept the token (401); set HF_TOKEN to a valid one with write access'
    if status == 403:
        return 'the token may not write there (403); set HF_TOKEN to one with write access'
    if status is not None:
        return f'{endpoint} answered {status} ({said})'
    if isinstance(error, (ValueError, RuntimeError)) or (isinstance(error, OSError) and error.errno):
        return said
    return f'{endpoint} is out of reach ({type(error).__name__}: {said})'


def _card_of(source: Path, repo_id: str, license: str) -> Dict[str, Any]:
    config = _read_config(source)
    report_file = source.parent / 'report.json'
    try:
        report = json.loads(report_file.read_text(encoding='utf-8')) if report_file.exists() else None
    except ValueError as error:
        raise UserError(f'{report_file} is not JSON ({error}); resume the run to write it again.') from error
    return model_card(load_classes(source), report, config['architecture'], repo_id, license=license,
                      input_size=config['pretrained_cfg']['input_size'], headless=not config['num_classes'])
