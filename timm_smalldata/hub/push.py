"""From a run folder to the Hugging Face hub, in one commit."""
import shlex
import textwrap
from pathlib import Path
from typing import Any, Callable, Iterable, Optional, Tuple, Type, Union

from ..errors import UserError
from ..utils.command import typed
from ..utils.console import print_safely
from .parcel import README, Parcel, pack


def push_model(
        folder: Union[str, Path],
        repo_id: str,
        *,
        private: bool = True,
        license: Optional[str] = None,
        data_name: Optional[str] = None,
        replace_card: bool = False,
        allow: Iterable[str] = (),
        token: Optional[str] = None,
        say: Callable[[str], Any] = print_safely,
) -> str:
    """Send an exported model with its card and picture to the hub.

    Every file is listed first and searched for what only this machine knows. All go in one commit: a push that is cut
    off leaves the repository as it was.

    Args:
        folder: A run folder or a `model/` folder.
        repo_id: `owner/name`; made if it does not exist.
        private: Make the repository private. One that exists and is public is then refused.
        license: Of the model, as the hub names it; None: the card says that none was chosen.
        data_name: Name of the images, for the card.
        replace_card: Write the card over a README.md that is there already; otherwise that one stays.
        allow: Private words that may be sent.
        token: Token with write access; by default `HF_TOKEN` or the stored login.
        say: Hears what is sent.

    Returns:
        Address of the repository.

    Raises:
        UserError: Bad name, no token, something private in a file, refused by the hub, hub out of reach; the message
            says how to push later.
    """
    from huggingface_hub import HfApi, get_token
    from huggingface_hub.errors import HfHubHTTPError

    later = ('The training results are saved; push them later with: '
             f'{typed("push")} {shlex.quote(str(folder))} ')
    check_repo_id(repo_id, later)
    later += repo_id + ('' if private else ' --public')
    token = token or get_token()
    if not token:
        raise UserError(f'Pushing to {repo_id} needs a token: set HF_TOKEN to one with write access. {later}')
    try:
        parcel = pack(folder, repo_id, license, data_name, allow)
    except UserError as error:
        raise UserError(f'{error} {later}') from error
    api = HfApi(token=token, library_name='timm-smalldata')
    # the root of the client's network errors belongs to whichever HTTP package it was built on
    failures: Tuple[Type[BaseException], ...] = (*HfHubHTTPError.__bases__, OSError, ValueError, RuntimeError)
    try:
        return _send(api, parcel, private, replace_card, later, say)
    except failures as error:
        raise UserError(f'Pushing to {repo_id} failed: {_reason(error, api.endpoint)}. Nothing of it is in the '
                        f'repository. {later}') from error


def _send(
        api: Any, parcel: Parcel, private: bool, replace_card: bool, later: str, say: Callable[[str], Any],
) -> str:
    from huggingface_hub import CommitOperationAdd
    from huggingface_hub.errors import RepositoryNotFoundError
    repo_id = parcel.repo_id
    try:
        there = api.model_info(repo_id)
    except RepositoryNotFoundError:
        there = None
    if private and there is not None and not there.private:
        raise UserError(f'{repo_id} exists and is public, so nothing was sent; choose another name, '
                        f'or add --public to publish the model. {later}')
    if there is not None and not replace_card and any(file.rfilename == README for file in there.siblings or ()):
        say(f'{repo_id} has a {README} already: it stays as it is (--replace-card writes a new one).')
        parcel = parcel.without_card()
    say('\n'.join(parcel.listing(private if there is None else there.private)))
    if there is None:
        api.create_repo(repo_id, private=private, exist_ok=True)
        there = api.model_info(repo_id)
        if private and not there.private:  # made by somebody else in between
            raise UserError(f'{repo_id} is public, so nothing was sent. {later}')
    api.create_commit(
        repo_id, [CommitOperationAdd(name, content) for name, content in parcel.files.items()],
        commit_message='Add model trained with timm-smalldata', parent_commit=there.sha)
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
