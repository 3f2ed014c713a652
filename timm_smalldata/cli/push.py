"""The verb push: send a finished run to the Hugging Face hub."""
import argparse
from typing import List, Optional

from .._compat import generate_readme
from ..hub.card import task_name
from ..hub.push import card_of, check_repo_id, push_model
from ..utils.command import typed
from ..utils.model_folder import CONFIG, WEIGHTS, find_model, read_config


def main(argv: Optional[List[str]] = None) -> None:
    """Push a finished run: `timm-smalldata push RUN owner/name`."""
    parser = argparse.ArgumentParser(
        prog=typed('push'), description='Send a trained model and its card to the Hugging Face hub.',
        allow_abbrev=False)
    parser.add_argument('folder', metavar='RUN', help='run folder, or the model/ folder in it')
    parser.add_argument('repo_id', metavar='OWNER/NAME', help='repository on the hub, made if it does not exist')
    parser.add_argument('--public', action='store_true', help='publish it; by default the repository is private')
    parser.add_argument('--license', default='other', help='licence of the model, as the hub names it (default: other)')
    parser.add_argument('--replace-card', action='store_true', help='overwrite a README.md that is there already')
    parser.add_argument('--dry-run', action='store_true', help='print what would be sent, and send nothing')
    args = parser.parse_args(argv)
    if args.dry_run:
        print(_preview(args.folder, args.repo_id, not args.public, args.license))
        return
    url = push_model(args.folder, args.repo_id, private=not args.public, license=args.license,
                     replace_card=args.replace_card)
    print(f'Pushed to {url}. Load it with: timm.create_model({"hf-hub:" + args.repo_id!r}, pretrained=True)')


def _preview(folder: str, repo_id: str, private: bool, license: str) -> str:
    check_repo_id(repo_id)
    source = find_model(folder)
    card = card_of(source, repo_id, license)
    readme = generate_readme(card, repo_id.split('/')[-1], task_name(not read_config(source)['num_classes']))
    sizes = [f'  {name} ({(source / name).stat().st_size:,} bytes)' for name in (CONFIG, WEIGHTS)]
    return '\n'.join([f'Would send to {repo_id} ({"private" if private else "public"}), from {source}:',
                      *sizes, '  README.md:', '', readme])
