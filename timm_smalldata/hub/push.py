"""From a model folder to the Hugging Face hub."""
import json
import shlex
import textwrap
from pathlib import Path
from typing import Any, Dict, Optional, Tuple, Type, Union

import timm
from timm.models import push_to_hf_hub

from .._compat import generate_readme
from ..errors import UserError
from ..utils.command import typed
from ..utils.model_folder import KEY, find_model, read_config
from .card import model_card, task_name
from .export import load_classes


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
             f'{typed("push")} {shlex.quote(str(folder))} ')
    check_repo_id(repo_id, later)
    later += repo_id + ('' if private else ' --public')
    token = token or get_token()
    if not token:
        raise UserError(f'Pushing to {repo_id} needs a token: set HF_TOKEN to one with write access. {later}')

    config = read_config(source)
    card = card_of(source, repo_id, license) if card is None else {'license': license, **card}
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


def check_push(repo_id: str) -> None:
    """Raise a UserError, before anything is trained, where a push could not work: a bad name, no token."""
    from huggingface_hub import get_token
    check_repo_id(repo_id)
    if not get_token():
        raise UserError(f'--push-to-hub {repo_id} needs a token: set HF_TOKEN to one with write access.')


def check_repo_id(repo_id: str, later: str = '') -> None:
    """Raise a UserError for what is no repository name; `later` says how to push with a right one."""
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


def card_of(source: Path, repo_id: str, license: str) -> Dict[str, Any]:
    """Return the card of an exported model, with the report that lies beside it."""
    config = read_config(source)
    report_file = source.parent / 'report.json'
    try:
        report = json.loads(report_file.read_text(encoding='utf-8')) if report_file.exists() else None
    except ValueError as error:
        raise UserError(f'{report_file} is not JSON ({error}); resume the run to write it again.') from error
    return model_card(load_classes(source), report, config['architecture'], repo_id, license=license,
                      input_size=config['pretrained_cfg']['input_size'], headless=not config['num_classes'])
